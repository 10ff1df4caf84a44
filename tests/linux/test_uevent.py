"""Messages of the kernel about devices: recorded ones, and what no kernel says."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.errors import InputError
from altmap.linux import uevent

RECORDED = Path(__file__).parents[1] / "recordings/uevents/linux-6.12-dimm.txt"


def datagram(fields):
    head = f"{fields['ACTION']}@{fields['DEVPATH']}"
    return b"".join(
        text.encode() + b"\0" for text in (head, *(f"{k}={v}" for k, v in fields.items()))
    )


def recorded():
    """Return the recorded events as the messages that they were."""
    parts = RECORDED.read_text().strip().split("\n\n")
    return [datagram(dict(line.split("=", 1) for line in part.split("\n"))) for part in parts]


def test_recorded_events_tell_blocks_and_what_became_of_them():
    events = [uevent.parse(raw) for raw in recorded()]
    assert [(each.action, each.block) for each in events] == [
        ("add", 32),
        ("add", 33),
        ("online", None),  # the DIMM's container
        ("online", 32),
        ("online", 33),
        ("offline", 32),
        ("offline", 33),
        ("remove", 32),
        ("remove", 33),
    ]
    numbers = [each.seqnum for each in events]
    assert numbers == list(range(numbers[0], numbers[0] + 9))
    assert events[2].path == "/devices/system/container/PNP0A06:04"


def test_a_block_of_another_subsystem_is_none():
    raw = b"add@/devices/system/memory/memory7\0SUBSYSTEM=net\0"
    assert uevent.parse(raw).block is None
    assert uevent.parse(b"add@/devices/system/memory/memory07\0").block is None
    assert uevent.parse(b"add@/devices/system/memory/memory7\0").block == 7


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\0",
        b"libudev\0\xfe\xed\xca\xfe" + bytes(24),
        b"add@/devices/system/memory/memory1",
        b"add/devices\0",
        b"@/devices\0",
        b"add@devices/system/memory/memory1\0",
        b"ADD@/devices/system/memory/memory1\0",
        b"add@/devices/system/memory/memory1\nx\0",
        b"add@/devices/system/memory/memory1\0ACTION=remove\0",
        b"add@/devices/system/memory/memory1\0DEVPATH=/devices/system/memory/memory2\0",
        b"add@/devices/system/memory/memory1\0NOVALUE\0",
        b"add@/devices/system/memory/memory1\0=x\0",
        b"add@/devices/system/memory/memory1\0\0",
        b"a" * 17 + b"@/devices\0",
        b"add@/" + b"x" * uevent.MOST_BYTES + b"\0",
    ],
)
def test_what_is_no_event_is_refused_in_one_line(raw):
    with pytest.raises(InputError) as refused:
        uevent.parse(raw)
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


@pytest.mark.parametrize("text", ["", "x", "-1", "1" * 21, "\u0661"])
def test_a_number_that_is_none_is_left_out(text):
    assert uevent.parse(f"add@/a\0SEQNUM={text}\0".encode()).seqnum is None


def parsed_or_refused(raw):
    """Return whether the message is an event; what is none gives one line."""
    try:
        event = uevent.parse(raw)
    except InputError as error:
        return "\n" not in str(error)
    return event.path.startswith("/")


@given(st.one_of(st.binary(max_size=300), st.binary(max_size=80).map(lambda b: b"add@/a\0" + b)))
def test_garbage_gives_an_event_or_one_error(raw):
    assert parsed_or_refused(raw)


@given(st.integers(0, 10_000), st.integers(0, 255), st.integers(0, 8))
def test_a_damaged_message_gives_an_event_or_one_error(at, value, which):
    raw = bytearray(recorded()[which])
    raw[at % len(raw)] = value
    assert parsed_or_refused(bytes(raw))
