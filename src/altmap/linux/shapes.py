"""The shapes of Linux's files: which lines each release writes, with every number zero.

Names and their order were read from Debian's kernels; ``linux/shapes.json`` holds them.

Effects: files.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import msgspec

from altmap.linux.observation import MemoryFolder, NodeFolder, Observation, ZoneInfo
from altmap.linux.pagewords import PageWords

__all__ = ("blank_observation",)


class _Shape(msgspec.Struct, forbid_unknown_fields=True):
    meminfo: list[str]
    vmstat: list[str]
    zone_pages: list[str]
    zone_stats: list[str]
    pageset: list[str]
    zone_tail: list[str]
    node_stats: list[str]
    node_lists: list[str]
    node_meminfo: list[str]
    parameters: list[str]


@cache
def _shapes() -> dict[str, _Shape]:
    data = files("altmap.linux").joinpath("shapes.json").read_bytes()
    return msgspec.json.decode(data, type=dict[str, _Shape])


def blank_observation(
    release: str,
    zones: list[str],
    nodes: list[int],
    possible: list[int],
    cpus: int,
    block_size_bytes: int,
) -> Observation:
    """Return a look at a machine of that release on which everything is zero.

    Zones carry the lines of populated ones, so that every name is there to be filled in.

    Parameters
    ----------
    release : str
        A release with a recorded shape: ``6.1``, ``6.12``, ``7.3``.
    zones : list of str
        The zones of each node, lowest first.
    nodes, possible : list of int
        Nodes that are online, and those that may be.
    cpus : int
    block_size_bytes : int
    """
    shape = _shapes()[release]
    protection = (0,) * len(zones)
    pagesets = tuple(dict.fromkeys(shape.pageset, 0) | {"cpu": cpu} for cpu in range(cpus))
    return Observation(
        version=f"Linux version {release}.0-altmap-amd64",
        cmdline="",
        meminfo=dict.fromkeys(shape.meminfo, 0),
        vmstat=dict.fromkeys(shape.vmstat, 0),
        zoneinfo=tuple(
            ZoneInfo(
                node,
                zone,
                dict.fromkeys(shape.zone_pages, 0),
                protection,
                dict.fromkeys(shape.zone_stats, 0),
                pagesets,
                dict.fromkeys(shape.zone_tail, 0),
                dict.fromkeys(shape.node_stats, 0),
            )
            for node in nodes
            for zone in zones
        ),
        buddyinfo={},
        iomem=(),
        kpageflags=PageWords(),
        memory=MemoryFolder(block_size_bytes, "offline", {}),
        nodes=NodeFolder(
            {name: tuple(nodes) for name in shape.node_lists}
            | {"has_generic_initiator": (), "possible": tuple(possible), "has_cpu": (0,)},
            {node: dict.fromkeys(shape.node_meminfo, 0) for node in nodes},
        ),
        parameters=dict.fromkeys(shape.parameters, ""),
    )
