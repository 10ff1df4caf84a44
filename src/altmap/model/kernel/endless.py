"""Offlining that does not end: it retries in a kernel worker, which no signal reaches.

``offline_pages()`` leaves its loop when the range is empty or a signal is pending for the task that
it runs in. Who that is decides:

- a write to a block's ``state`` or ``online``, a driver that is unbound through sysfs (kmem), and
  ``/sys/kernel/dlpar`` run in the writer's task: a signal ends them with EINTR;
- an eject by ACPI runs in ``kacpi_hotplug_wq`` (``drivers/acpi/osl.c: acpi_hotplug_schedule``),
  also where it is asked for through sysfs; a request of a pseries hypervisor in ``pseries_hp_wq``
  (``arch/powerpc/platforms/pseries/dlpar.c``); one of virtio-mem in ``system_freezable_wq``
  (``drivers/virtio/virtio_mem.c: virtio_mem_run_wq``): no signal reaches them;
- Xen's and Hyper-V's balloons and s390's standby memory offline no block by themselves.

Such a worker holds ``device_hotplug_lock``. A block's ``state`` then stays ``going-offline``, its
free pages stay isolated, and blocks that were done stay offline. Writes to ``state`` wait for the
lock (``drivers/base/core.c: lock_device_hotplug_sysfs``; a fatal signal ends the wait), drivers
that add or remove memory wait in ``lock_device_hotplug()``, which no signal ends.
"""

from __future__ import annotations

from dataclasses import replace

from altmap.model.kernel.isolation import UNTIL_SIGNAL
from altmap.model.kernel.state import Kernel
from altmap.pfn import PfnRange
from altmap.trace import Outcome

__all__ = ("does_not_end", "release_lock", "waits_for_lock", "what_it_waits_for")

_OOM = (
    "free memory is down at the watermarks meanwhile, so that other allocations reclaim, swap, and "
    "then call the OOM killer"
)


def does_not_end(kernel: Kernel, pfns: PfnRange, cause: Outcome, worker: str) -> Outcome:
    """Keep a range going offline and the lock held, and return the outcome of the worker.

    Parameters
    ----------
    kernel : Kernel
    pfns : PfnRange
        One memory block.
    cause : Outcome
        That of ``offline_pages()`` with a signal.
    worker : str
        The kernel worker that it runs in.
    """
    kernel.isolated |= pfns
    names = kernel.block_names(pfns)
    kernel.hotplug_lock_holder = f"{worker}, which is offlining {names},"
    why = cause.why.removesuffix(UNTIL_SIGNAL)
    parts = [
        f"{names}: {why}; {worker} retries indefinitely, since no signal reaches it",
        f"{names} stays going-offline and device_hotplug_lock held",
    ]
    if cause.kind == "movable":
        parts.append(_OOM)
    return replace(cause, status="does_not_end", errno=None, why="; ".join(parts))


def what_it_waits_for(kernel: Kernel) -> tuple[int, int, int]:
    """Return what lets a worker go on if it changes: free pages, pinned ones, and those in use."""
    pfns = kernel.isolated.span()
    return kernel.free_nr_pages(), kernel.pinned.count(pfns), kernel.used.count(pfns)


def release_lock(kernel: Kernel) -> PfnRange:
    """Let the lock go and free pages count again; return the range that was going offline."""
    pfns = kernel.isolated.span()
    kernel.isolated -= pfns
    kernel.hotplug_lock_holder = ""
    return pfns


def waits_for_lock(kernel: Kernel, function: str) -> Outcome:
    """Return the outcome of what waits for ``device_hotplug_lock`` indefinitely."""
    return Outcome(
        "does_not_end",
        function=function,
        why=f"it waits for device_hotplug_lock; {kernel.hotplug_lock_holder} does not let it go",
    )
