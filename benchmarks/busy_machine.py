"""The files of a machine in use, of any size: every second page is of another kind.

    python benchmarks/busy_machine.py FOLDER SIZE_BYTES [BLOCK_BYTES]

Zones, counters and memory blocks are those of a modelled machine that booted with so much memory
and got a DIMM of four blocks. The words of each page frame come from a block of random ones that is
written again and again, so that the largest machine takes no longer than its files take to write.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from altmap.linux.kpageflags import PageFlag as F
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange
from altmap.scenario import Address, Machine, Plug, Size

PAGE_BYTES, GIB = 4096, 1 << 30
#: Pages of the random block.
NR_PAGES = 1 << 20
#: Flags, and how often, in percent, of memory for everything and of movable memory.
_KINDS: tuple[tuple[int, int, int], ...] = (
    (F.BUDDY, 34, 40),
    (F.REFERENCED | F.UPTODATE | F.LRU | F.ACTIVE, 14, 20),
    (F.UPTODATE | F.LRU | F.MMAP, 8, 10),
    (F.UPTODATE | F.LRU | F.ACTIVE | F.MMAP | F.ANON | F.SWAPBACKED, 16, 20),
    (F.UPTODATE | F.DIRTY | F.LRU, 4, 5),
    (F.UPTODATE | F.LRU | F.MMAP | F.ANON | F.SWAPBACKED, 5, 5),
    (F.SLAB, 9, 0),
    (F.MMAP | F.PGTABLE, 4, 0),
    (0, 6, 0),
)
NR_CGROUPS = 40


def block_bytes(size_bytes: int) -> int:
    """Return the size of memory blocks on x86_64: 2 GiB from 64 GiB on."""
    return 2 * GIB if size_bytes >= 64 * GIB else 128 << 20


def booted(size_bytes: int, block: int) -> tuple[Observation, PfnRange]:
    """Return what an idle machine of that size shows, and where its DIMM is."""
    machine = Machine(
        memory=Size(size_bytes),
        memmap_on_memory="on",
        auto_online_blocks="online_movable",
        block_size=Size(block),
    )
    model = ModelMachine.start(machine)
    before = model.kernel.added_blocks.copy()
    address = Address(-(-(size_bytes + 4 * GIB) // block) * block)
    record = model.perform(Plug(size=Size(4 * block), id="dimm0", address=address))
    if not record.outcome:
        raise SystemExit(f"no DIMM: {record.outcome}")
    new = list(model.kernel.added_blocks - before)
    nr_pages = block // PAGE_BYTES
    return model.observe(), PfnRange(new[0] * nr_pages, (new[-1] + 1) * nr_pages)


def random_words(share: int) -> list[NDArray[np.uint64]]:
    """Return flags, map counts and cgroups of a block of pages; *share* chooses the column."""
    chance = np.random.default_rng(share)
    weights = np.array([kind[share] for kind in _KINDS], float)
    kinds = chance.choice(len(_KINDS), NR_PAGES, p=weights / weights.sum())
    flags = np.array([kind[0] for kind in _KINDS], np.uint64)[kinds]
    mapped = (flags & np.uint64(F.MMAP)) != 0
    charged = (flags & np.uint64(F.LRU)) != 0
    counts = np.where(mapped, chance.integers(1, 4, NR_PAGES), 0).astype(np.uint64)
    groups = np.where(charged, chance.integers(2, NR_CGROUPS, NR_PAGES), 0).astype(np.uint64)
    return [flags, counts, groups]


def write_words(root: Path, seen: Observation, dimm: PfnRange) -> list[int]:
    """Write the files of page frames; return how many pages are free: at boot, in the DIMM."""
    assert seen.kpageflags is not None
    blocks = [random_words(share) for share in (1, 2)]
    free = [0, 0]
    names = ("kpageflags", "kpagecount", "kpagecgroup")
    files = [open(root / "proc" / name, "wb") for name in names]  # noqa: PTH123, SIM115
    for start in range(0, seen.kpageflags.nr_pages, NR_PAGES):
        nr_pages = min(NR_PAGES, seen.kpageflags.nr_pages - start)
        idle = seen.kpageflags.words_at(np.arange(start, start + nr_pages))
        in_dimm = dimm.start <= start < dimm.end
        made = [words[:nr_pages].copy() for words in blocks[in_dimm]]
        kept = (idle != F.BUDDY) & (idle != 0) & (idle != F.LRU)
        made[0][kept] = idle[kept]
        made[1][kept] = made[2][kept] = 0
        free[in_dimm] += int((made[0] == F.BUDDY).sum())
        for file, words in zip(files, made, strict=True):
            words.astype("<u8").tofile(file)
    for file in files:
        file.close()
    return free


def with_free(sysroot: Sysroot, free: list[int]) -> None:
    """Write into meminfo and zoneinfo how many pages are free."""
    kib = sum(free) * PAGE_BYTES // 1024
    text = sysroot.files["proc/meminfo"].decode()
    text = re.sub(r"(MemFree:\s+)\d+", lambda match: f"{match[1]}{kib}", text)
    sysroot.files["proc/meminfo"] = text.encode()
    zones = re.split(r"(?m)^(?=Node )", sysroot.files["proc/zoneinfo"].decode())
    for at, zone in enumerate(zones):
        for name, nr_pages in (("Normal", free[0]), ("Movable", free[1])):
            if re.match(rf"Node 0, zone +{name}\n", zone):
                zones[at] = re.sub(r"(pages free +)\d+", rf"\g<1>{nr_pages}", zone, count=1)
    sysroot.files["proc/zoneinfo"] = "".join(zones).encode()


def make(root: Path, size_bytes: int, block: int) -> None:
    """Write the machine's files below a new folder."""
    seen, dimm = booted(size_bytes, block)
    sysroot = seen.render()
    for path in [path for path in sysroot.files if "kpageflags" in path]:
        del sysroot.files[path]
    sysroot.pages.clear()
    nr_pages = block // PAGE_BYTES
    for nr in range(dimm.start // nr_pages, dimm.end // nr_pages):
        link = f"sys/devices/system/memory/memory{nr}/firmware_node"
        sysroot.links[link] = "../../../LNXSYSTM:00/LNXSYBUS:00/PNP0C80:00"
    sysroot.write(root)
    free = write_words(root, seen, dimm)
    with_free(sysroot, free)
    for name in ("meminfo", "zoneinfo"):
        (root / "proc" / name).write_bytes(sysroot.files[f"proc/{name}"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("size_bytes", type=int)
    parser.add_argument("block_bytes", type=int, nargs="?")
    args = parser.parse_args()
    block = args.block_bytes or block_bytes(args.size_bytes)
    make(args.folder, args.size_bytes, block)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
