"""The messages of Hyper-V's dynamic memory, byte for byte: ``drivers/hv/hv_balloon.c``.

Little-endian, at most one page of 4 KiB, pages of 4 KiB whatever the guest's own page size. A
header of eight bytes comes first: type, size of the whole message, transaction id. Offsets and
values are the same in v6.1, v6.12 and v7.3.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import ClassVar, NamedTuple

from altmap.errors import InputError

__all__ = (
    "MAX_MESSAGE_BYTES",
    "MAX_RANGES",
    "BalloonRequest",
    "BalloonResponse",
    "CapabilitiesReport",
    "CapabilitiesResponse",
    "HotAddRequest",
    "HotAddResponse",
    "InfoMessage",
    "Message",
    "MessageError",
    "MessageType",
    "PageRange",
    "StatusReport",
    "UnballoonRequest",
    "UnballoonResponse",
    "VersionRequest",
    "VersionResponse",
    "decode",
    "describe",
    "encode",
    "guest_function",
)

#: HV_HYP_PAGE_SIZE: neither side has a larger buffer.
MAX_MESSAGE_BYTES = 4096
#: Page ranges that fit behind the sixteen bytes of a balloon response or an unballoon request.
MAX_RANGES = (MAX_MESSAGE_BYTES - 16) // 8

_HEADER = struct.Struct("<HHI")
_START_BITS, _COUNT_BITS = 40, 24
_INFO_MAX_PAGE_COUNT = 0


class MessageError(InputError):
    """Bytes that are no message, or a message that has no bytes."""


class MessageType(IntEnum):
    """``enum dm_message_type``; DM_ERROR, which is 0, is never sent."""

    VERSION_REQUEST = 1
    VERSION_RESPONSE = 2
    CAPABILITIES_REPORT = 3
    CAPABILITIES_RESPONSE = 4
    STATUS_REPORT = 5
    BALLOON_REQUEST = 6
    BALLOON_RESPONSE = 7
    UNBALLOON_REQUEST = 8
    UNBALLOON_RESPONSE = 9
    MEM_HOT_ADD_REQUEST = 10
    MEM_HOT_ADD_RESPONSE = 11
    INFO_MESSAGE = 12


class PageRange(NamedTuple):
    """``union dm_mem_page_range``: 40 bits of the first page, 24 bits of their number.

    A tuple, since a balloon's answer has hundreds.
    """

    start_page: int
    page_cnt: int

    @property
    def end_page(self) -> int:
        """The page behind the last one."""
        return self.start_page + self.page_cnt

    def __str__(self) -> str:
        return f"[{self.start_page:#x}, {self.end_page:#x})"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRequest:
    """The guest asks for a version of the protocol; later ones until the host accepts."""

    TYPE: ClassVar = MessageType.VERSION_REQUEST
    TO_HOST: ClassVar = True
    trans_id: int
    major: int
    minor: int
    is_last_attempt: bool

    def _payload(self) -> bytes:
        return _pack(
            "<HHI", minor=(self.minor, 16), major=(self.major, 16), last=(self.is_last_attempt, 1)
        )

    @classmethod
    def _parse(cls, trans_id: int, body: bytes) -> VersionRequest:
        minor, major, flags = _unpack("<HHI", body)
        _reserved("VERSION_REQUEST", flags >> 1)
        return cls(trans_id=trans_id, major=major, minor=minor, is_last_attempt=bool(flags))


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionResponse:
    """The host accepts the version, or not."""

    TYPE: ClassVar = MessageType.VERSION_RESPONSE
    TO_HOST: ClassVar = False
    trans_id: int
    is_accepted: bool

    def _payload(self) -> bytes:
        return _pack("<Q", is_accepted=(self.is_accepted, 1))

    @classmethod
    def _parse(cls, trans_id: int, body: bytes) -> VersionResponse:
        (flags,) = _unpack("<Q", body)
        _reserved("VERSION_RESPONSE", flags >> 1)
        return cls(trans_id=trans_id, is_accepted=bool(flags))


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilitiesReport:
    """What the guest can do; *hot_add_alignment* n stands for 2**n MiB."""

    TYPE: ClassVar = MessageType.CAPABILITIES_REPORT
    TO_HOST: ClassVar = True
    trans_id: int
    balloon: bool
    hot_add: bool
    hot_add_alignment: int
    min_page_cnt: int = 0
    max_page_number: int = (1 << 64) - 1

    def _payload(self) -> bytes:
        caps = (
            _bits("balloon", self.balloon, 1)
            | _bits("hot_add", self.hot_add, 1) << 1
            | _bits("hot_add_alignment", self.hot_add_alignment, 4) << 2
        )
        return _pack(
            "<QQQ",
            caps=(caps, 64),
            min_page_cnt=(self.min_page_cnt, 64),
            max_page_number=(self.max_page_number, 64),
        )

    @classmethod
    def _parse(cls, trans_id: int, body: bytes) -> CapabilitiesReport:
        caps, least, most = _unpack("<QQQ", body)
        _reserved("CAPABILITIES_REPORT", caps >> 6)
        return cls(
            trans_id=trans_id,
            balloon=bool(caps & 1),
            hot_add=bool(caps & 2),
            hot_add_alignment=caps >> 2 & 15,
            min_page_cnt=least,
            max_page_number=most,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilitiesResponse:
    """The host accepts the capabilities, or not. Linux ignores the two other bits."""

    TYPE: ClassVar = MessageType.CAPABILITIES_RESPONSE
    TO_HOST: ClassVar = False
    trans_id: int
    is_accepted: bool
    hot_remove: bool = False
    suppress_pressure_reports: bool = False

    def _payload(self) -> bytes:
        flags = (
            _bits("is_accepted", self.is_accepted, 1)
            | _bits("hot_remove", self.hot_remove, 1) << 1
            | _bits("suppress_pressure_reports", self.suppress_pressure_reports, 1) << 2
        )
        return _pack("<Q", flags=(flags, 64))

    @classmethod
    def _parse(cls, trans_id: int, body: bytes) -> CapabilitiesResponse:
        (flags,) = _unpack("<Q", body)
        _reserved("CAPABILITIES_RESPONSE", flags >> 3)
        return cls(
            trans_id=trans_id,
            is_accepted=bool(flags & 1),
            hot_remove=bool(flags & 2),
            suppress_pressure_reports=bool(flags & 4),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusReport:
    """Memory pressure in the guest, in pages; part of no transaction."""

    TYPE: ClassVar = MessageType.STATUS_REPORT
    TO_HOST: ClassVar = True
    trans_id: int
    num_avail: int
    num_committed: int
    page_file_size: int = 0
    zero_free: int = 0
    page_file_writes: int = 0
    io_diff: int = 0

    def _payload(self) -> bytes:
        return _pack(
            "<QQQQII",
            num_avail=(self.num_avail, 64),
            num_committed=(self.num_committed, 64),
            page_file_size=(self.page_file_size, 64),
            zero_free=(self.zero_free, 64),
            page_file_writes=(self.page_file_writes, 32),
            io_diff=(self.io_diff, 32),
        )

    @classmethod
    def _parse(cls, trans_id: int, body: bytes) -> StatusReport:
        return cls(
            **dict(zip(_own_fields(cls), _unpack("<QQQQII", body), strict=True)),
            trans_id=trans_id,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BalloonRequest:
    """The host wants pages back; the guest may have fewer."""

    TYPE: ClassVar = MessageType.BALLOON_REQUEST
    TO_HOST: ClassVar = False
    trans_id: int
    num_pages: int

    def _payload(self) -> bytes:
        return _pack("<II", num_pages=(self.num_pages, 32), reserved=(0, 32))

    @classmethod
    def _parse(cls, trans_id: int, body: bytes) -> BalloonRequest:
        num_pages, reserved = _unpack("<II", body)
        _reserved("BALLOON_REQUEST", reserved)
        return cls(trans_id=trans_id, num_pages=num_pages)


@dataclass(frozen=True, slots=True, kw_only=True)
class BalloonResponse:
    """Pages that the guest gives; the last message of the transaction says so.

    Its ranges are counted in the upper 31 bits of a word, an unballoon request's in a whole one.
    """

    TYPE: ClassVar = MessageType.BALLOON_RESPONSE
    TO_HOST: ClassVar = True
    trans_id: int
    more_pages: bool
    ranges: tuple[PageRange, ...] = ()

    def _payload(self) -> bytes:
        flags = _bits("more_pages", self.more_pages, 1) | len(self.ranges) << 1
        return _pack("<II", reserved=(0, 32), flags=(flags, 32)) + _pack_ranges(self.ranges)

    @classmethod
    def _parse(cls, trans_id: int, body: bytes) -> BalloonResponse:
        reserved, flags = _unpack("<II", body[:8])
        _reserved("BALLOON_RESPONSE", reserved)
        ranges = _unpack_ranges("BALLOON_RESPONSE", flags >> 1, body[8:])
        return cls(trans_id=trans_id, more_pages=bool(flags & 1), ranges=ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnballoonRequest:
    """Pages that the host gives back."""

    TYPE: ClassVar = MessageType.UNBALLOON_REQUEST
    TO_HOST: ClassVar = False
    trans_id: int
    more_pages: bool
    ranges: tuple[PageRange, ...] = ()

    def _payload(self) -> bytes:
        head = _pack("<II", more_pages=(self.more_pages, 1), range_count=(len(self.ranges), 32))
        return head + _pack_ranges(self.ranges)

    @classmethod
    def _parse(cls, trans_id: int, body: bytes) -> UnballoonRequest:
        flags, count = _unpack("<II", body[:8])
        _reserved("UNBALLOON_REQUEST", flags >> 1)
        ranges = _unpack_ranges("UNBALLOON_REQUEST", count, body[8:])
        return cls(trans_id=trans_id, more_pages=bool(flags), ranges=ranges)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnballoonResponse:
    """The guest has taken the pages of the last unballoon request."""

    TYPE: ClassVar = MessageType.UNBALLOON_RESPONSE
    TO_HOST: ClassVar = True
    trans_id: int

    def _payload(self) -> bytes:
        return b""

    @classmethod
    def _parse(cls, trans_id: int, body: bytes) -> UnballoonResponse:  # noqa: ARG003
        return cls(trans_id=trans_id)


@dataclass(frozen=True, slots=True, kw_only=True)
class HotAddRequest:
    """Pages that the host backs from now on, and the region that it may back later."""

    TYPE: ClassVar = MessageType.MEM_HOT_ADD_REQUEST
    TO_HOST: ClassVar = False
    trans_id: int
    pages: PageRange
    region: PageRange | None = None

    def _payload(self) -> bytes:
        return _pack_ranges((self.pages,) if self.region is None else (self.pages, self.region))

    @classmethod
    def _parse(cls, trans_id: int, body: bytes) -> HotAddRequest:
        ranges = _unpack_ranges("MEM_HOT_ADD_REQUEST", len(body) // 8, body)
        return cls(trans_id=trans_id, pages=ranges[0], region=(*ranges, None)[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class HotAddResponse:
    """How many pages the guest took; a result of 1 without any ends hot-add for good."""

    TYPE: ClassVar = MessageType.MEM_HOT_ADD_RESPONSE
    TO_HOST: ClassVar = True
    trans_id: int
    page_count: int
    result: int

    def _payload(self) -> bytes:
        return _pack("<II", page_count=(self.page_count, 32), result=(self.result, 32))

    @classmethod
    def _parse(cls, trans_id: int, body: bytes) -> HotAddResponse:
        page_count, result = _unpack("<II", body)
        return cls(trans_id=trans_id, page_count=page_count, result=result)


@dataclass(frozen=True, slots=True, kw_only=True)
class InfoMessage:
    """Something that the host wants to be known; type 0 is the most pages there will ever be."""

    TYPE: ClassVar = MessageType.INFO_MESSAGE
    TO_HOST: ClassVar = False
    trans_id: int
    info_type: int
    data: bytes = b""

    @property
    def max_page_count(self) -> int | None:
        """``INFO_TYPE_MAX_PAGE_CNT``, in pages; ``None`` if it says something else."""
        if self.info_type != _INFO_MAX_PAGE_COUNT or len(self.data) != 8:
            return None
        return int.from_bytes(self.data, "little")

    def _payload(self) -> bytes:
        size = len(self.data)
        return (
            _pack(
                "<IIII",
                reserved=(0, 32),
                info_size=(8 + size, 32),
                info_type=(self.info_type, 32),
                data_size=(size, 32),
            )
            + self.data
        )

    @classmethod
    def _parse(cls, trans_id: int, body: bytes) -> InfoMessage:
        reserved, info_size, info_type, data_size = _unpack("<IIII", body[:16])
        _reserved("INFO_MESSAGE", reserved)
        data = body[16:]
        if info_size != 8 + len(data) or data_size != len(data):
            raise MessageError(
                f"INFO_MESSAGE: info_size {info_size} and data_size {data_size}: "
                f"need {8 + len(data)} and {len(data)}, what the message's size leaves"
            )
        return cls(trans_id=trans_id, info_type=info_type, data=data)


Message = (
    VersionRequest
    | VersionResponse
    | CapabilitiesReport
    | CapabilitiesResponse
    | StatusReport
    | BalloonRequest
    | BalloonResponse
    | UnballoonRequest
    | UnballoonResponse
    | HotAddRequest
    | HotAddResponse
    | InfoMessage
)

#: By type: how a message is parsed, and the sizes that it may have.
_KINDS: dict[int, tuple[Callable[[int, bytes], Message], range]] = {
    kind.TYPE: (kind._parse, sizes)
    for kind, sizes in (
        (VersionRequest, range(16, 17)),
        (VersionResponse, range(16, 17)),
        (CapabilitiesReport, range(32, 33)),
        (CapabilitiesResponse, range(16, 17)),
        (StatusReport, range(48, 49)),
        (BalloonRequest, range(16, 17)),
        (BalloonResponse, range(16, MAX_MESSAGE_BYTES + 1, 8)),
        (UnballoonRequest, range(16, MAX_MESSAGE_BYTES + 1, 8)),
        (UnballoonResponse, range(8, 9)),
        (HotAddRequest, range(16, 25, 8)),
        (HotAddResponse, range(16, 17)),
        (InfoMessage, range(24, MAX_MESSAGE_BYTES + 1)),
    )
}


def encode(message: Message) -> bytes:
    """Return the bytes of a message.

    Raises
    ------
    MessageError
        If a field does not fit its bits, a range wraps, or the message does not fit a page.
    """
    payload = message._payload()
    size = _HEADER.size + len(payload)
    if size > MAX_MESSAGE_BYTES:
        raise MessageError(
            f"{message.TYPE.name}: {size} bytes: need {MAX_MESSAGE_BYTES} at most, one page"
        )
    return _HEADER.pack(message.TYPE, size, _bits("trans_id", message.trans_id, 32)) + payload


def decode(raw: bytes) -> Message:
    """Return the message that the bytes are.

    Raises
    ------
    MessageError
        If the message is short, its type or size is none that exists, its size is not that of the
        bytes, reserved bits are set, or a page range goes beyond 40 bits.
    """
    if len(raw) < _HEADER.size:
        raise MessageError(f"message of {len(raw)} bytes: need {_HEADER.size} for the header")
    type_, size, trans_id = _HEADER.unpack_from(raw)
    if type_ not in _KINDS:
        raise MessageError(f"message type {type_}: need one from 1 to {max(_KINDS)}")
    parse, sizes = _KINDS[type_]
    if size not in sizes:
        raise MessageError(f"{MessageType(type_).name}: size {size}: need {_sizes(sizes)}")
    if size != len(raw):
        raise MessageError(f"{MessageType(type_).name}: size {size}: there are {len(raw)} bytes")
    return parse(trans_id, raw[_HEADER.size :])


def describe(message: Message) -> str:
    """Return a message's name and fields in one line."""
    shown = (_field(name, getattr(message, name)) for name in ("trans_id", *_own_fields(message)))
    return " ".join([f"DM_{message.TYPE.name}", *filter(None, shown)])


