#!/bin/busybox sh
# /init of the recorded guests: copies the files of a sysroot and sends them, as a tar archive in
# base64, to the second serial port.
/bin/busybox --install -s /bin
export PATH=/bin
mkdir -p /proc /sys /dev /rec
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev

memory=/sys/devices/system/memory
if grep -q altmap_split /proc/cmdline; then
  echo online_movable > $memory/memory32/state
  echo online_kernel > $memory/memory33/state
fi

# Files in proc and sysfs tell no length, so tar alone would store them empty.
copy() {
  mkdir -p "/rec${1%/*}"
  cat "$1" > "/rec$1" 2>/dev/null || rm -f "/rec$1"
}
for file in kpageflags iomem version cmdline zoneinfo buddyinfo pagetypeinfo vmstat meminfo \
  sys/kernel/arch sys/kernel/osrelease sys/vm/min_free_kbytes sys/vm/watermark_scale_factor \
  sys/vm/lowmem_reserve_ratio; do
  copy /proc/$file
done
find $memory /sys/devices/system/node /sys/module/memory_hotplug/parameters /sys/firmware/memmap \
  \( -name power -o -name hugepages \) -prune -o -type f ! -name uevent -perm -400 -print |
  while read -r file; do copy "$file"; done
find $memory /sys/devices/system/node -type l ! -name subsystem ! -name 'cpu*' |
  while read -r link; do
    mkdir -p "/rec${link%/*}"
    ln -s "$(readlink "$link")" "/rec$link"
  done
stty -F /dev/ttyS1 -opost
tar -C /rec -cf - . | gzip | base64 > /dev/ttyS1
sync
poweroff -f
