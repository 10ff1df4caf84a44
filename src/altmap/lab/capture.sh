# Prints the files that describe memory, in three parts, see capture.py. Runs few processes and
# writes no file, since both would show in the counters.
echo 1 >/proc/sys/vm/stat_refresh
exec 2>/dev/null # a release lacks some of the files
cd /
memory=sys/devices/system/memory
node=sys/devices/system/node
xen=sys/devices/system/xen_memory/xen_memory0
# Printed after all are read: the serial port is slow, and meanwhile per-CPU lists are drained.
counters=$(
    grep -H '' proc/meminfo proc/vmstat proc/zoneinfo proc/buddyinfo proc/pagetypeinfo \
        $node/node[0-9]*/meminfo
)
echo "$counters"
grep -H '' \
    proc/iomem proc/version proc/cmdline \
    $memory/block_size_bytes $memory/auto_online_blocks \
    $memory/memory[0-9]*/state $memory/memory[0-9]*/online \
    $memory/memory[0-9]*/phys_index $memory/memory[0-9]*/phys_device \
    $memory/memory[0-9]*/removable $memory/memory[0-9]*/valid_zones \
    $node/node[0-9]*/hugepages/hugepages-*kB/*_hugepages \
    $node/online $node/possible $node/has_memory $node/has_normal_memory $node/has_cpu \
    sys/module/memory_hotplug/parameters/* \
    $xen/target_kb $xen/info/* \
    sys/firmware/memmap/*/start sys/firmware/memmap/*/end sys/firmware/memmap/*/type
echo links
stat -c %N $memory/memory[0-9]*/node[0-9]* $memory/memory[0-9]*/firmware_node \
    $node/node[0-9]*/memory[0-9]*
echo pages
# A row where entries change, a star for rows like the one before, the size at the end. Rows of
# eight pages: od takes time for each row, and prints each that differs.
od -A x -t x8 -w64 proc/kpageflags
[ -n "$uses" ] || return 0
echo counts
od -A x -t x8 -w64 proc/kpagecount
echo charges
od -A x -t x8 -w64 proc/kpagecgroup
