"""The modelled machine: what cannot be asked is an error, what the kernel refuses is a result."""

import pytest

from altmap.errors import InputError
from altmap.model.machine import ModelMachine, predict
from altmap.scenario import (
    Address,
    Machine,
    Node,
    Offline,
    Online,
    Plug,
    Scenario,
    SetTunables,
    Size,
    Unplug,
)

MIB, GIB = 1 << 20, 1 << 30


def machine(**changes):
    settings = {"memory": Size(GIB), "release": "6.12", "auto_online_blocks": "offline"}
    return ModelMachine.start(Machine(**settings | changes))


def dimm(id_="d", mib=128, **more):
    if "address" in more:
        more["address"] = Address(more["address"])
    return Plug(id=id_, size=Size(mib * MIB), **more)


def hyperv(id_="h", mib=128, address=4 * GIB):
    return Plug(id=id_, size=Size(mib * MIB), driver="hyperv", address=Address(address))


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (dimm("new", address=4 * GIB + 64 * MIB), ["0x104000000", "overlaps"]),
        (dimm("new", address=4 * GIB + MIB), ["0x100100000", "2 MiB"]),
        (dimm("new", mib=129), ["129 MiB", "2 MiB"]),
        (dimm("new", address=3 * GIB), ["0xc0000000", "0x100000000"]),
        (dimm("d"), ["'d'", "plugged already"]),
        (dimm("new", node=7), ["'new'", "node 7"]),
        (dimm("new", node=-1), ["'new'", "node -1"]),
        (Offline(id="ghost"), ["'ghost'", "no such device"]),
        (Online(id="ghost"), ["'ghost'", "no such device"]),
        (Unplug(id="ghost"), ["'ghost'", "no such device"]),
        (Unplug(id="h"), ["'h'", "'hyperv' never removes memory"]),
        (hyperv("new", address=6 * GIB + 64 * MIB), ["'new'", "overlaps"]),
        (hyperv("new", address=5 * GIB + 1), ["need multiples of the page size"]),
    ],
)
def test_what_cannot_be_asked_is_an_error_in_one_line_with_value_and_rule(step, words):
    model = machine()
    assert model.perform(dimm("d")).outcome
    assert model.perform(hyperv("h", address=6 * GIB)).outcome
    blocks = (model.kernel.added_blocks.copy(), model.kernel.online_blocks.copy())
    backed = model.backing.backed.copy()
    with pytest.raises(InputError) as caught:
        model.perform(step)
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert "\n" not in message
    assert (model.kernel.added_blocks, model.kernel.online_blocks) == blocks
    assert model.backing.backed == backed


def test_the_id_of_a_device_whose_unplug_was_refused_is_not_free():
    model = machine(auto_online_blocks="online")
    model.perform(dimm("d"))
    model.kernel.used |= model.kernel.free(model.kernel.zones[0, "Normal"]).highest(1)
    assert model.perform(Unplug(id="d")).outcome.errno == "EBUSY"
    with pytest.raises(InputError) as caught:
        model.perform(dimm("d"))
    assert "'d'" in str(caught.value)
    assert "unplug was refused" in str(caught.value)


def test_an_id_is_free_again_after_the_unplug():
    model = machine()
    assert model.perform(dimm("d")).outcome
    assert model.perform(Unplug(id="d")).outcome
    assert not model.backing.backed.count(model.kernel.block_pfns(32))
    assert model.perform(dimm("d")).outcome


def test_a_dimm_smaller_than_a_block_is_plugged_and_refused_by_the_kernel():
    model = machine()
    outcome = model.perform(dimm("d", mib=64)).outcome
    assert (outcome.status, outcome.errno) == ("refused", "EINVAL")
    assert outcome.function == "check_hotplug_memory_range"
    # It occupies its place all the same, and puts the next one out of step.
    outcome = model.perform(dimm("next")).outcome
    assert (outcome.status, outcome.errno) == ("refused", "EINVAL")
    assert "0x104000" in outcome.why
    assert list(model.kernel.added_blocks) == list(range(8))
    assert model.perform(Unplug(id="next")).outcome
    assert model.perform(dimm("next", address=4 * GIB + 128 * MIB)).outcome


def test_a_dimm_beyond_the_physical_limit_is_refused_by_the_kernel():
    model = machine()
    outcome = model.perform(dimm("d", address=(64 << 40) - 64 * MIB)).outcome
    assert (outcome.status, outcome.errno) == ("refused", "E2BIG")
    model = machine()
    assert model.perform(dimm("d", address=(64 << 40) - 128 * MIB)).outcome


