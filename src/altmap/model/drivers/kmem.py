"""dax/kmem: memory of CXL, PMEM and soft-reserved ranges as system RAM, ``drivers/dax/kmem.c``.

A dax device has any number of ranges. Each is cut to whole memory blocks at both ends and added by
itself, all of them in one static memory group.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from altmap.errors import InputError
from altmap.model.drivers.driver import Driver, MemoryDevice
from altmap.model.drivers.facts import DriverRecord
from altmap.model.kernel.add import add_memory_resource, taken
from altmap.model.kernel.addition import Addition, MemoryGroup
from altmap.model.kernel.memmap import memmap_on_memory_nr_pages
from altmap.model.kernel.registration import release_mem_region, request_mem_region
from altmap.model.kernel.remove import offline_all, try_remove_memory
from altmap.model.platform.qemu import dimm_space, place_dimm
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Address, Plug, Size
from altmap.trace import OK, Outcome
from altmap.units import format_size

__all__ = ("DAX_STATES", "RECORD", "DaxKmem")

RECORD = DriverRecord(
    name="dax/kmem: CXL, PMEM, soft-reserved",
    scenario='`driver = "kmem"`',
    adds="each range of the dax device, cut to whole blocks at both ends",
    partly_backed="no",
    touches_offline="any access",
    opts_in="since 6.8, by a file of the device; CXL by default, others not",
    gives_back="the whole device; since 7.3 the kernel offlines its blocks itself",
    group="static, of the device (since 5.15)",
    resource="`System RAM (kmem)` below the device's line; no image of kexec goes there",
    lab="yes: PMEM on x86_64 and arm64, a CXL region on x86_64; no soft-reserved memory",
    sources="drivers/dax/kmem.c, bus.c, cxl.c, pmem.c",
)


_RESOURCE = "System RAM (kmem)"
_UNPLUGGED = "unplugged"
#: What can be written to a device's ``state``; ``offline`` can only be read.
DAX_STATES = (_UNPLUGGED, "online", "online_kernel", "online_movable")
_INVALID_NODE = Outcome.refused(
    "EINVAL", "dev_dax_kmem_probe", "rejecting DAX region with invalid node: -1"
)


@dataclass(slots=True)
class _BoundDevice:
    """A dax device that kmem has.

    Attributes
    ----------
    plug : Plug
        How its memory is added, now or again.
    state : str
        Its file ``state``: what added it, or was written last; blocks can go online or offline one
        by one without it.
    """

    plug: Plug
    state: str


@dataclass(slots=True)
class DaxKmem(Driver):
    """dax devices that are bound to kmem."""

    _bound: dict[str, _BoundDevice] = field(default_factory=dict)

    def plug(self, plug: Plug) -> Outcome:
        """Make a dax device, set its ``memmap_on_memory``, and bind it (``dev_dax_kmem_probe``)."""
        outcome = self._add(plug)
        if outcome:
            state = self.kernel.tunables.auto_online_blocks
            self._bound[plug.id] = _BoundDevice(plug, state)
        return outcome

    def take_over(self, device: MemoryDevice) -> None:
        """Take over a device that was bound before the start; its state is the policy's."""
        id_ = next(name for name, each in self.devices.by_id.items() if each is device)
        addition, page = device.addition, self.kernel.arch.page_size_bytes
        self_hosted = addition is not None and addition.memmap.hosted_nr_pages > 0
        plug = Plug(
            id=id_,
            driver="kmem",
            address=Address(device.pfns.start * page),
            size=Size(len(device.pfns) * page),
            node=addition.node if addition else None,
            memmap_on_memory=self_hosted if self.kernel.release.kmem_memmap_file else None,
        )
        self._bound[id_] = _BoundDevice(plug, self.kernel.tunables.auto_online_blocks)

    def state(self, id_: str) -> str | None:
        """Return a device's file ``state`` (``state_show``); ``None`` if it has none."""
        bound = self._bound.get(id_) if self.kernel.release.kmem_state_file else None
        return None if bound is None else bound.state

    def store_state(self, id_: str, text: str) -> Outcome:
        """Write to a device's file ``state`` (``state_store``, since 7.3).

        ``unplugged`` offlines and removes its memory as a whole; a word for online is possible from
        there only, and adds its memory again.
        """
        function, bound = "state_store", self._bound.get(id_)
        if bound is None or not self.kernel.release.kmem_state_file:
            return Outcome.refused("ENOENT", "open", f"{id_}: there is no file state")
        word = text.removesuffix("\n")
        if word not in DAX_STATES:
            return Outcome.refused(
                "EINVAL", function, f"{text[:80]!r}: need one of {', '.join(DAX_STATES)}"
            )
        if word == bound.state:
            return OK
        if word == _UNPLUGGED:
            outcome = self._remove(id_)
        elif bound.state != _UNPLUGGED:
            return Outcome.refused("EBUSY", function, f"{id_} is not unplugged")
        else:
            before = self.kernel.tunables.auto_online_blocks
            self.kernel.tunables.write("auto_online_blocks", word)
            outcome = self._add(bound.plug)
            self.kernel.tunables.write("auto_online_blocks", before)
            if not outcome and id_ in self.devices.by_id:
                self.devices.remove(id_)
        if outcome:
            bound.state = word
        return outcome

    def _add(self, plug: Plug) -> Outcome:
        device = self._appear(plug)
        if isinstance(device, Outcome):
            return device
        asks = self._asks(plug)
        if isinstance(asks, Outcome):
            return asks
        node = self._target_node(plug)
        if node < 0:
            return _INVALID_NODE
        ranges = [pfns for pfns in map(self._aligned, device.ranges) if pfns is not None]
        if not ranges:
            return Outcome.refused(
                "EINVAL", "dev_dax_kmem_probe", "no memory is left after alignment to blocks"
            )
        self._note_truncation(device, ranges)
        group = MemoryGroup(max_nr_pages=sum(map(len, ranges)))
        nr_mapped = 0
        for pfns in ranges:
            request_mem_region(self.kernel, pfns, plug.id)
            outcome = add_memory_resource(
                self.kernel, pfns, node, asks=asks, group=group, resource_name=_RESOURCE
            )
            if outcome:
                nr_mapped += 1
                continue
            release_mem_region(self.kernel, pfns, plug.id)
            self._note(f"mapping {pfns}: memory add failed, {outcome.errno}", pfns)
            if not nr_mapped:
                return outcome
        if not device.more and nr_mapped:
            device.addition = self.kernel.additions[-1]
        return OK

    def unplug(self, id_: str) -> Outcome:
        """Remove the memory, all or nothing where the release can, and unbind the device.

        A device that kmem has refused is taken away, too, though the kernel has nothing to unbind.
        """
        device = self.devices.get(id_)
        if id_ not in self._bound:
            stays = "; its memory stays" if device.unbound else ""
            if not stays:
                self.devices.remove(id_)
            why = f"kmem does not have the device{stays}"
            return Outcome.refused("ENODEV", "unbind_store", why)
        outcome = self._remove(id_)
        if outcome or not self.kernel.release.kmem_state_file:
            self._bound.pop(id_, None)
        return outcome

    def _remove(self, id_: str) -> Outcome:
        device = self.devices.get(id_)
        additions = self.devices.additions(id_)
        if self.kernel.release.kmem_state_file:
            outcome = self._unplug_by_state(additions)
        else:
            outcome = self._unbind(additions)
        for addition in additions:
            if addition not in self.kernel.additions:
                release_mem_region(self.kernel, addition.pfns, id_)
        if outcome:
            self.devices.remove(id_)
        else:
            device.kept = outcome.why
            device.unbound = not self.kernel.release.kmem_state_file
        return outcome

    # --- add -------------------------------------------------------------------------------

    def _appear(self, plug: Plug) -> MemoryDevice | Outcome:
        """Make the dax device; where System RAM is already, there is only the refusal."""
        devices, kernel = self.devices, self.kernel
        devices.check_new(plug.id)
        address = plug.address
        if address is None:
            space = replace(
                dimm_space(kernel.arch.board, kernel.boot_end_address),
                align=kernel.arch.page_size_bytes,
            )
            address = Address(place_dimm(space, devices.addresses(), plug.size, None))
        pfns, more = devices.pfns(address, plug.size), devices.further_ranges(plug)
        if devices.backing.backed.count(pfns):
            return self._region_taken(plug, pfns)
        if any(pfns.overlaps(other) for other in more):
            where = kernel.addresses(pfns)
            raise InputError(f"plug {plug.id!r}: {where} overlaps memory that exists")
        node = self._target_node(plug)
        if node >= 0 and not kernel.node_zones(node):
            raise InputError(f"plug {plug.id!r}: node {node} does not exist on this machine")
        return devices.add(plug.id, MemoryDevice(plug.driver, pfns, more=more))

    def _region_taken(self, plug: Plug, pfns: PfnRange) -> Outcome:
        """Return the refusal of a device whose whole blocks overlap System RAM.

        ``request_mem_region`` fails before anything is added. Bytes that are cut off may not
        overlap: no platform has two kinds of memory there.
        """
        if self._target_node(plug) < 0:
            return _INVALID_NODE
        whole = self._aligned(pfns)
        if whole is None or taken(self.kernel, whole) is None:
            where = self.kernel.addresses(pfns)
            raise InputError(f"plug {plug.id!r}: {where} overlaps memory that exists")
        return Outcome.refused(
            "EBUSY",
            "dev_dax_kmem_probe",
            f"could not reserve region: {self.kernel.addresses(whole)} overlaps System RAM",
        )

    def _target_node(self, plug: Plug) -> int:
        """Return the device's node; -1 if the firmware names none and no fallback has one.

        CXL falls back to the node of the address (``drivers/dax/cxl.c: cxl_dax_region_probe``),
        which is 0 here; others to ``phys_to_target_node``, which is 0 on arm64 while that has no
        tables of its own (``drivers/acpi/nfit/core.c: acpi_nfit_register_region``).
        """
        if plug.node is not None and plug.node >= 0:
            return plug.node
        falls_back = self.kernel.arch.family in self.kernel.release.dax_falls_back
        return 0 if plug.node is None or plug.dax in (None, "cxl") or falls_back else -1

    def _asks(self, plug: Plug) -> bool | Outcome:
        """Return whether the device passes MHP_MEMMAP_ON_MEMORY, by its file or by default."""
        wanted, function = plug.memmap_on_memory, "memmap_on_memory_store"
        kernel = self.kernel
        if not kernel.release.kmem_memmap_file:
            if wanted is None:
                return False
            return Outcome.refused(
                "ENOENT", function, "dax devices have no file memmap_on_memory on this release"
            )
        if wanted is None:
            return plug.dax in (None, "cxl")
        if wanted and not self._supported:
            return Outcome.refused(
                "EOPNOTSUPP", function, "memory_hotplug.memmap_on_memory or the sizes forbid it"
            )
        return wanted

    @property
    def _supported(self) -> bool:
        kernel = self.kernel
        mode = kernel.tunables.memmap_on_memory
        return bool(
            memmap_on_memory_nr_pages(kernel.arch, kernel.release, kernel.block_nr_pages, mode)
        )

    def _aligned(self, pfns: PfnRange) -> PfnRange | None:
        """Cut a range to whole memory blocks, ``None`` if nothing is left."""
        block = self.kernel.block_nr_pages
        start, end = -(-pfns.start // block) * block, pfns.end // block * block
        if start < end:
            return PfnRange(start, end)
        self._note(f"mapping {pfns}: too small after alignment", pfns)
        return None

    def _note_truncation(self, device: MemoryDevice, ranges: list[PfnRange]) -> None:
        lost = PfnSet(device.ranges) - PfnSet(ranges)
        if lost:
            size = format_size(len(lost) * self.kernel.arch.page_size_bytes)
            self.kernel.log.note(
                "driver", f"{size} of the device are cut off by alignment to blocks", lost, "kmem"
            )

    # --- remove ----------------------------------------------------------------------------

    def _unbind(self, additions: list[Addition]) -> Outcome:
        """Remove each range whose blocks are offline; others stay until the next reboot."""
        stuck = []
        for addition in additions:
            outcome = try_remove_memory(self.kernel, addition)
            if not outcome:
                stuck.append(addition.pfns)
                self._note(f"mapping {addition.pfns}: cannot be hotremoved until the next reboot")
        if not stuck:
            return OK
        return Outcome.refused(
            "EBUSY",
            "dev_dax_kmem_remove",
            f"{stuck[0]} has online blocks; the device is unbound, its memory stays until reboot",
        )

    def _unplug_by_state(self, additions: list[Addition]) -> Outcome:
        """Offline every block, all or none, and remove all ranges.

        Source: ``mm/memory_hotplug.c: offline_and_remove_memory_ranges``.
        """
        kernel = self.kernel
        ids = [id_ for addition in additions for id_ in kernel.block_ids(addition.pfns)]
        outcome = offline_all(kernel, [kernel.block_pfns(id_) for id_ in ids])
        if not outcome:
            return outcome
        for addition in additions:
            try_remove_memory(kernel, addition)
        return OK

    def _note(self, text: str, pfns: PfnRange | None = None) -> None:
        self.kernel.log.note("driver", text, pfns, "dev_dax_kmem_probe")
