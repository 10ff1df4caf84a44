"""How fast a search goes, beside the usual way of testing a state machine, and with two processes.

    python benchmarks/bench_explore.py [--json] [--depth N]

search
    Transitions a second of processor time on the built-in machine of four memory blocks.
hypothesis
    The same operations, model and rules, driven by the stateful runner of Hypothesis.
two
    Transitions a second of elapsed time with two processes, beside one.

A search is of whole levels, whatever the machine's load: the more states are known, the more
results are carried over, and where a number of states ends a level, one process waits for the
other. All in one run. Targets: 1,250 transitions in the time of a fixed loop of Python
(``yardstick.py``); 40 times Hypothesis; 1.8 times with two.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from msgspec.structs import replace
from yardstick import loop_seconds

from altmap.errors import InputError
from altmap.explore import built_in
from altmap.explore.cells import Cells, WorkingCopy
from altmap.explore.moves import KINDS
from altmap.explore.rules import RULES, Change
from altmap.explore.search import SearchResult, search
from altmap.explore.space import Space
from altmap.explore.spec import Exploration, load_exploration
from altmap.explore.workers import workers
from altmap.model.machine import ModelMachine

TARGET_PER_LOOP, TARGET_HYPOTHESIS, TARGET_TWO = 1250, 40, 1.8
EXAMPLES, STEPS = 40, 50


def four_blocks(depth: int = 9) -> Exploration:
    exploration = load_exploration(built_in("four-blocks"))
    return replace(exploration, bounds=replace(exploration.bounds, depth=depth))


def alone(depth: int) -> tuple[SearchResult, float, float]:
    """Return what a search found, and how long it took: of the processor, and elapsed."""
    space = Space(four_blocks(depth), RULES)
    used, started = time.process_time(), time.monotonic()
    result = search(space)
    return result, time.process_time() - used, time.monotonic() - started


def together(depth: int) -> tuple[SearchResult, float]:
    exploration = four_blocks(depth)
    with workers(exploration, [], [], 2) as two:
        for worker in two:
            worker.save()  # both are up
        started = time.monotonic()
        result = search(Space(exploration, RULES), two)
        return result, time.monotonic() - started


def hypothesis_rate() -> float:
    """Return the steps a second of processor time that Hypothesis's runner does."""
    exploration, done = four_blocks(), [0]
    start = ModelMachine.start(exploration.machine, pages=False)
    cells = Cells(ModelMachine.start(exploration.machine, pages=False))

    class Blocks(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.machine = ModelMachine.start(exploration.machine, pages=False)

        @rule(data=st.data())
        def step(self, data: Any) -> None:
            steps = [step for kind in KINDS for step in kind.steps(self.machine, exploration)]
            chosen = data.draw(st.sampled_from(steps))
            before = cells.snapshot(self.machine)
            try:
                record = self.machine.perform(chosen)
            except InputError:
                return
            done[0] += 1
            was, now = cells.values(before), cells.values(cells.snapshot(self.machine))
            pairs = zip(cells.names, was, now, strict=True)
            changed = frozenset(name for name, old, new in pairs if old != new)
            earlier = WorkingCopy(cells, before).machine
            change = Change(earlier, self.machine, chosen, record, changed)
            for each in RULES:
                if each.on_state is not None:
                    assert each.on_state(self.machine, start) is None
                if each.on_step is not None:
                    assert each.on_step(change) is None

    used = time.process_time()
    run_state_machine_as_test(
        Blocks,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    return done[0] / (time.process_time() - used)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--depth", type=int, default=9)
    args = parser.parse_args()
    one, used, elapsed = alone(args.depth)
    other = hypothesis_rate()
    two, both = together(args.depth)
    figures = {
        "load": os.getloadavg()[0],
        "transitions": one.nr_transitions,
        "states": one.nr_states,
        "worked_out": one.nr_computed,
        "transitions_per_second": one.nr_transitions / used,
        "transitions_per_loop": one.nr_transitions / used * loop_seconds(),
        "hypothesis_steps_per_second": other,
        "times_hypothesis": one.nr_transitions / used / other,
        "times_with_two": (two.nr_transitions / both) / (one.nr_transitions / elapsed),
    }
    if args.json:
        print(json.dumps(figures, indent=1))
        return 0
    share = one.nr_computed / one.nr_transitions
    print(f"load {figures['load']:.1f}")
    print(
        f"search      {figures['transitions_per_second']:>9,.0f} transitions a second of processor "
        f"time; {one.nr_transitions:,} in all, {share:.1%} on the model"
    )
    print(
        f"            {figures['transitions_per_loop']:>9,.0f} in the time of a loop of Python "
        f"(target {TARGET_PER_LOOP:,})"
    )
    print(
        f"hypothesis  {other:>9,.0f} steps; the search does {figures['times_hypothesis']:.0f} "
        f"times as many (target {TARGET_HYPOTHESIS})"
    )
    print(
        f"two         {figures['times_with_two']:>9.2f} times as many with two processes, elapsed "
        f"(target {TARGET_TWO})"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
