"""The memory notifier chain: who is told what, in which order, and what a veto undoes."""

import pytest

from altmap.model.kernel.notifier import Chain, NamedVeto, Notification, NotifierVeto
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine, Node, Offline, Online, Plug, Size, Unplug, Veto

MIB, GIB = 1 << 20, 1 << 30


def guest(release, **changes):
    settings = {"memory": Size(GIB), "auto_online_blocks": "offline", "memmap_on_memory": "on"}
    model = ModelMachine.start(Machine(**settings | {"release": release} | changes))
    assert model.perform(Plug(id="d", size=Size(128 * MIB))).outcome
    return model


def told(record):
    return [event.text.split()[0] for event in record.events if event.kind == "notified"]


def state(kernel):
    return (
        kernel.total_ram_nr_pages(),
        kernel.online_blocks.copy(),
        kernel.used.copy(),
        {key: (zone.span, zone.present.copy()) for key, zone in kernel.zones.items()},
        {key: zone.watermarks for key, zone in kernel.zones.items()},
    )


PREPARED = ("6.8", "6.12")


@pytest.mark.parametrize("release", ["6.1", "6.8", "6.12", "7.3"])
def test_listeners_hear_each_step_in_the_kernels_order(release):
    model = guest(release)
    online = model.perform(Online(id="d", to="online_movable"))
    offline = model.perform(Offline(id="d"))
    before = ["MEM_PREPARE_ONLINE"] if release in PREPARED else []
    after = ["MEM_FINISH_OFFLINE"] if release in PREPARED else []
    assert told(online) == [*before, "MEM_GOING_ONLINE", "MEM_ONLINE"]
    assert told(offline) == ["MEM_GOING_OFFLINE", "MEM_OFFLINE", *after]


def test_a_nodes_first_and_last_memory_have_a_chain_of_their_own_on_7_3():
    nodes = [Node(memory=Size(GIB)), Node(memory=Size(0))]
    model = ModelMachine.start(Machine(release="7.3", nodes=nodes, auto_online_blocks="offline"))
    assert model.perform(Plug(id="d", size=Size(128 * MIB), node=1)).outcome
    assert told(model.perform(Online(id="d", to="online_movable"))) == [
        "NODE_ADDING_FIRST_MEMORY",
        "MEM_GOING_ONLINE",
        "NODE_ADDED_FIRST_MEMORY",
        "MEM_ONLINE",
    ]
    assert told(model.perform(Offline(id="d"))) == [
        "NODE_REMOVING_LAST_MEMORY",
        "MEM_GOING_OFFLINE",
        "NODE_REMOVED_LAST_MEMORY",
        "MEM_OFFLINE",
    ]
    model.kernel.notifier.register(NamedVeto("NODE_ADDING_FIRST_MEMORY", "ENOMEM", None, 0x8000))
    record = model.perform(Online(id="d", to="online_movable"))
    assert record.outcome.errno == "ENOMEM"
    assert told(record) == [
        "NODE_ADDING_FIRST_MEMORY",
        "MEM_CANCEL_ONLINE",
        "NODE_CANCEL_ADDING_FIRST_MEMORY",
    ]


@pytest.mark.parametrize("release", ["6.1", "6.12", "7.3"])
def test_a_veto_of_going_online_is_undone(release):
    model = guest(release)
    before = state(model.kernel)
    assert model.perform(Veto(on="going_online", errno="EBUSY")).outcome
    record = model.perform(Online(id="d", to="online_movable"))
    assert (record.outcome.errno, record.outcome.kind) == ("EBUSY", "veto")
    start = ["MEM_PREPARE_ONLINE"] if release in PREPARED else []
    end = ["MEM_FINISH_OFFLINE"] if release in PREPARED else []
    assert told(record) == [*start, "MEM_GOING_ONLINE", "MEM_CANCEL_ONLINE", *end]
    assert state(model.kernel) == before
    # The memmap was written by then, which an unbacked frame would not survive.
    assert any(event.kind == "write" for event in record.events)
    model.perform(Veto(on="going_online", errno="none"))
    assert model.perform(Online(id="d", to="online_movable")).outcome


def test_a_veto_of_prepare_online_comes_before_the_memmap_is_written():
    model = guest("6.12")
    model.perform(Veto(on="prepare_online"))
    record = model.perform(Online(id="d", to="online_movable"))
    assert record.outcome.errno == "EPERM"
    assert told(record) == ["MEM_PREPARE_ONLINE"]
    assert not any(event.kind == "write" for event in record.events)


def test_a_release_without_prepare_online_asks_nobody():
    model = guest("7.3")
    model.perform(Veto(on="prepare_online"))
    assert model.perform(Online(id="d", to="online_movable")).outcome


def test_a_veto_of_going_offline_moves_nothing():
    model = guest("6.12")
    model.perform(Online(id="d", to="online_movable"))
    before = state(model.kernel)
    model.perform(Veto(on="going_offline"))
    record = model.perform(Offline(id="d"))
    assert record.outcome.errno == "EPERM"
    assert told(record) == ["MEM_GOING_OFFLINE", "MEM_CANCEL_OFFLINE"]
    assert state(model.kernel) == before
    assert model.perform(Unplug(id="d")).outcome.errno == "EBUSY"


