"""virtio-mem's driver: which mode, in which order, and what stays when memory is in use."""

import pytest

from altmap.errors import InputError
from altmap.model.drivers.virtio_mem_bbm import BigBlockMode, BigBlockState
from altmap.model.drivers.virtio_mem_sbm import BlockState, SubBlockMode
from altmap.model.drivers.virtio_mem_wire import Request, RequestType
from altmap.model.kernel.notifier import NotifierVeto
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import (
    Address,
    Dump,
    Fill,
    Machine,
    Offline,
    Online,
    Plug,
    Resize,
    SetTunables,
    Size,
    Unplug,
    VirtioMemParameters,
)
from altmap.trace import OK, Outcome

MIB, GIB = 1 << 20, 1 << 30
M = 256  # pages of one MiB
BASE = 0x100000  # pfn of 4 GiB, where the first device lies


class Guest:
    """A guest of 1 GiB with one virtio-mem device."""

    def __init__(self, size=GIB, requested=0, block=None, address=None, **changes):
        given = {"memory": Size(GIB), "release": "6.12", "auto_online_blocks": "online_movable"}
        self.model = ModelMachine.start(Machine(**given | changes))
        self.kernel = self.model.kernel
        self.plain = self.kernel.total_ram_nr_pages()
        self.requests = []
        self.plugged = self.do(
            Plug(
                id="vm0",
                driver="virtio-mem",
                size=Size(size),
                requested=Size(requested),
                block=None if block is None else Size(block),
                address=None if address is None else Address(address),
            )
        )

    def do(self, step):
        """Perform a step, and keep what the driver asked of its device."""
        record = self.model.perform(step)
        messages = (e.message for e in record.events if e.kind == "driver" and e.message)
        asked = [Request.decode(raw) for raw in messages if len(raw) == 24]
        self.requests = [
            (r.type.name, (r.addr - 4 * GIB) // MIB, r.nb_blocks * self.host.block_bytes // MIB)
            for r in asked
        ]
        self.events = record.events
        return record.outcome

    def resize(self, mib):
        return self.do(Resize(id="vm0", size=Size(mib * MIB)))

    @property
    def driver(self):
        return self.model._drivers["virtio-mem"]

    @property
    def host(self):
        return self.driver.hosts["vm0"]

    @property
    def guest(self):
        return self.driver.guests["vm0"]

    @property
    def mib(self):
        """What is plugged, in MiB."""
        return self.host.plugged_bytes // MIB

    @property
    def gained(self):
        """What MemTotal has gained, in MiB."""
        return (self.kernel.total_ram_nr_pages() - self.plain) / M

    @property
    def blocks(self):
        """Memory blocks of the device, counted from 4 GiB."""
        return [id_ - 32 for id_ in self.kernel.added_blocks if id_ >= 32]


# --- which mode ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("block", "parameters", "machine", "mode", "unit_mib", "threshold_mib"),
    [
        (2, {}, {}, "Sub-Block Mode, sub-blocks of 2 MiB", 128, 1024),
        (1, {}, {}, "Sub-Block Mode, sub-blocks of 2 MiB", 128, 1024),
        (64, {}, {}, "Sub-Block Mode, sub-blocks of 64 MiB", 128, 1024),
        (128, {}, {}, "Big-Block Mode, big blocks of 128 MiB", 128, 1024),
        (1024, {}, {}, "Big-Block Mode, big blocks of 1 GiB", 1024, 2048),
        (2, {"force_bbm": True}, {}, "Big-Block Mode, big blocks of 128 MiB", 128, 1024),
        (
            2,
            {"force_bbm": True, "bbm_block_size": Size(512 * MIB)},
            {},
            "Big-Block Mode, big blocks of 512 MiB",
            512,
            1024,
        ),
        (
            256,
            {"bbm_block_size": Size(128 * MIB)},
            {},
            "Big-Block Mode, big blocks of 256 MiB",
            256,
            1024,
        ),
        (
            256,
            {"bbm_block_size": Size(384 * MIB)},
            {},
            "Big-Block Mode, big blocks of 256 MiB",
            256,
            1024,
        ),
        (2, {}, {"release": "5.15"}, "Sub-Block Mode, sub-blocks of 4 MiB", 128, 1024),
        (
            512,
            {},
            {"arch": "aarch64-64k", "release": "6.12"},
            "Big-Block Mode, big blocks of 512 MiB",
            512,
            1024,
        ),
    ],
)
def test_the_mode_follows_from_the_sizes(block, parameters, machine, mode, unit_mib, threshold_mib):
    guest = Guest(
        size=2 * GIB, block=block * MIB, virtio_mem=VirtioMemParameters(**parameters), **machine
    ).guest
    page = guest.page_size_bytes
    assert f"{guest.mode.name}, {guest.mode.describe()}" == mode
    assert guest.mode.unit_nr_pages * page == unit_mib * MIB
    assert guest.group.unit_nr_pages * page == unit_mib * MIB
    assert guest.threshold_nr_pages * page == threshold_mib * MIB


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        ({"release": "4.20"}, "Linux 4.20 has no virtio-mem on x86_64"),
        ({"arch": "s390x"}, "Linux 6.12 has no virtio-mem on s390x"),
        ({"arch": "ppc64le"}, "Linux 6.12 has no virtio-mem on ppc64le"),
    ],
)
def test_a_kernel_without_the_driver_is_named(machine, words):
    with pytest.raises(InputError, match=words):
        Guest(**machine)


