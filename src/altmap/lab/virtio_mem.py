"""virtio-mem devices: plugged and told their size through QMP, followed by the guest's driver.

The driver works in a kernel thread. That it has heard of a size shows in the kernel's log; that it
has done what it could, in the name of the thread, which tells the work queue whose work it is at.

Effects: clock.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from altmap.errors import LabError
from altmap.lab.guest import Guest
from altmap.lab.qmp import QemuRefusedError

__all__ = (
    "MODULES",
    "VirtioMemState",
    "check_driver",
    "plug_virtio_mem",
    "resize_virtio_mem",
    "virtio_mem_state",
    "wait_until_idle",
)

#: What a guest needs: the transport's driver and the device's.
MODULES = ("virtio_pci", "virtio_mem")
_POLL_SECONDS = 0.1
#: drivers/virtio/virtio_mem.c: virtio_mem_refresh_config, at each size that it hears of.
_HEARD = "dmesg | grep -c 'requested size: 0x'"
#: kernel/workqueue.c: wq_worker_comm; system_freezable_wq is named so.
_WORKING = "grep -l '+events_freezable' /proc/[0-9]*/comm 2>/dev/null"


@dataclass(frozen=True, slots=True)
class VirtioMemState:
    """A device as QEMU sees it.

    Attributes
    ----------
    address, size_bytes : int
        The region.
    plugged_bytes, requested_bytes : int
        What the guest has plugged, and what it was asked to plug.
    """

    address: int
    size_bytes: int
    plugged_bytes: int
    requested_bytes: int


def check_driver(guest: Guest) -> None:
    """Check that the guest's kernel has the driver, once modules are loaded.

    Raises
    ------
    LabError
        If it has none.
    """
    if guest.run("test -d /sys/bus/virtio/drivers/virtio_mem").status:
        raise LabError(
            f"this kernel has no virtio-mem driver for {guest.hardware.arch} (CONFIG_VIRTIO_MEM)"
        )


def plug_virtio_mem(
    guest: Guest,
    device: str,
    size_bytes: int,
    requested_bytes: int = 0,
    *,
    block_bytes: int | None = None,
    address: int | None = None,
    node: int | None = None,
    limit_seconds: float = 60.0,
) -> VirtioMemState:
    """Plug a device and wait until the guest's driver has taken it and grown as far as it can.

    Raises
    ------
    QemuRefusedError
        If QEMU refuses sizes, address or node; nothing is left of the device.
    LabError
        If the driver does not take the device, or works on beyond the limit.
    """
    given = {"block-size": block_bytes, "memaddr": address, "node": node}
    named = {name: value for name, value in given.items() if value is not None}
    before = _nr_heard(guest)
    memory = f"{device}-memory"
    guest.qmp.execute(
        "object-add", qom_type="memory-backend-ram", id=memory, size=size_bytes, reserve=False
    )
    try:
        guest.qmp.execute(
            "device_add",
            driver=guest.hardware.guest.virtio_mem,
            id=device,
            memdev=memory,
            requested_size=requested_bytes,
            **named,
            **_bus(guest),
        )
    except QemuRefusedError:
        guest.qmp.execute("object-del", id=memory)
        raise
    _wait_until_heard(guest, device, before, limit_seconds)
    return virtio_mem_state(guest, device)


def resize_virtio_mem(
    guest: Guest, device: str, size_bytes: int, limit_seconds: float = 120.0
) -> VirtioMemState:
    """Tell a device its requested size and wait until the guest has done what it can.

    Raises
    ------
    QemuRefusedError
        If QEMU refuses the size.
    LabError
        If the guest is not notified, or is still at work at the limit.
    """
    before = _nr_heard(guest)
    guest.qmp.execute(
        "qom-set",
        path=f"/machine/peripheral/{device}",
        property="requested-size",
        value=size_bytes,
    )
    _wait_until_heard(guest, device, before, limit_seconds)
    return virtio_mem_state(guest, device)


def virtio_mem_state(guest: Guest, device: str) -> VirtioMemState:
    """Return a device's region and sizes.

    Raises
    ------
    LabError
        If there is no such device.
    """
    for found in guest.qmp.execute("query-memory-devices"):
        data = found["data"]
        if found["type"] == "virtio-mem" and data.get("id") == device:
            return VirtioMemState(
                int(data["memaddr"]),
                int(data["max-size"]),
                int(data["size"]),
                int(data["requested-size"]),
            )
    raise LabError(f"virtio-mem device {device!r}: QEMU has none of that name")


def wait_until_idle(guest: Guest, limit_seconds: float = 120.0) -> None:
    """Wait until the driver does nothing: twice in a row, since work that waits has no thread yet.

    Raises
    ------
    LabError
        If it works on beyond the limit.
    """
    deadline = time.monotonic() + limit_seconds
    nr_idle = 0
    while nr_idle < 2:
        nr_idle = 0 if guest.run(_WORKING).status == 0 else nr_idle + 1
        if time.monotonic() > deadline:
            raise LabError(
                f"the guest's virtio-mem driver still works after {limit_seconds:g} s",
                guest.console(),
            )
        time.sleep(_POLL_SECONDS)


def _wait_until_heard(guest: Guest, device: str, before: int, limit_seconds: float) -> None:
    deadline = time.monotonic() + limit_seconds
    while _nr_heard(guest) <= before:
        if time.monotonic() > deadline:
            raise LabError(
                f"virtio-mem device {device!r}: the guest's driver was not notified of its size "
                f"within {limit_seconds:g} s",
                guest.console(),
            )
        time.sleep(_POLL_SECONDS)
    wait_until_idle(guest, max(1.0, deadline - time.monotonic()))


def _nr_heard(guest: Guest) -> int:
    return int(guest.run(_HEARD).text.strip() or 0)


def _bus(guest: Guest) -> dict[str, str]:
    """Return where the next device goes: some machines plug into ports that were there at boot."""
    if not guest.hardware.ports:
        return {}
    devices = guest.qmp.execute("query-memory-devices")
    return {"bus": f"port{sum(device['type'] == 'virtio-mem' for device in devices)}"}
