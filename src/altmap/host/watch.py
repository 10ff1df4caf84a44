"""Following a machine's memory blocks: a look after each event, and one now and then.

This module has effects: it tells the time, and waits.

Effects: clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from altmap.host.changes import BlockChange, MemoryView, changes
from altmap.host.uevents import Ears
from altmap.linux.uevent import Uevent

__all__ = ("News", "watch")


@dataclass(frozen=True, slots=True)
class News:
    """What was noticed at one moment.

    Attributes
    ----------
    time_seconds : float
        Since 1970.
    events : tuple of Uevent
    lost : bool
        Events were lost, since too many came at once; the changes are whole nevertheless.
    changes : tuple of BlockChange
    mem_total_kib : tuple of int or None
        MemTotal before and after, ``None`` if it has not changed.
    look : MemoryView
        The machine afterwards.
    """

    time_seconds: float
    events: tuple[Uevent, ...]
    lost: bool
    changes: tuple[BlockChange, ...]
    mem_total_kib: tuple[int, int] | None
    look: MemoryView

    def __bool__(self) -> bool:
        return bool(self.events or self.lost or self.changes or self.mem_total_kib)


def watch(
    look: Callable[[], MemoryView], ears: Ears, interval_seconds: float, limit_seconds: float | None
) -> Iterator[News]:
    """Yield what happens, first the machine as it is; nothing is yielded while nothing happens.

    Events say that something happened and observations say what, so that blocks are followed also
    where events are not received (another user namespace's container), only later.

    Parameters
    ----------
    look : callable
        Reads the machine.
    ears : Ears
        Listening since before the first look.
    interval_seconds : float
        Time between observations while no event arrives.
    limit_seconds : float or None
        When to end; ``None`` is never.

    Raises
    ------
    InputError
        If the machine cannot be read.
    """
    end = None if limit_seconds is None else time.monotonic() + limit_seconds
    last = look()
    yield News(time.time(), (), False, (), None, last)
    while end is None or time.monotonic() < end:
        left = interval_seconds if end is None else min(interval_seconds, end - time.monotonic())
        heard = ears.wait(max(0.0, left))
        now = look()
        news = News(
            time.time(),
            heard.events,
            heard.lost,
            tuple(changes(last, now)),
            _difference(last.mem_total_kib, now.mem_total_kib),
            now,
        )
        last = now
        if news:
            yield news


def _difference(before: int | None, after: int | None) -> tuple[int, int] | None:
    return (before, after) if None not in (before, after) and before != after else None  # type: ignore[return-value]
