"""Results that are carried over are those of the model; the search depends on it."""

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.explore import built_in
from altmap.explore.canonical import SYMMETRIES, symmetries_of
from altmap.explore.cells import Cells, WorkingCopy
from altmap.explore.rules import rules_named
from altmap.explore.search import Local, search
from altmap.explore.share import Share
from altmap.explore.space import MachineState, Space, numbers_of
from altmap.explore.spec import load_exploration
from altmap.model.machine import ModelMachine
from altmap.scenario import Machine, Offline, Online, Plug, SetTunables, Size, Unplug, Veto

CASES = [
    ("four-blocks", 3, ()),
    ("four-blocks", 3, ("memmap_on_memory=off", "release=6.1")),
    ("hyperv-2018", 3, ()),
    ("hyperv-merged", 3, ()),
    ("order-of-removal", 3, ()),
    ("failed-add", 3, ("release=6.18", "memmap_on_memory=off")),
    ("small-guest", 2, ()),
    ("poisoned", 5, ()),
    ("no-blocks", 3, ("policy=existing",)),
    ("books", 4, ("policy=shared-host",)),
]


def space_of(name, depth, keys=(), *, carries_over=True):
    exploration = load_exploration(built_in(name), keys)
    exploration.bounds.depth = depth
    return Space(exploration, rules_named([]), carries_over=carries_over)


def whole(space):
    share = Share(space)
    result = search(space, [Local(share)])
    found = [(f.rule, f.why, f.steps) for f in result.found]
    return share.save().seen.keys(), result.nr_transitions, found


@cache
def as_usual(name, depth, keys):
    return whole(space_of(name, depth, keys))


@pytest.mark.parametrize(("name", "depth", "keys"), CASES)
def test_carried_over_results_change_nothing(name, depth, keys):
    slow = space_of(name, depth, keys, carries_over=False)

    assert as_usual(name, depth, keys) == whole(slow)
    assert slow.nr_carried_over == 0


@pytest.mark.parametrize(("name", "depth", "keys"), CASES)
def test_symmetries_hide_no_broken_rule(name, depth, keys, monkeypatch):
    found = {(rule, len(steps)) for rule, _, steps in as_usual(name, depth, keys)[2]}
    monkeypatch.setattr("altmap.explore.space.symmetries_of", lambda _: ())

    every = {(rule, len(steps)) for rule, _, steps in whole(space_of(name, depth, keys))[2]}

    assert every == found
    assert len(SYMMETRIES) == 3


SPACE = space_of("four-blocks", 12)


@given(st.data())
def test_a_walk_over_effects_ends_in_the_state_of_a_machine(data):
    state, machine = SPACE.start, ModelMachine.start(SPACE.exploration.machine, pages=False)
    for _ in range(data.draw(st.integers(1, 8))):
        number = data.draw(st.sampled_from(SPACE.moves(state)))
        effect = SPACE.effect(state, number)
        if effect.possible:
            state = SPACE.after(state, number, effect)
            machine.perform(SPACE.steps[number])
    boot_used = ModelMachine.start(SPACE.exploration.machine, pages=False).kernel.used
    for symmetry in symmetries_of(SPACE.exploration):
        symmetry.remove(machine, boot_used)

    cells = Cells(ModelMachine.start(SPACE.exploration.machine, pages=False))

    assert cells.values(cells.snapshot(machine)) == state.values


def test_the_key_is_computed_from_the_values():
    state = SPACE.start
    for _ in range(3):
        for number in SPACE.moves(state):
            effect = SPACE.effect(state, number)
            if effect.possible and effect.changes:
                state = SPACE.after(state, number, effect)
                break
    key = 0
    for item in enumerate(state.values):
        key ^= SPACE._mark(item)

    assert state.key == key
    assert len(numbers_of(state.route)) == 3
    assert isinstance(state, MachineState)


# --- working copies ------------------------------------------------------------------------

