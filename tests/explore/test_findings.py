"""Searches find each known flaw in the setting that has it, and no flaw in the others."""

from functools import cache

import pytest

from altmap.explore import built_in, built_in_names
from altmap.explore.counterexample import confirm, counterexample_toml
from altmap.explore.rules import rules_named
from altmap.explore.search import search
from altmap.explore.space import Space
from altmap.explore.spec import load_exploration
from altmap.model.machine import predict
from altmap.scenario import parse_scenario, step_name


@cache
def explored(name, *settings, depth=None):
    """Return the space of an exploration and what a search finds, for all tests that ask."""
    exploration = load_exploration(built_in(name), settings)
    exploration.bounds.depth = depth or exploration.bounds.depth
    space = Space(exploration, rules_named(exploration.rules))
    return space, search(space)


ON = ("memmap_on_memory=on",)
#: Exploration, settings with the flaw, rule, length of the shortest sequence, settings without it.
FLAWS = [
    ("hyperv-2018", (), "backed", 1, ("policy=opt-in", "release=6.12")),
    ("order-of-removal", (), "alive", 2, ("policy=rfc-2018",)),
    ("across-blocks", (), "memmap-online", 2, ("policy=opt-in", "memmap_on_memory=on")),
    ("books", ("policy=opt-in+hidden",), "books", 2, ("policy=opt-in",)),
    ("books", ("policy=opt-in+total",), "books", 2, ("policy=opt-in+meminfo",)),
    ("books", ("policy=rfc-2018",), "books", 2, ("policy=rfc-2018+merged",)),
    # Linux
    ("late-half", ("release=4.20",), "sound", 2, ("release=5.13",)),
    ("failed-add", ("release=5.13",), "sound", 2, ("release=6.1",)),
    ("failed-add", ("release=6.6",), "sound", 2, ("release=6.12",)),
    ("failed-add", ("release=6.8",), "sound", 2, ("release=7.3",)),
    ("failed-add", ("release=6.18", "memmap_on_memory=off"), "counter", 2, ("release=6.12",)),
    ("small-guest", ("release=6.18",), "counter", 1, ("release=6.12",)),
    ("small-guest", (*ON, "release=6.6"), "added", 1, (*ON, "release=6.8")),
    ("large-blocks", ("release=6.8",), "added", 1, ("release=6.12",)),
    ("poisoned", ("release=6.1",), "withdrawn", 5, ("release=6.12",)),
    # The patches of 2018
    ("no-blocks", ("policy=rfc-2018:D1",), "sound", 1, ("policy=rfc-2018",)),
    ("marks", ("policy=rfc-2018:D3",), "sound", 2, ("policy=rfc-2018",)),
    ("marks", ("policy=rfc-2018:D4",), "sound", 3, ("policy=rfc-2018",)),
    ("at-16TiB", ("policy=rfc-2018:D6",), "sound", 2, ("policy=rfc-2018",)),
]  # fmt: skip


#: Exploration to the length of its longest counterexample.
DEPTHS = {name: max(row[3] for row in FLAWS if row[0] == name) for name, *_ in FLAWS}


@pytest.mark.parametrize(("name", "where", "rule", "nr_steps", "elsewhere"), FLAWS)
def test_a_flaw_is_found_only_in_the_settings_that_have_it(name, where, rule, nr_steps, elsewhere):
    space, result = explored(name, *where, depth=nr_steps)

    (found,) = [found for found in result.found if found.rule == rule]
    assert len(found.steps) == nr_steps
    confirm(space, found)

    _, result = explored(name, *elsewhere, depth=nr_steps)
    assert rule not in {found.rule for found in result.found}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "where", "rule", "nr_steps", "elsewhere"), FLAWS)
def test_a_flaw_is_found_nowhere_else_by_longer_sequences(name, where, rule, nr_steps, elsewhere):
    assert rule not in {found.rule for found in explored(name, *elsewhere)[1].found}


@pytest.mark.slow
def test_hyperv_on_merged_linux_breaks_no_rule():
    _, result = explored("hyperv-merged")

    assert result.found == []
    assert result.nr_states > 500


@pytest.mark.parametrize("name", sorted(set(built_in_names()) - {"four-blocks"}))
def test_a_counterexample_is_a_scenario_with_the_same_result(name):
    space, result = explored(name, depth=DEPTHS.get(name, 3))

    for found in result.found:
        scenario = parse_scenario(counterexample_toml(space.exploration, found), "x")
        assert [step_name(step) for step in scenario.steps] == [step_name(s) for s in found.steps]
        trace = predict(scenario, pages=False)
        assert len(trace.steps) == len(found.steps) + 1
        if found.rule in ("backed", "alive"):
            assert trace.steps[-1].faults
