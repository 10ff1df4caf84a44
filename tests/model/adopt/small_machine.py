"""The files of a small x86_64 machine, written by hand: 512 MiB that booted and a DIMM at 4 GiB.

Pages of the DIMM's block 32: the first 512 hold its memmap, all others are free. Of the boot
memory, 256 pages are reserved, 0x18000 to 0x1c000 are movable, and 0x1c000 to 0x20000 the kernel's.
"""

from dataclasses import replace

from altmap.linux.kpageflags import PageFlag as F
from altmap.linux.observation import (
    Block,
    MemoryFolder,
    NodeFolder,
    Observation,
    Resource,
    ZoneInfo,
)
from altmap.linux.pagewords import PageWords
from altmap.scenario import Address, Device, Size

MIB, GIB = 1 << 20, 1 << 30
BLOCK = 128 * MIB
FIRST = 4 * GIB >> 12  # the DIMM's first page frame
DIMM = Device(id="d", address=Address(4 * GIB), size=Size(BLOCK))

RUNS = [
    (0, 1, F.RESERVED),
    (1, 0x9E, F.BUDDY),
    (0x9F, 0x61, F.RESERVED),
    (0x100, 0x100, F.RESERVED),
    (0x200, 0x17E00, F.BUDDY),
    (0x18000, 0x4000, F.LRU | F.UPTODATE),
    (0x1C000, 0x4000, F.SLAB),
    (0x20000, FIRST - 0x20000, F.NOPAGE),
    (FIRST, 512, F.OWNER_PRIVATE),
    (FIRST + 512, 32768 - 512, F.BUDDY),
]
RAM = [(0x1000, 0x9FC00), (0x100000, 512 * MIB), (4 * GIB, 4 * GIB + BLOCK)]


def zone(name, start, spanned, present, managed, free, **more):
    pages = {"min": 0, "low": 0, "high": 0, "promo": 0}
    pages |= {"spanned": spanned, "present": present, "managed": managed, "free": free}
    tail = {"start_pfn": start} if present else {}
    return ZoneInfo(0, name, pages, (0,) * 5, tail=tail, **more)


ZONES = (
    zone("DMA", 1, 4095, 3998, 3742, 3742),
    zone("DMA32", 4096, 126976, 126976, 126976, 94208),
    zone("Normal", 0, 0, 0, 0, 0),
    zone("Movable", FIRST, 32768, 32768, 32256, 32256),
    zone("Device", 0, 0, 0, 0, 0),
)
BLOCKS = {id_: Block("online", valid_zones=("none",), nodes=(0,)) for id_ in range(1)}
BLOCKS |= {id_: Block("online", valid_zones=("DMA32",), nodes=(0,)) for id_ in range(1, 4)}
BLOCKS |= {32: Block("online", valid_zones=("Movable",), nodes=(0,))}
NODES = NodeFolder({"online": (0,), "possible": (0,), "has_cpu": (0,)}, {})


def files(runs=RUNS, ram=RAM, blocks=BLOCKS, **changes):
    """Return the machine's files, with changes."""
    made = Observation(
        version="Linux version 6.12.95+deb13-amd64",
        machine="x86_64",
        cmdline="",
        meminfo={"MemTotal": (3742 + 126976 + 32256) * 4, "DirectMap2M": 0, "DirectMap1G": 0},
        zoneinfo=ZONES,
        iomem=tuple(Resource(0, start, end, "System RAM") for start, end in ram),
        kpageflags=PageWords.of((start, nr, int(flags)) for start, nr, flags in runs),
        memory=MemoryFolder(BLOCK, "offline", dict(blocks)),
        nodes=NODES,
        parameters={"memmap_on_memory": "Y"},
    )
    return replace(made, **changes)


def with_runs(*changed):
    """Return the runs of page flags with others in place of some, each within one run."""
    runs = list(RUNS)
    for start, nr_pages, flags in changed:
        at = next(i for i, (s, nr, _) in enumerate(runs) if s <= start < s + nr)
        first, nr, before = runs[at]
        pieces = [(first, start - first, before), (start, nr_pages, flags)]
        pieces.append((start + nr_pages, first + nr - start - nr_pages, before))
        runs[at : at + 1] = [piece for piece in pieces if piece[1]]
    return runs
