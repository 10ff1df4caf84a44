"""Which page frames of a guest were written: those that are not zero, as QEMU reads them.

Effects: files.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from altmap.lab.guest import Guest
from altmap.pfn import PfnRange, PfnSet

__all__ = ("written_pages",)

_PAGE_BYTES = 4096


def written_pages(guest: Guest, pfns: PfnRange) -> PfnSet:
    """Return the page frames that hold something else than zeros.

    A DIMM's memory is zero when it is plugged, so what is not was written since. A write of zeros
    alone is not seen; a struct page that the kernel has initialised is not zero.

    Parameters
    ----------
    guest : Guest
        Of 4 KiB pages.
    pfns : PfnRange
        Guest-physical; 128 MiB take a moment.

    Raises
    ------
    LabError
        If QEMU does not answer.
    """
    with tempfile.TemporaryDirectory(prefix="altmap-") as folder:
        dump = Path(folder) / "memory"
        guest.qmp.execute(
            "pmemsave",
            val=pfns.start * _PAGE_BYTES,
            size=len(pfns) * _PAGE_BYTES,
            filename=str(dump),
        )
        content = dump.read_bytes()
    zeros = bytes(_PAGE_BYTES)
    offsets = range(0, len(content), _PAGE_BYTES)
    return PfnSet(
        PfnRange(pfn, pfn + 1)
        for pfn, offset in enumerate(offsets, pfns.start)
        if content[offset : offset + _PAGE_BYTES] != zeros
    )
