"""virtio-mem's host half: the answers of QEMU's device (``hw/virtio/virtio-mem.c``, 7.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from altmap.errors import InputError
from altmap.model.drivers.virtio_mem_wire import (
    Config,
    PlugState,
    Request,
    RequestType,
    Response,
    ResponseType,
)
from altmap.pfn import PfnRange, PfnSet

__all__ = ("DEFAULT_BLOCK_BYTES", "VirtioMemDevice", "check_device")

#: virtio_mem_default_block_size: the size of a transparent huge page on a host with 4 KiB pages.
DEFAULT_BLOCK_BYTES = 2 << 20
_LEAST_BLOCK_BYTES = 1 << 20


def check_device(where: str, size_bytes: int, block_bytes: int, requested_bytes: int) -> None:
    """Check the sizes as QEMU does when the device is created (``virtio_mem_device_realize``).

    Raises
    ------
    InputError
        If it would refuse the device.
    """
    if block_bytes & (block_bytes - 1) or block_bytes < _LEAST_BLOCK_BYTES:
        raise InputError(f"{where}: block {block_bytes:#x}: need a power of two, at least 1 MiB")
    if size_bytes % block_bytes:
        raise InputError(
            f"{where}: size {size_bytes:#x}: need a multiple of the block {block_bytes:#x}"
        )
    _check_requested(where, requested_bytes, block_bytes, size_bytes)


def _check_requested(where: str, requested: int, block_bytes: int, most: int) -> None:
    if requested % block_bytes:
        raise InputError(
            f"{where}: requested size {requested:#x}: need a multiple of the block {block_bytes:#x}"
        )
    if requested > most:
        raise InputError(
            f"{where}: requested size {requested:#x}: need at most the device's size {most:#x}"
        )


@dataclass(slots=True)
class VirtioMemDevice:
    """The device: which blocks are plugged, and the answer to each request.

    Attributes
    ----------
    id : str
    extent_bytes : int
        How far the usable region exceeds the request.
    page_size_bytes : int
    block_bytes, node, address, size_bytes : int
        The device block; the node; the region.
    back : callable
        Called with a range, and whether it is backed from now on.
    requested_bytes, usable_bytes : int
    plugged : PfnSet
        Page frames of plugged blocks.
    busy : bool
        Plugging is impossible at present (a migration): every change is answered with BUSY.
    """

    id: str
    extent_bytes: int
    page_size_bytes: int
    block_bytes: int
    node: int
    address: int
    size_bytes: int
    back: Callable[[PfnRange, bool], None]
    requested_bytes: int = 0
    usable_bytes: int = 0
    plugged: PfnSet = field(default_factory=PfnSet)
    busy: bool = False

    @property
    def pfns(self) -> PfnRange:
        """The region's page frames."""
        page = self.page_size_bytes
        return PfnRange(self.address // page, (self.address + self.size_bytes) // page)

    @property
    def plugged_bytes(self) -> int:
        """The size that is plugged."""
        return len(self.plugged) * self.page_size_bytes

    def config(self) -> bytes:
        """Return the config space as it is now."""
        return Config(
            self.block_bytes,
            self.node,
            self.address,
            self.size_bytes,
            self.usable_bytes,
            self.plugged_bytes,
            self.requested_bytes,
        ).encode()

    def request_size(self, size_bytes: int) -> None:
        """Set the requested size, of which the guest gets a config interrupt, a new size or not.

        The usable region grows with it, and shrinks only when all is unplugged.
        Source: QEMU's ``hw/virtio/virtio-mem.c: virtio_mem_set_requested_size``.

        Raises
        ------
        InputError
            If QEMU would refuse the size.
        """
        _check_requested(f"resize {self.id!r}", size_bytes, self.block_bytes, self.size_bytes)
        if size_bytes != self.requested_bytes:
            self.requested_bytes = size_bytes
            self._resize_usable_region(can_shrink=False)

    def handle(self, raw: bytes) -> bytes:
        """Answer a request.

        Raises
        ------
        InputError
            If it is not a request: QEMU then marks the device broken ("virtio-mem protocol
            violation").
        """
        request = Request.decode(raw)
        match request.type:
            case RequestType.PLUG:
                return self._change(request, plug=True).encode()
            case RequestType.UNPLUG:
                return self._change(request, plug=False).encode()
            case RequestType.UNPLUG_ALL:
                return self._unplug_all().encode()
            case RequestType.STATE:
                return self._state(request).encode()

    def _resize_usable_region(self, *, can_shrink: bool) -> None:
        wanted = min(self.size_bytes, self.requested_bytes + self.extent_bytes)
        wanted = -(-wanted // self.block_bytes) * self.block_bytes
        if not self.requested_bytes:
            wanted = 0
        if wanted >= self.usable_bytes or can_shrink:
            self.usable_bytes = wanted

    def _range(self, request: Request) -> PfnRange | None:
        """Return the request's page frames, ``None`` if its range is not allowed."""
        start, size = request.addr, request.nb_blocks * self.block_bytes
        end = start + size
        usable_end = self.address + self.usable_bytes
        if start % self.block_bytes or not size or start < self.address or end > usable_end:
            return None
        return PfnRange(start // self.page_size_bytes, end // self.page_size_bytes)

    def _change(self, request: Request, *, plug: bool) -> Response:
        pfns = self._range(request)
        if pfns is None:
            return Response(ResponseType.ERROR)
        size = len(pfns) * self.page_size_bytes
        if plug and self.plugged_bytes + size > self.requested_bytes:
            return Response(ResponseType.NACK)
        if self.plugged.count(pfns) != (0 if plug else len(pfns)):
            return Response(ResponseType.ERROR)
        if self.busy:
            return Response(ResponseType.BUSY)
        if plug:
            self.plugged |= pfns
        else:
            self.plugged -= pfns
        self.back(pfns, plug)
        return Response(ResponseType.ACK)

    def _unplug_all(self) -> Response:
        if self.busy:
            return Response(ResponseType.BUSY)
        for run in list(self.plugged.ranges()):
            self.back(run, False)
        self.plugged = PfnSet()
        self._resize_usable_region(can_shrink=True)
        return Response(ResponseType.ACK)

    def _state(self, request: Request) -> Response:
        pfns = self._range(request)
        if pfns is None:
            return Response(ResponseType.ERROR)
        nr_plugged = self.plugged.count(pfns)
        if nr_plugged == len(pfns):
            return Response(ResponseType.ACK, PlugState.PLUGGED)
        return Response(ResponseType.ACK, PlugState.MIXED if nr_plugged else PlugState.UNPLUGGED)