#: The guest's function that sends a message.
_SENDERS = {
    MessageType.VERSION_REQUEST: "balloon_connect_vsp",
    MessageType.CAPABILITIES_REPORT: "balloon_connect_vsp",
    MessageType.STATUS_REPORT: "post_status",
    MessageType.BALLOON_RESPONSE: "balloon_up",
    MessageType.UNBALLOON_RESPONSE: "balloon_down",
    MessageType.MEM_HOT_ADD_RESPONSE: "hot_add_req",
}


def guest_function(message: Message) -> str:
    """Return the function of the guest's driver that sends a message, or takes it."""
    return _SENDERS.get(message.TYPE, "balloon_onchannelcallback")


def _field(name: str, value: object) -> str:
    match value:
        case None:
            return ""
        case bool():
            return f"{name}={int(value)}"
        case PageRange():
            return f"{name}={value}"
        case tuple():
            nr_pages = sum(item.page_cnt for item in value)
            few = " ".join(map(str, value[:2])) + (" …" if len(value) > 2 else "")
            return f"range_count={len(value)} pages={nr_pages}" + (f" {few}" if few else "")
        case bytes():
            return f"data={value.hex()}"
        case int() if value >= 1 << 32:
            return f"{name}={value:#x}"
        case _:
            return f"{name}={value}"


