"""Processors and distances of nodes, which tools of NUMA read before they show memory.

A scenario has a number of processors. They are on the nodes that have any, in equal parts.
"""

from __future__ import annotations

from collections.abc import Mapping

from altmap.linux import node as node_folder
from altmap.live.attribute import Attribute
from altmap.live.machine import LiveMachine

__all__ = ("processor_files",)

_CPU = "sys/devices/system/cpu"
#: ``include/linux/topology.h: LOCAL_DISTANCE, REMOTE_DISTANCE``.
_LOCAL, _REMOTE = 10, 20
_WORD_BITS = 32
#: ``drivers/base/node.c: node_read_numastat``; counts of allocations, which are not modelled.
_NUMASTAT = (
    *("numa_hit", "numa_miss", "numa_foreign", "interleave_hit", "local_node", "other_node"),
)


def processor_files(machine: LiveMachine) -> Mapping[str, Attribute]:
    """Return the lists of processors; captured files of the same names win."""
    kernel = machine.model.kernel
    cpus = range(machine.scenario.machine.cpus or 1)
    texts = {f"{_CPU}/{name}": _listed(cpus) for name in ("online", "possible", "present")}
    nodes = sorted(kernel.online_nodes()) if kernel.arch.has_nodes else []
    parts = _parts(cpus, sorted(kernel.cpu_nodes))
    for node in nodes:
        mine = parts.get(node, range(0))
        folder = f"{node_folder.ROOT}/node{node}"
        texts[f"{folder}/cpulist"] = _listed(mine)
        texts[f"{folder}/cpumap"] = _mask(mine, len(cpus))
        distances = (_LOCAL if other == node else _REMOTE for other in nodes)
        texts[f"{folder}/numastat"] = "".join(f"{name} 0\n" for name in _NUMASTAT)
        texts[f"{folder}/distance"] = " ".join(map(str, distances)) + "\n"
    return {path: Attribute(text.encode) for path, text in texts.items()}


def _parts(cpus: range, nodes: list[int]) -> dict[int, range]:
    each, rest = divmod(len(cpus), max(1, len(nodes)))
    parts, start = {}, 0
    for index, node in enumerate(nodes):
        end = start + each + (index < rest)
        parts[node], start = range(start, end), end
    return parts


def _listed(cpus: range) -> str:
    return node_folder.render_list(cpus)


def _mask(cpus: range, nr_cpus: int) -> str:
    """Return a bitmap as the kernel prints it: hex words of 32 bits, the highest first."""
    bits = sum(1 << cpu for cpu in cpus)
    nr_words = -(-nr_cpus // _WORD_BITS)
    words = [bits >> _WORD_BITS * n & 0xFFFFFFFF for n in reversed(range(nr_words))]
    first = f"{words[0]:0{-(-min(nr_cpus - _WORD_BITS * (nr_words - 1), _WORD_BITS) // 4)}x}"
    return ",".join([first, *(f"{word:08x}" for word in words[1:])]) + "\n"
