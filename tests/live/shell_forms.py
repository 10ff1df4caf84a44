"""Reads and writes in the forms that shells and programs make, of each kind of file."""

_MEMORY = "/sys/devices/system/memory"
_BLOCK = f"{_MEMORY}/memory32"
_STATE = f"{_BLOCK}/state"
_PARAMETERS = "/sys/module/memory_hotplug/parameters"
_POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
_SYSCTL = "/proc/sys/vm/nr_hugepages"
_INJECT = "/sys/kernel/debug/notifier-error-inject/memory/actions/MEM_GOING_ONLINE/error"
_EJECT = "/sys/firmware/acpi/hotplug/memory/enabled"
_UUID = "12345678-1234-1234-1234-123456789012"

#: What is written to a file as ``printf %b`` has it; the file is shown afterwards.
_WORDS = {
    f"{_MEMORY}/auto_online_blocks": ("online ", "Online", "", r"\n", r"offline\n\n", "offline"),
    f"{_BLOCK}/online": (
        *("yes", "nope", "on", "offwards", " 1", "t", "10", "01", r"\n", "f", "tr", "2"),
    ),
    f"{_PARAMETERS}/auto_movable_numa_aware": (
        *("yikes", "offset", "oN", "t", "F", " y", r"\n", "y"),
    ),
    f"{_PARAMETERS}/auto_movable_ratio": (
        *("100 ", " 100", "010", "+77", "4294967296", "4294967295", "0x", "301"),
    ),
    f"{_PARAMETERS}/online_policy": ("contig-zones ", "Contig-zones", r"auto-movable\n"),
    _POOL: ("12", "6 ", " 7", "8x", "0x10", "-1", "+4", r"\n", r"3\n\n", "010", "0"),
    _SYSCTL: (
        *("12", "6 ", " 7", "8 9", r"\t8\t\n", "8x", "0x10", "010", "08", "-1", "+4", r"\n", " "),
        *(r"5\n6\n", "99999999999999999999", "0"),
    ),
    _INJECT: ("-12 ", " -12", "-0xc", r"\n", "-16", "5", "0"),
    _EJECT: ("1 ", "01", " 0", "0x1", "y", r"\n", "1"),
    f"{_BLOCK}/uevent": (
        *("change", "change ", "change foo", f"change {_UUID}", f"change {_UUID} A=b"),
        *(f"change {_UUID} A=b C", f"change {_UUID[:-1]}", "changed", r"\n", "Change"),
    ),
    f"{_MEMORY}/uevent": ("remove", "removed"),
    f"{_MEMORY}/soft_offline_page": ("0x1800000 ", r"\n", "-1", "0x7fffffffffffffff"),
}
_OTHER = (
    # One newline, one NUL: what ends a word, and several writes to an open file.
    f"printf online > {_STATE}; cat {_STATE}",
    rf"printf 'offline  \n' > {_STATE}",
    rf"printf 'offline\n\n' > {_STATE}",
    f"printf ' offline' > {_STATE}",
    f"printf OFFLINE > {_STATE}",
    rf"printf 'offline\0junk' > {_STATE}; cat {_STATE}",
    f"{{ printf online; printf offline; printf online; }} > {_STATE}; cat {_STATE}",
    f"{{ printf off; printf line; }} > {_STATE}; cat {_STATE}",
    f"printf offline >> {_STATE}; cat {_STATE}",
    f"{{ printf 1; printf 3; }} > {_SYSCTL}; cat {_SYSCTL}",
    f"{{ printf 4; printf 6; }} > {_POOL}; cat {_POOL}",
    f"{{ printf 1; printf 3; }} >> {_SYSCTL}; cat {_SYSCTL}; echo 0 > {_SYSCTL}",
    f"{{ echo -n -1; echo -n -11; }} > {_INJECT}; cat {_INJECT}; echo 0 > {_INJECT}",
    # Reading and writing one open file, small buffers, and places that are not the start.
    f"exec 3<>{_STATE}; printf online >&3; cat <&3; cat {_STATE}",
    f"exec 3<>{_STATE}; cat <&3; printf offline >&3; cat <&3; cat {_STATE}",
    f"exec 3<{_STATE}; read -n 3 word <&3; echo online > {_STATE}; cat <&3; cat {_STATE}",
    f"exec 3<{_STATE}; cat <&3; echo offline > {_STATE}; cat <&3; cat {_STATE}",
    *(f"dd if={_STATE} {words} status=none" for words in ("bs=1", "bs=3", "bs=1 skip=3")),
    *(f"dd if={file} bs=1 status=none" for file in (_POOL, _INJECT)),
    f"echo 12 > {_SYSCTL}; dd if={_SYSCTL} bs=1 status=none",
    f"dd if={_SYSCTL} bs=1 skip=1 status=none",
    f"printf online | dd of={_STATE} seek=5 bs=6 conv=notrunc status=none; cat {_STATE}",
    f"printf 5 | dd of={_SYSCTL} seek=1 bs=2 conv=notrunc status=none; cat {_SYSCTL}",
    # More than a page.
    f"head -c 5000 /dev/zero | dd of={_STATE} bs=5000 iflag=fullblock status=none",
    *(
        f"(printf offline; head -c {more} /dev/zero) |"
        f" dd of={_STATE} bs=5000 iflag=fullblock status=none; cat {_STATE}"
        for more in (4089, 4993)
    ),
    # Nothing, and other lengths.
    f": > {_STATE}",
    f": >> {_STATE}",
    f"dd if=/dev/null of={_STATE} status=none",
    f"truncate -s 0 {_STATE}; cat {_STATE}",
    f"truncate -s 100 {_BLOCK}/removable; cat {_BLOCK}/removable",
    "truncate -s 0 /proc/meminfo",
    # Files that cannot be opened so, and names that are not there.
    *(f": > {file}" for file in (f"{_BLOCK}/removable", "/proc/meminfo", "/proc/kpageflags")),
    "echo 1 > /proc/kpageflags",
    f": < {_MEMORY}/soft_offline_page",
    f"exec 3<>{_MEMORY}/soft_offline_page",
    f"exec 3<>{_BLOCK}/removable",
    f"cat {_BLOCK}",
    f"echo 1 > {_BLOCK}",
    f"cat {_STATE}/x",
    f"cat {_BLOCK}/none",
    f"echo x > {_BLOCK}/none",
    f"echo x > {_BLOCK}/none/x",
    f"touch {_STATE}",
    f"touch {_BLOCK}/none",
    f"ln -s /etc/passwd {_BLOCK}/none",
    f"ln {_STATE} {_BLOCK}/none",
    f"mv {_STATE} {_BLOCK}/none",
    f"mkdir {_BLOCK}/none",
    f"rmdir {_BLOCK}",
    f"mknod {_BLOCK}/none c 1 3",
    "stat -c '%s %a %F' "
    + " ".join(
        (_STATE, f"{_BLOCK}/removable", f"{_MEMORY}/soft_offline_page", _SYSCTL, _POOL, _INJECT)
    ),
    f"stat -c '%s %a %F' /proc/meminfo /proc/kpageflags {_EJECT} {_BLOCK}/uevent",
)
FORMS = (
    *(
        f"printf %b '{word}' > {file}; cat {file}"
        for file, words in _WORDS.items()
        for word in words
    ),
    *_OTHER,
)


