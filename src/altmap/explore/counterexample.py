"""A broken rule as a scenario, for ``altmap run``, ``report`` and a real kernel."""

from __future__ import annotations

from altmap.errors import AltmapError
from altmap.explore.cells import Cells, WorkingCopy
from altmap.explore.rules import Change
from altmap.explore.search import Found
from altmap.explore.space import Space
from altmap.explore.spec import Exploration
from altmap.scenario import Scenario, scenario_text
from altmap.trace import OK, StepRecord

__all__ = ("confirm", "counterexample_toml")


def counterexample_toml(exploration: Exploration, found: Found) -> str:
    """Return the scenario of a broken rule, as TOML."""
    return scenario_text(
        Scenario(
            name=f"{exploration.name}-{found.rule}",
            description=f"breaks the rule {found.rule}: {found.why}",
            machine=exploration.machine,
            steps=found.steps,
        )
    )


def confirm(space: Space, found: Found) -> None:
    """Run a sequence on the model, with nothing carried over, and check that it breaks the rule.

    Raises
    ------
    AltmapError
        If it does not: a defect of the search.
    """
    (rule,) = [rule for rule in space.rules if rule.name == found.rule]
    start, machine = space.boot(), space.boot()
    cells = Cells(machine)
    before = cells.origin
    record = StepRecord("start", {}, OK)
    for step in found.steps:
        before = cells.snapshot(machine)
        record = machine.perform(step)
    if rule.on_state is not None:
        why = rule.on_state(machine, start)
    else:
        assert rule.on_step is not None
        was, now = cells.values(before), cells.values(cells.snapshot(machine))
        pairs = zip(cells.names, was, now, strict=True)
        changed = frozenset(name for name, old, new in pairs if old != new)
        earlier = WorkingCopy(cells, before).machine
        why = rule.on_step(Change(earlier, machine, found.steps[-1], record, changed))
    if not why:
        raise AltmapError(
            f"the rule {found.rule} was found broken, but {len(found.steps)} steps on the model "
            "do not break it: please report this"
        )