def _own_fields(kind: Message | type[StatusReport]) -> list[str]:
    return [item.name for item in fields(kind) if item.name != "trans_id"]


def _sizes(sizes: range) -> str:
    known = [str(size) for size in sizes[:3]]
    return " or ".join(known) if len(sizes) < 3 else f"{sizes[0]} to {sizes[-1]}"


def _bits(name: str, value: int, width: int) -> int:
    if not 0 <= value < 1 << width:
        raise MessageError(f"{name} {value}: need 0 to {(1 << width) - 1}, {width} bits")
    return int(value)


def _reserved(name: str, bits: int) -> None:
    if bits:
        raise MessageError(f"{name}: reserved bits {bits:#x}: need 0")


def _pack(layout: str, **values: tuple[int, int]) -> bytes:
    return struct.pack(layout, *(_bits(name, *value) for name, value in values.items()))


def _unpack(layout: str, body: bytes) -> tuple[int, ...]:
    return struct.unpack(layout, body)


def _check_range(item: PageRange) -> None:
    if item.end_page > 1 << _START_BITS:
        raise MessageError(
            f"page range of {item.page_cnt} pages from {item.start_page:#x}: "
            f"ends beyond {_START_BITS} bits"
        )


def _pack_ranges(ranges: tuple[PageRange, ...]) -> bytes:
    for start, count in ranges:
        if start < 0 or not 0 <= count < 1 << _COUNT_BITS or start + count > 1 << _START_BITS:
            _bits("start_page", start, _START_BITS)
            _bits("page_cnt", count, _COUNT_BITS)
            _check_range(PageRange(start, count))
    words = [start | count << _START_BITS for start, count in ranges]
    return struct.pack(f"<{len(words)}Q", *words)


def _unpack_ranges(name: str, count: int, body: bytes) -> tuple[PageRange, ...]:
    if count * 8 != len(body):
        raise MessageError(f"{name}: range_count {count}: there are {len(body)} bytes of ranges")
    most, mask = 1 << _START_BITS, (1 << _START_BITS) - 1
    words = struct.unpack(f"<{count}Q", body)
    ranges = tuple([PageRange(word & mask, word >> _START_BITS) for word in words])
    for start, nr_pages in ranges:
        if start + nr_pages > most:
            _check_range(PageRange(start, nr_pages))
    return ranges
