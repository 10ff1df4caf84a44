"""A scenario drawn by chance: combinations that no other test has.

The same seed and number draw the same scenario. Of several candidates the one is taken whose
prediction reaches most that the hunt has not reached. Each step is tried on the model before it
is kept, so that it can be asked; refusals by the kernel are part of it.

Effects: randomness.
"""

from __future__ import annotations

import random
from functools import partial

from altmap.model.machine import predict
from altmap.scenario import Scenario
from altmap.verify.hunt.branches import with_branches
from altmap.verify.hunt.coverage import Coverage, features_of
from altmap.verify.hunt.drawing import Drawing
from altmap.verify.hunt.machines import draw_machine
from altmap.verify.hunt.situations import SITUATIONS
from altmap.verify.hunt.space import Family
from altmap.verify.hunt.steps import STEPS

__all__ = ("draw_scenario",)

_NR_CANDIDATES = 12
_MAKERS = {**STEPS, **SITUATIONS}


def draw_scenario(
    family: Family, release: str, seed: int, number: int, coverage: Coverage
) -> tuple[Scenario, frozenset[str]]:
    """Return a scenario and the features that its prediction reaches.

    Parameters
    ----------
    family : Family
    release : str
        Of the kernel.
    seed, number : int
        Which scenario: the same two give the same candidates.
    coverage : Coverage
        What was reached before; it decides between the candidates.
    """
    best: tuple[float, Scenario, frozenset[str]] | None = None
    for candidate in range(_NR_CANDIDATES):
        chance = random.Random(f"{family.name} {release} {seed} {number} {candidate}")
        name = f"hunt-{family.name}-{release}-{seed}-{number}"
        machine, there = draw_machine(family, release, seed, chance)
        drawing = Drawing(chance, family, machine, there, name)
        _draw(drawing, chance.randrange(3, 11))
        scenario = drawing.scenario()
        trace, branches = with_branches(partial(predict, scenario, pages=False))
        reached = features_of(trace) | branches
        novelty = coverage.novelty(reached)
        if best is None or novelty > best[0]:
            best = novelty, scenario, reached
    assert best is not None
    return best[1:]


def _draw(drawing: Drawing, nr_steps: int) -> None:
    """Draw steps until there are so many, or until none fits any more."""
    makers = [_MAKERS[name] for name in drawing.family.steps]
    weights = list(drawing.family.steps.values())
    for _ in range(10 * nr_steps):
        if len(drawing.steps) >= nr_steps:
            return
        made = drawing.chance.choices(makers, weights)[0](drawing)
        for step in (made,) if isinstance(made, dict) else made or ():
            drawing.add(step)