def test_an_unmovable_page_refuses_before_any_listener_is_told():
    model = guest("6.12")
    model.perform(Online(id="d", to="online_movable"))
    model.kernel.used |= PfnRange(0x100300, 0x100301)
    record = model.perform(Offline(id="d"))
    assert record.outcome.function == "has_unmovable_pages"
    assert told(record) == []


def test_a_veto_for_some_blocks_leaves_the_others_alone():
    model = guest("6.12")
    assert model.perform(Plug(id="e", size=Size(384 * MIB))).outcome
    model.perform(Veto(on="going_online", blocks=34))
    record = model.perform(Online(id="e", to="online_movable"))
    assert "memory34" in record.outcome.why
    assert list(model.kernel.online_blocks)[-1] == 33


def test_a_veto_rounds_a_span_with_a_hole_at_its_edge_as_the_kernel_does():
    """Going online extends the span; taking it back looks for what is online, not for the past."""
    model = guest("6.12")
    normal = model.kernel.zones[0, "Normal"]
    model.perform(Online(id="d", to="online_kernel"))
    normal.span = PfnRange(0xF8000, 0x108000)  # a hole at the start, as of memory that booted
    assert model.perform(Plug(id="e", size=Size(128 * MIB))).outcome
    model.perform(Veto(on="going_online"))
    assert not model.perform(Online(id="e", to="online_kernel")).outcome
    assert normal.span == PfnRange(0xF8000, 0x108000)  # removed at the end: the start stays


def test_only_questions_take_a_no_and_the_first_no_ends_the_round():
    heard = []

    def listener(name, answer):
        def hear(notification):
            heard.append((name, notification.action))
            return answer

        return hear

    no = NotifierVeto("EBUSY", "somebody", "because")
    chain = Chain([listener("a", no), listener("b", None)])
    assert chain.call(Notification("MEM_ONLINE", PfnRange(0, 8), 0)) is None
    assert chain.call(Notification("MEM_GOING_OFFLINE", PfnRange(0, 8), 0)) is no
    assert heard == [("a", "MEM_ONLINE"), ("b", "MEM_ONLINE"), ("a", "MEM_GOING_OFFLINE")]


def test_a_named_veto_answers_its_own_action_and_blocks_only():
    veto = NamedVeto("MEM_GOING_ONLINE", "EBUSY", PfnSet([PfnRange(2, 3)]), 8)
    assert veto(Notification("MEM_GOING_ONLINE", PfnRange(16, 24), 0)).errno == "EBUSY"
    assert veto(Notification("MEM_GOING_ONLINE", PfnRange(8, 16), 0)) is None
    assert veto(Notification("MEM_GOING_OFFLINE", PfnRange(16, 24), 0)) is None


def test_a_veto_ends_after_as_many_as_the_scenario_says():
    model = ModelMachine.start(Machine(memory=Size(GIB), auto_online_blocks="online_movable"))
    model.perform(Plug(id="d", size=Size(384 << 20)))
    model.perform(Veto(on="going_offline", errno="EBUSY", blocks="32-33", times=3))
    assert model.perform(Offline(blocks=34)).outcome  # not a block that it concerns
    tries = [model.perform(Offline(blocks=block)).outcome for block in (32, 33, 33, 33)]
    assert [outcome.errno for outcome in tries] == ["EBUSY", "EBUSY", "EBUSY", None]


def test_an_eject_stops_at_the_first_refusal_of_its_second_pass():
    """Two blocks are refused in the first pass, the lower one once more: the other is not tried."""
    model = ModelMachine.start(Machine(memory=Size(GIB), auto_online_blocks="online_movable"))
    model.perform(Plug(id="d", size=Size(384 << 20)))
    model.perform(Veto(on="going_offline", errno="EBUSY", blocks="32-33", times=3))
    record = model.perform(Unplug(id="d"))
    assert record.outcome.errno == "EBUSY"
    offline = [event.text for event in record.events if event.kind == "offlined"]
    assert offline == ["memory34 offline"]


def test_arm64_boot_memory_is_vetoed_after_its_pages_were_looked_at():
    model = ModelMachine.start(Machine(arch="aarch64", memory=Size(2 * GIB), release="6.12"))
    kernel = model.kernel
    block = next(
        id_
        for id_ in kernel.online_blocks
        if not (kernel.used | kernel.reserved).count(kernel.block_pfns(id_))
    )
    record = model.perform(Offline(blocks=block))
    assert record.outcome.function == "prevent_bootmem_remove_notifier"
    assert told(record) == ["MEM_GOING_OFFLINE", "MEM_CANCEL_OFFLINE"]


def test_any_listener_of_onlining_makes_each_block_ask_the_chain():
    """Blocks go online together only where no listener could refuse one of them."""
    veto = NamedVeto("MEM_GOING_ONLINE", "EPERM", None, 32768)
    assert not Chain()
    assert Chain(listeners=[lambda _: None])
    assert Chain(prepare_online=veto)
    assert Chain(going_online=veto)
