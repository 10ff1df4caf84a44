"""The targets of ``fuzz/``: each takes its seeds and changes of them; old crashes stay fixed."""

import random
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[2] / "fuzz"
sys.path.insert(0, str(FUZZ))
import harness  # noqa: E402

sys.path.remove(str(FUZZ))
#: TARGET-DIGEST: what fuzzing found.
CRASHES = Path(__file__).parents[1] / "crashes"
NAMES = sorted(path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.py"))


@pytest.fixture(scope="module")
def targets():
    sys.path.insert(0, str(FUZZ))
    yield harness.modules()
    sys.path.remove(str(FUZZ))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_input_is_taken_or_refused_in_one_line(targets, name):
    module = targets[name]
    chance = random.Random(0)
    assert sum(harness.check(module.TestOneInput, seed) for seed in module.SEEDS[:20])
    for _ in range(60):
        harness.check(module.TestOneInput, harness.mutated(list(module.SEEDS), chance))


@pytest.mark.parametrize("path", sorted(CRASHES.iterdir()), ids=lambda path: path.name)
def test_what_was_a_crash_once_is_taken_or_refused(targets, path):
    name = path.name.rpartition("-")[0]
    harness.check(targets[name].TestOneInput, path.read_bytes())


@pytest.mark.parametrize(
    "error", [ValueError("x"), RecursionError(), MemoryError(), AssertionError()], ids=repr
)
def test_another_exception_than_a_refusal_is_a_defect(error):
    def target(data):
        raise error

    with pytest.raises(type(error)):
        harness.check(target, b"")


def test_a_refusal_of_several_lines_is_a_defect():
    from altmap.errors import InputError

    def target(data):
        raise InputError("a\nb")

    with pytest.raises(AssertionError, match="not one line"):
        harness.check(target, b"")


def test_an_input_that_takes_too_long_is_a_defect(monkeypatch):
    monkeypatch.setattr(harness, "MOST_SECONDS", 0.05)

    def target(data):
        while True:
            pass

    with pytest.raises(harness.Slow):
        harness.check(target, b"")


def test_the_same_seed_makes_the_same_inputs():
    seeds = [b'{"a": 12}', b"Node 0, zone Normal"]
    made = [harness.mutated(seeds, random.Random(number)) for number in (1, 1, 2)]
    assert made[0] == made[1] != made[2]
