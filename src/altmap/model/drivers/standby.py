"""s390x standby memory: ``drivers/s390/char/sclp_cmd.c``, later ``drivers/s390/char/sclp_mem.c``.

The guest may assign the machine's standby storage, increment by increment, and unassign it. While
it is on standby no access is possible. Up to 6.18 Linux adds all of it at boot, offline, and
assigns a block's increments when it goes online; since then a block is added when configured.
"""

from __future__ import annotations

import struct

from altmap.errors import InputError
from altmap.model.drivers.driver import Devices, Driver, MemoryDevice, to_guest, to_host
from altmap.model.drivers.facts import DriverRecord
from altmap.model.kernel.add import add_memory_resource
from altmap.model.kernel.memmap import memmap_on_memory_nr_pages
from altmap.model.kernel.notifier import Notification, NotifierVeto
from altmap.model.kernel.remove import try_remove_memory
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Address, Plug
from altmap.trace import OK, Outcome
from altmap.units import format_size

__all__ = ("RECORD", "StandbyMemory", "assign_storage_sccb")

RECORD = DriverRecord(
    name="s390x standby memory",
    scenario='`driver = "standby"` on s390x',
    adds="one block: all of them at boot, since 6.19 when a block is configured",
    partly_backed="no",
    touches_offline="none before the block goes online; since 6.19 any access once configured",
    opts_in="since 6.8, for each block; since 6.19 by a file of the block",
    gives_back="one block: by going offline, since 6.19 by its file `config`",
    group="none",
    resource="`System RAM`",
    lab="no: QEMU has no standby storage",
    sources="drivers/s390/char/sclp_cmd.c, since 6.19 sclp_mem.c",
)


_ASSIGN, _UNASSIGN = 0x000D0001, 0x000C0001
_DONE = 0x0020
_PAGE_BYTES = 4096
#: ``struct assign_storage_sccb``: length, function, control mask, response; increment number.
_SCCB = struct.Struct(">HB3xHH")


def assign_storage_sccb(increment: int, response: int = 0) -> bytes:
    """Return the control block of ASSIGN or UNASSIGN STORAGE; the rest of its page is zero."""
    return _SCCB.pack(_PAGE_BYTES, 0, response, increment)


