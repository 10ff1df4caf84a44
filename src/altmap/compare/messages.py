"""Extractor of the messages between a Hyper-V host and its guest, byte for byte but for chance.

Chance is when a guest reports its memory pressure, so the numbers of its later messages, and which
pages the buddy allocator gives to the balloon.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from altmap.compare.side import Key, Side
from altmap.protocol.hyperv_messages import (
    BalloonRequest,
    BalloonResponse,
    Message,
    MessageError,
    StatusReport,
    UnballoonRequest,
    decode,
)
from altmap.trace import StepRecord

__all__ = ("ballooned_after", "given_at_the_floor", "hyperv_messages")

#: How the functions of drivers/virtio/virtio_mem.c begin.
_VIRTIO_MEM = "virtio_mem_"


def ballooned_after(step: StepRecord, before: int, at_floor: bool) -> tuple[int, bool]:
    """Return the pages of a Hyper-V balloon after a step, and whether a request fell short.

    A request falls short where the guest is at its floor (``drivers/hv/hv_balloon.c: balloon_up``);
    once all pages are back, none did.
    """
    asked, given, returned = _balloon_pages(step)
    left = before + given - returned
    return left, bool(left) and (at_floor or given < asked)


def given_at_the_floor(side: Side) -> Iterator[tuple[Key, Any]]:
    """Yield how many pages a guest gave that had too few for its host's request."""
    asked, given, _ = _balloon_pages(side.step)
    if given < asked:
        yield (), given


def _balloon_pages(step: StepRecord) -> tuple[int, int, int]:
    """Return the pages that a host asked for, that the guest gave, and that it got back."""
    asked = given = returned = 0
    for event in step.events:
        if event.message is None or (event.function or "").startswith(_VIRTIO_MEM):
            continue
        try:
            message = decode(event.message)
        except MessageError:
            continue
        if isinstance(message, BalloonRequest):
            asked += message.num_pages
        elif isinstance(message, BalloonResponse):
            given += sum(pages.page_cnt for pages in message.ranges)
        elif isinstance(message, UnballoonRequest):
            returned += sum(pages.page_cnt for pages in message.ranges)
    return asked, given, returned


def hyperv_messages(side: Side) -> Iterator[tuple[Key, Any]]:
    """Yield the messages of a step in their order.

    Of a guest's message the number is left out. Of pages that a balloon has, their number in each
    range counts; of those that go back, where adjacent pages are one range, their sum.

    Messages of virtio-mem are left out: a real kernel logs its requests, which are compared as
    such, and shows no bytes. So are responses of a guest that has too few pages for a request, and
    requests for what it lacks still: :func:`given_at_the_floor` tells the sum of what it gave.
    """
    number = nr_pages = 0
    asked, given, _ = _balloon_pages(side.step)
    falls_short, requested = given < asked, False
    for event in side.step.events:
        if event.message is None or (event.function or "").startswith(_VIRTIO_MEM):
            continue
        try:
            message = decode(event.message)
        except MessageError:  # compared all the same
            number += 1
            yield (number,), event.message.hex()
            continue
        if isinstance(message, StatusReport):
            continue
        if falls_short and isinstance(message, BalloonResponse):
            continue
        if falls_short and isinstance(message, BalloonRequest):
            if requested:
                continue
            requested = True
        if isinstance(message, UnballoonRequest):
            nr_pages += sum(pages.page_cnt for pages in message.ranges)
            if message.more_pages:
                continue
        number += 1
        yield (number,), _text(message, event.message, nr_pages)


def _text(message: Message, raw: bytes, nr_unballooned: int) -> str:
    name = message.TYPE.name
    match message:
        case BalloonResponse():
            counts = " ".join(str(pages.page_cnt) for pages in message.ranges)
            return f"{name} more_pages={int(message.more_pages)} pages={counts}"
        case UnballoonRequest():
            return f"{name} pages={nr_unballooned}"
    # The header is type, size and number (struct dm_header).
    return f"{name} {(raw[:4] + bytes(4) + raw[8:] if message.TO_HOST else raw).hex()}"
