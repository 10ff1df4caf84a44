"""Records of drivers whose modules have none."""

from __future__ import annotations

from altmap.model.drivers.facts import DriverRecord

__all__ = ("RECORDS",)


RECORDS = (
    DriverRecord(
        name="virtio-mem, sub-block mode",
        scenario='`driver = "virtio-mem"`',
        adds="one block, whose sub-blocks (a device block, or a pageblock if larger) are plugged "
        "singly",
        partly_backed="yes, any sub-block",
        touches_offline="by the driver to plugged parts; the rest may at most be read, if the "
        "device does not offer UNPLUGGED_INACCESSIBLE",
        opts_in="never",
        gives_back="sub-blocks; a block when it is empty",
        group="dynamic, in units of a block (since 5.15)",
        resource="`System RAM (virtio_mem)` below the device's line, merged with its neighbours",
        lab="yes, QEMU's virtio-mem-pci",
        sources="drivers/virtio/virtio_mem.c",
    ),
    DriverRecord(
        name="virtio-mem, big-block mode",
        scenario='`driver = "virtio-mem"`',
        adds="one big block: a device block, or several memory blocks",
        partly_backed="no",
        touches_offline="by the driver, once it has plugged the big block",
        opts_in="never",
        gives_back="one big block",
        group="dynamic, in units of a big block (since 5.15)",
        resource="`System RAM (virtio_mem)` below the device's line, merged with its neighbours",
        lab="yes, QEMU's virtio-mem-pci",
        sources="drivers/virtio/virtio_mem.c",
    ),
    DriverRecord(
        name="Xen balloon",
        scenario='`platform = "xen"`',
        adds="any number of sections at once, in the lowest hole of the address space",
        partly_backed="yes, every page until the hypervisor has populated it",
        touches_offline="none: there is no frame, and on PV no mapping",
        opts_in="never",
        gives_back="pages; blocks never",
        group="none",
        resource="`System RAM`, merged with its neighbours",
        lab="yes, Xen in QEMU, with the first domain as the guest",
        sources="drivers/xen/balloon.c",
    ),
)
