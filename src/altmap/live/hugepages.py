"""Pools of huge pages: ``nr_hugepages`` of the machine and of each node, and what they hold.

Each write is a step ``hugepages`` of a node; the machine's number is shared by its nodes.
Source: ``mm/hugetlb.c: nr_hugepages_store_common, hugetlb_sysctl_handler_common``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from altmap.linux import node as node_folder
from altmap.live.attribute import Attribute
from altmap.live.machine import LiveMachine
from altmap.model.control_files import invalid
from altmap.model.kernel.hugetlb import hugepage_sizes_bytes, nr_huge
from altmap.model.kernel.pool import HugePool
from altmap.model.words import number, sysctl_number
from altmap.scenario import HugePages, Size
from altmap.trace import OK, Outcome

__all__ = ("hugepage_files",)

_ROOT = "sys/kernel/mm/hugepages"
_SYSCTL = "proc/sys/vm/nr_hugepages"


def hugepage_files(machine: LiveMachine) -> Mapping[str, Attribute]:
    """Return the files of each pool, those of nodes too."""
    kernel = machine.model.kernel
    made: dict[str, Attribute] = {}
    sizes = hugepage_sizes_bytes(kernel.arch)
    for size in sizes:
        name = f"hugepages-{size >> 10}kB"
        made |= _pool_files(machine, f"{_ROOT}/{name}", size, None)
        for node in kernel.online_nodes() if kernel.arch.has_nodes else ():
            folder = f"{node_folder.ROOT}/node{node}/hugepages/{name}"
            made |= _pool_files(machine, folder, size, node)
    made[_SYSCTL] = Attribute(
        lambda: b"%d\n" % _count(machine, sizes[0], None),
        partial(_store, machine, sizes[0], None, sysctl_number),
    )
    return made


def _pool_files(
    machine: LiveMachine, folder: str, size: int, node: int | None
) -> dict[str, Attribute]:
    return {
        f"{folder}/nr_hugepages": Attribute(
            lambda: b"%d\n" % _count(machine, size, node),
            partial(_store, machine, size, node, partial(number, base=10)),
        ),
        f"{folder}/free_hugepages": Attribute(lambda: b"%d\n" % _free(machine, size, node)),
        f"{folder}/surplus_hugepages": Attribute(lambda: b"%d\n" % _surplus(machine, size, node)),
    }


def _pool(machine: LiveMachine, size: int) -> HugePool:
    kernel = machine.model.kernel
    nr_pages = size // kernel.arch.page_size_bytes
    return kernel.hugetlb.get(nr_pages) or HugePool(nr_pages)


def _count(machine: LiveMachine, size: int, node: int | None) -> int:
    pool = _pool(machine, size)
    return nr_huge(machine.model.kernel, pool, pool.pages, node)


def _free(machine: LiveMachine, size: int, node: int | None) -> int:
    pool = _pool(machine, size)
    return nr_huge(machine.model.kernel, pool, pool.free_pages, node)


def _surplus(machine: LiveMachine, size: int, node: int | None) -> int:
    surplus = _pool(machine, size).surplus
    return sum(surplus.values()) if node is None else surplus.get(node, 0)


def _store(
    machine: LiveMachine,
    size: int,
    node: int | None,
    number_of: Callable[[str], int | None],
    text: str,
) -> Outcome:
    """Grow or shrink a pool; the kernel gets as far as it can, and the write succeeds."""
    wanted = number_of(text)
    if wanted is None:
        return invalid("nr_hugepages_store_common", text, "a number")
    nodes = [node] if node is not None else _nodes_with_memory(machine)
    counts = {each: _count(machine, size, each) for each in nodes}
    for each, share in _shares(counts, wanted).items():
        _resize(machine, size, each, share)
    return OK


def _nodes_with_memory(machine: LiveMachine) -> list[int]:
    zones = machine.model.kernel.zones.values()
    return sorted({zone.node for zone in zones if zone.present})


def _shares(counts: Mapping[int, int], wanted: int) -> dict[int, int]:
    """Return how many pages each node is to have: what is added or taken goes round the nodes."""
    shares = dict(counts)
    change = wanted - sum(counts.values())
    left = abs(change)
    while left:
        takes_part = [node for node in shares if change > 0 or shares[node]]
        each, rest = divmod(left, len(takes_part))
        for index, node in enumerate(takes_part):
            part = each + (index < rest)
            part = part if change > 0 else min(part, shares[node])
            shares[node] += part if change > 0 else -part
            left -= part
    return shares


def _resize(machine: LiveMachine, size: int, node: int, wanted: int) -> None:
    if wanted != _count(machine, size, node):
        number = _bounded(machine, wanted, size)
        machine.perform(HugePages(nr_hugepages=number, page_size=Size(size), node=node))


def _bounded(machine: LiveMachine, nr_wanted: int, size: int) -> int:
    """Return no more pages than the machine could ever hold, as sizes have a limit."""
    kernel = machine.model.kernel
    return min(nr_wanted, kernel.max_pfn * kernel.arch.page_size_bytes // size + 1)
