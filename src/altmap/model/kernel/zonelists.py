"""Zonelists: for each node, the order of the nodes that serve its allocations.

Source: ``mm/page_alloc.c: __build_all_zonelists, build_zonelists`` (6.1 to 7.3).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import Zone

__all__ = (
    "build_all_zonelists",
    "kernel_zonelist",
    "node_order",
    "node_orders",
    "zones_of_nodes",
)


def node_order(kernel: Kernel, node: int) -> list[int]:
    """Return the nodes that serve an allocation for a node: itself, then its fallback list.

    Lists are built at boot, before the masks of CPUs are; that of a node which comes later when
    it comes; all again when a zone gets its first memory or loses its last.
    Source: ``mm/page_alloc.c: __build_all_zonelists``; ``mm/memory_hotplug.c: hotadd_init_pgdat,
    online_pages, offline_pages``.
    """
    lists = kernel.node_zonelists
    if not lists:
        boot = [zone.node for zone in kernel.zones.values() if zone.node in kernel.boot_nodes]
        lists = node_orders([*boot, *kernel.boot_nodes], kernel.nodes_with_memory(), ())
        kernel.node_zonelists = lists
    if node not in lists:
        kernel.node_zonelists |= node_orders([node], kernel.nodes_with_memory(), kernel.cpu_nodes)
    return kernel.node_zonelists[node]


def build_all_zonelists(kernel: Kernel) -> None:
    """Build the lists of all nodes anew, from the nodes that have memory now."""
    with_memory = kernel.nodes_with_memory()
    nodes = {*kernel.boot_nodes, *kernel.node_zonelists, *with_memory}
    kernel.node_zonelists = node_orders(nodes, with_memory, kernel.cpu_nodes)


def kernel_zonelist(kernel: Kernel, node: int) -> Iterator[Zone]:
    """Yield the zones that serve GFP_KERNEL for a node, in order."""
    for each in node_order(kernel, node):
        yield from reversed(kernel.kernel_zones(each))


def zones_of_nodes(kernel: Kernel, nodes: Iterable[int], *, below_movable: bool) -> list[Zone]:
    """Return the zones of nodes, the highest of each node first; maybe without ZONE_MOVABLE."""
    zones_of = kernel.kernel_zones if below_movable else kernel.node_zones
    return [zone for node in nodes for zone in reversed(zones_of(node))]


def node_orders(
    nodes: Iterable[int], with_memory: Iterable[int], cpu_nodes: Collection[int]
) -> dict[int, list[int]]:
    """Return for each node the nodes that serve it, in order.

    All remote nodes are equally far. Nodes without a CPU come first, then those above the node,
    then those that fewer of the other nodes fall back to first.
    Source: ``mm/page_alloc.c: find_next_best_node, build_zonelists`` (6.1 to 7.3).
    """
    load = dict.fromkeys(with_memory, 0)
    orders: dict[int, list[int]] = {}
    for node in sorted(set(nodes)):
        order = [node] if node in load else []
        nr_local = len(order)
        while left := load.keys() - order:
            cost = {n: ((n < node) + (n in cpu_nodes), load[n], n) for n in left}
            best = min(left, key=cost.__getitem__)
            load[best] += len(order) == nr_local  # all but the first are as far as the one before
            order.append(best)
        orders[node] = order
    return orders
