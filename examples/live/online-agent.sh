#!/bin/sh
# Online every memory block that is offline, movable; name each that the kernel refuses.
# On a modelled machine: altmap shell SCENARIO -- examples/live/online-agent.sh
cd /sys/devices/system/memory || exit 1
failed=0
for state in $(grep -lx offline memory*/state); do
	echo online_movable 2>/dev/null >"$state" || { echo "${state%/state} was refused" >&2; failed=1; }
done
exit $failed
