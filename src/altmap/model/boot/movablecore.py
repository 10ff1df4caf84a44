"""Boot memory in ZONE_MOVABLE: ``kernelcore=`` and ``movablecore=``.

Source: ``mm/mm_init.c: find_zone_movable_pfns_for_nodes, find_usable_zone_for_movable``.
"""

from __future__ import annotations

from collections.abc import Mapping

from altmap.model.arch import Arch
from altmap.model.boot.parameters import boot_words, core_nr_pages
from altmap.pfn import PfnSet
from altmap.scenario import Machine

__all__ = ("movable_starts",)


def movable_starts(machine: Machine, arch: Arch, nodes: Mapping[int, PfnSet]) -> dict[int, int]:
    """Return where ZONE_MOVABLE starts at boot, by node; nodes without it are left out.

    What kernel zones keep is spread over the nodes. ZONE_MOVABLE is cut from the highest zone with
    memory only: a machine with memory above 4 GiB has none below. With ``movable_node`` the kernel
    ignores both words.
    """
    with_memory = {node: pages for node, pages in nodes.items() if pages}
    required = 0 if machine.movable_node else _kernel_nr_pages(machine, arch, with_memory)
    if not required:
        return {}
    chunk = 1 << arch.max_page_order
    found = {}
    for node, start in _spread(required, _lowest_pfn(arch, with_memory), with_memory).items():
        start = -(-start // chunk) * chunk
        if start <= with_memory[node].max():
            found[node] = start
    return found


def _kernel_nr_pages(machine: Machine, arch: Arch, nodes: Mapping[int, PfnSet]) -> int:
    """Return what kernel zones keep, 0 if no memory is left for ZONE_MOVABLE."""
    words, total = boot_words(machine.cmdline or ""), sum(map(len, nodes.values()))
    page = arch.page_size_bytes
    kernel = core_nr_pages(words, "kernelcore", page, total)
    movable = core_nr_pages(words, "movablecore", page, total)
    if movable:
        chunk = 1 << arch.max_page_order
        kernel = max(kernel, total - min(total, -(-movable // chunk) * chunk))
    return kernel if kernel < total else 0


def _lowest_pfn(arch: Arch, nodes: Mapping[int, PfnSet]) -> int:
    """Return the start of the highest zone that has memory."""
    end = max(pages.max() + 1 for pages in nodes.values())
    ends = [address // arch.page_size_bytes for _, address in arch.kernel_zones if address]
    return max((pfn for pfn in ends if pfn < end), default=0)


def _spread(required: int, lowest_pfn: int, nodes: Mapping[int, PfnSet]) -> dict[int, int]:
    """Return where each node's share of the kernel's pages ends."""
    starts = dict.fromkeys(nodes, 0)
    usable = len(nodes)
    while True:
        of_node = required // usable
        for node, pages in nodes.items():
            if required < of_node:
                of_node = required // usable
            left = of_node
            for run in pages.ranges():
                start = max(run.start, starts[node])
                if start >= run.end:
                    continue
                if start < lowest_pfn:
                    low = min(run.end, lowest_pfn) - start
                    left, required = left - min(low, left), required - min(low, required)
                    if run.end <= lowest_pfn:
                        starts[node] = run.end
                        continue
                    start = lowest_pfn
                taken = min(run.end - start, left)
                starts[node] = start + taken
                required, left = required - min(required, taken), left - taken
                if not left:
                    break
        usable -= 1
        if not usable or required <= usable:
            return starts
