"""Runs a target on many inputs: with Atheris, guided by coverage, or by mutation alone.

    python fuzz/fuzz_plan.py [Atheris's arguments]       # needs: pip install atheris
    python fuzz/harness.py [--inputs N] [--seconds S] [--seed N] [TARGET ...]

A target is a module ``fuzz_NAME.py`` with ``TestOneInput(data)``, as OSS-Fuzz runs it, and
``SEEDS``. It returns, or raises what an input is refused with. Anything else is a defect: another
exception, more than 10 s of processor time, more than 1 GiB of memory. The input is kept in
``build/fuzz``.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import random
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType, ModuleType

from altmap.errors import AltmapError

FOLDER = Path(__file__).parent
CRASHES = FOLDER.parent / "build/fuzz"
MOST_SECONDS, MOST_BYTES = 10, 1 << 30
_MOST_INPUT_BYTES = 1 << 16
#: Where numbers turn: bits, signs, the limits of JSON and of page frames.
_NUMBERS = (
    *(b"0", b"-1", b"1", b"7", b"255", b"4096", b"65536", b"2147483648", b"4294967296"),
    *(b"1099511627776", b"4503599627370496", b"9223372036854775807", b"18446744073709551615"),
    *(b"18446744073709551616", b"1e999", b"-0.0", b"9" * 400, b"0x", b"ffffffffffffffff"),
)
_WORDS = (
    *(b"\0", b"\n", b"\xff\xfe", b"\xed\xa0\x80", "\u202e".encode(), b"\x1b[2J", b"../", b"%s"),
    *(b"null", b"true", b"[]", b"{}", b"[" * 2000, b'{"a":' * 2000, b'"', b"\\ud800", b":", b","),
    *(b"Node ", b"memory", b"online", b"zone", b"none", b"kB", b" ", b"    "),
)


def modules() -> dict[str, ModuleType]:
    """Return the targets by name."""
    names = sorted(path.stem for path in FOLDER.glob("fuzz_*.py"))
    return {name.removeprefix("fuzz_"): importlib.import_module(name) for name in names}


def mutated(seeds: list[bytes], chance: random.Random) -> bytes:
    """Return a seed with a few changes."""
    made = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        at = chance.randrange(len(made) + 1)
        end = min(len(made), at + chance.choice((0, 1, 1, 2, 4, 16, 200)))
        match chance.randrange(8):
            case 0:
                made[at:end] = chance.randbytes(end - at)
            case 1:
                made[at:end] = b""
            case 2:
                made[at:at] = made[at:end] * chance.choice((1, 2, 50))
            case 3:
                made[at:end] = chance.choice(_WORDS)
            case 4:
                other = chance.choice(seeds)
                start = chance.randrange(len(other) + 1)
                made[at:end] = other[start : start + chance.choice((1, 10, 100))]
            case 5 | 6:
                made = _with_number(made, chance)
            case _:
                del made[at:]
    return bytes(made[:_MOST_INPUT_BYTES])


def _with_number(made: bytearray, chance: random.Random) -> bytearray:
    """Replace one of the numbers."""
    places = [place for place in range(len(made)) if made[place] in b"0123456789"]
    if not places:
        return made
    start = end = chance.choice(places)
    while end < len(made) and made[end] in b"0123456789":
        end += 1
    made[start:end] = chance.choice(_NUMBERS)
    return made


class Slow(BaseException):
    """An input takes too long."""


def _expired(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise Slow


def check(target: Callable[[bytes], None], data: bytes) -> bool:
    """Run one input; return whether it was accepted.

    Raises
    ------
    BaseException
        What no input may raise.
    """
    signal.signal(signal.SIGVTALRM, _expired)
    signal.setitimer(signal.ITIMER_VIRTUAL, MOST_SECONDS)
    try:
        target(data)
    except AltmapError as error:
        if "\n" in str(error):
            raise AssertionError(f"not one line: {str(error)!r}") from error
        return False
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    return True


def run(
    name: str, module: ModuleType, nr_inputs: int, seconds: float, seed: int
) -> tuple[int, int]:
    """Run a target on mutated seeds; return the numbers of inputs and of defects."""
    chance = random.Random(f"{name} {seed}")
    seeds = list(module.SEEDS)
    end = time.monotonic() + seconds
    nr, nr_accepted = 0, 0
    seen: set[str] = set()
    for data in _inputs(seeds, chance, nr_inputs):
        if time.monotonic() > end:
            break
        nr += 1
        try:
            nr_accepted += check(module.TestOneInput, data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # MemoryError, Slow and panics too
            _keep(name, data, error, seen)
    print(f"{name:12} {nr:9,} inputs, {nr_accepted:9,} accepted, {len(seen)} defects", flush=True)
    return nr, len(seen)


def _inputs(seeds: list[bytes], chance: random.Random, nr_inputs: int) -> Iterator[bytes]:
    yield from seeds[:nr_inputs]
    for _ in range(nr_inputs - len(seeds)):
        yield mutated(seeds, chance)


def _keep(name: str, data: bytes, error: BaseException, seen: set[str]) -> None:
    """Keep the first input for each place that a defect shows at."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f"{type(error).__name__} {frames[-1].filename}:{frames[-1].lineno}"
    if place in seen:
        return
    seen.add(place)
    CRASHES.mkdir(parents=True, exist_ok=True)
    path = CRASHES / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}"
    path.write_bytes(data)
    print(f"{name}: {place}: {str(error)[:100]!r}: {path}", flush=True)


def main(module_name: str) -> None:
    """Run one target under Atheris."""
    import atheris

    with atheris.instrument_imports(include=["altmap"]):
        module = importlib.import_module(module_name)

    def one_input(data: bytes) -> None:
        check(module.TestOneInput, data)

    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


def _main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("targets", metavar="TARGET", nargs="*")
    parser.add_argument("--inputs", type=int, default=10_000, help="of each target")
    parser.add_argument("--seconds", type=float, default=60, help="of each target, at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    found = modules()
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    resource.setrlimit(resource.RLIMIT_AS, (MOST_BYTES + 8 * held, resource.RLIM_INFINITY))
    totals = [
        run(name, found[name], args.inputs, args.seconds, args.seed)
        for name in args.targets or found
    ]
    nr, nr_defects = (sum(column) for column in zip(*totals, strict=True))
    print(f"{nr:,} inputs, {nr_defects} defects")
    return 1 if nr_defects else 0


if __name__ == "__main__":
    raise SystemExit(_main())
