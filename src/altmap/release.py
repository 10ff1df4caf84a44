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
    self_hosting : tuple of str
        Architectures that select ARCH_MHP_MEMMAP_ON_MEMORY_ENABLE, by ``uname -m``.
    refuses_unsupported_memmap : bool
        A driver that asks for a self-hosted memmap where it is not supported gets EINVAL; else the
        memmap silently comes from existing memory.
    memmap_force : bool
        ``memmap_on_memory=force`` pads a memmap to whole pageblocks.
    memmap_page_flags : int
        ``/proc/kpageflags`` of a self-hosted memmap page in an online block.
    nopage_flags : int
        ``/proc/kpageflags`` of a pfn without an online memmap.
    lowmem_includes_movable : bool
        ZONE_MOVABLE takes its share of ``min_free_kbytes`` like a kernel zone.
    acpi_asks_only_if_supported : bool
        The ACPI driver passes MHP_MEMMAP_ON_MEMORY only for a size that supports it; else always.
    dlpar_asks : bool
        ppc64 DLPAR passes MHP_MEMMAP_ON_MEMORY for each logical memory block.
    hyperv_chunk : str
        Unit of Hyper-V's hot-add: ``128MiB`` or ``block``.
    hyperv_foreign_pages : str
        What hv_balloon's callback does with a page of no region: ``dropped`` or ``generic``.
    hyperv_onlines_offline_tail : bool
        hv_balloon brings late pages online although their block is offline, its memmap unwritten.
    frees_altmap_of_failed_add : bool
        An add that cannot create its memory blocks forgets where its memmap lies, and frees it.
    uncounts_failed_memmap : bool
        ``nr_memmap_pages`` loses a section's memmap that could not be had.
    has_auto_movable : bool
        ``memory_hotplug.online_policy=auto-movable`` and memory groups.
    shape : str
        The release whose files' shape stands for this one's when a machine is booted on paper.
    confirmed : bool
        Predictions were compared with a real kernel of this release. Else the record rests on the
        kernel's history alone.
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
    shape: str
    self_hosting: tuple[str, ...] = ()
    confirmed: bool = True
    refuses_unsupported_memmap: bool = False
    nopage_flags: int = _NOPAGE
    lowmem_includes_movable: bool = True
    acpi_asks_only_if_supported: bool = True
    dlpar_asks: bool = False
    hyperv_chunk: str = "128MiB"
    hyperv_foreign_pages: str = "dropped"
    hyperv_onlines_offline_tail: bool = False
    frees_altmap_of_failed_add: bool = False
    uncounts_failed_memmap: bool = False
    has_auto_movable: bool = True
    boot_reserved_bytes: int = 118394880
    boot_used_bytes: int = 38240 << 10
    debian_default_online: dict[str, str] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)


