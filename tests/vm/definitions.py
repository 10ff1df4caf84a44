"""Definitions that several tests of answers need, made by calls."""

from dataclasses import replace

from altmap.vm.definition import DefinedDevice, Definition

MIB, GIB = 1 << 20, 1 << 30


def qemu(memory=4 * GIB, **fields):
    """Return a QEMU guest on Q35 that can grow by DIMMs up to 64 GiB."""
    usual = {
        "format": "QEMU command line",
        "name": "guest",
        "manager": "qemu",
        "hypervisor": "qemu",
        "arch": "x86_64",
        "memory_bytes": memory,
        "machine": "q35",
        "max_memory_bytes": 64 * GIB,
        "slots": 16,
        "growth": ("dimm",),
    }
    return Definition(**(usual | fields))


def with_virtio_mem(definition, size=16 * GIB, requested=0, **fields):
    """Return a definition that grows by one virtio-mem device."""
    device = DefinedDevice("virtio-mem", size, "vm0", requested_bytes=requested, **fields)
    return replace(definition, growth=("virtio-mem",), devices=(device,))
