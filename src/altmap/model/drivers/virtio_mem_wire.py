"""virtio-mem's messages, byte for byte: config space, requests and responses, little-endian.

Source: ``include/uapi/linux/virtio_mem.h`` (6.1, 6.12, 7.3); virtio 1.2, "Memory Device". Padding
is written as zero and not checked, as drivers and devices do.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import lru_cache

from altmap.errors import InputError

__all__ = (
    "Config",
    "Feature",
    "PlugState",
    "Request",
    "RequestType",
    "Response",
    "ResponseType",
)

_CONFIG = struct.Struct("<QH6xQQQQQ")
_REQUEST = struct.Struct("<H6xQH6x")
_RESPONSE = struct.Struct("<H6xH")
_MOST = (1 << 64) - 1


class Feature(IntFlag):
    """Feature bits (``VIRTIO_MEM_F_*``)."""

    ACPI_PXM = 1 << 0
    UNPLUGGED_INACCESSIBLE = 1 << 1
    PERSISTENT_SUSPEND = 1 << 2


class RequestType(IntEnum):
    """Requests of the guest (``VIRTIO_MEM_REQ_*``)."""

    PLUG = 0
    UNPLUG = 1
    UNPLUG_ALL = 2
    STATE = 3


class ResponseType(IntEnum):
    """Responses of the device (``VIRTIO_MEM_RESP_*``)."""

    ACK = 0
    NACK = 1
    BUSY = 2
    ERROR = 3


class PlugState(IntEnum):
    """States of the blocks of a STATE request (``VIRTIO_MEM_STATE_*``)."""

    PLUGGED = 0
    UNPLUGGED = 1
    MIXED = 2


_REQUEST_TYPES = {each.value: each for each in RequestType}
_RESPONSE_TYPES = {each.value: each for each in ResponseType}
_STATES = {each.value: each for each in PlugState}


@dataclass(frozen=True, slots=True)
class Config:
    """The device's config space, 56 bytes.

    Attributes
    ----------
    block_size : int
        Unit of requests in bytes, a power of two; every other size and *addr* is a multiple.
    node_id : int
        Proximity domain, valid with :attr:`Feature.ACPI_PXM`.
    addr, region_size : int
        The device's region, in bytes.
    usable_region_size : int
        Size of the part that may be plugged at present.
    plugged_size, requested_size : int
        Size that is plugged, and size that the host requests.
    """

    block_size: int
    node_id: int
    addr: int
    region_size: int
    usable_region_size: int
    plugged_size: int
    requested_size: int

    def encode(self) -> bytes:
        """Return the 56 bytes.

        Raises
        ------
        InputError
            If the values break a rule of the format.
        """
        self._check()
        return _CONFIG.pack(
            self.block_size,
            self.node_id,
            self.addr,
            self.region_size,
            self.usable_region_size,
            self.plugged_size,
            self.requested_size,
        )

    @classmethod
    def decode(cls, raw: bytes) -> Config:
        """Return the config that 56 bytes hold.

        Raises
        ------
        InputError
            If there are more or fewer, or the values break a rule of the format.
        """
        config = cls(*_CONFIG.unpack(_of_size("config", raw, _CONFIG)))
        config._check()
        return config

    def _check(self) -> None:
        _fits("config node_id", self.node_id, 16)
        _fits("config block_size", self.block_size, 64)
        if self.block_size <= 0 or self.block_size & (self.block_size - 1):
            raise InputError(f"config block_size {self.block_size:#x}: need a power of two")
        sizes = ("addr", "region_size", "usable_region_size", "plugged_size", "requested_size")
        for name in sizes:
            value = getattr(self, name)
            _fits(f"config {name}", value, 64)
            if value % self.block_size:
                raise InputError(
                    f"config {name} {value:#x}: need a multiple of the block size "
                    f"{self.block_size:#x}"
                )
        if self.addr + self.region_size > _MOST:
            raise InputError(f"config region_size {self.region_size:#x}: ends above 64 bits")
        for name in sizes[2:]:
            if getattr(self, name) > self.region_size:
                raise InputError(
                    f"config {name} {getattr(self, name):#x}: need at most the region size "
                    f"{self.region_size:#x}"
                )


@dataclass(frozen=True, slots=True)
class Request:
    """A request of the guest, 24 bytes.

    Attributes
    ----------
    type : RequestType
    addr : int
        First address; 0 for UNPLUG_ALL.
    nb_blocks : int
        Number of device blocks; 0 for UNPLUG_ALL.
    """

    type: RequestType
    addr: int = 0
    nb_blocks: int = 0

    def encode(self) -> bytes:
        """Return the 24 bytes.

        Raises
        ------
        InputError
            If a value does not fit its field.
        """
        _fits("request addr", self.addr, 64)
        _fits("request nb_blocks", self.nb_blocks, 16)
        return _REQUEST.pack(self.type, self.addr, self.nb_blocks)

    @classmethod
    def decode(cls, raw: bytes) -> Request:
        """Return the request that 24 bytes hold.

        Raises
        ------
        InputError
            If there are more or fewer, or the type is unknown.
        """
        number, addr, nb_blocks = _REQUEST.unpack(_of_size("request", raw, _REQUEST))
        kind = _REQUEST_TYPES.get(number)
        if kind is None:
            raise InputError(f"request type {number}: need one of {_names(RequestType)}")
        if kind is RequestType.UNPLUG_ALL:
            return cls(kind)  # the rest of the message means nothing
        return cls(kind, addr, nb_blocks)


@dataclass(frozen=True, slots=True)
class Response:
    """A response of the device, 10 bytes.

    Attributes
    ----------
    type : ResponseType
    state : PlugState
        Has a meaning after a STATE request only.
    """

    type: ResponseType
    state: PlugState = PlugState.PLUGGED

    def encode(self) -> bytes:
        """Return the 10 bytes."""
        return _RESPONSE.pack(self.type, self.state)

    @staticmethod
    def decode(raw: bytes) -> Response:
        """Return the response that 10 bytes hold.

        Raises
        ------
        InputError
            If there are more or fewer, or the type or state is unknown.
        """
        return _response_of(raw)


@lru_cache(maxsize=64)  # a dozen values, decoded millions of times
def _response_of(raw: bytes) -> Response:
    number, state = _RESPONSE.unpack(_of_size("response", raw, _RESPONSE))
    kind, plugged = _RESPONSE_TYPES.get(number), _STATES.get(state)
    if kind is None:
        raise InputError(f"response type {number}: need one of {_names(ResponseType)}")
    if plugged is None:
        raise InputError(f"response state {state}: need one of {_names(PlugState)}")
    return Response(kind, plugged)


def _of_size(what: str, raw: bytes, layout: struct.Struct) -> bytes:
    if len(raw) != layout.size:
        raise InputError(f"virtio-mem {what} of {len(raw)} bytes: need {layout.size}")
    return raw


def _fits(what: str, value: int, nr_bits: int) -> None:
    if not 0 <= value < 1 << nr_bits:
        raise InputError(f"{what} {value:#x}: need 0 to 2^{nr_bits} - 1")


def _names(words: type[IntEnum]) -> str:
    return ", ".join(f"{word.value} ({word.name})" for word in words)
