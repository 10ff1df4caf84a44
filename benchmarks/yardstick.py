"""A fixed loop of Python, by which times are measured where no other program does the same work.

Twice as fast a machine runs it in half the time, so a target in loops is the same on both.
"""

from __future__ import annotations

import time

__all__ = ("loop_seconds",)

_NR_ROUNDS, _RUNS = 1_000_000, 5


def loop_seconds() -> float:
    """Return the least processor time of the loop: about 0.05 s on a machine of 2023."""
    best = float("inf")
    for _ in range(_RUNS):
        started = time.process_time()
        _loop()
        best = min(best, time.process_time() - started)
    return best


def _loop() -> int:
    counts: dict[int, int] = {}
    for nr in range(_NR_ROUNDS):
        counts[nr & 1023] = counts.get(nr & 1023, 0) + nr
    return len(counts)
