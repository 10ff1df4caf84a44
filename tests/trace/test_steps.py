"""Traces: one folder for each step, in order."""

from altmap.trace import OK, StepRecord, Trace


def trace(steps):
    return Trace("s", "model", "6.12", "opt-in", {}, steps)


def step():
    return StepRecord("x", {"do": "set"}, OK)


def test_folders_sort_in_the_order_of_steps():
    names = trace([step() for _ in range(120)]).folder_names()
    assert names == sorted(names)
    assert (names[0], names[119]) == ("000-x", "119-x")
    assert trace([step()]).folder_names() == ["00-x"]
