"""Make a scenario smaller as long as it shows the same: steps, keys of the machine, sizes.

Steps go first, in halves and then one by one (delta debugging); what is left has no step, key or
size that could be simpler. Whether a smaller scenario shows the same is asked of a real kernel, so
candidates that the model refuses are not tried.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import msgspec

from altmap.errors import InputError
from altmap.scenario import Machine, Scenario, Step

__all__ = ("shrink",)

#: Keys of steps that are sizes, and what a smaller one is a multiple of.
_SIZES = ("size", "requested")
_ALIGNMENT_BYTES = 128 << 20
_KEPT = ("arch", "release", "page_size")


def shrink(
    scenario: Scenario, shows: Callable[[Scenario], bool], most_tries: int = 60
) -> tuple[Scenario, int]:
    """Return the smallest scenario that shows the same, and how many were tried.

    Parameters
    ----------
    scenario : Scenario
        It shows it.
    shows : callable
        Whether another scenario does. An InputError of it counts as no.
    most_tries : int
        Scenarios that are tried at most.
    """
    tried = 0

    def still(smaller: Scenario) -> bool:
        nonlocal tried
        tried += 1
        try:
            return shows(smaller)
        except InputError:
            return False

    progress = True
    while progress and tried < most_tries:
        progress = False
        for smaller in _simpler(scenario):
            if tried >= most_tries:
                break
            if still(smaller):
                scenario, progress = smaller, True
                break
    return scenario, tried


def _simpler(scenario: Scenario) -> Iterator[Scenario]:
    """Yield each scenario that is one change simpler; large cuts first."""
    for steps in _shorter(scenario.steps):
        yield scenario.with_steps(steps)
    defaults = msgspec.structs.asdict(Machine())
    for key, value in msgspec.structs.asdict(scenario.machine).items():
        if value != defaults[key] and key not in _KEPT and key != "memory":
            yield from _made(partial(_machine, scenario, **{key: defaults[key]}))
    for index, step in enumerate(scenario.steps):
        for key in _SIZES:
            half = _half(getattr(step, key, None))
            if half:
                yield from _made(partial(_sized, scenario, index, key, half))


def _shorter(steps: Sequence[Step]) -> Iterator[tuple[Step, ...]]:
    length = len(steps)
    part = length // 2
    while part:
        for start in range(0, length, part):
            yield (*steps[:start], *steps[start + part :])
        part //= 2


def _machine(scenario: Scenario, **changes: Any) -> Scenario:
    return scenario.replace(machine=scenario.machine.replace(**changes))


def _sized(scenario: Scenario, index: int, key: str, size_bytes: int) -> Scenario:
    steps = list(scenario.steps)
    steps[index] = steps[index].replace(**{key: size_bytes})
    return scenario.with_steps(steps)


def _half(size_bytes: int | None) -> int:
    """Return half of a size, aligned; 0 if that is nothing."""
    half_bytes = (size_bytes or 0) // 2
    return half_bytes - half_bytes % _ALIGNMENT_BYTES


def _made(make: Callable[[], Scenario]) -> Iterator[Scenario]:
    """Yield a scenario, unless its keys do not fit together."""
    try:
        yield make()
    except InputError:
        return
