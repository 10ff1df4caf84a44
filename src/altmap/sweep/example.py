"""An example fleet: the same seed gives the same machines and requests on every computer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

from altmap.sweep.fleet import FleetRequest

__all__ = ("example_fleet",)

_T = TypeVar("_T")

#: GiB of boot memory, and percent of machines that have it.
_FLAVOURS = ((2, 10), (4, 35), (8, 35), (16, 20))
#: Driver, and percent of machines that use it.
_DRIVERS = (("virtio-mem", 40), ("dimm", 30), ("hyperv", 20), ("kmem", 10))
_MOST_REQUESTS = 4
#: Most parts of a request; a part is half of the boot memory.
_MOST_PARTS, _PARTS = 4, 2
_SECONDS_BETWEEN = 6 * 3600


def example_fleet(nr_machines: int, seed: int) -> Iterator[FleetRequest]:
    """Yield the requests of a generated fleet in a day, machine by machine.

    Each choice depends only on the seed, the machine's number and the name of the choice.
    A machine has one to four requests, each for up to twice its boot memory beyond that.
    """
    for number in range(nr_machines):
        yield from _machine(_HashNumbers(f"{seed}:{number}"), f"vm{number:06d}")


def _machine(numbers: _HashNumbers, name: str) -> Iterator[FleetRequest]:
    boot_mib = 1024 * numbers.weighted("flavour", _FLAVOURS)
    driver = numbers.weighted("driver", _DRIVERS)
    seconds, parts = 0, 0
    for request in range(1 + numbers.below("requests", _MOST_REQUESTS)):
        seconds += 600 + numbers.below(f"time {request}", _SECONDS_BETWEEN)
        others = [nr for nr in range(_MOST_PARTS + 1) if nr != parts]
        parts = others[numbers.below(f"size {request}", len(others))]
        yield FleetRequest(
            time=str(seconds),
            machine=name,
            driver=driver,
            memory=f"{boot_mib}MiB",
            requested=f"{boot_mib + parts * boot_mib // _PARTS}MiB",
        )


class _HashNumbers:
    """Numbers that depend only on a text and a choice's name."""

    def __init__(self, text: str) -> None:
        self._text = text

    def below(self, choice: str, end: int) -> int:
        """Return a number from 0 to *end* - 1."""
        raw = hashlib.blake2b(f"{self._text}:{choice}".encode(), digest_size=8).digest()
        return int.from_bytes(raw, "big") % end

    def weighted(self, choice: str, choices: Sequence[tuple[_T, int]]) -> _T:
        """Return one of the choices, with probabilities in proportion to their weights."""
        at = self.below(choice, sum(weight for _, weight in choices))
        for value, weight in choices:
            if at < weight:
                return value
            at -= weight
        raise AssertionError(at)
