"""A live machine in a few lines: kernel, memory blocks, devices."""

from __future__ import annotations

from collections.abc import Iterator

from altmap.live.machine import LiveMachine
from altmap.units import format_size

__all__ = ("summary",)


def summary(machine: LiveMachine) -> str:
    """Return the lines that ``altmap ctl show`` prints."""
    return "\n".join(_lines(machine)) + "\n"


def _lines(machine: LiveMachine) -> Iterator[str]:
    model = machine.model
    kernel = model.kernel
    size = format_size(kernel.block_nr_pages * kernel.arch.page_size_bytes)
    yield f"{machine.scenario.name}: Linux {kernel.release.name} on {kernel.arch.name}"
    if machine.crashed:
        yield "the kernel has crashed: every access fails with EIO"
    nr_online = len(kernel.online_blocks)
    yield f"memory blocks of {size}: {nr_online} online, {len(kernel.added_blocks)} in all"
    yield f"policy {kernel.policy.name}, auto_online_blocks {kernel.tunables.auto_online_blocks}"
    for id_, device in model.devices.by_id.items():
        requested, most = model.device_sizes(id_)
        of_most = f" of {format_size(most)}" if most != requested else ""
        yield f"device {id_}: {device.driver}, {format_size(requested)}{of_most}"
    yield f"{len(machine.steps)} steps so far"