# --- Sub-Block Mode ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mib", "blocks", "managed"),
    # What a real kernel did: 1 GiB at boot, online_movable, 6.1 and 6.12 alike.
    [(64, 1, 64), (66, 1, 66), (192, 2, 192), (1024, 8, 1024)],
)
def test_whole_blocks_are_present_and_what_is_plugged_is_managed(mib, blocks, managed):
    guest = Guest(requested=mib * MIB)
    assert (guest.mib, len(guest.blocks), guest.gained) == (mib, blocks, managed)
    movable = guest.kernel.movable_zone(0)
    assert guest.kernel.nr_present(movable) == blocks * 128 * M
    assert guest.kernel.fake_offline == guest.kernel.never_onlined
    assert len(guest.kernel.fake_offline) == (blocks * 128 - mib) * M


def test_shrinking_keeps_the_lowest_block_and_takes_its_highest_sub_blocks():
    guest = Guest(requested=GIB)
    assert guest.resize(100)
    assert (guest.mib, guest.blocks, guest.gained) == (100, [0], 100)
    assert guest.requests[:7] == [("UNPLUG", n * 128, 128) for n in range(7, 0, -1)]
    assert guest.requests[7:] == [("UNPLUG", mib, 2) for mib in range(126, 98, -2)]
    assert guest.kernel.fake_offline == PfnSet([PfnRange(BASE + 100 * M, BASE + 128 * M)])
    # They were in the buddy, so that only an allocation took them out.
    assert not guest.kernel.never_onlined


def test_partial_blocks_are_filled_before_new_ones_come():
    guest = Guest(requested=72 * MIB)
    assert guest.resize(300)
    assert guest.requests == [("PLUG", 72, 56), ("PLUG", 128, 128), ("PLUG", 256, 44)]
    assert guest.gained == 300


def test_holes_in_a_block_are_filled_one_request_for_each():
    guest = Guest(requested=128 * MIB)
    guest.kernel.used |= PfnRange(BASE + 64 * M, BASE + 64 * M + 1)  # cannot move
    assert guest.resize(2)  # all but that page's sub-block
    assert guest.host.plugged == PfnSet([PfnRange(BASE + 64 * M, BASE + 66 * M)])
    assert (guest.mib, guest.guest.mode.states[32]) == (2, BlockState.MOVABLE_PARTIAL)
    assert guest.resize(100)
    assert guest.requests == [("PLUG", 0, 64), ("PLUG", 66, 34)]


def test_blocks_are_unplugged_offline_ones_first_and_partial_ones_before_full_ones():
    """The case of a real 6.12: 1536 to 1088 MiB, four blocks movable, eight offline."""
    guest = Guest(size=2 * GIB, requested=2 * GIB, auto_online_blocks="offline")
    assert guest.do(Online(blocks="32-35", to="online_movable"))
    assert guest.mib == 1536
    assert guest.resize(1088)
    assert guest.requests == [
        ("UNPLUG", 1408, 128),
        ("UNPLUG", 1280, 128),
        ("UNPLUG", 1152, 128),
        ("UNPLUG", 1088, 64),
    ]
    assert guest.blocks == list(range(9))
    assert guest.guest.mode.states[40] is BlockState.OFFLINE_PARTIAL
    assert guest.resize(1024)
    assert guest.requests == [("UNPLUG", 1024, 64)]


@pytest.mark.parametrize(
    ("release", "first"), [("5.13", 0), ("5.15", 128), ("6.1", 128), ("7.3", 128)]
)
def test_movable_memory_goes_before_kernel_memory_since_5_14(release, first):
    guest = Guest(requested=256 * MIB, auto_online_blocks="offline", release=release)
    assert guest.do(Online(blocks=33, to="online_movable"))
    assert guest.do(Online(blocks=32, to="online_kernel"))
    guest.kernel.used -= PfnRange(BASE, BASE + 128 * M)  # nobody has allocated there yet
    assert guest.resize(128)
    # 5.13 goes by address alone, from the end; so let the kernel block be the last one.
    assert guest.requests[0] == ("UNPLUG", 128, 128)
    guest = Guest(requested=256 * MIB, auto_online_blocks="offline", release=release)
    assert guest.do(Online(blocks=32, to="online_movable"))
    assert guest.do(Online(blocks=33, to="online_kernel"))
    guest.kernel.used -= PfnRange(BASE + 128 * M, BASE + 256 * M)
    assert guest.resize(128)
    assert guest.requests[0] == ("UNPLUG", 128 - first, 128)


