"""The search itself: bounds, limits, several processes, and saved searches."""

import os
import signal

import pytest

from altmap.errors import AltmapError, InputError
from altmap.explore import built_in
from altmap.explore.checkpoint import read_checkpoint, write_checkpoint
from altmap.explore.rules import RULES, load_rules, rules_named
from altmap.explore.search import Local, search
from altmap.explore.share import Share
from altmap.explore.space import Space
from altmap.explore.spec import load_exploration
from altmap.explore.workers import workers
from altmap.scenario import step_name

MINE = """
from altmap.explore.rules import state_rule, step_rule

@state_rule("two-at-most", "no more than two blocks are added")
def few(machine, start):
    added = len(machine.kernel.added_blocks - start.kernel.added_blocks)
    return f"{added} blocks" if added > 2 else None

@step_rule("no-veto", "nothing is refused for a veto")
def no_veto(change):
    return change.record.outcome.why if change.record.outcome.kind == "veto" else None
"""


def space_of(name="four-blocks", depth=4, rules=(), more=()):
    exploration = load_exploration(built_in(name))
    exploration.bounds.depth = depth
    return Space(exploration, rules_named(rules, more))


def figures(result):
    return result.nr_states, result.nr_transitions, result.depth, result.whole


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    more = load_rules(tmp_path / "mine.py")
    alone = search(space_of(depth=4, more=more))
    space = space_of(depth=4, more=more)

    with workers(space.exploration, [], [tmp_path / "mine.py"], 2) as two:
        shared = search(space, two)

    assert figures(shared) == figures(alone)
    assert {(f.rule, len(f.steps)) for f in shared.found} == {
        (f.rule, len(f.steps)) for f in alone.found
    }


def test_a_process_that_crashes_is_one_error():
    space = space_of(depth=4)
    with workers(space.exploration, [], [], 2) as two:
        os.kill(two[1]._process.pid, signal.SIGKILL)
        with pytest.raises(AltmapError, match=r"process of the search ended \(exit code -9\)"):
            search(space, two)


def test_rules_from_a_file_are_broken_in_the_fewest_steps(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    result = search(space_of(more=load_rules(tmp_path / "mine.py")))

    steps = {found.rule: [step_name(step) for step in found.steps] for found in result.found}
    assert set(steps) == {"two-at-most", "no-veto"}
    assert len(steps["two-at-most"]) == 3
    assert all(name.startswith("plug") for name in steps["two-at-most"])
    assert len(steps["no-veto"]) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "makes no rule"),
        ("x = 1 / 0", "ZeroDivisionError: division by zero"),
        ("def (", "SyntaxError"),
    ],
)
def test_a_file_without_rules_is_refused(text, message, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    with pytest.raises(InputError, match=message):
        load_rules(tmp_path / "mine.py")


def test_unknown_and_repeated_rule_names_are_refused():
    with pytest.raises(InputError, match=r"rule 'nope': need one of backed, alive"):
        rules_named(["nope"])
    with pytest.raises(InputError, match="two rules have this name"):
        rules_named([], [RULES[0]])


def test_a_search_that_ended_early_continues_to_the_same_result(tmp_path):
    whole = search(space_of(depth=4))
    space = space_of(depth=4)
    share = Share(space)
    space.exploration.bounds.states = 100
    cut = search(space, [Local(share)])
    space.exploration.bounds.states = 1_000_000
    assert cut.ended_by == "states"
    write_checkpoint(tmp_path / "saved", space, cut, [share.save()])

    again = space_of(depth=4)
    begun, saved = read_checkpoint(tmp_path / "saved", again)
    with workers(again.exploration, [], [], 2) as two:
        for worker in two:
            worker.resume(saved)
        result = search(again, two, result=begun)

    assert figures(result)[:2] == figures(whole)[:2]


def test_a_file_of_another_search_is_refused(tmp_path):
    space, share = space_of(depth=2), None
    share = Share(space)
    write_checkpoint(tmp_path / "saved", space, search(space, [Local(share)]), [share.save()])

    with pytest.raises(InputError, match="belongs to another exploration"):
        read_checkpoint(tmp_path / "saved", space_of("hyperv-2018"))
    (tmp_path / "saved").write_bytes(b"rubbish")
    with pytest.raises(InputError, match="not a saved search"):
        read_checkpoint(tmp_path / "saved", space)


def test_a_saved_state_of_another_length_is_refused(tmp_path):
    space = space_of(depth=2)
    share = Share(space)
    result = search(space, [Local(share)])
    saved = share.save()
    ((numbers, key, route), *_) = saved.waiting
    saved.waiting[0] = (numbers[:-8], key, route)
    write_checkpoint(tmp_path / "saved", space, result, [saved])

    with pytest.raises(InputError, match="not a saved search"):
        read_checkpoint(tmp_path / "saved", space)


def test_limits_of_time_and_memory_end_a_search():
    assert search(space_of(depth=12), seconds=1e-9).ended_by == "time"
    assert search(space_of(depth=12), most_bytes=1).ended_by == "memory"
