"""The rules of an adopted kernel: architecture, release, memory block size and parameters."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from altmap.errors import InputError
from altmap.linux import iomem
from altmap.linux.evidence import Given, passed_over
from altmap.linux.observation import Observation, ZoneInfo, page_size_found
from altmap.model.adopt.options import adopted_unset, configured_default_online
from altmap.model.arch import (
    ARCHES,
    DEFAULT_ARCH,
    Arch,
    arch_named,
    arch_with_pages,
    archs_of,
    check_block_size,
    with_mmu,
)
from altmap.model.boot.tunables import build_without, default_tunables
from altmap.model.kernel.params import Tunables
from altmap.model.releases import Release, release_for, release_notes, release_with_files
from altmap.scenario import Machine
from altmap.units import format_size

__all__ = (
    "adopted_arch",
    "adopted_block_size_bytes",
    "adopted_release",
    "adopted_tunables",
    "given_of",
    "whole_files",
)

_Value = TypeVar("_Value")

#: Files of ``/sys/module/memory_hotplug/parameters`` with a fixed set of words.
_PARAMETERS: dict[str, dict[str, str | bool]] = {
    "memmap_on_memory": {"Y": "on", "N": "off", "force": "force"},
    "online_policy": {"contig-zones": "contig-zones", "auto-movable": "auto-movable"},
    "auto_movable_numa_aware": {"Y": True, "N": False},
}
#: Words on the kernel's command line that switch a tunable on.
_WORDS = {"movable_node": "movable_node", "hugetlb_free_vmemmap": "hugetlb_free_vmemmap=on"}
_ONLINE_TYPES = ("offline", "online", "online_kernel", "online_movable")


def whole_files(seen: Observation, notes: list[str]) -> Observation:
    """Return the observation, once it has what no assumption can replace.

    A zone without its line ``protection`` has no reserves, with a note.

    Raises
    ------
    InputError
        If zones, RAM ranges or memory blocks are missing, addresses are hidden, or a zone has not
        one protection value for each zone of its node.
    """
    for value, path in (
        (seen.zoneinfo, "proc/zoneinfo"),
        (seen.iomem, "proc/iomem"),
        (seen.memory, "sys/devices/system/memory/block_size_bytes"),
    ):
        if not value:
            why = [
                text
                for at, text in seen.problems.items()
                if at.startswith(path) or (at != "sys" and path.startswith(f"{at}/"))
            ]
            raise InputError(why[0] if why else f"sysroot: {path} is missing: need it to predict")
    iomem.require_addresses(seen.iomem or ())
    made: list[ZoneInfo] = []
    for info in seen.zoneinfo or ():
        zones = sum(other.node == info.node for other in seen.zoneinfo or ())
        if not info.protection:
            notes.append(f"proc/zoneinfo: node {info.node} {info.name}: no reserves are shown")
            info = replace(info, protection=(0,) * zones)
        made.append(info)
        if len(info.protection) != zones:
            raise InputError(
                f"sysroot: proc/zoneinfo: node {info.node} {info.name}: protection "
                f"{info.protection}: need a number for each of {zones} zones"
            )
    return replace(seen, zoneinfo=tuple(made))


def adopted_arch(seen: Observation, machine: Machine, notes: list[str]) -> Arch:
    """Return the architecture of the scenario, or of the files: machine name and page size.

    Raises
    ------
    InputError
        If it is unknown, or the files contradict each other.
    """
    if machine.arch is not None:
        arch = arch_with_pages(machine.arch, machine.page_size)
    else:
        arch = _shown_arch(seen, notes)
    return with_mmu(arch, machine.mmu or _shown_mmu(seen, arch))


def given_of(machine: Machine) -> Given:
    """Return what a scenario says of a machine whose files are read.

    Raises
    ------
    InputError
        If the architecture is unknown, or has no such page size.
    """
    if machine.arch is None:
        return Given(None, machine.page_size, machine.release)
    arch = arch_with_pages(machine.arch, machine.page_size)
    return Given(arch.family, arch.page_size_bytes, machine.release)


def _shown_arch(seen: Observation, notes: list[str]) -> Arch:
    name, page = seen.machine, page_size_found(seen)
    if name is None:
        name = DEFAULT_ARCH
        notes.append(f"no file names the architecture, {name} is assumed (--arch says which)")
    elif seen.evidence.machines and seen.evidence.machines[0].inferred:
        notes.append(f"the architecture is {name} by {seen.evidence.machines[0].ground}")
    notes.extend(passed_over("the machine", seen.evidence.machines))
    if page is None:
        made = arch_named(name)
        notes.append(f"no file tells the page size, that of {made.name} is assumed")
        return made
    if page.inferred:
        notes.append(f"the page size is {format_size(int(page.value))} by {page.ground}")
    several = archs_of(name, int(page.value))
    if not several:
        known = ", ".join(dict.fromkeys(arch.family for arch in ARCHES.values()))
        raise InputError(
            f"architecture {name!r} with pages of {format_size(int(page.value))}: need one of "
            f"{known}; --arch says which"
        )
    total = (seen.meminfo or {}).get("VmallocTotal")
    return next((arch for arch in several if arch.vmalloc_kib == total), several[0])


def _shown_mmu(seen: Observation, arch: Arch) -> str | None:
    """Return ppc64's MMU: only radix shows the direct map's leaves (``arch_report_meminfo``)."""
    if not arch.mmus or seen.meminfo is None:
        return None
    return "radix" if "DirectMap2M" in seen.meminfo else "hash"


def adopted_release(seen: Observation, machine: Machine, notes: list[str]) -> Release:
    """Return the record of the scenario's release, or of the one in ``/proc/version``.

    Raises
    ------
    InputError
        If neither names a release.
    """
    try:
        shown = seen.release
    except InputError as error:
        if machine.release is None:
            raise InputError(f"sysroot: proc/version: {error}") from error
        shown = None
    name = machine.release or shown
    if name is None:
        raise InputError("sysroot: proc/version is missing, and no other file names the release")
    notes.extend(release_notes(name))
    if machine.release is None and seen.evidence.releases and seen.evidence.releases[0].inferred:
        notes.append(f"the release is {name} by {seen.evidence.releases[0].ground}")
    if machine.release is not None:
        return release_for(name, shown)
    release, note = release_with_files(name, seen.parameters)
    notes.extend([note] if note else [])
    return release


def adopted_block_size_bytes(seen: Observation, machine: Machine, arch: Arch) -> int:
    """Return the memory block size that the files show.

    Raises
    ------
    InputError
        If no kernel of the architecture has it, or the scenario names another.
    """
    assert seen.memory is not None  # require_files
    shown = seen.memory.block_size_bytes
    check_block_size(arch, "sysroot: block_size_bytes", shown)
    if machine.block_size is not None and machine.block_size != shown:
        raise InputError(
            f"machine.block_size {machine.block_size:#x}: the sysroot's blocks are of {shown:#x}"
        )
    return shown


def adopted_tunables(
    seen: Observation, machine: Machine, arch: Arch, release: Release, notes: list[str]
) -> Tunables:
    """Return the parameters of the scenario, else of the files, else the release's defaults.

    A word that the kernel does not write in a file is noted, and the default is used.
    """
    tunables = default_tunables(machine, arch, release)
    if machine.config.MHP_DEFAULT_ONLINE_TYPE is None:
        tunables.auto_online_blocks = configured_default_online(seen) or tunables.auto_online_blocks
    if machine.auto_online_blocks is not None:
        tunables.auto_online_blocks = machine.auto_online_blocks
    shown = seen.parameters
    for name, values in _PARAMETERS.items():
        if getattr(machine, name) is None and name in shown:
            default = getattr(tunables, name)
            setattr(tunables, name, _one_of(name, shown[name], values, default, notes))
    if machine.auto_movable_ratio is None and "auto_movable_ratio" in shown:
        text = shown["auto_movable_ratio"]
        if re.fullmatch(r"[0-9]{1,10}", text):
            tunables.auto_movable_ratio = int(text)
        else:
            notes.append(_ignored("auto_movable_ratio", text, "a number of percent"))
    words = (seen.cmdline or "").split()
    for name, word in _WORDS.items():
        if getattr(machine, name) is None:
            setattr(tunables, name, word in words)
    if machine.auto_online_blocks is None and seen.memory and seen.memory.auto_online_blocks:
        tunables.auto_online_blocks = _one_of(
            "auto_online_blocks",
            seen.memory.auto_online_blocks,
            {word: word for word in _ONLINE_TYPES},
            tunables.auto_online_blocks,
            notes,
        )
    meminfo = seen.meminfo or {}
    if meminfo and "DirectMap1G" not in meminfo:
        tunables.direct_map_1g = False
    if seen.balloon is not None and not meminfo.get("DirectMap2M"):
        tunables.direct_map_2m = False
    build_without(tunables, adopted_unset(seen, machine, release, notes))
    return tunables


def _one_of(
    name: str, text: str, values: Mapping[str, _Value], default: _Value, notes: list[str]
) -> _Value:
    if text not in values:
        notes.append(_ignored(name, text, f"one of {', '.join(values)}"))
    return values.get(text, default)


def _ignored(name: str, text: str, rule: str) -> str:
    return f"sysroot: {name} {text[:80]!r}: need {rule}; the default is used"
