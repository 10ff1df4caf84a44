"""Options that an adopted kernel is built without: by its configuration, its files, or its name."""

from __future__ import annotations

import re
from collections.abc import Container, Iterator

from altmap.linux.observation import Observation
from altmap.model.releases import Release
from altmap.scenario import KernelConfig, Machine

__all__ = ("adopted_unset", "configured_default_online", "debian_unset", "default_online")

#: Debian's flavours, and options that decide something here and that their kernels (6.1 to 7.3)
#: leave unset. Read in ``boot/config-*`` of the packages.
_DEBIAN = (
    (r"arm64(?:-16k|-64k)?", ("ACPI_HOTPLUG_MEMORY", "HUGETLB_PAGE_OPTIMIZE_VMEMMAP")),
    (r"s390x", ("ACPI_HOTPLUG_MEMORY", "HUGETLB_PAGE_OPTIMIZE_VMEMMAP", "HYPERV_BALLOON")),
    (r"powerpc64le(?:-64k)?", ("ACPI_HOTPLUG_MEMORY", "VIRTIO_MEM", "HYPERV_BALLOON")),
)
_DEBIAN_NAME = re.compile(
    r"(?:.*\+?deb\d+.*?|\d[\d.]*-\d+)-(?P<flavour>(?:arm64|powerpc64le)(?:-\d+k)?|s390x)"
)
#: A configuration names a choice by several options: each, and the word that new blocks get.
_DEFAULT_ONLINE = {
    "MHP_DEFAULT_ONLINE_TYPE_OFFLINE": "offline",
    "MHP_DEFAULT_ONLINE_TYPE_ONLINE_AUTO": "online",
    "MHP_DEFAULT_ONLINE_TYPE_ONLINE_KERNEL": "online_kernel",
    "MHP_DEFAULT_ONLINE_TYPE_ONLINE_MOVABLE": "online_movable",
    "MEMORY_HOTPLUG_DEFAULT_ONLINE": "online",
}
#: What a note says at the start; of other options the refusal of what needs them does.
_TOLD = ("MEMORY_HOTPLUG", "MEMORY_HOTREMOVE", "MHP_MEMMAP_ON_MEMORY")
#: Not asked of a kernel's files: they have a word, or are a debugging aid that a boot can switch.
_NOT_ASKED = ("MHP_DEFAULT_ONLINE_TYPE", "DEBUG_VM")


def adopted_unset(
    seen: Observation, machine: Machine, release: Release, notes: list[str]
) -> frozenset[str]:
    """Return the options that decide something here and that the kernel is built without.

    The scenario comes first, then the kernel's configuration, files that only an option brings,
    and what is known of a distribution's kernel by its name.
    """
    found = dict(_unset(seen, release))
    given = machine.config
    for name in given.__struct_fields__:
        word = getattr(given, name)
        if word is False:
            found[name] = ""
        elif word is not None:
            found.pop(name, None)
    for name, ground in found.items():
        if ground and name in _TOLD:
            notes.append(f"the kernel is built without CONFIG_{name}, by {ground}")
    return frozenset(found)


def _unset(seen: Observation, release: Release) -> Iterator[tuple[str, str]]:
    options = seen.evidence.options
    if options is not None:
        for name in KernelConfig.__struct_fields__:
            if name not in _NOT_ASKED and name not in options:
                yield name, "its configuration"
        return
    lacks = seen.parameters.keys() == {
        *("auto_movable_numa_aware", "auto_movable_ratio", "online_policy"),
    }
    if lacks and seen.machine in release.self_hosting:
        yield "MHP_MEMMAP_ON_MEMORY", "the parameter that it lacks"
    blocks = () if seen.memory is None else seen.memory.blocks.values()
    if blocks and all(b.removable is False and b.valid_zones is None for b in blocks):
        yield "MEMORY_HOTREMOVE", "the files of its memory blocks"
    named = _DEBIAN_NAME.fullmatch(seen.release or "")
    for name in debian_unset(named["flavour"]) if named else ():
        yield name, f"the name of Debian's kernel, {seen.release}"


def configured_default_online(seen: Observation) -> str | None:
    """Return ``auto_online_blocks`` of the kernel's configuration, ``None`` without one."""
    options = seen.evidence.options
    if options is None:
        return None
    return default_online(options)


def default_online(options: Container[str]) -> str:
    """Return ``auto_online_blocks`` of a configuration that sets these options."""
    return next((word for name, word in _DEFAULT_ONLINE.items() if name in options), "offline")


def debian_unset(flavour: str) -> tuple[str, ...]:
    """Return what Debian's kernels of a flavour leave unset: ``arm64-16k``, ``s390x``, ..."""
    return next((names for each, names in _DEBIAN if re.fullmatch(each, flavour)), ())
