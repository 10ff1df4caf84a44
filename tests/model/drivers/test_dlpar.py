"""ppc64 dynamic LPAR; the numbers were measured on pseries guests with 6.12."""

import pytest

from altmap.model.machine import ModelMachine
from altmap.scenario import Machine, Node, Offline, Online, Plug, Size, Unplug

GIB = 1 << 30


def plugged(arch, **more):
    model = ModelMachine.start(
        Machine(arch=arch, memory=Size(2 * GIB), memmap_on_memory="on", **more)
    )
    before = model.observe()
    assert model.perform(Plug(id="d", size=Size(GIB))).outcome
    return model, before, model.observe()


@pytest.mark.parametrize(
    ("arch", "gained_kib", "memmap_pages"),
    [("ppc64le", 1032192, 4096), ("ppc64le-64k", 1048576, 64)],
)
def test_a_gib_gains_what_was_measured(arch, gained_kib, memmap_pages):
    _, before, after = plugged(arch)
    assert after.meminfo["MemTotal"] - before.meminfo["MemTotal"] == gained_kib
    # Rounded up per section of 16 MiB: 64 times one page of 64 KiB, four times the truth.
    assert after.vmstat["nr_memmap_pages"] == memmap_pages


def test_blocks_go_online_whatever_the_policy_says():
    _, _, after = plugged("ppc64le", auto_online_blocks="offline")
    new = [after.memory.blocks[id_].state for id_ in range(8, 12)]
    assert new == ["online"] * 4


def test_6_1_does_not_ask_for_a_self_hosted_memmap():
    _, before, after = plugged("ppc64le", release="6.1")
    assert after.meminfo["MemTotal"] - before.meminfo["MemTotal"] == 1048576


@pytest.mark.parametrize("mode", ["off", "on", "force"])
@pytest.mark.parametrize("arch", ["ppc64le", "ppc64le-64k"])
def test_unplug_leaves_what_was_there_before(arch, mode):
    model = ModelMachine.start(Machine(arch=arch, memory=Size(2 * GIB), memmap_on_memory=mode))
    before = model.observe()
    assert model.perform(Plug(id="d", size=Size(GIB))).outcome
    assert model.perform(Unplug(id="d")).outcome
    after = model.observe()
    for name in ("meminfo", "vmstat", "buddyinfo", "iomem", "memory"):
        assert getattr(after, name) == getattr(before, name)


@pytest.mark.parametrize(("mmu", "gained_kib"), [("radix", 1032192), ("hash", 1048576)])
def test_hash_hosts_no_memmap_in_what_is_added(mmu, gained_kib):
    _, before, after = plugged("ppc64le", mmu=mmu)
    assert after.meminfo["MemTotal"] - before.meminfo["MemTotal"] == gained_kib


def test_64k_pages_host_a_memmap_only_with_force_and_waste_the_rest_of_a_pageblock():
    """Four pages of memmap for a block of 256 MiB, padded to the 32 of a pageblock."""
    model = ModelMachine.start(
        Machine(arch="ppc64le-64k", memory=Size(2 * GIB), memmap_on_memory="force")
    )
    before = model.observe()
    assert model.perform(Plug(id="d", size=Size(GIB))).outcome
    gained = model.observe().meminfo["MemTotal"] - before.meminfo["MemTotal"]
    assert gained == 1048576 - 4 * 32 * 64


def half_refused():
    """A DIMM whose second block cannot leave, since another DIMM's memmap lies in it."""
    nodes = [Node(memory=Size(GIB)), Node(memory=Size(0))]
    model = ModelMachine.start(
        Machine(arch="ppc64le", nodes=nodes, auto_online_blocks="online_movable")
    )
    for step in (
        Plug(id="d", size=Size(512 << 20), node=1),
        Offline(blocks=5),
        Online(blocks=5, to="online_kernel"),
        Plug(id="other", size=Size(GIB // 2), node=1),
    ):
        assert model.perform(step).outcome
    return model


def test_a_refused_unplug_adds_and_onlines_again_what_it_had_removed():
    model = half_refused()
    before = model.observe()
    record = model.perform(Unplug(id="d"))
    assert record.outcome.errno == "EINVAL"
    assert record.outcome.function == "dlpar_memory_remove_by_ic"
    assert "EBUSY by has_unmovable_pages" in record.outcome.why
    assert [e.kind for e in record.events if e.kind in ("offlined", "removed", "added")] == [
        "offlined",
        "removed",
        "added",
    ]
    after = model.observe()
    assert (after.memory, after.meminfo) == (before.memory, before.meminfo)


def test_a_dimm_that_stayed_can_go_once_nothing_holds_it():
    model = half_refused()
    assert not model.perform(Unplug(id="d")).outcome
    assert model.perform(Unplug(id="other")).outcome
    assert model.perform(Unplug(id="d")).outcome
    assert sorted(model.observe().memory.blocks) == [0, 1, 2, 3]


def test_blocks_that_are_offline_leave_as_they_are():
    model, before, _ = plugged("ppc64le")
    assert model.perform(Offline(id="d", part="middle")).outcome
    assert model.perform(Unplug(id="d")).outcome
    assert model.observe().memory == before.memory


def test_an_add_that_runs_out_of_memory_half_way_is_undone():
    machine = Machine(arch="ppc64le", memory=Size(256 << 20), auto_online_blocks="online_movable")
    model = ModelMachine.start(machine)
    before = model.observe().memory
    record = model.perform(Plug(id="d", size=Size(64 * GIB)))
    assert record.outcome.errno == "EINVAL"
    assert "ENOMEM" in record.outcome.why
    assert model.observe().memory == before


def test_a_dimm_whose_later_memmap_may_lie_in_it_is_likely_to_go_only():
    """Debian's 6.12 refused 1 GiB of a guest of 2 GiB: memmap of its last blocks in its second."""
    one, two = (
        ModelMachine.start(Machine(arch="ppc64le", memory=Size(2 * GIB), release="6.12"))
        for _ in range(2)
    )
    for model, size in ((one, GIB // 4), (two, GIB // 2)):
        assert model.perform(Plug(id="d", size=Size(size))).outcome
    assert one.perform(Unplug(id="d")).outcome.certainty == "certain"
    outcome = two.perform(Unplug(id="d")).outcome
    assert (bool(outcome), outcome.certainty) == (True, "likely")


def test_a_dimm_in_zone_movable_hosts_no_memmap():
    machine = Machine(arch="ppc64le", memory=Size(2 * GIB), auto_online_blocks="online_movable")
    model = ModelMachine.start(machine)
    assert model.perform(Plug(id="d", size=Size(GIB))).outcome
    assert model.perform(Unplug(id="d")).outcome.certainty == "certain"
