#!/bin/busybox sh
# Process 1 of a lab guest; a child of it answers commands on the port that the kernel's command
# line names in lab_shell, see shell.py.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/$lab_shell >/dev/$lab_shell 2>&1
# Raw both ways: no echo, no line length limit, every byte as it is.
stty raw -echo
# Orphans end up at process 1. If it read the commands itself, ash would drop what it has of a
# line each time one of them dies (SIGCHLD interrupts "read").
(
    echo ready
    while read -r token command; do
        echo "$token"
        (eval "$(printf %b "$command")") </dev/null
        printf '%s %d\n' "$token" $?
    done
)
poweroff -f
