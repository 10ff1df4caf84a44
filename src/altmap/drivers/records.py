"""Records of drivers that have none in a module of their own."""

from __future__ import annotations

from typing import get_args

from altmap.drivers.record import DriverRecord
from altmap.scenario import Driver, Machine

__all__ = ("RECORDS",)


_VIRTIO_MEM = "virtio-mem" in get_args(Driver)
_XEN = '"xen"' in str(Machine.__annotations__["platform"]).replace("'", '"')


RECORDS = (
    DriverRecord(
        name="virtio-mem, sub-block mode",
        scenario='`driver = "virtio-mem"`' if _VIRTIO_MEM else "not modelled",
        adds="one block, whose sub-blocks (a device block, or a pageblock if larger) come singly",
        partly_backed="yes, any sub-block",
        touches_offline="the driver, what is plugged; the rest may at most be read, if the device "
        "does not say inaccessible",
        opts_in="never",
        gives_back="sub-blocks; a block when it is empty",
        group="dynamic, in units of a block (since 5.15)",
        resource="`System RAM (virtio_mem)` below the device's line, merged with its neighbours",
        lab="yes, QEMU's virtio-mem-pci" if _VIRTIO_MEM else "no",
        sources="drivers/virtio/virtio_mem.c",
    ),
    DriverRecord(
        name="virtio-mem, big-block mode",
        scenario='`driver = "virtio-mem"`' if _VIRTIO_MEM else "not modelled",
        adds="one big block: a device block, or several memory blocks",
        partly_backed="no",
        touches_offline="the driver, once it has plugged the big block",
        opts_in="never",
        gives_back="one big block",
        group="dynamic, in units of a big block (since 5.15)",
        resource="`System RAM (virtio_mem)` below the device's line, merged with its neighbours",
        lab="yes, QEMU's virtio-mem-pci" if _VIRTIO_MEM else "no",
        sources="drivers/virtio/virtio_mem.c",
    ),
    DriverRecord(
        name="Xen balloon",
        scenario='`platform = "xen"`' if _XEN else "not modelled",
        adds="any number of sections at once, in the lowest hole of the address space",
        partly_backed="yes, every page until the hypervisor has populated it",
        touches_offline="nobody: there is no frame, and on PV no mapping",
        opts_in="never",
        gives_back="pages; blocks never",
        group="none",
        resource="`System RAM`, merged with its neighbours",
        lab="yes, Xen in QEMU, with the first domain as the guest" if _XEN else "no",
        sources="drivers/xen/balloon.c",
    ),
)
