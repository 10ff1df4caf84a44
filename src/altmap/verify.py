"""A scenario on the model and on a real kernel: the one place where the two meet."""

from __future__ import annotations

import copy
from collections.abc import Callable

from altmap.compare import Comparison, compare, compare_layout
from altmap.lab.target import run_in_guest
from altmap.machine import ModelMachine, predict
from altmap.scenario import Scenario

__all__ = ("compare_with_lab",)


def compare_with_lab(
    scenario: Scenario, release: str | None, progress: Callable[[str], None]
) -> Comparison:
    """Run a scenario on a real kernel and on the model, and compare.

    The prediction starts from what the guest showed when it had booted, so only changes are
    predicted; a machine booted on paper is compared with that start as well, by its layout.
    """
    scenario = copy.deepcopy(scenario)
    if release is not None:
        scenario.machine.release = release
    observed = run_in_guest(scenario, progress)
    start = observed.steps[0].observation
    assert start is not None  # a guest that cannot be looked at raises
    comparison = compare(predict(scenario, start), observed)
    on_paper = ModelMachine.start(scenario.machine).observe()
    comparison.files[:0] = compare_layout(on_paper, start, "boot")
    return comparison