@pytest.mark.parametrize(
    ("release", "order"),
    [
        # virtio_mem_sbm_unplug_request: partial before full ones of a kind, movable before kernel.
        ("6.12", ["offline partial", "offline", "movable partial", "kernel partial", "movable"]),
        ("7.3", ["offline partial", "offline", "movable partial", "kernel partial", "movable"]),
        # Up to 5.13 kernel and movable blocks are alike: by address, from the end.
        ("5.13", ["offline partial", "offline", "kernel partial", "movable partial", "kernel"]),
    ],
)
def test_blocks_of_each_state_are_unplugged_in_the_order_of_the_driver(release, order):
    kinds = {32: "movable", 33: "kernel", 34: "movable partial", 35: "kernel partial"}
    kinds |= {36: "offline partial", 37: "offline"}
    guest = Guest(requested=768 * MIB, auto_online_blocks="offline", release=release)
    for block, kind in kinds.items():
        if not kind.startswith("offline"):
            assert guest.do(Online(blocks=block, to=f"online_{kind.split()[0]}"))
    guest.kernel.used -= guest.kernel.expected_unmovable
    for block, kind in kinds.items():
        if kind.endswith("partial"):
            unplug_half(guest, block)
    assert guest.mib == 768 - 3 * 64
    assert guest.resize(guest.mib - 3 * 64 - 128 - 64)  # the last block loses a half
    asked = list(dict.fromkeys(32 + at // 128 for _, at, _ in guest.requests))
    assert [kinds[block] for block in asked] == order


def unplug_half(guest, block):
    """Unplug the upper half of a block by hand, as an earlier request may have."""
    mode, kernel = guest.guest.mode, guest.kernel
    half = PfnRange(kernel.block_pfns(block).start + 64 * M, kernel.block_pfns(block).end)
    mode.plugged -= half
    mode.states[block] = BlockState(mode.states[block] + 1)
    guest.host.plugged -= half
    guest.host.requested_bytes -= 64 * MIB
    guest.guest.plugged_nr_pages -= len(half)
    if kernel.nr_online(half):
        kernel.fake_offline |= half


@pytest.mark.parametrize("force_bbm", [False, True])
def test_memory_is_added_up_to_the_threshold_exactly_and_not_beyond(force_bbm):
    """virtio_mem_could_add_memory: 1 GiB may be offline, of new blocks and of those used before."""
    parameters = VirtioMemParameters(force_bbm=force_bbm)
    guest = Guest(2 * GIB, 2 * GIB, auto_online_blocks="offline", virtio_mem=parameters)
    assert (guest.mib, guest.plugged.errno) == (1024, "ENOSPC")
    assert guest.plugged.function == "virtio_mem_could_add_memory"
    assert len(guest.guest.mode.states) == 8  # no block was prepared beyond them
    assert guest.do(Online(blocks="32-39", to="online_movable"))
    assert guest.mib == 2048  # half of the threshold is free again, so the driver goes on


@pytest.mark.parametrize("force_bbm", [False, True])
def test_blocks_that_were_used_before_are_added_up_to_the_threshold_too(force_bbm):
    parameters = VirtioMemParameters(force_bbm=force_bbm)
    guest = Guest(2 * GIB, 2 * GIB, virtio_mem=parameters)
    assert guest.resize(0)
    assert guest.blocks == []
    assert guest.do(SetTunables(auto_online_blocks="offline"))
    outcome = guest.resize(2048)
    assert (guest.mib, outcome.errno) == (1024, "ENOSPC")
    assert len(guest.blocks) == 8


def test_sub_blocks_with_a_page_that_cannot_move_stay_and_the_refusal_names_what_is_left():
    guest = Guest(requested=256 * MIB)
    guest.kernel.used |= PfnSet(PfnRange(p, p + 1) for p in (BASE + 3 * M, BASE + 200 * M + 7))
    outcome = guest.resize(0)
    assert (outcome.status, outcome.errno) == ("refused", "EBUSY")
    assert outcome.function == "virtio_mem_sbm_unplug_request"
    assert "plugged 4 MiB of 0 B requested" in outcome.why
    assert guest.host.plugged == PfnSet(
        PfnRange(BASE + mib * M, BASE + (mib + 2) * M) for mib in (2, 200)
    )
    assert guest.blocks == [0, 1]
    texts = [event.text for event in guest.events if event.kind == "driver"]
    assert any("keeps [0x100200, 0x100400)" in text for text in texts)
    assert any("tries again in 50 s" in text for text in texts)


def test_what_is_in_use_moves_elsewhere():
    guest = Guest(requested=384 * MIB)
    assert guest.do(Fill(id="file", size=Size(300 * MIB)))
    assert guest.resize(128)
    assert guest.blocks == [0]
    pages = guest.kernel.files["file"]
    assert len(pages) == 300 * M
    assert pages.issubset(guest.kernel.used & guest.model.backing.backed)
    assert not pages.count(PfnRange(BASE + 128 * M, BASE + 1024 * M))


def test_no_page_to_move_to_ends_the_request_with_enomem():
    guest = Guest(requested=512 * MIB, memory=Size(128 * MIB), release="6.1")
    free = sum(guest.kernel.nr_free(z) for z in guest.kernel.zones.values() if z.name == "Movable")
    assert guest.do(Fill(id="file", size=Size((free - 64) * 4096)))
    outcome = guest.resize(0)
    assert (outcome.status, outcome.errno) == ("refused", "ENOMEM")
    assert guest.kernel.files["file"].issubset(guest.model.backing.backed)


def test_no_more_than_a_gib_is_added_while_nobody_onlines_it():
    guest = Guest(size=2 * GIB, requested=2 * GIB, auto_online_blocks="offline")
    assert guest.plugged.errno == "ENOSPC"
    assert "1 GiB are added and not online" in guest.plugged.why
    assert guest.mib == 1024
    assert guest.do(Online(blocks="32-34", to="online_movable"))
    assert guest.mib == 1024
    assert guest.do(Online(blocks=35, to="online_movable"))
    assert guest.mib == 1536


def test_what_is_less_than_a_sub_block_is_left_alone():
    guest = Guest(requested=128 * MIB, block=MIB)
    outcome = guest.resize(129)
    assert (outcome.status, outcome.errno, guest.requests) == ("refused", None, [])
    assert "less than one unit (sub-blocks of 2 MiB)" in outcome.why


def test_online_memory_stays_if_the_parameter_says_so():
    guest = Guest(requested=256 * MIB, virtio_mem=VirtioMemParameters(unplug_online=False))
    outcome = guest.resize(0)
    assert "unplug_online is off" in outcome.why
    assert guest.mib == 256
    assert guest.do(Offline(blocks=33))  # and now the driver may
    assert guest.mib == 128


def test_a_misaligned_region_wastes_what_is_no_whole_memory_block():
    """As a real kernel had it: region at 5 GiB + 64 MiB, 2 GiB, all of it requested."""
    guest = Guest(size=2 * GIB, requested=2 * GIB, address=0x1_4400_0000)
    assert guest.plugged.errno == "ENOSPC"
    assert (guest.mib, guest.blocks[0] + 32) == (1920, 0x1_4800_0000 // (128 * MIB))


def test_memory_blocks_that_do_not_fit_in_the_usable_region_are_not_added():
    guest = Guest(size=8 * GIB, requested=GIB, memory=Size(127 * GIB))
    assert (guest.plugged.errno, guest.mib) == ("ENOSPC", 0)
    assert guest.plugged.function == "virtio_mem_sbm_prepare_next_mb"
    assert guest.resize(1792)
    assert guest.mib == 1792


def test_a_block_that_is_unplugged_cannot_go_online():
    guest = Guest(requested=128 * MIB, auto_online_blocks="offline")
    guest.guest.mode.states[32] = BlockState.UNUSED
    outcome = guest.do(Online(blocks=32))
    assert (outcome.errno, outcome.function) == ("EPERM", "virtio_mem_sbm_notify_going_online")
    assert not guest.kernel.nr_online(PfnRange(BASE, BASE + 128 * M))


def test_a_partial_block_goes_offline_and_comes_back_as_it_was():
    guest = Guest(requested=72 * MIB)
    before = guest.kernel.fake_offline.copy()
    assert guest.do(Offline(blocks=32))
    assert not guest.kernel.fake_offline
    assert guest.guest.mode.states[32] is BlockState.OFFLINE_PARTIAL
    assert guest.do(Online(blocks=32, to="online_movable"))
    assert guest.kernel.fake_offline == before


def test_a_block_that_refuses_to_go_offline_keeps_its_references():
    guest = Guest(requested=72 * MIB)
    guest.kernel.used |= PfnRange(BASE, BASE + 1)
    assert guest.do(Offline(blocks=32)).errno == "EBUSY"
    assert not guest.kernel.unreferenced


@pytest.mark.parametrize(("release", "left"), [("6.1", False), ("6.12", True)])
def test_a_block_that_could_not_be_removed_is_tried_again_since_6_6(release, left):
    guest = Guest(requested=128 * MIB, release=release)

    class Stubborn:
        """Another driver, which does not let the block go."""

        says_no = True

        def hear(self, notification):
            if notification.action == "MEM_GOING_OFFLINE" and self.says_no:
                return NotifierVeto("EPERM", "another_notifier", "no")
            return None

    other = Stubborn()
    guest.kernel.notifier.register(other.hear)
    outcome = guest.resize(0)
    assert (guest.mib, guest.blocks) == (0, [0])
    assert guest.guest.last.errno == ("EBUSY" if left else None)
    assert outcome  # the device is as it was asked to be
    other.says_no = False
    guest.guest.queued = True
    guest.driver.work()
    assert guest.blocks == ([] if left else [0])


# --- Big-Block Mode ------------------------------------------------------------------------


def test_big_blocks_come_and_go_as_a_whole():
    guest = Guest(requested=GIB, block=256 * MIB)
    assert isinstance(guest.guest.mode, BigBlockMode)
    assert guest.requests == [("PLUG", mib, 256) for mib in (0, 256, 512, 768)]
    assert guest.do(Offline(blocks="34-35"))
    assert guest.resize(256)
    # The one that is offline goes first, then from the end.
    assert guest.requests == [("UNPLUG", mib, 256) for mib in (256, 768, 512)]
    assert guest.blocks == [0, 1]


def test_less_than_a_big_block_is_nothing_to_do():
    """virtio_mem_bbm_plug_request, virtio_mem_bbm_unplug_request."""
    guest = Guest(requested=512 * MIB, block=256 * MIB)
    mode = guest.guest.mode
    for ask in (mode.plug, mode.unplug):
        assert ask(255 * M) == OK
        assert any("less than a big block" in event.text for event in guest.kernel.log.take())
    assert guest.blocks == [0, 1, 2, 3]


@pytest.mark.parametrize(("undone", "state"), [(True, "UNUSED"), (False, "PLUGGED")])
def test_a_big_block_that_is_not_added_is_unplugged_again_if_the_device_lets_it(
    undone, state, monkeypatch
):
    """virtio_mem_bbm_plug_and_add_bb."""
    guest = Guest(requested=256 * MIB, block=256 * MIB)
    device = type(guest.guest)
    refused = Outcome.refused("ENOMEM", "add_memory_driver_managed", "no memory")
    busy = Outcome.refused("EBUSY", "virtio_mem_send_unplug_request", "busy")
    monkeypatch.setattr(device, "send_plug", lambda *_: OK)
    monkeypatch.setattr(device, "add_memory", lambda *_: refused)
    monkeypatch.setattr(device, "send_unplug", lambda *_: OK if undone else busy)
    assert guest.guest.mode.plug(256 * M) == refused
    assert guest.guest.mode.states[17] is BigBlockState[state]


def test_a_big_block_that_cannot_go_is_given_back_whole():
    guest = Guest(requested=512 * MIB, block=256 * MIB)
    guest.kernel.used |= PfnRange(BASE + 300 * M, BASE + 300 * M + 1)
    guest.kernel.used |= PfnRange(BASE, BASE + 1)
    before = guest.kernel.total_ram_nr_pages()
    outcome = guest.resize(256)
    assert (outcome.errno, guest.mib) == ("EBUSY", 512)
    assert guest.kernel.total_ram_nr_pages() == before
    assert not guest.kernel.fake_offline
    assert set(guest.guest.mode.states.values()) == {BigBlockState.ADDED}


@pytest.mark.parametrize(("release", "taken"), [("6.1", 0), ("6.12", 2)])
def test_bbm_safe_unplug_can_be_switched_off_until_6_6(release, taken):
    parameters = VirtioMemParameters(bbm_safe_unplug=False)
    guest = Guest(requested=256 * MIB, block=256 * MIB, release=release, virtio_mem=parameters)
    assert guest.resize(0)
    assert sum(event.kind == "fake-offline" for event in guest.events) == taken
    assert guest.blocks == []


def test_what_is_less_than_a_big_block_is_left_alone():
    parameters = VirtioMemParameters(force_bbm=True)
    guest = Guest(requested=128 * MIB, virtio_mem=parameters)
    outcome = guest.resize(200)
    assert (outcome.errno, guest.mib) == (None, 128)
    assert "less than one unit (big blocks of 128 MiB)" in outcome.why


def test_a_big_block_of_65536_device_blocks_breaks_the_device():
    """The request's field has 16 bits; the driver does not look whether the number fits."""
    parameters = VirtioMemParameters(force_bbm=True, bbm_block_size=Size(128 * GIB))
    guest = Guest(size=512 * GIB, requested=256 * GIB, virtio_mem=parameters, memory=Size(2 * GIB))
    assert guest.plugged.errno == "EINVAL"
    assert guest.requests == [("PLUG", 124 * 1024, 0)]
    assert guest.guest.broken
    guest.resize(128 * 1024)
    assert guest.requests == []


def test_a_request_of_the_same_size_lets_the_driver_try_again():
    """QEMU sends a config interrupt for it too (virtio_mem_set_requested_size)."""
    guest = Guest(requested=256 * MIB)
    vetoes = iter([NotifierVeto("EBUSY", "listener", "no")] * 3)
    guest.kernel.notifier.register(
        lambda n: next(vetoes, None) if n.action == "MEM_GOING_OFFLINE" else None
    )
    guest.resize(0)  # each block is asked once
    assert guest.blocks == [0, 1]
    guest.resize(0)
    assert guest.blocks == []


def veto(kernel, action, *, errno="EBUSY"):
    kernel.notifier.register(
        lambda n: NotifierVeto(errno, "listener", "no") if n.action == action else None
    )


@pytest.mark.parametrize("force_bbm", [False, True])
def test_references_are_taken_again_when_an_offline_is_cancelled(force_bbm):
    """virtio_mem_fake_offline_cancel_offline, after another listener's veto."""
    parameters = VirtioMemParameters(force_bbm=force_bbm)
    guest = Guest(requested=256 * MIB, virtio_mem=parameters)
    veto(guest.kernel, "MEM_GOING_OFFLINE")
    guest.resize(0)
    assert not guest.kernel.unreferenced
    assert guest.kernel.nr_online(PfnRange(BASE, BASE + 256 * M)) == 2


def test_sections_of_a_big_block_come_back_when_one_of_them_cannot_move():
    guest = Guest(requested=256 * MIB, block=256 * MIB)
    guest.kernel.used |= PfnRange(BASE + 200 * M, BASE + 200 * M + 1)  # in the second section
    assert not guest.resize(0)
    assert not guest.kernel.fake_offline
    assert guest.guest.mode.states[16] is BigBlockState.ADDED


def test_sub_blocks_of_an_offline_block_are_unplugged_from_its_end():
    guest = Guest(requested=128 * MIB, auto_online_blocks="offline")
    assert guest.resize(64)
    assert guest.requests == [("UNPLUG", 64, 64)]
    hole = PfnRange(BASE + 20 * M, BASE + 30 * M)
    guest.guest.mode.plugged -= hole
    guest.host.plugged -= hole
    guest.host.requested_bytes = guest.mib * MIB
    guest.guest.plugged_nr_pages -= len(hole)
    assert guest.resize(54 - 40)  # 34 MiB from the end, then 6 below the hole
    assert guest.requests == [("UNPLUG", 30, 34), ("UNPLUG", 14, 6)]


def test_the_timer_doubles_up_to_five_minutes():
    guest = Guest(requested=128 * MIB)
    guest.kernel.used |= PfnRange(BASE + 5, BASE + 6)
    assert not guest.resize(0)
    seconds = [guest.guest.retry_seconds]
    for _ in range(4):
        guest.guest.queued = True
        guest.driver.work()
        seconds.append(guest.guest.retry_seconds)
    assert seconds == [100, 200, 300, 300, 300]


# --- together with the rest ----------------------------------------------------------------


def numbers(guest):
    kernel = guest.kernel
    return {
        key: (kernel.nr_present(zone), kernel.nr_managed(zone), zone.watermarks)
        for key, zone in kernel.zones.items()
    }


@pytest.mark.parametrize("release", ["6.1", "6.12", "7.3"])
@pytest.mark.parametrize("mode", ["on", "force"])
def test_memmap_on_memory_changes_nothing_for_virtio_mem(release, mode):
    guests = [
        Guest(requested=320 * MIB, release=release, memmap_on_memory=word) for word in ("off", mode)
    ]
    assert numbers(guests[0]) == numbers(guests[1])
    assert not guests[1].kernel.self_hosted
    for guest in guests:
        guest.resize(66)
    assert numbers(guests[0]) == numbers(guests[1])


def test_a_memmap_in_the_range_faults_where_it_reaches_into_unplugged_sub_blocks():
    guest = Guest(requested=258 * MIB, policy="rfc-2018", block_size=Size(256 * MIB))
    assert (guest.plugged.status, guest.plugged.function) == ("fault", "memmap_init_range")
    # 256 MiB need 4 MiB of memmap, of which the second block has 2 MiB plugged.
    assert "pfn 0x110200" in guest.plugged.why


@pytest.mark.parametrize(
    ("release", "action", "writes"),
    [
        ("6.1", "MEM_GOING_ONLINE", True),
        ("6.12", "MEM_PREPARE_ONLINE", False),
        ("7.3", "MEM_GOING_ONLINE", True),
    ],
)
def test_a_block_whose_memmap_lies_in_it_is_no_whole_block_to_the_driver(release, action, writes):
    """In sub-block mode it vetoes what is no whole block, as real kernels with a forced flag do."""
    guest = Guest(
        requested=128 * MIB,
        release=release,
        policy="per-block",
        memmap_on_memory="on",
        auto_online_blocks="offline",
    )
    record = guest.model.perform(Online(blocks=[32], to="online_movable"))
    assert (record.outcome.errno, record.outcome.function) == (
        "EPERM",
        "virtio_mem_memory_notifier_cb",
    )
    assert action in record.outcome.why
    assert any(event.kind == "write" and event.function for event in record.events) is writes


def test_in_big_block_mode_a_memmap_in_the_block_is_no_obstacle():
    guest = Guest(
        requested=256 * MIB,
        block=256 * MIB,
        policy="per-block",
        memmap_on_memory="on",
        auto_online_blocks="online_movable",
    )
    assert guest.plugged
    assert guest.kernel.self_hosted == PfnSet(
        PfnRange(BASE + mib * M, BASE + (mib + 2) * M) for mib in (0, 128)
    )


def test_a_memmap_in_the_range_is_unplugged_under_the_kernel_that_still_reads_it():
    guest = Guest(requested=128 * MIB, policy="rfc-2018", auto_online_blocks="offline")
    outcome = guest.resize(0)
    assert (outcome.status, outcome.function) == ("fault", "free_pagetable")


def test_a_memmap_in_the_range_keeps_its_sub_block_of_every_online_block():
    guest = Guest(requested=256 * MIB, policy="rfc-2018")
    assert guest.resize(0).errno == "EBUSY"
    assert guest.host.plugged == PfnSet(
        PfnRange(BASE + mib * M, BASE + (mib + 2) * M) for mib in (0, 128)
    )


def test_a_dump_reads_unplugged_sub_blocks_unless_it_leaves_them_out():
    guest = Guest(requested=64 * MIB)
    assert guest.do(Dump(exclude_offline=True))
    assert guest.do(Dump(exclude_offline=False)).status == "fault"


def test_two_devices_share_the_callback_and_have_names_of_their_own():
    guest = Guest(requested=64 * MIB)
    assert guest.do(Plug(id="vm1", driver="virtio-mem", size=Size(GIB), requested=Size(66 * MIB)))
    shown = [line for line in guest.model.observe().iomem if "virtio" in line.name]
    assert [(line.depth, line.start, line.end - line.start, line.name) for line in shown] == [
        (0, 4 * GIB, GIB, "virtio0"),
        (1, 4 * GIB, 128 * MIB, "System RAM (virtio_mem)"),
        (0, 5 * GIB, GIB, "virtio1"),
        (1, 5 * GIB, 128 * MIB, "System RAM (virtio_mem)"),
    ]
    assert guest.gained == 130
    assert guest.do(Resize(id="vm1", size=Size(2 * MIB)))
    assert guest.do(Plug(id="d", size=Size(128 * MIB)))  # a DIMM behind both, onlined as ever
    assert guest.gained == 64 + 2 + 128
    assert guest.model._devices.get("d").pfns.start == 6 * GIB // 4096


def test_lines_in_iomem_do_not_join_across_devices():
    guest = Guest(size=512 * MIB, requested=512 * MIB)
    other = Plug(id="vm1", driver="virtio-mem", size=Size(512 * MIB), requested=Size(64 * MIB))
    assert guest.do(other)
    lines = [line for line in guest.model.observe().iomem if line.start >= 4 * GIB]
    assert [(line.depth, (line.end - line.start) // MIB) for line in lines] == [
        (0, 512),
        (1, 512),
        (0, 512),
        (1, 128),
    ]


def test_blocks_that_come_one_by_one_are_one_line_in_iomem_and_are_cut_where_one_goes():
    guest = Guest(requested=384 * MIB)
    guest.kernel.used |= PfnRange(BASE + 300 * M, BASE + 300 * M + 1)
    lines = [line for line in guest.model.observe().iomem if line.name.startswith("System RAM (")]
    assert [line.end - line.start for line in lines] == [384 * MIB]
    assert guest.resize(2)  # all but that page's sub-block
    lines = [line for line in guest.model.observe().iomem if line.name.startswith("System RAM (")]
    assert [(line.start - 4 * GIB) // MIB for line in lines] == [256]


def test_auto_movable_counts_a_device_s_own_kernel_memory():
    """A dynamic group: kernel memory of a device allows for movable memory of the same device."""
    guest = Guest(
        size=4 * GIB,
        memory=Size(512 * MIB),
        auto_online_blocks="online",
        online_policy="auto-movable",
        auto_movable_ratio=100,
    )
    assert guest.resize(3072)
    group = guest.guest.group
    assert group.present_movable_nr_pages + group.present_kernel_nr_pages == 3072 * M
    early = sum(zone.early_nr_pages for zone in guest.kernel.zones.values())
    assert group.present_movable_nr_pages <= early + group.present_kernel_nr_pages
    assert group.present_movable_nr_pages > early  # a DIMM of that size would get none


def test_another_driver_s_callback_keeps_virtio_mem_from_probing():
    guest = Guest()
    model = ModelMachine.start(Machine(memory=Size(GIB), release="6.12"))
    model.kernel.online_page_callback = lambda pages: pages
    outcome = model.perform(
        Plug(id="vm0", driver="virtio-mem", size=Size(GIB), requested=Size(MIB * 128))
    ).outcome
    assert (outcome.errno, outcome.function) == ("EINVAL", "set_online_page_callback")
    assert guest.plugged


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (Unplug(id="vm0"), "QEMU cannot unplug a virtio-mem device"),
        (Resize(id="vm0", size=Size(MIB)), "need a multiple of the block"),
        (Resize(id="vm0", size=Size(2 * GIB)), "need at most the device's size"),
        (Resize(id="ghost", size=Size(0)), "no such device"),
        (Plug(id="vm0", driver="virtio-mem", size=Size(GIB)), "plugged already"),
        (Plug(id="x", driver="virtio-mem", size=Size(GIB), node=3), "node 3 does not exist"),
        (
            Plug(id="x", driver="virtio-mem", size=Size(GIB), address=Address(4 * GIB)),
            "overlaps the device",
        ),
        (
            Plug(
                id="x",
                driver="virtio-mem",
                size=Size(GIB),
                block=Size(256 * MIB),
                address=Address(8 * GIB + 128 * MIB),
            ),
            "need a multiple of 256 MiB",
        ),
    ],
)
def test_what_cannot_be_asked_is_one_clear_error(step, words):
    guest = Guest()
    with pytest.raises(InputError, match=words):
        guest.model.perform(step)


def test_a_step_that_changes_the_default_is_heeded_by_the_next_block():
    guest = Guest(requested=128 * MIB)
    assert guest.do(SetTunables(auto_online_blocks="offline"))
    assert guest.resize(256)
    assert isinstance(guest.guest.mode, SubBlockMode)
    assert guest.guest.mode.states[33] is BlockState.OFFLINE


def test_every_event_of_the_conversation_has_its_bytes():
    guest = Guest(requested=66 * MIB)
    messages = [event for event in guest.events if event.message is not None]
    assert [len(event.message) for event in messages] == [56, 56, 24, 10]
    assert messages[2].text == "guest→host: PLUG 0x100000000 - 0x1041fffff"
    assert Request.decode(messages[2].message) == Request(RequestType.PLUG, 4 * GIB, 33)


# --- what the kernel keeps in a new zone ----------------------------------------------------------


def kernel_memory_device(**module):
    """Return a machine with a device whose memory is the first of zone Normal."""
    machine = Machine(
        memory=Size(1 << 30),
        auto_online_blocks="online_kernel",
        virtio_mem=VirtioMemParameters(**module),
    )
    model = ModelMachine.start(machine)
    size = Size(512 * MIB)
    assert model.perform(Plug(id="v", driver="virtio-mem", size=size, requested=size)).outcome
    return model


@pytest.mark.parametrize(("module", "unit"), [({}, 2), ({"force_bbm": True}, 128)])
def test_a_unit_that_stays_for_the_page_which_the_kernel_is_expected_to_keep_is_likely(
    module, unit
):
    model = kernel_memory_device(**module)
    part = model.perform(Resize(id="v", size=Size(unit * MIB))).outcome
    assert (part.status, part.certainty) == ("ok", "certain")
    rest = model.perform(Resize(id="v", size=Size(0))).outcome
    assert (rest.errno, rest.certainty) == ("EBUSY", "likely")
    assert "chance" in rest.doubt


@pytest.mark.parametrize(("module", "mib"), [({}, 64), ({"force_bbm": True}, 256)])
def test_a_unit_that_stays_for_another_page_is_certain(module, mib):
    model = kernel_memory_device(**module)
    kernel = model.kernel
    (expected,) = kernel.expected_unmovable
    other = expected + mib * M
    kernel.used |= PfnRange(other, other + 1)
    outcome = model.perform(Resize(id="v", size=Size(0))).outcome
    assert (outcome.errno, outcome.certainty) == ("EBUSY", "certain")


def test_cleanup_of_big_blocks_ends_where_the_device_refuses(monkeypatch):
    """virtio_mem_bbm_cleanup: what is still plugged is tried again later."""
    guest = Guest(requested=512 * MIB, block=256 * MIB)
    mode = guest.guest.mode
    mode.states = dict.fromkeys((16, 17), BigBlockState.PLUGGED)
    busy = Outcome.refused("EBUSY", "virtio_mem_send_unplug_request", "busy")
    answers = [busy, OK]
    monkeypatch.setattr(type(guest.guest), "send_unplug", lambda *_: answers.pop(0))
    assert mode.cleanup() == busy
    assert answers == [OK]
    assert set(mode.states.values()) == {BigBlockState.PLUGGED}


@pytest.mark.parametrize("block", [None, 256 * MIB])
def test_a_device_without_blocks_takes_over_none(block):
    mode = Guest(block=block).guest.mode
    mode.states = {}
    mode.take_over([], PfnSet())
    assert mode.states == {}


def test_pages_that_hold_a_blocks_memmap_count_as_offline_while_the_rest_is_online():
    """The driver takes the range that the notifier names, which is without them."""
    machine = ModelMachine.start(
        Machine(
            memory="512MiB",
            policy="per-block",
            auto_online_blocks="online_movable",
            virtio_mem={"force_bbm": True},
        )
    )
    machine.perform(Plug(id="a", driver="virtio-mem", size="512MiB", requested="128MiB"))
    guest = machine._drivers["virtio-mem"].guests["a"]
    assert guest.offline_nr_pages == 512
    assert machine.perform(Offline(id="a")).outcome
    assert guest.offline_nr_pages == 32768
