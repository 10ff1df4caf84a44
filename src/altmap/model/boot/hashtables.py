"""The hash tables that a kernel allocates at boot by the size of its memory.

Those of the dentry and the inode cache are the large ones. Source: ``mm/mm_init.c``
(``mm/page_alloc.c`` up to 6.3): ``alloc_large_system_hash``; ``fs/dcache.c: dcache_init_early``,
``fs/inode.c: inode_init_early``.
"""

from __future__ import annotations

from altmap.model.arch import Arch

__all__ = ("hash_tables_nr_pages",)

_MIB, _GIB = 1 << 20, 1 << 30
#: Memory for each bucket, as a shift: of dentries, of inodes.
_SCALES = (13, 14)
_BUCKET_BYTES = 8
#: From here on, four times the memory has twice the buckets only.
_ADAPT_BASE_BYTES, _ADAPT_SHIFT = 64 * _GIB, 2


def hash_tables_nr_pages(arch: Arch, ram_nr_pages: int) -> int:
    """Return the pages of the two tables for that many pages of RAM."""
    return sum(_table_nr_pages(arch, ram_nr_pages, scale) for scale in _SCALES)


def _table_nr_pages(arch: Arch, ram_nr_pages: int, scale: int) -> int:
    page = arch.page_size_bytes
    page_shift = page.bit_length() - 1
    pages = ram_nr_pages - arch.memmap_nr_pages(ram_nr_pages)
    if page < _MIB:
        unit = _MIB // page
        pages = -(-pages // unit) * unit
    adapt = _ADAPT_BASE_BYTES // page
    while adapt < pages:
        scale += 1
        adapt <<= _ADAPT_SHIFT
    shift = scale - page_shift
    buckets = pages >> shift if shift > 0 else pages << -shift
    buckets = 1 << max(0, buckets - 1).bit_length()
    return -(-buckets * _BUCKET_BYTES // page)
