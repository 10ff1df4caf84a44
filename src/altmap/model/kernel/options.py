"""Options of a kernel's configuration that decide what memory hotplug does.

What a kernel lacks is in :attr:`altmap.model.kernel.params.Tunables.unset`; an option that is not
there is set, or nothing was said of it. Sources: ``mm/Kconfig``, ``drivers/acpi/Kconfig``,
``drivers/virtio/Kconfig``, ``drivers/hv/Kconfig``, ``drivers/dax/Kconfig``.
"""

from __future__ import annotations

import errno

from altmap.model.kernel.state import Kernel
from altmap.trace import Outcome

__all__ = ("DRIVER_OPTIONS", "cannot_offline", "lacks", "unnoticed")

#: The option without which a kernel does not have the guest's half of a mechanism, and the function
#: that is not built then.
DRIVER_OPTIONS: dict[str, tuple[str, str]] = {
    "acpi": ("ACPI_HOTPLUG_MEMORY", "acpi_memory_device_add"),
    "probe": ("ARCH_MEMORY_PROBE", "probe_store"),
    "virtio-mem": ("VIRTIO_MEM", "virtio_mem_probe"),
    "kmem": ("DEV_DAX_KMEM", "dev_dax_kmem_probe"),
    "hyperv": ("HYPERV_BALLOON", "balloon_probe"),
}
#: What each option of a driver needs (``depends on``).
_DEPENDS = {"VIRTIO_MEM": "MEMORY_HOTREMOVE"}


def lacks(kernel: Kernel, option: str) -> bool:
    """Tell whether the kernel is built without an option."""
    return option in kernel.tunables.unset


def unnoticed(kernel: Kernel, mechanism: str) -> Outcome | None:
    """Return what becomes of a device whose driver the kernel is built without, else ``None``."""
    option, function = DRIVER_OPTIONS.get(mechanism, ("MEMORY_HOTPLUG", "add_memory_resource"))
    for each in (option, _DEPENDS.get(option, ""), "MEMORY_HOTPLUG"):
        if lacks(kernel, each):
            why = f"the kernel is built without CONFIG_{each}: it never notices the device"
            return Outcome.refused(errno.ENODEV, function, why)
    return None


def cannot_offline(kernel: Kernel) -> Outcome | None:
    """Return the refusal of a kernel without MEMORY_HOTREMOVE, whose ``offline_pages`` is a stub.

    Source: ``include/linux/memory_hotplug.h: offline_pages``.
    """
    if not lacks(kernel, "MEMORY_HOTREMOVE"):
        return None
    why = "the kernel is built without CONFIG_MEMORY_HOTREMOVE, it refuses every block"
    return Outcome.refused(errno.EINVAL, "offline_pages", why)
