"""Hyper-V's messages: bytes written down by hand from the structures, and any bytes at all."""

import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.protocol.hyperv_messages import (
    MAX_RANGES,
    BalloonRequest,
    BalloonResponse,
    CapabilitiesReport,
    CapabilitiesResponse,
    HotAddRequest,
    HotAddResponse,
    InfoMessage,
    MessageError,
    PageRange,
    StatusReport,
    UnballoonRequest,
    UnballoonResponse,
    VersionRequest,
    VersionResponse,
    decode,
    describe,
    encode,
)

#: Each message beside its bytes: header (type, size, trans_id), then the payload's words.
BY_HAND = [
    (
        VersionRequest(trans_id=1, major=2, minor=0, is_last_attempt=False),
        "0100 1000 01000000 0000 0200 00000000",
    ),
    (
        VersionRequest(trans_id=3, major=0, minor=3, is_last_attempt=True),
        "0100 1000 03000000 0300 0000 01000000",
    ),
    (VersionResponse(trans_id=1, is_accepted=True), "0200 1000 01000000 0100000000000000"),
    (
        CapabilitiesReport(trans_id=2, balloon=True, hot_add=True, hot_add_alignment=7),
        "0300 2000 02000000 1f00000000000000 0000000000000000 ffffffffffffffff",
    ),
    (
        CapabilitiesReport(trans_id=2, balloon=False, hot_add=False, hot_add_alignment=11),
        "0300 2000 02000000 2c00000000000000 0000000000000000 ffffffffffffffff",
    ),
    (CapabilitiesResponse(trans_id=9, is_accepted=True), "0400 1000 09000000 0100000000000000"),
    (
        StatusReport(trans_id=4, num_avail=0x1234, num_committed=0x1_0000_0000),
        "0500 3000 04000000 3412000000000000 0000000001000000"
        "0000000000000000 0000000000000000 00000000 00000000",
    ),
    (BalloonRequest(trans_id=7, num_pages=0x8000), "0600 1000 07000000 00800000 00000000"),
    (
        BalloonResponse(trans_id=5, more_pages=True, ranges=(PageRange(0x12345, 512),)),
        "0700 1800 05000000 00000000 03000000 4523010000000200",
    ),
    (
        UnballoonRequest(trans_id=6, more_pages=True, ranges=(PageRange(0x12345, 512),)),
        "0800 1800 06000000 01000000 01000000 4523010000000200",
    ),
    (UnballoonResponse(trans_id=8), "0900 0800 08000000"),
    (
        HotAddRequest(trans_id=10, pages=PageRange(0x100000, 0x4000)),
        "0a00 1000 0a000000 0000100000004000",
    ),
    (
        HotAddRequest(
            trans_id=10, pages=PageRange(0x104000, 0x4000), region=PageRange(0x100000, 0x8000)
        ),
        "0a00 1800 0a000000 0040100000004000 0000100000008000",
    ),
    (
        HotAddResponse(trans_id=11, page_count=0x4000, result=1),
        "0b00 1000 0b000000 00400000 01000000",
    ),
    (
        InfoMessage(trans_id=12, info_type=0, data=(0x200000).to_bytes(8, "little")),
        "0c00 2000 0c000000 00000000 10000000 00000000 08000000 0000200000000000",
    ),
]


@pytest.mark.parametrize(("message", "text"), BY_HAND, ids=lambda value: type(value).__name__)
def test_a_message_has_the_bytes_of_its_structure(message, text):
    raw = bytes.fromhex(text)
    assert encode(message) == raw
    assert decode(raw) == message


def test_every_type_of_message_was_written_by_hand():
    assert {message.TYPE for message, _ in BY_HAND} == set(range(1, 13))


def test_a_message_is_described_by_its_name_and_fields():
    assert describe(BY_HAND[12][0]) == (
        "DM_MEM_HOT_ADD_REQUEST trans_id=10 pages=[0x104000, 0x108000) region=[0x100000, 0x108000)"
    )
    many = UnballoonRequest(
        trans_id=1, more_pages=False, ranges=tuple(PageRange(i, 1) for i in (3, 5, 9))
    )
    assert describe(many) == (
        "DM_UNBALLOON_REQUEST trans_id=1 more_pages=0 range_count=3 pages=3 [0x3, 0x4) [0x5, 0x6) …"
    )


def test_the_most_pages_there_will_ever_be():
    assert BY_HAND[-1][0].max_page_count == 0x200000
    assert InfoMessage(trans_id=1, info_type=1, data=bytes(8)).max_page_count is None
    assert InfoMessage(trans_id=1, info_type=0, data=bytes(4)).max_page_count is None


