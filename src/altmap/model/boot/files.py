"""The files of a machine at boot, before any number is filled in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from altmap.linux.evidence import Evidence
from altmap.linux.observation import BalloonFolder, Observation, Resource
from altmap.linux.shapes import blank_observation
from altmap.model.arch import Arch
from altmap.model.boot.layout import firmware_ram, memory_bytes
from altmap.model.boot.tunables import parameters_shown
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE
from altmap.model.platform.xen import host_resources
from altmap.model.releases import release_shown
from altmap.scenario import XEN_HOST_BYTES, Machine

__all__ = ("blank_files",)


def blank_files(kernel: Kernel, machine: Machine) -> Observation:
    """Return the files of the booted machine: their lines, with zeros for the kernel's numbers."""
    page = kernel.arch.page_size_bytes
    blank = blank_observation(
        kernel.release.shape,
        [name for name, _ in kernel.arch.kernel_zones] + [MOVABLE, "Device"],
        sorted(kernel.boot_nodes),
        sorted(kernel.boot_node_pages),
        machine.cpus or 1,
        kernel.block_nr_pages * page,
    )
    arch, release = kernel.arch, machine.release or kernel.release.name
    meminfo = _shown_by(arch, blank.meminfo or {})
    if arch.vmalloc_kib is not None:
        meminfo["VmallocTotal"] = arch.vmalloc_kib
    blank = replace(
        blank,
        version=f"Linux version {release_shown(release)}-altmap-{arch.flavour}",
        machine=arch.family,
        evidence=Evidence(),
        arch_file=arch.family if kernel.release.shows_arch else None,
        meminfo=meminfo,
        vmstat=_shown_by(arch, blank.vmstat or {}),
        parameters=_parameters(kernel),
    )
    if machine.platform == "xen":
        return _domain_files(blank, kernel, machine)
    floor = kernel.arch.firmware_nr_pages * page
    lines = [
        Resource(0, max(start, floor), end, "System RAM")
        for start, end in firmware_ram(machine, kernel.arch)
    ]
    return replace(blank, iomem=tuple(lines), nodes=blank.nodes if kernel.arch.has_nodes else None)


def _shown_by(arch: Arch, numbers: Mapping[str, int]) -> dict[str, int]:
    """Return the lines without those on the direct map, unless the architecture shows them.

    Leaves are split on x86 only (``arch/x86/mm/pat/set_memory.c: split_page_count``).
    """
    dropped: tuple[str, ...] = ()
    if arch.direct_map != "pud":
        dropped += ("direct_map_",)
    if not arch.shows_direct_map:
        dropped += ("DirectMap",)
    return {name: number for name, number in numbers.items() if not name.startswith(dropped)}


def _parameters(kernel: Kernel) -> dict[str, str]:
    """Return the parameters of the module ``memory_hotplug`` that the release has."""
    release = kernel.release
    return {
        name: text
        for name, text in parameters_shown(kernel.tunables).items()
        if (
            release.memmap_scope != "none"
            if name == "memmap_on_memory"
            else release.has_auto_movable
        )
    }


def _domain_files(blank: Observation, kernel: Kernel, machine: Machine) -> Observation:
    """Return the files of Xen's first domain: the host's resources, and the balloon's counters."""
    page = kernel.arch.page_size_bytes
    lines = [(run.start * page, run.end * page, "System RAM") for run in kernel.boot_ram.ranges()]
    lines += host_resources(machine.xen_host_memory or XEN_HOST_BYTES)
    given = memory_bytes(machine) // 1024
    return replace(
        blank,
        iomem=tuple(Resource(0, *line) for line in sorted(lines)),
        balloon=BalloonFolder(given, given, len(kernel.fake_offline) * page // 1024),
    )
