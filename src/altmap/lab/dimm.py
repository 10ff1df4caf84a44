"""DIMMs through ACPI: plugged and unplugged by QEMU, taken and given back by the guest.

The guest reports the end of its work with ``_OST``, which QEMU turns into ``ACPI_DEVICE_OST``.
Source: ACPI 6.5, 6.3.5 "_OST (OSPM Status Indication)".
"""

from __future__ import annotations

from dataclasses import dataclass

from altmap.errors import LabError
from altmap.lab.guest import Guest
from altmap.lab.qmp import Event, QemuRefusedError

__all__ = (
    "PluggedDimm",
    "UnpluggedDimm",
    "dimm_address",
    "forget_dimm",
    "insert_dimm",
    "plug_dimm",
    "unplug_dimm",
)

OST_DEVICE_CHECK = 1
OST_EJECT_REQUEST = 3
OST_OSPM_EJECT = 0x103
OST_SUCCESS = 0
OST_FAILURE = 1
OST_EJECT_IN_PROGRESS = 0x84
_REFUSALS = ("MEM_UNPLUG_ERROR", "DEVICE_UNPLUG_GUEST_ERROR")


@dataclass(frozen=True, slots=True)
class PluggedDimm:
    """A DIMM that the guest has looked at.

    Attributes
    ----------
    address : int
        Guest-physical address, in bytes.
    ost_status : int
        What the guest said; Linux says 0 also if it could not add the memory.
    """

    dimm: str
    address: int
    ost_status: int


@dataclass(frozen=True, slots=True)
class UnpluggedDimm:
    """The end of an unplug request.

    Attributes
    ----------
    removed : bool
        Whether the DIMM is gone; if not, it stays usable and may be asked for again.
    ost_status : int
        0, or why the guest refused, such as 0x82 for "device busy".
    """

    dimm: str
    removed: bool
    ost_status: int


def plug_dimm(
    guest: Guest,
    dimm: str,
    size_bytes: int,
    address: int | None = None,
    node: int | None = None,
    limit_seconds: float = 60.0,
) -> PluggedDimm:
    """Plug a DIMM and wait until the guest has added it, onlining by its policy included.

    Raises
    ------
    QemuRefusedError
        If QEMU refuses size, address, node or has no free slot; nothing is left of the DIMM.
    LabError
        If the guest does not answer in time.
    """
    with guest.qmp.listen("ACPI_DEVICE_OST") as events:
        insert_dimm(guest, dimm, size_bytes, address, node)
        event = events.wait_for(lambda e: _ost(e, dimm) == OST_DEVICE_CHECK, limit_seconds)
    if event is None:
        raise _silence(guest, f"DIMM {dimm!r}: not looked at by the guest", limit_seconds)
    return PluggedDimm(dimm, dimm_address(guest, dimm), _status(event))


def unplug_dimm(guest: Guest, dimm: str, limit_seconds: float = 60.0) -> UnpluggedDimm:
    """Ask the guest to give back a DIMM and wait for its answer.

    Raises
    ------
    QemuRefusedError
        If there is no such DIMM or it cannot be unplugged now.
    LabError
        If the guest does not answer at all. One that has started the eject and has not ended it at
        the time limit gives the status ``OST_EJECT_IN_PROGRESS``.
    """
    started = False

    def ends(event: Event) -> bool:
        nonlocal started
        started |= _ost(event, dimm) is not None and _status(event) == OST_EJECT_IN_PROGRESS
        return _ends_unplug(event, dimm)

    with guest.qmp.listen("ACPI_DEVICE_OST", "DEVICE_DELETED", *_REFUSALS) as events:
        guest.qmp.execute("device_del", id=dimm)
        event = events.wait_for(ends, limit_seconds)
    if event is None and started:
        return UnpluggedDimm(dimm, removed=False, ost_status=OST_EJECT_IN_PROGRESS)
    if event is None:
        raise _silence(guest, f"unplug of DIMM {dimm!r}: no answer", limit_seconds)
    if event["event"] != "DEVICE_DELETED":
        return UnpluggedDimm(dimm, removed=False, ost_status=_status(event))
    forget_dimm(guest, dimm)
    return UnpluggedDimm(dimm, removed=True, ost_status=OST_SUCCESS)


def insert_dimm(
    guest: Guest, dimm: str, size_bytes: int, address: int | None, node: int | None
) -> None:
    """Let QEMU plug a DIMM, of which the platform notifies the guest.

    Raises
    ------
    QemuRefusedError
        If QEMU refuses it; nothing is left of it.
    """
    given = {name: n for name, n in (("addr", address), ("node", node)) if n is not None}
    guest.qmp.execute(
        "object-add",
        qom_type="memory-backend-ram",
        id=_backend(dimm),
        size=size_bytes,
        reserve=False,
    )
    try:
        guest.qmp.execute("device_add", driver="pc-dimm", id=dimm, memdev=_backend(dimm), **given)
    except QemuRefusedError:
        forget_dimm(guest, dimm)
        raise


def forget_dimm(guest: Guest, dimm: str) -> None:
    """Give back what held the memory of a DIMM that is gone."""
    guest.qmp.execute("object-del", id=_backend(dimm))


def dimm_address(guest: Guest, dimm: str) -> int:
    """Return the guest-physical address of a plugged DIMM, in bytes."""
    devices = guest.qmp.execute("query-memory-devices")
    return next(int(d["data"]["addr"]) for d in devices if d["data"].get("id") == dimm)


def _backend(dimm: str) -> str:
    return f"{dimm}-memory"


def _ost(event: Event, dimm: str) -> int | None:
    """Return what the guest reports on with ``_OST``, if the event is a report about this DIMM."""
    info = event["data"].get("info", {})
    return info["source"] if info.get("device") == dimm else None


def _status(event: Event) -> int:
    return int(event["data"].get("info", {}).get("status", OST_FAILURE))


def _ends_unplug(event: Event, dimm: str) -> bool:
    if event["event"] == "ACPI_DEVICE_OST":
        asked = _ost(event, dimm) in (OST_EJECT_REQUEST, OST_OSPM_EJECT)
        return asked and _status(event) not in (OST_SUCCESS, OST_EJECT_IN_PROGRESS)
    device: object = event["data"].get("device")
    return device == dimm


def _silence(guest: Guest, what: str, limit_seconds: float) -> LabError:
    return LabError(f"{what} within {limit_seconds:g} s", guest.console())