_DAX = "/sys/bus/dax/devices/dax0.0"
_KMEM, _DEVICE_DAX = "/sys/bus/dax/drivers/kmem", "/sys/bus/dax/drivers/device_dax"
_NAMES = ("dax9.0", "dax0.0x", "mem0", r"\n", "", "dax0.0 ", "dax00.0", " dax0.0", "dax0")
_DRIVER = f"readlink {_DAX}/driver"
#: Writes to the files of a dax device that kmem has, with all of its memory offline.
DAX_FORMS = (
    *(
        f"printf %b '{name}' > {_KMEM}/{file}"
        for file in ("new_id", "remove_id", "bind", "unbind")
        for name in _NAMES
    ),
    *(
        f"printf %b '{word}' > {_DAX}/memmap_on_memory; cat {_DAX}/memmap_on_memory"
        for word in ("x", "2", " 1", r"\n", "yes", "1", "0", "off")
    ),
    *(
        f"echo dax0.0 > {driver}/{file}; {_DRIVER}"
        for driver, file in (
            (_KMEM, "bind"),
            (_DEVICE_DAX, "bind"),
            (_DEVICE_DAX, "unbind"),
            (_DEVICE_DAX, "remove_id"),
            (_KMEM, "unbind"),
            (_KMEM, "unbind"),
            (_DEVICE_DAX, "new_id"),
            (_DEVICE_DAX, "new_id"),
            (_KMEM, "bind"),
            (_KMEM, "new_id"),
            (_DEVICE_DAX, "unbind"),
        )
    ),
    f"echo 0 > {_DAX}/memmap_on_memory; cat {_DAX}/memmap_on_memory",
    f"echo dax0.0 > {_KMEM}/bind; {_DRIVER}",
    f"echo 1 > {_DAX}/memmap_on_memory; cat {_DAX}/memmap_on_memory",
    f"cat {_KMEM}/bind",
    f"echo 1 > {_DAX}/target_node",
)
#: Writes to its file ``state``, of kernels that have it.
DAX_STATE_FORMS = tuple(
    f"printf %b '{word}' > {_DAX}/state; cat {_DAX}/state"
    for word in (
        *("x", r"\n", "Online", "offline", "unplugged ", r"unplugged\n", "unplugged", "offline"),
        *("online_movable", "online", "offline", r"unplugged\n\n", "unplugged", "online_movable"),
        *("unplugged", "online_movable"),
    )
)