_6_1 = Release(
    name="6.1",
    memmap_scope="one_block",
    memmap_force=False,
    self_hosting=("x86_64", "aarch64"),
    refuses_unsupported_memmap=True,
    memmap_page_flags=_RESERVED | _OWNER_PRIVATE,
    shape="6.1",
    debian_default_online={"x86_64": "offline"},
    sources={
        "memmap_scope": "mm/memory_hotplug.c: mhp_supports_memmap_on_memory (v6.1)",
        "self_hosting": "arch/*/Kconfig (v6.1)",
        "refuses_unsupported_memmap": "mm/memory_hotplug.c: add_memory_resource (v6.1)",
        "memmap_force": "mm/memory_hotplug.c: memmap_on_memory is a bool (v6.1)",
        "memmap_page_flags": "mm/memory_hotplug.c: mhp_init_memmap_on_memory (v6.1)",
        "nopage_flags": "fs/proc/page.c: stable_page_flags (v6.1)",
        "lowmem_includes_movable": "mm/page_alloc.c: __setup_per_zone_wmarks (v6.1)",
        "acpi_asks_only_if_supported": (
            "drivers/acpi/acpi_memhotplug.c: acpi_memory_enable_device (v6.1)"
        ),
        "dlpar_asks": "arch/powerpc/platforms/pseries/hotplug-memory.c: dlpar_add_lmb (v6.1)",
        "hyperv_chunk": "drivers/hv/hv_balloon.c: HA_CHUNK (v6.1)",
        "hyperv_foreign_pages": "drivers/hv/hv_balloon.c: hv_online_page (v6.1)",
        "hyperv_onlines_offline_tail": "drivers/hv/hv_balloon.c: handle_pg_range (v6.1)",
        "frees_altmap_of_failed_add": "mm/memory_hotplug.c: add_memory_resource (v6.1.192)",
        "uncounts_failed_memmap": "no such counter (v6.1)",
        "has_auto_movable": "mm/memory_hotplug.c: auto_movable_zone_for_pfn (v6.1)",
        "debian_default_online": "CONFIG_MEMORY_HOTPLUG_DEFAULT_ONLINE in Debian's kernel package",
    },
)
_6_12 = replace(
    _6_1,
    name="6.12",
    memmap_scope="per_block",
    self_hosting=("x86_64", "aarch64", "ppc64le", "s390x", "riscv64"),
    refuses_unsupported_memmap=False,
    memmap_force=True,
    memmap_page_flags=_OWNER_PRIVATE,
    shape="6.12",
    lowmem_includes_movable=False,
    acpi_asks_only_if_supported=False,
    dlpar_asks=True,
    hyperv_chunk="block",
    boot_reserved_bytes=111181824,
    boot_used_bytes=33600 << 10,
    debian_default_online={"x86_64": "online", "aarch64": "online"},
    sources={
        "memmap_scope": "mm/memory_hotplug.c: create_altmaps_and_memory_blocks (v6.12)",
        "self_hosting": "arch/*/Kconfig (v6.12)",
        "refuses_unsupported_memmap": "mm/memory_hotplug.c: add_memory_resource (v6.12)",
        "memmap_force": "mm/memory_hotplug.c: memory_block_memmap_on_memory_pages (v6.12)",
        "memmap_page_flags": "mm/memory_hotplug.c: mhp_init_memmap_on_memory (v6.12)",
        "nopage_flags": "fs/proc/page.c: stable_page_flags (v6.12)",
        "lowmem_includes_movable": "mm/page_alloc.c: __setup_per_zone_wmarks (v6.12)",
        "acpi_asks_only_if_supported": (
            "drivers/acpi/acpi_memhotplug.c: acpi_memory_enable_device (v6.12)"
        ),
        "dlpar_asks": "arch/powerpc/platforms/pseries/hotplug-memory.c: dlpar_add_lmb (v6.12)",
        "hyperv_chunk": "drivers/hv/hv_balloon.c: ha_pages_in_chunk (v6.12)",
        "hyperv_foreign_pages": "drivers/hv/hv_balloon.c: hv_online_page (v6.12)",
        "hyperv_onlines_offline_tail": "drivers/hv/hv_balloon.c: handle_pg_range (v6.12)",
        "frees_altmap_of_failed_add": (
            "mm/memory_hotplug.c: create_altmaps_and_memory_blocks (v6.12.117)"
        ),
        "uncounts_failed_memmap": "mm/sparse-vmemmap.c: populate_section_memmap (v6.12.117)",
        "has_auto_movable": "mm/memory_hotplug.c: auto_movable_zone_for_pfn (v6.12)",
        "debian_default_online": (
            "CONFIG_MEMORY_HOTPLUG_DEFAULT_ONLINE or, once backported, "
            "CONFIG_MHP_DEFAULT_ONLINE_TYPE_ONLINE_AUTO in Debian's kernel package"
        ),
    },
)

