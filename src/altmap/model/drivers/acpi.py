"""ACPI memory devices (DIMMs): ``drivers/acpi/acpi_memhotplug.c`` and ``drivers/acpi/scan.c``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from altmap.errors import InputError
from altmap.model.drivers.driver import Driver, MemoryDevice, to_guest, to_host
from altmap.model.drivers.facts import DriverRecord
from altmap.model.kernel.add import add_memory_resource
from altmap.model.kernel.addition import Addition, MemoryGroup
from altmap.model.kernel.endless import what_it_waits_for
from altmap.model.kernel.memmap import memmap_on_memory_nr_pages
from altmap.model.kernel.offline import go_on_offlining, memory_block_offline
from altmap.model.kernel.online import memory_block_online
from altmap.model.kernel.remove import try_remove_memory
from altmap.model.kernel.state import Kernel
from altmap.model.platform.qemu import dimm_space, place_dimm
from altmap.pfn import PfnRange
from altmap.scenario import Plug
from altmap.trace import OK, Outcome

__all__ = ("RECORD", "AcpiDimms", "eject", "insert", "plug_dimm")

RECORD = DriverRecord(
    name="ACPI DIMM",
    scenario='`driver = "dimm"`',
    adds="each range of the device's _CRS, whole blocks",
    partly_backed="no",
    touches_offline="any access: it is RAM from the insert on",
    opts_in="since 5.13 for ranges of exactly one block that support it; since 6.6 always",
    gives_back="the whole device, by eject; the kernel offlines its blocks itself",
    group="static, of the device (since 5.15)",
    resource="`System RAM`",
    lab="yes, QEMU's pc-dimm; one range",
    sources="drivers/acpi/acpi_memhotplug.c, drivers/acpi/scan.c",
)


#: ``_OST``: the event that is reported on, and how it ended (ACPI 6.5, 6.3.5).
DEVICE_CHECK, EJECT_REQUEST = 0x1, 0x3
OST_SUCCESS, OST_EJECT_NOT_SUPPORTED, OST_DEVICE_BUSY, OST_EJECT_IN_PROGRESS = 0, 0x80, 0x82, 0x84
_OST_WORDS = {
    OST_SUCCESS: "success",
    OST_EJECT_NOT_SUPPORTED: "eject not supported",
    OST_DEVICE_BUSY: "device busy",
    OST_EJECT_IN_PROGRESS: "eject in progress",
}


#: drivers/acpi/osl.c: acpi_hotplug_schedule
_WORKER = "acpi_device_hotplug (kacpi_hotplug_wq)"


@dataclass(slots=True)
class AcpiDimms(Driver):
    """DIMMs that QEMU plugs and announces to the kernel through ACPI."""

    _ejecting: str = ""
    _offlined: list[int] = field(default_factory=list)
    _tried: tuple[int, ...] = ()

    def plug(self, plug: Plug) -> Outcome:
        """Plug a DIMM and let the kernel handle the insert event."""
        device, node = plug_dimm(self, plug)
        _notify(self.kernel, DEVICE_CHECK, "device check")
        if self.kernel.release.acpi_rescans_bus:
            self._scan_again(device)
        outcome = insert(self.kernel, device.ranges, node)
        # A driver that fails to attach does not fail the scan, so the answer is always success.
        _ost(self.kernel, DEVICE_CHECK, OST_SUCCESS)
        if outcome and not device.more:
            device.addition = self.kernel.additions[-1]
        return outcome

    def _scan_again(self, new: MemoryDevice) -> None:
        """Add what is present but has no driver, since an earlier add failed.

        Source: ``drivers/acpi/scan.c: acpi_scan_device_check, acpi_scan_rescan_bus``.
        """
        for id_, device in self.devices.by_id.items():
            if device.driver != new.driver or device is new or self.devices.additions(id_):
                continue
            if insert(self.kernel, device.ranges, device.node) and not device.more:
                device.addition = self.kernel.additions[-1]

    def unplug(self, id_: str) -> Outcome:
        """Request that a DIMM is ejected; one whose add was refused is ejected at once."""
        self.devices.get(id_)
        _notify(self.kernel, EJECT_REQUEST, "eject request")
        return self._after(id_, eject(self.kernel, self.devices.additions(id_), self._offlined))

    def _after(self, id_: str, outcome: Outcome) -> Outcome:
        self._ejecting, self._tried = "", ()
        if outcome.ends:
            self._offlined = []
        else:
            self._ejecting, self._tried = id_, what_it_waits_for(self.kernel)
        if outcome:
            self.devices.remove(id_)
        else:
            self.devices.get(id_).kept = outcome.why
        return outcome

    def work(self) -> None:
        """Let an eject that did not end go on, once there is room or a reference is dropped."""
        if not self._ejecting or self._tried == what_it_waits_for(self.kernel):
            return
        id_, block = self._ejecting, self.kernel.isolated.min() // self.kernel.block_nr_pages
        outcome = go_on_offlining(self.kernel, _WORKER)
        if outcome:
            self._offlined.append(block)
        if outcome.ends:
            additions = self.devices.additions(id_)
            outcome = _offline_and_remove(self.kernel, additions, self._offlined)
        self._after(id_, outcome)


def _notify(kernel: Kernel, event: int, word: str) -> None:
    to_guest(kernel, f"Notify {event:#x} ({word})", "acpi_device_hotplug")


def _ost(kernel: Kernel, event: int, status: int) -> None:
    text = f"_OST event {event:#x} status {status:#x} ({_OST_WORDS[status]})"
    to_host(kernel, text, "acpi_evaluate_ost")


def plug_dimm(driver: Driver, plug: Plug) -> tuple[MemoryDevice, int]:
    """Plug a DIMM into QEMU, before the kernel is notified.

    Returns
    -------
    (Device, int)
        The device and its node.

    Raises
    ------
    InputError
        If QEMU would refuse it: its id is taken, its place or size is impossible, or its node.
    """
    devices, kernel = driver.devices, driver.kernel
    devices.check_new(plug.id)
    space = dimm_space(kernel.arch.board, kernel.boot_end_address)
    address = place_dimm(space, devices.addresses(), plug.size, plug.address)
    pfns, more = devices.pfns(address, plug.size), devices.further_ranges(plug)
    if any(pfns.overlaps(other) for other in more):
        raise InputError(f"plug {plug.id!r}: more_ranges overlap its first range {pfns}")
    node = plug.node or 0
    if not kernel.node_zones(node):
        raise InputError(f"plug {plug.id!r}: node {node} does not exist on this machine")
    device = MemoryDevice(plug.driver, pfns, more=more, node=node)
    return devices.add(plug.id, device), node


def insert(kernel: Kernel, ranges: Sequence[PfnRange], node: int) -> Outcome:
    """Handle the insert event of one DIMM: one static group, an add for each range of its _CRS.

    A range that is refused is skipped, nothing is rolled back, and the device counts as added if
    any range was; if none was, the first refusal is returned. Source:
    ``drivers/acpi/acpi_memhotplug.c: acpi_memory_enable_device, acpi_memory_get_resource``; a
    group since 5.15.
    """
    merged = _merged(ranges)
    group = MemoryGroup(max_nr_pages=sum(len(pfns) for pfns in merged))
    refusals: list[Outcome] = []
    asks = False
    for pfns in merged:
        # The flag is not taken back for the ranges that follow.
        asks = asks or _asks(kernel, pfns)
        outcome = add_memory_resource(kernel, pfns, node, asks=asks, usable=pfns, group=group)
        if not outcome:
            refusals.append(outcome)
            kernel.log.note(
                "driver",
                f"ACPI skips {pfns}: {outcome.errno} by {outcome.function}",
                pfns,
                "acpi_memory_enable_device",
            )
    return refusals[0] if len(refusals) == len(merged) else OK


def _merged(ranges: Sequence[PfnRange]) -> list[PfnRange]:
    """Join each range with the first earlier one that ends where it starts."""
    found: list[PfnRange] = []
    for pfns in ranges:
        before = next((i for i, item in enumerate(found) if item.end == pfns.start), None)
        if before is None:
            found.append(pfns)
        else:
            found[before] = PfnRange(found[before].start, pfns.end)
    return found


def _asks(kernel: Kernel, pfns: PfnRange) -> bool:
    if not kernel.release.acpi_asks_only_if_supported:
        return True
    if len(pfns) != kernel.block_nr_pages:
        return False
    mode = kernel.memmap_mode()
    return bool(memmap_on_memory_nr_pages(kernel.arch, kernel.release, kernel.block_nr_pages, mode))


def eject(kernel: Kernel, additions: Sequence[Addition], offlined: list[int]) -> Outcome:
    """Handle the eject request of a DIMM: offline its blocks in two passes, then remove it.

    Errors of the first pass are ignored; the second stops at its first one, and then those that
    went offline are onlined again with the type ``online``. A device whose add was refused has no
    driver and nothing to offline. A block whose pages find no room, or are pinned, is retried
    indefinitely: there is no further ``_OST`` then.
    Source: ``drivers/acpi/scan.c: acpi_generic_hotplug_event, acpi_scan_hot_remove,
    acpi_scan_try_to_offline, acpi_bus_online``.

    Parameters
    ----------
    kernel : Kernel
    additions : sequence of Addition
    offlined : list of int
        Gets the blocks that went offline.
    """
    if additions and not kernel.tunables.acpi_memory_hotplug:
        _ost(kernel, EJECT_REQUEST, OST_EJECT_NOT_SUPPORTED)
        return Outcome.refused(
            "EPERM",
            "acpi_generic_hotplug_event",
            "eject disabled in /sys/firmware/acpi/hotplug/memory/enabled",
        )
    _ost(kernel, EJECT_REQUEST, OST_EJECT_IN_PROGRESS)
    return _offline_and_remove(kernel, additions, offlined)


def _offline_and_remove(
    kernel: Kernel, additions: Sequence[Addition], offlined: list[int]
) -> Outcome:
    refusal = _try_to_offline(kernel, additions, offlined)
    if refusal is not None and not refusal.ends:
        return refusal
    if refusal is not None:
        _ost(kernel, EJECT_REQUEST, OST_DEVICE_BUSY)
        why = f"{refusal.function}: {refusal.why}"
        return replace(refusal, errno="EBUSY", function="acpi_scan_try_to_offline", why=why)
    for addition in additions:
        outcome = try_remove_memory(kernel, addition)
        if not outcome:
            _ost(kernel, EJECT_REQUEST, OST_DEVICE_BUSY)
            return outcome
    to_host(kernel, "_EJ0 1 (eject)", "acpi_evaluate_ej0")
    _ost(kernel, EJECT_REQUEST, OST_SUCCESS)
    return OK


def _try_to_offline(
    kernel: Kernel, additions: Sequence[Addition], done: list[int]
) -> Outcome | None:
    """Offline every online block; on a refusal online those again that went offline."""
    ids = [id_ for addition in additions for id_ in kernel.block_ids(addition.pfns)]
    left = [id_ for id_ in ids if id_ in kernel.online_blocks or id_ in done]
    refusal: Outcome | None = None
    for second_pass in (False, True):
        refusal = None
        for block in [id_ for id_ in left if id_ not in done]:
            outcome = memory_block_offline(kernel, kernel.block_pfns(block), worker=_WORKER)
            if not outcome.ends:
                return outcome
            if outcome:
                done.append(block)
            elif refusal is None:
                refusal = outcome
                if second_pass:
                    break
        if refusal is None:
            return None
    for block in [id_ for id_ in left if id_ in done]:
        memory_block_online(kernel, kernel.block_pfns(block), "online")
    return refusal