@pytest.mark.parametrize(
    ("step", "errno", "function"),
    [
        (Online(blocks=7), "EINVAL", "state_store"),
        (Offline(blocks=32), "EINVAL", "state_store"),
        (Offline(blocks=0), "EINVAL", None),
    ],
)
def test_a_state_that_a_block_has_already_is_refused_by_the_kernel(step, errno, function):
    model = machine()
    model.perform(dimm("d"))
    outcome = model.perform(step).outcome
    assert (outcome.status, outcome.errno) == ("refused", errno)
    assert function in (None, outcome.function)


def test_blocks_are_onlined_up_to_the_first_refusal_which_is_named():
    model = machine()
    model.perform(dimm("d", mib=512))
    assert model.perform(Online(id="d", part="middle")).outcome
    outcome = model.perform(Online(id="d")).outcome
    assert outcome.errno == "EINVAL"
    assert "memory34" in outcome.why
    assert list(model.kernel.online_blocks)[8:] == [32, 33, 34]
    outcome = model.perform(Offline(blocks=["33", "35", "32"])).outcome
    assert outcome.errno == "EINVAL"
    assert "memory35" in outcome.why
    assert list(model.kernel.online_blocks)[8:] == [32, 34]


def test_parameters_take_effect_and_are_shown():
    model = machine(memmap_on_memory="on")
    assert model.perform(
        SetTunables(
            auto_online_blocks="online_movable",
            online_policy="auto-movable",
            auto_movable_ratio=100,
            auto_movable_numa_aware=False,
        )
    ).outcome
    seen = model.observe()
    assert seen.memory.auto_online_blocks == "online_movable"
    assert seen.parameters == {
        "auto_movable_numa_aware": "N",
        "auto_movable_ratio": "100",
        "memmap_on_memory": "Y",
        "online_policy": "auto-movable",
    }
    model.perform(dimm("d"))
    assert model.observe().memory.blocks[32].valid_zones == ("Movable",)


def test_the_word_force_is_rejected_where_the_parameter_is_a_boolean():
    assert (
        machine(release="6.1", memmap_on_memory="force").observe().parameters["memmap_on_memory"]
        == "N"
    )
    assert (
        machine(release="6.12", memmap_on_memory="force").observe().parameters["memmap_on_memory"]
        == "force"
    )


def test_after_a_fault_no_step_is_reached_and_nobody_looks():
    scenario = Scenario(
        name="fault",
        machine=Machine(memory=Size(GIB), policy="rfc-2018"),
        steps=[hyperv("h", mib=64, address=4 * GIB + 64 * MIB), dimm("d")],
    )
    start, fault, after = predict(scenario).steps
    assert start.observation is not None
    assert fault.outcome.status == "fault"
    assert fault.observation is None
    assert after.outcome.status == "not_reached"
    assert after.observation is None
    assert after.faults == []


def test_an_error_names_the_step_of_the_scenario():
    scenario = Scenario(
        name="bad", machine=Machine(memory=Size(GIB)), steps=[dimm("d"), Unplug(id="e")]
    )
    with pytest.raises(InputError, match=r"^steps\[1\] unplug-e: device 'e'"):
        predict(scenario)


def test_the_same_scenario_gives_the_same_trace():
    scenario = Scenario(
        name="same",
        machine=Machine(memory=Size(GIB), memmap_on_memory="on"),
        steps=[dimm("d", mib=256), Offline(id="d", part="last"), Unplug(id="d")],
    )
    one, other = predict(scenario), predict(scenario)
    assert one.to_builtins() == other.to_builtins()
    assert [step.observation for step in one.steps] == [step.observation for step in other.steps]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"memory": Size(64 * MIB)}, ["0x4000000", "128 MiB"]),
        ({"memory": Size(GIB + MIB)}, ["0x40100000", "2 MiB"]),
        ({"arch": "vax"}, ["'vax'"]),
        ({"release": "latest"}, ["'latest'"]),
        ({"policy": "none"}, ["'none'", "opt-in"]),
        ({"block_size": Size(64 * MIB)}, ["0x4000000", "power of two"]),
        ({"block_size": Size(384 * MIB)}, ["0x18000000", "power of two"]),
        ({"nodes": [Node(memory=Size(128 * MIB))]}, ["machine.memory", "0x8000000"]),
    ],
)
def test_a_machine_that_cannot_be_is_an_error(changes, words):
    with pytest.raises(InputError) as caught:
        machine(**changes)
    assert all(word in str(caught.value) for word in words)
    assert "\n" not in str(caught.value)
