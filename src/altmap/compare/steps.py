"""Extractors of what a step did: its result, a driver's requests, the frames that were touched."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from altmap.compare.side import UNKNOWN, Key, Side
from altmap.pfn import PfnSet
from altmap.trace import GUEST_TO_HOST

__all__ = (
    "errno",
    "first_unbacked_frame",
    "frames_beside_online_blocks",
    "frames_of_fault",
    "requests",
    "status",
    "touched_frames",
)

_Pairs = Iterator[tuple[Key, Any]]
#: A virtio-mem driver's request; a real kernel logs it.
_REQUEST = re.compile(GUEST_TO_HOST + r"(?:PLUG|UNPLUG|UNPLUG_ALL) 0x.*")
#: The errno of a real kernel that refuses and does not say why.
_NO_ERRNO = "?"
_ACCESSES = ("write", "read")
_ADDING = ("plug", "online")


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


def frames_of_fault(side: Side) -> _Pairs:
    """Yield the frames of the touch that ends the kernel and that are not backed, by access.

    They are compared where both kernels end, and both sides can tell every touch.
    """
    for access in _ACCESSES:
        found = [fault.pfns for fault in side.step.faults if fault.access == access]
        yield (access,), found[0] if found and _tells_touches(side) else UNKNOWN


def touched_frames(side: Side) -> _Pairs:
    """Yield the frames of added memory that the step touches, by access: read also what is written.

    What ends the kernel is compared by :func:`frames_of_fault`.
    """
    written, read = _touched(side, "write"), _touched(side, "read")
    both = UNKNOWN if UNKNOWN in (written, read) else written | read
    yield ("write",), written
    yield ("read",), both


def frames_beside_online_blocks(side: Side) -> _Pairs:
    """Yield the touched frames that are in no online block after the step, by access.

    Only of steps that add memory or online it: what was online before is touched by anything.
    """
    if side.step.action.get("do") not in _ADDING:
        return
    online = side.online_memory
    written, read = _touched(side, "write"), _touched(side, "read")
    yield ("write",), UNKNOWN if written is UNKNOWN else written - online
    yield ("read",), UNKNOWN if UNKNOWN in (written, read) else read - written - online


def _tells_touches(side: Side) -> bool:
    """Tell whether a side knows every touch: the model does, a real kernel with the plugin too."""
    return side.step.backed is not None or any(e.kind == "touched" for e in side.step.events)


#: Which frames pages that migrate lie in is chance.
_COPIES = "migrate_pages"


def _touched(side: Side, access: str) -> Any:
    """Return the frames of added memory that the step's events say were touched.

    A fault ends one kernel at once and another some accesses later.
    """
    if side.step.faults or not _tells_touches(side):
        return UNKNOWN
    found = PfnSet()
    for event in side.step.events:
        if event.pfns and event.kind == access and event.function not in (None, _COPIES):
            found |= PfnSet.of(event.pfns)
    return found - side.boot_memory