STEPS = [
    Plug(id="a", size=Size(128 << 20)),
    Online(id="a", to="online_movable"),
    Veto(on="going_offline"),
    Offline(id="a"),
    Veto(on="going_offline", errno="none"),
    Offline(id="a"),
    SetTunables(auto_online_blocks="online"),
    Unplug(id="a"),
]


def test_a_copy_does_not_change_its_base_and_reports_its_changes():
    plain = ModelMachine.start(Machine(memory=Size(4 << 30), auto_online_blocks="offline"))
    cells = Cells(plain)
    base, copy = cells.origin, WorkingCopy(cells, cells.origin)
    for step in STEPS:
        before = cells.values(base)
        copy.load(base)
        record = copy.machine.perform(step)
        changed = cells.changes(copy, before)
        after = contents_of(copy)

        assert cells.values(base) == before, "the base has changed"
        assert cells.values(after) == tuple(changed.get(i, was) for i, was in enumerate(before))
        assert record.outcome == plain.perform(step).outcome
        assert cells.values(after) == cells.values(cells.snapshot(plain))
        base = after


def contents_of(copy):
    """Return the contents of every cell of a copy, as a base of other copies."""
    shared = dict(zip(copy.cells.shared, copy.shared_contents(), strict=True))
    return [shared.get(cell, copy.peek(cell)) for cell in range(len(copy.cells.names))]


def test_a_copy_records_the_cells_that_were_read():
    cells = Cells(ModelMachine.start(Machine(memory=Size(4 << 30))))
    copy = WorkingCopy(cells, cells.origin)

    assert copy.machine.kernel.zones[0, "Normal"].present
    names = {cells.names[cell] for cell in copy.touched}
    assert names == {"kernel.zones", "zone 0 Normal.present"}
    assert cells.names.index("kernel.used") not in copy.used()


def test_a_constant_cell_is_recorded_as_read_until_a_step_writes_it():
    cells = Cells(ModelMachine.start(Machine(memory=Size(4 << 30))))
    policy = cells.names.index("parameters.online_policy")
    writer, reader = WorkingCopy(cells, cells.origin), cells.reading
    for copy in (writer, reader):
        copy.load(cells.origin)
    assert reader.machine.kernel.tunables.online_policy == "contig-zones"
    assert policy not in reader.touched
    assert policy in reader.used()

    writer.machine.kernel.tunables.online_policy = "auto-movable"

    after = contents_of(writer)
    reader.load(after)
    assert policy not in reader.used()
    assert reader.machine.kernel.tunables.online_policy == "auto-movable"
    assert policy in reader.used()
    writer.load(cells.origin)
    assert writer.machine.kernel.tunables.online_policy == "contig-zones"
    assert policy in writer.used()


def test_cells_that_vary_elsewhere_are_constant_no_more():
    space = space_of("four-blocks", 3)
    cell = list(space.cell_names).index("parameters.acpi_memory_hotplug")
    state = space.start
    number = next(n for n in space.moves(state) if "acpi" in repr(space.steps[n]))
    other = space_of("four-blocks", 3)
    found = other.after(state, number, space.effect(state, number))
    assert found.values[cell] != state.values[cell]

    other.add_steps(space.steps)
    other.add_state(found)

    assert not other._reader(found).machine.kernel.tunables.acpi_memory_hotplug
    assert other._reader(other.start).machine.kernel.tunables.acpi_memory_hotplug


def test_an_object_in_two_cells_stays_one_object():
    cells = Cells(ModelMachine.start(Machine(memory=Size(4 << 30))))
    first = WorkingCopy(cells, cells.origin)
    first.machine.perform(STEPS[0])
    second = WorkingCopy(cells, contents_of(first))
    assert second.machine.devices.by_id["a"].kept == ""
    third = WorkingCopy(cells, contents_of(second))

    (addition,) = third.machine.kernel.additions
    assert third.machine.devices.by_id["a"].addition is addition
    assert third.machine.perform(Unplug(id="a")).outcome.status == "ok"