BAD = [
    ("", "need 8 for the header"),
    ("0600 1000 070000", "need 8 for the header"),
    ("0000 0800 01000000", "type 0"),
    ("0d00 0800 01000000", "type 13"),
    ("0600 0c00 07000000 00800000", "BALLOON_REQUEST: size 12: need 16"),
    ("0600 1000 07000000 00800000", "there are 12 bytes"),
    ("0600 1000 07000000 00800000 00000000 00", "there are 17 bytes"),
    ("0600 1000 07000000 00800000 01000000", "reserved bits 0x1"),
    ("0100 1000 01000000 0000 0200 02000000", "reserved bits"),
    ("0a00 0800 0a000000", "size 8: need 16 or 24"),
    ("0a00 1000 0a000000 ffffffffff020000", "page range of 2 pages from 0xffffffffff"),
    ("0700 1800 05000000 00000000 05000000 4523010000000200", "range_count 2"),
    ("0800 1000 06000000 00000000 ffffffff", "range_count 4294967295"),
    ("0c00 1800 0c000000 00000000 10000000 00000000 08000000", "data_size 8"),
]


@pytest.mark.parametrize(("text", "why"), BAD)
def test_malformed_bytes_are_refused_and_the_reason_is_told(text, why):
    with pytest.raises(MessageError, match=why) as caught:
        decode(bytes.fromhex(text))
    assert "\n" not in str(caught.value)


def test_a_range_may_end_with_the_last_page_of_40_bits():
    raw = bytes.fromhex("0a00 1000 0a000000 ffffffffff010000")
    assert decode(raw).pages.end_page == 1 << 40


@pytest.mark.parametrize(
    "message",
    [
        BalloonRequest(trans_id=1, num_pages=1 << 32),
        BalloonRequest(trans_id=-1, num_pages=1),
        HotAddRequest(trans_id=1, pages=PageRange(0, 1 << 24)),
        HotAddRequest(trans_id=1, pages=PageRange(1 << 40, 1)),
        HotAddRequest(trans_id=1, pages=PageRange((1 << 40) - 1, 2)),
        CapabilitiesReport(trans_id=1, balloon=True, hot_add=True, hot_add_alignment=16),
        UnballoonRequest(
            trans_id=1, more_pages=False, ranges=(PageRange(1, 1),) * (MAX_RANGES + 1)
        ),
        InfoMessage(trans_id=1, info_type=0, data=bytes(4096)),
    ],
    ids=lambda message: type(message).__name__,
)
def test_what_does_not_fit_has_no_bytes(message):
    with pytest.raises(MessageError, match=r"need|ends"):
        encode(message)


def uint(bits):
    return st.integers(0, (1 << bits) - 1)


RANGES = st.tuples(uint(40), uint(24)).map(
    lambda pair: PageRange(pair[0], min(pair[1], (1 << 40) - pair[0]))
)
LISTS = st.lists(RANGES, max_size=MAX_RANGES).map(tuple)
ID = uint(32)
MESSAGES = st.one_of(
    st.builds(
        VersionRequest, trans_id=ID, major=uint(16), minor=uint(16), is_last_attempt=st.booleans()
    ),
    st.builds(VersionResponse, trans_id=ID, is_accepted=st.booleans()),
    st.builds(
        CapabilitiesReport,
        trans_id=ID,
        balloon=st.booleans(),
        hot_add=st.booleans(),
        hot_add_alignment=uint(4),
        min_page_cnt=uint(64),
        max_page_number=uint(64),
    ),
    st.builds(
        CapabilitiesResponse,
        trans_id=ID,
        is_accepted=st.booleans(),
        hot_remove=st.booleans(),
        suppress_pressure_reports=st.booleans(),
    ),
    st.builds(
        StatusReport,
        trans_id=ID,
        num_avail=uint(64),
        num_committed=uint(64),
        page_file_size=uint(64),
        zero_free=uint(64),
        page_file_writes=uint(32),
        io_diff=uint(32),
    ),
    st.builds(BalloonRequest, trans_id=ID, num_pages=uint(32)),
    st.builds(BalloonResponse, trans_id=ID, more_pages=st.booleans(), ranges=LISTS),
    st.builds(UnballoonRequest, trans_id=ID, more_pages=st.booleans(), ranges=LISTS),
    st.builds(UnballoonResponse, trans_id=ID),
    st.builds(HotAddRequest, trans_id=ID, pages=RANGES, region=st.none() | RANGES),
    st.builds(HotAddResponse, trans_id=ID, page_count=uint(32), result=uint(32)),
    st.builds(InfoMessage, trans_id=ID, info_type=uint(32), data=st.binary(max_size=64)),
)


@given(MESSAGES)
def test_every_message_comes_back_from_its_bytes(message):
    raw = encode(message)
    assert decode(raw) == message
    assert struct.unpack_from("<HHI", raw) == (message.TYPE, len(raw), message.trans_id)
    assert describe(message).startswith(f"DM_{message.TYPE.name} ")


@given(MESSAGES, st.data())
def test_bytes_that_decode_are_the_bytes_of_what_they_decode_to(message, data):
    raw = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        again = decode(raw)
    except MessageError:
        return
    assert encode(again) == raw


def test_ten_thousand_mutations_are_refused_or_read_as_they_are():
    path = Path(__file__).parents[2] / "benchmarks/fuzz_messages.py"
    run = [sys.executable, str(path), "10000", "7"]
    told = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    refused, decoded = map(int, re.findall(r"(\d+) (?:refused|decoded)", told))
    assert refused + decoded == 10000
    assert decoded > 1000
    assert refused > 1000
