"""The page ``docs/struct-page.md``: where memmap_on_memory works, by the size of a struct page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from altmap.model.arch import ARCHES, Arch
from altmap.model.kernel.memmap import memmap_on_memory_nr_pages
from altmap.model.leaves import splits_leaf
from altmap.model.releases import RELEASES
from altmap.pfn import PfnRange
from altmap.scenario.defaults import STRUCT_PAGE_SIZES
from altmap.units import format_size

RELEASE = RELEASES["7.3"]
#: The la57 machine has the sizes of x86_64.
NAMES = [name for name in ARCHES if name != "x86_64-la57"]
_MOST_BLOCK_BYTES = 8 << 30

_HEAD = """\
# The size of a struct page

Where a memory block can host its own memmap, by the size of `struct page`. This page is generated
by `python docs/generate.py` from the model; `machine.struct_page_bytes` tries a size.
Distributions have 64 bytes. 80 is that of a kernel with KMSAN or with the last CPU of a page
beside its flags, 56 that of ppc64 without MEMCG; 32 and 8 are proposed (memdescs).

The kernel asks two things (`mm/memory_hotplug.c: mhp_supports_memmap_on_memory`): the memmap of a
block must be whole pageblocks, which `memmap_on_memory=force` pads it to, and, unless the
architecture says otherwise, a multiple of PMD_SIZE before it is padded
(`arch_supports_memmap_on_memory`). The second has no way around it. Since a smaller struct page
makes a smaller memmap, it ends the feature for small blocks.

- *on*: it works, and N pages of each block hold its memmap.
- *force*: only with `memmap_on_memory=force`; of the N pages M are padding.
- *no*: the memmap comes from existing memory, whatever the parameter says.

With 32 bytes it ends on x86_64 and arm64 with 128 MiB blocks, as the memmap of a block is 1 MiB:
half a PMD. Blocks of 256 MiB bring it back. x86_64 has them on machines of 64 GiB or more; on
arm64 a block is one section, so that only a larger section would.
"""

_LEAST = """\
## The smallest block that hosts its memmap

Of a release 7.3; *force* where only padding makes it fit. Larger blocks do too.
"""

_VETO = """\
## arm64 since 7.1

There a block goes offline only if the struct pages of what is offlined begin and end at a leaf of
the vmemmap ([B21](bugs.md#b21)). With 4 KiB pages a leaf is 2 MiB. With sizes other than 64 bytes
the memmap of a block of 128 MiB is not whole leaves, so that no block goes offline, self-hosted
or not. With pages of 16 and 64 KiB a leaf is one page, and every block goes offline.
"""


def struct_pages_page() -> str:
    """Return the text of ``docs/struct-page.md``."""
    parts = [_HEAD, _LEAST, _table(["struct page", *NAMES], map(_least_row, STRUCT_PAGE_SIZES))]
    for name in NAMES:
        sizes = list(_block_sizes(ARCHES[name]))
        head = [f"block, {name}", *(f"{size} bytes" for size in STRUCT_PAGE_SIZES)]
        rows = [
            [format_size(block), *(cell(_with(name, size), block) for size in STRUCT_PAGE_SIZES)]
            for block in sizes
        ]
        parts += [f"## {name}\n", _table(head, rows)]
    arm64 = [name for name in NAMES if ARCHES[name].family == "aarch64"]
    rows = [
        [f"{size} bytes", *(_goes_offline(_with(name, size)) for name in arm64)]
        for size in STRUCT_PAGE_SIZES
    ]
    parts += [_VETO, _table(["struct page, blocks of one section", *arm64], rows)]
    return "\n".join(parts)


def cell(arch: Arch, block_bytes: int) -> str:
    """Return what a block of an architecture can do: *on*, *force* or *no*."""
    nr_pages = block_bytes // arch.page_size_bytes
    plain = memmap_on_memory_nr_pages(arch, RELEASE, nr_pages, "on")
    if plain:
        return f"on: {plain}"
    padded = memmap_on_memory_nr_pages(arch, RELEASE, nr_pages, "force")
    if padded:
        return f"force: {padded}, {padded - arch.memmap_nr_pages(nr_pages)} padding"
    return "no"


def _with(name: str, size: int) -> Arch:
    arch = ARCHES[name]
    section = RELEASE.section_size_bytes.get(arch.family, arch.section_size_bytes)
    return replace(arch, struct_page_size_bytes=size, section_size_bytes=section)


def _block_sizes(arch: Arch) -> Iterator[int]:
    size = RELEASE.section_size_bytes.get(arch.family, arch.section_size_bytes)
    size = max(size, arch.board.lmb_size_bytes or 0)
    while size <= _MOST_BLOCK_BYTES:
        yield size
        size *= 2


def _least_row(size: int) -> list[str]:
    return [f"{size} bytes", *(_least(_with(name, size)) for name in NAMES)]


def _least(arch: Arch) -> str:
    for block in _block_sizes(arch):
        word = cell(arch, block).partition(":")[0]
        if word != "no":
            return f"{format_size(block)}{'' if word == 'on' else ' (force)'}"
    return f"none up to {format_size(_MOST_BLOCK_BYTES)}"


def _goes_offline(arch: Arch) -> str:
    nr_pages = arch.section_nr_pages
    hosted = memmap_on_memory_nr_pages(arch, RELEASE, nr_pages, "force")
    blocks = [PfnRange(n * nr_pages, (n + 1) * nr_pages) for n in range(64, 72)]
    plain = sum(not splits_leaf(arch, RELEASE, each) for each in blocks)
    own = sum(
        not splits_leaf(arch, RELEASE, PfnRange(each.start + hosted, each.end)) for each in blocks
    )
    told = "none" if not plain else "all" if plain == len(blocks) else f"{plain} of {len(blocks)}"
    return f"{told}; self-hosted: {'all' if own == len(blocks) else 'none'}" if hosted else told


def _table(head: list[str], rows: object) -> str:
    lines = [head, ["---"] * len(head), *rows]  # type: ignore[misc]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines).replace(" --- ", "---")
