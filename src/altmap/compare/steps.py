"""Extractors of what a step did: its result, a driver's requests, the frames that were touched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from altmap.compare.side import UNKNOWN, Key, Side
from altmap.trace import GUEST_TO_HOST

__all__ = ("errno", "first_unbacked_frame", "requests", "status")

_Pairs = Iterator[tuple[Key, Any]]
#: A virtio-mem driver's request; a real kernel logs it.
_REQUEST = re.compile(GUEST_TO_HOST + r"(?:PLUG|UNPLUG|UNPLUG_ALL) 0x.*")
#: The errno of a real kernel that refuses and does not say why.
_NO_ERRNO = "?"
_ACCESSES = ("write", "read")


@dataclass(frozen=True, slots=True)
class _Status:
    """How a step ended; the reason is shown and is not compared."""

    word: str
    reason: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{self.word} ({self.reason})" if self.reason else self.word


def status(side: Side) -> _Pairs:
    """Yield how the step ended, with the function and the sentence that give the reason."""
    outcome = side.step.outcome
    yield (), _Status(outcome.status, ": ".join(filter(None, (outcome.function, outcome.why))))


def errno(side: Side) -> _Pairs:
    """Yield the name of the error; one that the real kernel does not tell is unknown."""
    name = side.step.outcome.errno
    if name is not None:
        yield (), UNKNOWN if name == _NO_ERRNO else name


def requests(side: Side) -> _Pairs:
    """Yield what a virtio-mem driver requests of its device, in order."""
    texts = [
        event.text
        for event in side.step.events
        if event.kind == "driver" and _REQUEST.fullmatch(event.text)
    ]
    for number, text in enumerate(texts, start=1):
        yield (number,), text


def first_unbacked_frame(side: Side) -> _Pairs:
    """Yield the first frame that the kernel touched and the platform does not back, by access.

    How many more a real kernel touches before its machine check is chance. A side without faults
    has none only if it knows what is backed; else its frames are unknown.
    """
    step = side.step
    for access in _ACCESSES:
        touched = [fault.pfn for fault in step.faults if fault.access == access]
        if touched:
            yield (access,), hex(touched[0])
        elif step.backed is None and not step.faults:
            yield (access,), UNKNOWN
