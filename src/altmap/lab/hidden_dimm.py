"""DIMMs of which Linux is not told: they only back page frames, which a driver then adds."""

from __future__ import annotations

from altmap.errors import InputError
from altmap.lab.guest import Guest
from altmap.lab.qmp import QemuRefusedError
from altmap.pfn import PfnRange

__all__ = ("back_frames", "backable_pages")

_PAGE = 4096
#: QEMU maps anonymous memory in such pieces (QEMU_VMALLOC_ALIGN).
_PIECE_BYTES = 2 << 20


def backable_pages(id_: str, address: int, size_bytes: int) -> PfnRange:
    """Return the page frames of a range that QEMU can back.

    Raises
    ------
    InputError
        If it is not made of pieces of 2 MiB.
    """
    if address % _PIECE_BYTES or size_bytes % _PIECE_BYTES:
        raise InputError(
            f"plug {id_!r}: [{address:#x}, {address + size_bytes:#x}): QEMU backs multiples of "
            f"{_PIECE_BYTES:#x} bytes"
        )
    return PfnRange(address // _PAGE, (address + size_bytes) // _PAGE)


def back_frames(guest: Guest, id_: str, pages: PfnRange) -> None:
    """Back a range by a DIMM at its address.

    Raises
    ------
    InputError
        If QEMU cannot: no slot is left, or other memory is there.
    """
    memory = f"{id_}-memory".replace(":", "-")
    guest.qmp.execute(
        "object-add",
        qom_type="memory-backend-ram",
        id=memory,
        size=len(pages) * _PAGE,
        reserve=False,
    )
    place = {"memdev": memory, "addr": pages.start * _PAGE}
    try:
        guest.qmp.execute("device_add", driver="pc-dimm", id=f"dimm-{memory}", **place)
    except QemuRefusedError as error:
        guest.qmp.execute("object-del", id=memory)
        raise InputError(str(error.args[0])) from error
