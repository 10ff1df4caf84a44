"""An example fleet: the same seed gives the same machines and requests, everywhere."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TypeVar

from altmap.sweep.fleet import FleetRequest

__all__ = ("example_fleet",)

_T = TypeVar("_T")

#: GiB of boot memory, and how many machines of a hundred have it.
_FLAVOURS = ((2, 10), (4, 35), (8, 35), (16, 20))
#: How memory arrives, and on how many machines of a hundred.
_DRIVERS = (("virtio-mem", 40), ("dimm", 30), ("hyperv", 20), ("kmem", 10))
_MOST_REQUESTS = 4
#: A request is for so many parts of the boot memory at most, each a half of it.
_MOST_PARTS, _PARTS = 4, 2
_SECONDS_BETWEEN = 6 * 3600


def example_fleet(nr_machines: int, seed: int) -> Iterator[FleetRequest]:
    """Yield the requests of a made-up fleet in a day, machine by machine.

    Each choice depends on the seed, the machine's number and what is chosen, and on nothing else.
    A machine has one to four requests, each for up to twice its boot memory beyond that.
    """
    for number in range(nr_machines):
        yield from _machine(_Dice(f"{seed}:{number}"), f"vm{number:06d}")


def _machine(dice: _Dice, name: str) -> Iterator[FleetRequest]:
    boot_mib = 1024 * dice.weighted("flavour", _FLAVOURS)
    driver = dice.weighted("driver", _DRIVERS)
    seconds, parts = 0, 0
    for request in range(1 + dice.below("requests", _MOST_REQUESTS)):
        seconds += 600 + dice.below(f"time {request}", _SECONDS_BETWEEN)
        others = [nr for nr in range(_MOST_PARTS + 1) if nr != parts]
        parts = others[dice.below(f"size {request}", len(others))]
        yield FleetRequest(
            time=str(seconds),
            machine=name,
            driver=driver,
            memory=f"{boot_mib}MiB",
            requested=f"{boot_mib + parts * boot_mib // _PARTS}MiB",
        )


class _Dice:
    """Numbers that follow from a text and a question alone."""

    def __init__(self, text: str) -> None:
        self._text = text

    def below(self, question: str, end: int) -> int:
        """Return a number from 0 on that is below *end*."""
        raw = hashlib.blake2b(f"{self._text}:{question}".encode(), digest_size=8).digest()
        return int.from_bytes(raw, "big") % end

    def weighted(self, question: str, choices: Sequence[tuple[_T, int]]) -> _T:
        """Return one of the choices, each as often as the weight beside it says."""
        at = self.below(question, sum(weight for _, weight in choices))
        for value, weight in choices:
            if at < weight:
                return value
            at -= weight
        raise AssertionError(at)
