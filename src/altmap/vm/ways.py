"""The ways by which a guest can grow: how far, in which units, and what prevents it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from altmap.errors import InputError
from altmap.units import format_size
from altmap.vm.definition import DefinedDevice, Definition
from altmap.vm.kernel import GuestKernel
from altmap.vm.machine import GuestMachine, dimm_align_bytes, virtio_mem_block_bytes

__all__ = ("WAY_NAMES", "GrowthWay", "growth_way", "growth_ways")

WAY_NAMES = ("dimm", "virtio-mem", "hyperv", "balloon")
_GIB = 1 << 30
#: How far a way is followed that the definition does not have.
_SUPPOSED = 16
#: Sizes are answered up to here: more takes minutes.
_MOST_BYTES = 8 << 40
#: The same of DIMMs that are added block by block in one step (ppc64).
_MOST_LMBS = 2048


@dataclass(frozen=True, slots=True)
class GrowthWay:
    """One way to grow.

    Attributes
    ----------
    driver : str
        One of :data:`WAY_NAMES`.
    defined : bool
        The definition has it; else it is supposed, to be compared.
    start_bytes, limit_bytes : int
        The guest's size when it has booted, and the most that the hypervisor lets it have.
    limit : str
        What sets the limit.
    unit_bytes : int
        Sizes are multiples of it above *start_bytes*.
    slots : int or None
        Free slots, ``None`` where none are needed.
    devices : tuple of DefinedDevice
        virtio-mem devices that grow.
    block_bytes : int or None
        Of a virtio-mem device that is plugged for it.
    node : int or None
    missing : str
        Why the guest's kernel does not take such memory; empty if it does.
    """

    driver: str
    defined: bool
    start_bytes: int
    limit_bytes: int
    limit: str
    unit_bytes: int
    slots: int | None = None
    devices: tuple[DefinedDevice, ...] = ()
    block_bytes: int | None = None
    node: int | None = None
    missing: str = ""


def growth_ways(
    definition: Definition, kernel: GuestKernel, guest: GuestMachine, block_bytes: int
) -> list[GrowthWay]:
    """Return the ways that a definition has, the way that is set up for it first."""
    names = ["dimm" if name == "memory" else name for name in definition.growth]
    return [
        growth_way(name, definition, kernel, guest, block_bytes) for name in dict.fromkeys(names)
    ]


def growth_way(
    name: str,
    definition: Definition,
    kernel: GuestKernel,
    guest: GuestMachine,
    block_bytes: int,
    most_bytes: int | None = None,
) -> GrowthWay:
    """Return one way, whether the definition has it or not.

    Parameters
    ----------
    name : str
        One of :data:`WAY_NAMES`.
    definition : Definition
    kernel : GuestKernel
    guest : GuestMachine
    block_bytes : int
        Size of a memory block of the guest.
    most_bytes : int, optional
        How far a way is followed that the definition does not have.

    Raises
    ------
    InputError
        If there is no such way.
    """
    if name not in WAY_NAMES:
        raise InputError(f"way {name!r}: need one of {', '.join(WAY_NAMES)}")
    defined = name in definition.growth or (name == "dimm" and "memory" in definition.growth)
    limit, why = _limit(name, defined, definition, guest)
    if not defined and (most_bytes is not None or limit <= guest.start_bytes):
        limit = most_bytes or _SUPPOSED * guest.start_bytes
        if name == "balloon":
            limit = most_bytes or definition.max_memory_bytes or limit
        why = "the definition does not have this way: supposed, to compare"
    most = max(_MOST_BYTES, guest.start_bytes)
    if name == "dimm" and "dlpar" in guest.arch.mechanisms:
        most = min(most, guest.start_bytes + _MOST_LMBS * block_bytes)
    if limit > most:
        limit, why = most, f"no size above {format_size(most)} is computed"
    devices = tuple(_growing(definition)) if name == "virtio-mem" else ()
    if name == "virtio-mem" and not devices:
        # A device that is chosen for this has a region of whole memory blocks.
        limit = guest.start_bytes + (limit - guest.start_bytes) // block_bytes * block_bytes
    unit = _unit_bytes(name, definition, guest, block_bytes, devices)
    start = guest.start_bytes
    if name == "balloon" and definition.balloon.current_bytes is not None:
        start = min(start, definition.balloon.current_bytes)
    return GrowthWay(
        driver=name,
        defined=defined,
        start_bytes=start,
        limit_bytes=max(start, start + (limit - start) // unit * unit),
        limit=why,
        unit_bytes=unit,
        slots=_free_slots(definition) if name == "dimm" and defined else None,
        devices=devices,
        block_bytes=virtio_mem_block_bytes(None) if name == "virtio-mem" else None,
        missing=kernel.missing.get(name, ""),
    )


def _limit(
    name: str, defined: bool, definition: Definition, guest: GuestMachine
) -> tuple[int, str]:
    """Return the most that a guest can have by one way, and what sets it."""
    start = guest.start_bytes
    if name == "balloon":
        return start, "memory at boot: a balloon only returns what it took"
    if name == "virtio-mem" and (grow := list(_growing(definition))):
        rest = sum(each.size_bytes - (each.requested_bytes or 0) for each in grow)
        named = " and ".join(each.name for each in grow[:3])
        return start + rest, f"the size of {named}"
    if definition.growth_bytes is not None and defined:
        return start + definition.growth_bytes, "the size that may be added"
    if definition.max_memory_bytes is None:
        return start, "no maximum above the memory at boot"
    reserved = sum(
        each.size_bytes - (each.requested_bytes or 0)
        for each in definition.devices
        if each.kind == "virtio-mem"
    )
    of_nvdimms = sum(each.size_bytes for each in definition.devices if each.kind == "nvdimm")
    most = definition.max_memory_bytes - reserved - of_nvdimms
    return max(start, most), f"the maximum, {format_size(definition.max_memory_bytes)}"


def _growing(definition: Definition) -> Iterator[DefinedDevice]:
    for device in definition.devices:
        if device.kind == "virtio-mem" and device.size_bytes > (device.requested_bytes or 0):
            yield device


def _unit_bytes(
    name: str,
    definition: Definition,
    guest: GuestMachine,
    block_bytes: int,
    devices: tuple[DefinedDevice, ...],
) -> int:
    """Return what sizes are multiples of: the device's block, or the kernel's and QEMU's."""
    if name == "virtio-mem":
        return max(
            [virtio_mem_block_bytes(each) for each in devices] or [virtio_mem_block_bytes(None)]
        )
    if name == "balloon":
        return 1 << 20
    dimms = [dimm_align_bytes(guest.space, each) for each in definition.devices]
    return max([block_bytes, guest.space.align, *dimms])


def _free_slots(definition: Definition) -> int | None:
    if definition.slots is None:
        return None
    kinds = ("dimm", "nvdimm", "virtio-mem") if definition.slots_shared else ("dimm", "nvdimm")
    used = sum(each.kind in kinds for each in definition.devices)
    return max(0, definition.slots - used)
