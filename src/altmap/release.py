"""Kernel releases as data: what each one does differently, and where that is written.

A rule asks for a behaviour by name and never compares versions; a distribution's kernel that
differs is another record.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from altmap.errors import InputError

__all__ = ("DEFAULT_RELEASE", "RELEASES", "Release", "release_for")

DEFAULT_RELEASE = "6.12"

_RESERVED = 1 << 32  # KPF_RESERVED, include/linux/kernel-page-flags.h
_OWNER_PRIVATE = 1 << 37  # KPF_OWNER_PRIVATE
_NOPAGE = 1 << 20  # KPF_NOPAGE


@dataclass(frozen=True, slots=True)
class Release:
    """One kernel release as a record of named behaviours.

    Attributes
    ----------
    name : str
        ``major.minor``.
    memmap_scope : str
        What one altmap may serve: ``none`` (no memmap_on_memory), ``one_block`` (the whole request
        must be exactly one memory block), ``per_block`` (any request, an altmap for each block).
    memmap_force : bool
        ``memmap_on_memory=force`` pads a memmap to whole pageblocks.
    memmap_page_flags : int
        ``/proc/kpageflags`` of a self-hosted memmap page in an online block.
    nopage_flags : int
        ``/proc/kpageflags`` of a pfn without an online memmap.
    counts_memmap_pages : bool
        ``nr_memmap_pages`` in ``/proc/vmstat``.
    offline_page_type : bool
        Pages start as PageOffline when their block goes online, and only those that leave that
        state are managed; before, a driver marks the pages that it withholds.
    lowmem_includes_movable : bool
        ZONE_MOVABLE takes its share of ``min_free_kbytes`` like a kernel zone.
    has_promo_watermark : bool
        ``promo`` in ``/proc/zoneinfo``.
    acpi_asks_only_if_supported : bool
        The ACPI driver passes MHP_MEMMAP_ON_MEMORY only for a size that supports it; else always.
    hyperv_chunk : str
        Unit of Hyper-V's hot-add: ``128MiB`` or ``block``.
    hyperv_foreign_pages : str
        What hv_balloon's callback does with a page of no region: ``dropped`` or ``generic``.
    has_auto_movable : bool
        ``memory_hotplug.online_policy=auto-movable`` and memory groups.
    boot_reserved_bytes, boot_used_bytes : int
        What Debian's kernel keeps for itself at boot beside the memmap, and what is in use when it
        has come up with nothing but a shell. Measured on a 1 GiB guest; estimates elsewhere.
    debian_default_online : dict of str to str
        ``auto_online_blocks`` after boot of Debian's kernel, by architecture family.
    sources : dict of str to str
        Where each behaviour is written: attribute to kernel file and function, or commit.
    """

    name: str
    memmap_scope: str
    memmap_force: bool
    memmap_page_flags: int
    nopage_flags: int = _NOPAGE
    counts_memmap_pages: bool = False
    offline_page_type: bool = False
    lowmem_includes_movable: bool = True
    has_promo_watermark: bool = False
    acpi_asks_only_if_supported: bool = True
    hyperv_chunk: str = "128MiB"
    hyperv_foreign_pages: str = "dropped"
    has_auto_movable: bool = True
    boot_reserved_bytes: int = 118394880
    boot_used_bytes: int = 38240 << 10
    debian_default_online: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


_6_1 = Release(
    name="6.1",
    memmap_scope="one_block",
    memmap_force=False,
    memmap_page_flags=_RESERVED | _OWNER_PRIVATE,
    debian_default_online={"x86_64": "offline"},
    sources={
        "memmap_scope": "mm/memory_hotplug.c: mhp_supports_memmap_on_memory (v6.1)",
        "memmap_force": "mm/memory_hotplug.c: memmap_on_memory is a bool (v6.1)",
        "memmap_page_flags": "mm/memory_hotplug.c: mhp_init_memmap_on_memory (v6.1)",
        "nopage_flags": "fs/proc/page.c: stable_page_flags (v6.1)",
        "counts_memmap_pages": "absent from mm/vmstat.c: vmstat_text (v6.1)",
        "offline_page_type": "mm/memory_hotplug.c: generic_online_page (v6.1)",
        "lowmem_includes_movable": "mm/page_alloc.c: __setup_per_zone_wmarks (v6.1)",
        "has_promo_watermark": "mm/vmstat.c: zoneinfo_show_print (v6.1)",
        "acpi_asks_only_if_supported": (
            "drivers/acpi/acpi_memhotplug.c: acpi_memory_enable_device (v6.1)"
        ),
        "hyperv_chunk": "drivers/hv/hv_balloon.c: HA_CHUNK (v6.1)",
        "hyperv_foreign_pages": "drivers/hv/hv_balloon.c: hv_online_page (v6.1)",
        "has_auto_movable": "mm/memory_hotplug.c: auto_movable_zone_for_pfn (v6.1)",
        "debian_default_online": "CONFIG_MEMORY_HOTPLUG_DEFAULT_ONLINE in Debian's kernel package",
    },
)
_6_12 = replace(
    _6_1,
    name="6.12",
    memmap_scope="per_block",
    memmap_force=True,
    memmap_page_flags=_OWNER_PRIVATE,
    counts_memmap_pages=True,
    offline_page_type=True,
    lowmem_includes_movable=False,
    has_promo_watermark=True,
    acpi_asks_only_if_supported=False,
    hyperv_chunk="block",
    boot_reserved_bytes=111181824,
    boot_used_bytes=33600 << 10,
    debian_default_online={"x86_64": "online"},
    sources={
        "memmap_scope": "mm/memory_hotplug.c: create_altmaps_and_memory_blocks (v6.12)",
        "memmap_force": "mm/memory_hotplug.c: memory_block_memmap_on_memory_pages (v6.12)",
        "memmap_page_flags": "mm/memory_hotplug.c: mhp_init_memmap_on_memory (v6.12)",
        "nopage_flags": "fs/proc/page.c: stable_page_flags (v6.12)",
        "counts_memmap_pages": "mm/sparse-vmemmap.c: __populate_section_memmap (v6.12)",
        "offline_page_type": "mm/memory_hotplug.c: generic_online_page (v6.12)",
        "lowmem_includes_movable": "mm/page_alloc.c: __setup_per_zone_wmarks (v6.12)",
        "has_promo_watermark": "mm/vmstat.c: zoneinfo_show_print (v6.12)",
        "acpi_asks_only_if_supported": (
            "drivers/acpi/acpi_memhotplug.c: acpi_memory_enable_device (v6.12)"
        ),
        "hyperv_chunk": "drivers/hv/hv_balloon.c: ha_pages_in_chunk (v6.12)",
        "hyperv_foreign_pages": "drivers/hv/hv_balloon.c: hv_online_page (v6.12)",
        "has_auto_movable": "mm/memory_hotplug.c: auto_movable_zone_for_pfn (v6.12)",
        "debian_default_online": "CONFIG_MEMORY_HOTPLUG_DEFAULT_ONLINE in Debian's kernel package",
    },
)

#: Every release with a record, by name.
RELEASES: dict[str, Release] = {release.name: release for release in (_6_1, _6_12)}


def _version(name: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", name)
    if match is None:
        raise InputError(f"release {name!r}: need 'major.minor', such as '6.12'")
    return int(match[1]), int(match[2])


def release_for(name: str) -> Release:
    """Return the record of a release, or of the newest recorded one that is not newer.

    ``6.12.95+deb12-amd64`` is 6.12. A release between two records behaves like the older one,
    unless its own record says otherwise.

    Raises
    ------
    InputError
        If the text is no release, or is older than every record.
    """
    wanted = _version(name)
    older = [release for release in RELEASES.values() if _version(release.name) <= wanted]
    if not older:
        raise InputError(f"release {name!r}: the oldest release with a record is 6.1")
    return max(older, key=lambda release: _version(release.name))