_4_20 = replace(
    _6_1,
    name="4.20",
    memmap_scope="none",
    self_hosting=(),
    refuses_unsupported_memmap=False,
    memmap_page_flags=0,
    confirmed=False,
    has_auto_movable=False,
    hyperv_onlines_offline_tail=True,
    sources={
        **_6_1.sources,
        "memmap_scope": "the feature came with v5.13: a08a2ae34613",
        "hyperv_onlines_offline_tail": '"hv_balloon: avoid touching uninitialized struct page '
        'during tail onlining", after v4.20',
    },
)
_5_13 = replace(
    _6_1,
    name="5.13",
    memmap_page_flags=_RESERVED,
    confirmed=False,
    has_auto_movable=False,
    frees_altmap_of_failed_add=True,
    sources={
        **_6_1.sources,
        "frees_altmap_of_failed_add": '"fix error handling in add_memory_resource()", after v6.6',
        "memmap_scope": "a08a2ae34613 (v5.13)",
        "memmap_page_flags": "PageVmemmapSelfHosted came with v6.0: 66361095129b",
        "has_auto_movable": "memory groups came with v5.15",
    },
)
_5_15 = replace(_5_13, name="5.15", has_auto_movable=True)
_6_6 = replace(
    _6_1,
    name="6.6",
    dlpar_asks=True,
    self_hosting=("x86_64", "aarch64", "ppc64le"),
    refuses_unsupported_memmap=False,
    memmap_force=True,
    acpi_asks_only_if_supported=False,
    lowmem_includes_movable=False,
    confirmed=False,
    frees_altmap_of_failed_add=True,
    debian_default_online={"x86_64": "online"},
    sources={
        **_6_1.sources,
        "self_hosting": "603fd64dfa45 (v6.6)",
        "dlpar_asks": "603fd64dfa45 (v6.6)",
        "frees_altmap_of_failed_add": '"fix error handling in add_memory_resource()", after v6.6',
        "refuses_unsupported_memmap": "e3c2bfdd33a3 (v6.6)",
        "memmap_force": "2d1f649c7c08 (v6.6)",
        "acpi_asks_only_if_supported": "e3c2bfdd33a3 (v6.6)",
        "lowmem_includes_movable": '"cap zone movable\'s min wmark", between v6.1 and v6.12',
        "debian_default_online": "changelog of Debian's kernel package, 6.5",
    },
)
_6_8 = replace(
    _6_6,
    name="6.8",
    memmap_scope="per_block",
    self_hosting=("x86_64", "aarch64", "ppc64le", "s390x"),
    sources={
        **_6_6.sources,
        "memmap_scope": "6b8f0798b85a (v6.8)",
        "self_hosting": "c5f1e2d18909 (v6.8)",
        "frees_altmap_of_failed_add": '"fix incorrect altmap passing in error path", of 2026',
    },
)
_6_18 = replace(
    _6_12,
    name="6.18",
    confirmed=False,
    frees_altmap_of_failed_add=True,
    uncounts_failed_memmap=True,
    sources={
        **_6_12.sources,
        "frees_altmap_of_failed_add": '"fix incorrect altmap passing in error path", of 2026',
        "uncounts_failed_memmap": '"fix accounting of memmap pages" of 2025, c3576889d87b; '
        '"fix vmemmap accounting underflow" of 2026',
    },
)
_7_3 = replace(
    _6_12,
    name="7.3",
    nopage_flags=0,
    hyperv_foreign_pages="generic",
    shape="7.3",
    boot_reserved_bytes=117882880,
    boot_used_bytes=37740 << 10,
    sources={
        **_6_12.sources,
        "nopage_flags": "fs/proc/page.c: stable_page_flags (v7.3)",
        "hyperv_foreign_pages": "drivers/hv/hv_balloon.c: hv_online_page (v7.3)",
    },
)

#: Every release with a record, by name, oldest first.
RELEASES: dict[str, Release] = {
    release.name: release for release in (_4_20, _5_13, _5_15, _6_1, _6_6, _6_8, _6_12, _6_18, _7_3)
}


def _version(name: str) -> tuple[int, int]:
    match = re.match(r"([0-9]{1,4})\.([0-9]{1,4})(?![0-9])", name)
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
        raise InputError(f"release {name!r}: the oldest release with a record is 4.20")
    return max(older, key=lambda release: _version(release.name))
