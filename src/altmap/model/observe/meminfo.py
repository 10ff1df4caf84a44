"""``/proc/meminfo`` as the modelled kernel shows it."""

from __future__ import annotations

from collections.abc import Mapping

from altmap.model.kernel.hugetlb import nr_huge
from altmap.model.kernel.pagetables import direct_map_leaves
from altmap.model.kernel.pool import HugePool
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.watermarks import totalreserve_nr_pages
from altmap.model.observe.numbers import gained, kib, total

__all__ = ("hugetlb_numbers", "meminfo_numbers", "meminfo_shown")

#: The line that an accounting may add.
_COUNTER = "PageMetadata"


def meminfo_shown(
    base: dict[str, int] | None, kernel: Kernel, start: Mapping[str, int], now: Mapping[str, int]
) -> dict[str, int] | None:
    """Return the base's lines with what was gained, in KiB; no number falls below 0."""
    if base is None:
        return None
    gains = gained(start, now)
    gains["CommitLimit"] = _commit_limit_gain_kib(base, gains, kib(kernel, 1))
    shown = {name: max(0, value + gains.get(name, 0)) for name, value in base.items()}
    if kernel.policy.accounting.meminfo_line:
        shown[_COUNTER] = kib(kernel, max(0, kernel.memmap_nr_pages()))
    return shown


def _commit_limit_gain_kib(base: Mapping[str, int], gains: Mapping[str, int], page_kib: int) -> int:
    """Return what the commit limit gains: half of all pages but huge ones, whole pages.

    Source: ``mm/util.c: vm_commit_limit``, with the default ``overcommit_ratio``.
    """
    before = (base.get("MemTotal", 0) - base.get("Hugetlb", 0)) // page_kib
    gain = (gains["MemTotal"] - gains["Hugetlb"]) // page_kib
    return page_kib * ((before + gain) // 2 - before // 2)


def meminfo_numbers(
    kernel: Kernel, zones: Mapping[tuple[int, str], Mapping[str, int]]
) -> dict[str, int]:
    """Return the kernel's own lines; *zones* are its zones' pages."""
    managed, free = total(zones.values(), "managed"), total(zones.values(), "free")
    in_files = sum(len(pages) for pages in kernel.files.values())
    return {
        "MemTotal": kib(kernel, managed),
        "MemFree": kib(kernel, free),
        "MemAvailable": kib(kernel, free - totalreserve_nr_pages(kernel)),
        "HardwareCorrupted": kib(kernel, kernel.nr_poisoned()),
        "Shmem": kib(kernel, in_files),
        "Cached": kib(kernel, in_files),
        "Balloon": kib(kernel, len(kernel.ballooned)),
        **hugetlb_numbers(kernel, None),
        **_direct_map_kib(kernel),
    }


def hugetlb_numbers(kernel: Kernel, node: int | None) -> dict[str, int]:
    """Return the lines on huge pages, of one node or of all.

    Pages are counted of the default size only, KiB of every size.
    Source: ``mm/hugetlb.c: hugetlb_report_meminfo, hugetlb_report_node_meminfo``.
    """
    nr_pages = kernel.arch.pmd_size_bytes // kernel.arch.page_size_bytes
    pool = kernel.hugetlb.get(nr_pages) or HugePool(nr_pages)
    surplus = pool.surplus.values() if node is None else [pool.surplus.get(node, 0)]
    return {
        "HugePages_Total": nr_huge(kernel, pool, pool.pages, node),
        "HugePages_Free": nr_huge(kernel, pool, pool.free_pages, node),
        "HugePages_Surp": sum(surplus),
        "Hugetlb": kib(kernel, sum(len(each.pages) for each in kernel.hugetlb.values())),
    }


def _direct_map_kib(kernel: Kernel) -> dict[str, int]:
    """Return the DirectMap lines, boot memory counted as leaves of the usual size."""
    if not kernel.arch.shows_direct_map:
        return {}
    if kernel.arch.direct_map == "lmb":
        mapped = len(kernel.boot_ram) + sum(len(add.pfns) for add in kernel.additions)
        return {"DirectMap2M": kib(kernel, mapped)}
    large_kib, total_kib = 0, kib(kernel, len(kernel.boot_ram))
    for addition in kernel.additions + kernel.failed_additions:
        _, large = direct_map_leaves(kernel, addition)
        large_kib += len(large) << 20
        total_kib += kib(kernel, len(addition.pfns))
    small = "DirectMap2M" if kernel.tunables.direct_map_2m else "DirectMap4k"
    return {small: total_kib - large_kib, "DirectMap1G": large_kib}
