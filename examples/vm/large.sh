qemu-system-x86_64 -name large -machine q35,accel=kvm -cpu host -smp 4 \
  -m 4G,slots=32,maxmem=1T -drive file=large.qcow2,if=virtio
