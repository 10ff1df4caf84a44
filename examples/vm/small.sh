qemu-system-x86_64 -name small -machine q35,accel=kvm -cpu host -smp 2 \
  -m 256M,slots=8,maxmem=12544M \
  -drive file=small.qcow2,if=virtio -nic user
