"""The driver protocol log: messages of host and guest, as plain text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from altmap.errors import printable
from altmap.trace import GUEST_TO_HOST, HOST_TO_GUEST, Event, Trace

__all__ = ("driver_log",)

_HEAD_WIDTH = 18
_BYTES_PER_LINE = 16


def driver_log(trace: Trace, title: str, width: int = 100, *, show_bytes: bool = False) -> str:
    """Return the driver protocol log of a trace, step by step, in the order of time.

    Parameters
    ----------
    trace : Trace
    title : str
    width : int
        Columns of the terminal.
    show_bytes : bool
        Also show each message's bytes, where it has any.
    """
    heading = textwrap.wrap(printable(title), width)
    out = [*heading, f"driver log: {trace.target} {trace.release}, policy {trace.policy}"]
    number = 0
    for index, step in enumerate(trace.steps[1:], start=1):
        out.extend(("", f"[{index}] {step.name}"))
        events = [event for event in step.events if event.kind == "driver"]
        if not events:
            out.append("  no messages")
        for event in events:
            number += 1
            out.extend(_entry(number, event, width))
            if show_bytes and event.message is not None:
                out.extend(_dump(event.message))
    return "\n".join(line.rstrip() for line in out) + "\n"


def _entry(number: int, event: Event, width: int) -> Iterator[str]:
    """Yield the lines of one event: its number, the direction, the text."""
    sender, text = "guest", event.text
    for direction in (HOST_TO_GUEST, GUEST_TO_HOST):
        if text.startswith(direction):
            sender, text = direction.rstrip(": "), text.removeprefix(direction)
    if event.function:
        text = f"{text} ({event.function})"
    head = f"{number:4}  {sender}"
    room = max(20, width - _HEAD_WIDTH)
    lines = textwrap.wrap(printable(text), room, subsequent_indent="  ") or [""]
    yield f"{head:{_HEAD_WIDTH}}{lines[0]}"
    for line in lines[1:]:
        yield " " * _HEAD_WIDTH + line


def _dump(message: bytes) -> Iterator[str]:
    for offset in range(0, len(message), _BYTES_PER_LINE):
        part = message[offset : offset + _BYTES_PER_LINE]
        yield " " * _HEAD_WIDTH + f"{offset:04x}  {part[:8].hex(' ')}  {part[8:].hex(' ')}"
