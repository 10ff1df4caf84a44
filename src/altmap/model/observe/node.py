"""``/sys/devices/system/node`` as the modelled kernel shows it: lists, meminfo, huge pages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from altmap.linux.observation import NodeFolder
from altmap.model.kernel.hugetlb import nr_huge
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import MOVABLE
from altmap.model.observe.meminfo import hugetlb_numbers
from altmap.model.observe.numbers import gained, kib, total

__all__ = ("node_numbers", "nodes_shown")


def nodes_shown(
    base: NodeFolder | None,
    kernel: Kernel,
    start: Mapping[int, Mapping[str, int]],
    now: Mapping[int, Mapping[str, int]],
) -> NodeFolder | None:
    """Return the folder with the lists of nodes as they are now, and what each node gained."""
    if base is None:
        return None
    lists = {
        name: tuple(sorted(members))
        for name, members in _members(kernel).items()
        if name in base.lists
    }
    names = next(iter(base.meminfo.values()), {})
    meminfo, huge_pages = {}, {}
    for node in sorted(kernel.online_nodes()) if base.meminfo else ():
        gains = gained(start.get(node, {}), now[node])
        before = base.meminfo.get(node) or dict.fromkeys(names, 0)
        meminfo[node] = {name: value + gains.get(name, 0) for name, value in before.items()}
    files = next(iter(base.huge_pages.values()), {})
    for node in sorted(kernel.online_nodes()) if files else ():
        gains = gained(start.get(node, {}), now[node])
        had = base.huge_pages.get(node) or dict.fromkeys(files, 0)
        huge_pages[node] = {name: value + gains.get(name, 0) for name, value in had.items()}
    return replace(base, lists=dict(base.lists) | lists, meminfo=meminfo, huge_pages=huge_pages)


def _members(kernel: Kernel) -> dict[str, set[int] | frozenset[int]]:
    """Return the nodes of each list that changes with memory (``node_states``)."""
    populated = [zone for zone in kernel.zones.values() if zone.present]
    normal = {zone.node for zone in populated if zone.name != MOVABLE}
    if not kernel.release.updates_normal_memory:
        normal = {node for node, pages in kernel.boot_node_pages.items() if pages}
    return {
        "online": kernel.online_nodes(),
        "has_memory": {zone.node for zone in populated},
        "has_normal_memory": normal,
    }


def node_numbers(
    kernel: Kernel, zones: Mapping[tuple[int, str], Mapping[str, int]], node: int
) -> dict[str, int]:
    """Return the kernel's own lines of a node's meminfo; *zones* are all zones' pages."""
    mine = [pages for (owner, _), pages in zones.items() if owner == node]
    managed, free = total(mine, "managed"), total(mine, "free")
    return {
        "MemTotal": kib(kernel, managed),
        "MemFree": kib(kernel, free),
        "MemUsed": kib(kernel, managed - free),
        **hugetlb_numbers(kernel, node),
        **_pool_numbers(kernel, node),
    }


def _pool_numbers(kernel: Kernel, node: int) -> dict[str, int]:
    """Return the node's files below ``hugepages`` (``mm/hugetlb.c: per_node_hstate_attrs``)."""
    numbers = {}
    for pool in kernel.pools():
        folder = f"hugepages-{kib(kernel, pool.nr_pages)}kB"
        numbers[f"{folder}/nr_hugepages"] = nr_huge(kernel, pool, pool.pages, node)
        numbers[f"{folder}/free_hugepages"] = nr_huge(kernel, pool, pool.free_pages, node)
        numbers[f"{folder}/surplus_hugepages"] = pool.surplus.get(node, 0)
    return numbers