class StandbyMemory(Driver):
    """The machine's standby storage, and its driver."""

    def __init__(self, devices: Devices) -> None:
        Driver.__init__(self, devices)
        #: Page frames on standby, which cannot be accessed.
        self.standby = PfnSet()
        self._increment_nr_pages = self.kernel.block_nr_pages
        #: Blocks that can be configured, and whether each is to be self-hosted.
        self._memmap_files: dict[int, bool] = {}
        if self.kernel.release.standby_added == "boot":
            self.kernel.notifier.register(self.sclp_mem_notifier)

    @property
    def usable_blocks(self) -> list[int]:
        """Blocks that lie in standby memory as a whole, whatever their state."""
        return list(self._memmap_files)

    def is_self_hosted(self, block: int) -> bool:
        """Tell what a block's file ``memmap_on_memory`` says."""
        return self._memmap_files[block]

    def plug(self, plug: Plug) -> Outcome:
        """Define standby storage, as it would have been defined before boot."""
        kernel, page = self.kernel, self.kernel.arch.page_size_bytes
        self.devices.check_new(plug.id)
        self._set_increment(plug)
        address = plug.address
        if address is None:
            ends = [end for _, end in self.devices.addresses()]
            end = max((kernel.boot_ram.max() + 1) * page, *ends, 0)
            size = self._increment_nr_pages * page
            address = Address(-(-end // size) * size)
        pfns = self.devices.pfns(address, plug.size)
        for what, value in (("address", pfns.start), ("size", len(pfns))):
            if value % self._increment_nr_pages:
                whole = format_size(self._increment_nr_pages * page)
                raise InputError(
                    f"plug {plug.id!r}: {what} {value * page:#x}: need whole increments of {whole}"
                )
        if self.devices.backing.backed.count(pfns) or self.standby.count(pfns):
            where = kernel.addresses(pfns)
            raise InputError(f"plug {plug.id!r}: {where} overlaps memory that exists")
        self.devices.by_id[plug.id] = MemoryDevice(plug.driver, pfns)
        self.standby |= pfns
        return self._detect(pfns)

    def configure(self, blocks: list[int], *, config: bool, self_hosted: bool | None) -> Outcome:
        """Write to blocks' files below ``/sys/firmware/memory``, up to the first refusal.

        Parameters
        ----------
        blocks : list of int
        config : bool
            Written to the file ``config``.
        self_hosted : bool or None
            Written to ``memmap_on_memory`` before, unless it is None.

        Raises
        ------
        InputError
            If a block has no such folder, or is boot memory.
        """
        if self.kernel.release.standby_added == "boot":
            return Outcome.refused(
                "ENOENT", "sclp_config_mem_store", "there is no /sys/firmware/memory"
            )
        for block in blocks:
            if block not in self._memmap_files:
                raise InputError(f"configure memory{block}: not a block of standby memory")
            outcome = OK
            if self_hosted is not None:
                outcome = self._write_memmap_file(block, self_hosted)
            if outcome:
                outcome = self._configure(block) if config else self._deconfigure(block)
            if not outcome:
                return outcome
        return OK

    def take_over(self, device: MemoryDevice) -> None:
        """Take over standby memory that existed at the start: offline blocks are on standby."""
        added = self.kernel.release.standby_added == "boot"
        for block in self.kernel.block_ids(device.pfns):
            pfns = self.kernel.block_pfns(block)
            self._memmap_files[block] = False
            if added and not self.kernel.nr_online(pfns):
                self.standby |= pfns
                self.devices.backing.backed -= pfns

    # --- up to 6.18: added at boot, assigned when a block goes online -----------------------

    def _detect(self, pfns: PfnRange) -> Outcome:
        """Detect standby storage as at boot (``add_memory_merged``)."""
        kernel = self.kernel
        block = kernel.block_nr_pages
        start, end = -(-pfns.start // block) * block, pfns.end // block * block
        usable = PfnRange(start, max(start, end))
        mib = [len(r) * kernel.arch.page_size_bytes >> 20 for r in (usable, pfns)]
        self._note(
            f"standby memory at {pfns.start * kernel.arch.page_size_bytes:#x} "
            f"({mib[0]} MiB of {mib[1]} MiB usable)",
            "align_to_block_size",
        )
        at_boot = kernel.release.standby_added == "boot"
        for id_ in kernel.block_ids(usable) if usable else ():
            self._memmap_files[id_] = not at_boot and self._supported
            if not at_boot:
                continue
            asks = kernel.release.standby_asks
            outcome = add_memory_resource(
                kernel, kernel.block_pfns(id_), 0, asks=asks, inaccessible=asks
            )
            if not outcome:
                return outcome
        return OK

    def sclp_mem_notifier(self, notification: Notification) -> NotifierVeto | None:
        """Assign and unassign storage as blocks go online and offline.

        Blocks of boot memory are made of increments too.
        """
        pfns, prepared = notification.pfns, self.kernel.release.prepare_notifier
        if notification.action == "MEM_GOING_OFFLINE" and self.standby.count(pfns):
            return NotifierVeto("EPERM", "sclp_mem_notifier", f"{pfns} contains standby memory")
        ours = any(device.pfns.overlaps(pfns) for device in self._standby_devices())
        if not ours and not self.kernel.boot_ram.count(pfns):
            return None
        if notification.action == ("MEM_PREPARE_ONLINE" if prepared else "MEM_GOING_ONLINE"):
            self._change_state(pfns, online=True)
        elif notification.action in (
            ("MEM_FINISH_OFFLINE",) if prepared else ("MEM_OFFLINE", "MEM_CANCEL_ONLINE")
        ):
            self._change_state(pfns, online=False)
        return None

    def _standby_devices(self) -> list[MemoryDevice]:
        return [d for d in self.devices.by_id.values() if d.driver == "standby"]

    def _change_state(self, pfns: PfnRange, *, online: bool) -> None:
        """Assign or unassign every increment of a range (``sclp_mem_change_state``)."""
        size = self._increment_nr_pages
        command, name = (_ASSIGN, "assign") if online else (_UNASSIGN, "unassign")
        for start in range(pfns.start // size * size, pfns.end, size):
            number = start // size + 1
            to_host(
                self.kernel,
                f"SCLP {name} storage {command:#010x} increment {number}",
                "do_assign_storage",
                assign_storage_sccb(number),
            )
            increment = PfnRange(start, start + size)
            if online:
                self.standby -= increment
                self.devices.backing.backed |= increment
            else:
                self.standby |= increment
                self.devices.backing.backed -= increment
            to_guest(
                self.kernel,
                f"SCLP response {_DONE:#06x}",
                "do_assign_storage",
                assign_storage_sccb(number, _DONE),
            )
        word = "can be accessed" if online else "is on standby and cannot be accessed"
        kind = "accessible" if online else "inaccessible"
        self.kernel.log.note(kind, f"{pfns} {word}", pfns, "sclp_mem_change_state")

    # --- since 6.19: added when configured -------------------------------------------------

    @property
    def _supported(self) -> bool:
        """``mhp_supports_memmap_on_memory``."""
        kernel = self.kernel
        mode = kernel.tunables.memmap_on_memory
        return bool(
            memmap_on_memory_nr_pages(kernel.arch, kernel.release, kernel.block_nr_pages, mode)
        )

    def _write_memmap_file(self, block: int, value: bool) -> Outcome:
        function = "sclp_memmap_on_memory_store"
        if value and not self._supported:
            return Outcome.refused(
                "EOPNOTSUPP",
                function,
                f"memory{block}: memory_hotplug.memmap_on_memory or the sizes forbid it",
            )
        if block in self.kernel.added_blocks:
            return Outcome.refused("EBUSY", function, f"memory{block} is configured")
        self._memmap_files[block] = value
        return OK

    def _configure(self, block: int) -> Outcome:
        if block in self.kernel.added_blocks:
            return OK
        pfns = self.kernel.block_pfns(block)
        self._change_state(pfns, online=True)
        outcome = add_memory_resource(self.kernel, pfns, 0, asks=self._memmap_files[block])
        if not outcome:
            self._change_state(pfns, online=False)
        return outcome

    def _deconfigure(self, block: int) -> Outcome:
        kernel, pfns = self.kernel, self.kernel.block_pfns(block)
        if block not in kernel.added_blocks:
            return OK
        if kernel.nr_online(pfns):
            return Outcome.refused("EBUSY", "sclp_config_mem_store", f"memory{block} is online")
        addition = kernel.addition_of(pfns.start)
        if addition is None or addition.pfns != pfns:
            raise InputError(f"configure memory{block}: was not added by itself")
        self._change_state(pfns, online=False)
        return try_remove_memory(kernel, addition)

    def _set_increment(self, plug: Plug) -> None:
        page, block = self.kernel.arch.page_size_bytes, self.kernel.block_nr_pages
        size = plug.increment or self._increment_nr_pages * page
        block_bytes = block * page
        if size & (size - 1) or not 1 << 20 <= size <= block_bytes:
            raise InputError(
                f"plug {plug.id!r}: increment {size:#x}: need a power of two from 1 MiB to a "
                f"memory block, {format_size(block_bytes)}"
            )
        if self._standby_devices() and size != self._increment_nr_pages * page:
            raise InputError(f"plug {plug.id!r}: increment {size:#x}: a machine has one size only")
        self._increment_nr_pages = size // page

    def _note(self, text: str, function: str) -> None:
        self.kernel.log.note("driver", text, function=function)
