"""DIMMs of a pseries guest: QEMU asks, the kernel adds or removes logical memory blocks by DLPAR.

The kernel answers the hypervisor only where it releases a block. That it has begun, and why it
failed, its log says; that it is done is known when the lock that a request holds can be had.
Source: ``arch/powerpc/platforms/pseries/hotplug-memory.c: dlpar_memory`` (6.1, 6.12).

Effects: clock.
"""

from __future__ import annotations

import time

from altmap.errors import LabError
from altmap.lab.dimm import dimm_address, forget_dimm, insert_dimm
from altmap.lab.guest import Guest

__all__ = ("plug_by_dlpar", "unplug_by_dlpar")

_POLL_SECONDS = 0.1
_PREFIX = "pseries-hotplug-mem: "
_BEGUN = "Attempting to hot-"
_FAILED = "failed, "
#: A write to a CPU that is online already takes the lock of all hotplug, and changes nothing.
_WAIT_FOR_LOCK = "echo 1 >/sys/devices/system/cpu/cpu0/online"


def plug_by_dlpar(
    guest: Guest,
    dimm: str,
    size_bytes: int,
    address: int | None = None,
    node: int | None = None,
    limit_seconds: float = 60.0,
) -> tuple[int, str]:
    """Plug a DIMM and wait until the guest has added its blocks, or has given up.

    Returns
    -------
    (int, str)
        The DIMM's guest-physical address in bytes; what the kernel says of its failure, empty if
        all blocks were added and are online. The DIMM stays plugged either way.

    Raises
    ------
    QemuRefusedError
        If QEMU refuses it; nothing is left of the DIMM.
    LabError
        If the guest does not answer in time.
    """
    seen = len(_log(guest))
    insert_dimm(guest, dimm, size_bytes, address, node)
    return dimm_address(guest, dimm), _wait(guest, f"DIMM {dimm!r}", seen, limit_seconds)


def unplug_by_dlpar(guest: Guest, dimm: str, limit_seconds: float = 60.0) -> str:
    """Ask the guest to give back a DIMM and wait for the end of that.

    Returns
    -------
    str
        What the kernel says of its failure; empty if the DIMM is gone.

    Raises
    ------
    QemuRefusedError
        If there is no such DIMM, or QEMU still waits for the answer to an earlier request.
    LabError
        If the guest does not answer in time, or answers and the DIMM stays.
    """
    seen = len(_log(guest))
    with guest.qmp.listen("DEVICE_DELETED") as events:
        guest.qmp.execute("device_del", id=dimm)
        failure = _wait(guest, f"unplug of DIMM {dimm!r}", seen, limit_seconds)
        if failure:
            return failure
        gone = events.wait_for(lambda e: e["data"].get("device") == dimm, limit_seconds)
    if gone is None:
        raise LabError(f"unplug of DIMM {dimm!r}: the guest is done, the DIMM is there")
    forget_dimm(guest, dimm)
    return ""


def _log(guest: Guest) -> list[str]:
    """Return what DLPAR has logged; the log is left as it is."""
    return [line for line in guest.run("dmesg").text.splitlines() if _PREFIX in line]


def _wait(guest: Guest, what: str, seen: int, limit_seconds: float) -> str:
    """Wait until a request has begun and ended; return its failure."""
    deadline = time.monotonic() + limit_seconds
    while not any(_BEGUN in line for line in _log(guest)[seen:]):
        if time.monotonic() > deadline:
            raise LabError(f"{what}: no answer within {limit_seconds:g} s", guest.console())
        time.sleep(_POLL_SECONDS)
    guest.run(_WAIT_FOR_LOCK, max(_POLL_SECONDS, deadline - time.monotonic()))
    failures = [line for line in _log(guest)[seen:] if _FAILED in line]
    return failures[0].partition(_PREFIX)[2] if failures else ""
