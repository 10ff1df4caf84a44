"""Hyper-V's balloon: handshake, what the guest gives and takes, and what it reports."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from altmap.errors import InputError
from altmap.model.drivers.hyperv import DriverState, HypervBalloon, balloon_floor_nr_pages
from altmap.model.drivers.hyperv_host import HypervHost
from altmap.model.kernel.touch import KernelFault
from altmap.model.kernel.watermarks import si_mem_available_nr_pages
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnSet
from altmap.protocol.hyperv_messages import (
    BalloonRequest,
    BalloonResponse,
    CapabilitiesReport,
    CapabilitiesResponse,
    HotAddRequest,
    HotAddResponse,
    InfoMessage,
    MessageError,
    PageRange,
    StatusReport,
    UnballoonRequest,
    UnballoonResponse,
    VersionRequest,
    VersionResponse,
    decode,
    encode,
)
from altmap.scenario import (
    Address,
    Dump,
    Fill,
    Machine,
    Offline,
    Online,
    Plug,
    Resize,
    Size,
    Unplug,
)

MIB, GIB = 1 << 20, 1 << 30
M = 256  # pages of one MiB


def start(**changes):
    made = {"memory": Size(4 * GIB), "release": "6.12", "auto_online_blocks": "online"}
    return ModelMachine.start(Machine(**made | {"balloon": "hyperv"} | changes))


def resize(model, size_bytes):
    return model.perform(Resize(id="balloon", size=Size(size_bytes)))


def said(record):
    """Return the messages of a step, in order."""
    return [decode(event.message) for event in record.events if event.message is not None]


def of(record, kind):
    return [message for message in said(record) if isinstance(message, kind)]


def managed(model):
    return model.kernel.total_ram_nr_pages()


def test_the_balloon_reaches_the_floor_exactly_and_stops_there():
    """balloon_up: only what would leave less than the floor is cut, and noted."""
    for beyond in (0, 1):
        model = start()
        balloon = HypervBalloon(model.kernel)
        balloon.probe()
        spare = si_mem_available_nr_pages(model.kernel) - balloon_floor_nr_pages(
            managed(model), 4096
        )
        answers = balloon.receive(encode(BalloonRequest(trans_id=1, num_pages=spare + beyond)))
        assert sum(len(decode(raw).ranges) for raw in answers)
        assert len(model.kernel.ballooned) == spare
        cut = [e for e in model.kernel.log.events if "partially fulfilled" in e.text]
        assert len(cut) == beyond


# --- the handshake --------------------------------------------------------------------------


def test_the_first_step_begins_with_version_and_capabilities():
    kinds = [type(message) for message in said(resize(start(), 4 * GIB))]
    assert kinds == [
        VersionRequest,
        VersionResponse,
        CapabilitiesReport,
        CapabilitiesResponse,
        StatusReport,
    ]


@pytest.mark.parametrize(
    ("release", "accepted", "asked", "last"),
    [
        ("6.12", ("0.3", "1.0", "2.0"), ["2.0"], False),
        ("6.12", ("0.3", "1.0"), ["2.0", "1.0"], False),
        ("6.1", ("0.3",), ["2.0", "1.0", "0.3"], True),
        ("7.3", ("0.3", "1.0", "2.0"), ["2.0"], True),
    ],
)
def test_versions_are_asked_for_until_the_host_accepts(release, accepted, asked, last):
    model = start(release=release, balloon=None)
    host = HypervHost(model._devices, accepted)
    assert host.resize("balloon", 4 * GIB)
    requests = [
        decode(event.message)
        for event in model.kernel.log.events
        if event.message and isinstance(decode(event.message), VersionRequest)
    ]
    assert [f"{m.major}.{m.minor}" for m in requests] == asked == [*asked[:-1], host.guest.version]
    assert requests[-1].is_last_attempt is last
    assert host.guest.state is DriverState.INITIALIZED


def test_a_host_that_is_too_old_for_the_release_gets_no_driver():
    model = start(release="7.3", balloon=None)
    host = HypervHost(model._devices, ("0.3", "1.0"))
    for _ in range(2):
        outcome = host.resize("balloon", 2 * GIB)
        assert (outcome.errno, outcome.function) == ("EPROTO", "balloon_probe")
    assert host.guest.state is DriverState.INIT_ERROR
    # The probe takes its callback back, so memory of others is onlined as ever.
    assert model.kernel.online_page_callback is None
    assert list(host.guest.receive(encode(BalloonRequest(trans_id=1, num_pages=9)))) == []


@pytest.mark.parametrize(
    ("changes", "alignment"),
    [
        ({"release": "6.1"}, 7),
        ({"release": "6.1", "block_size": Size(GIB)}, 7),
        ({"release": "6.12"}, 7),
        ({"release": "6.12", "block_size": Size(2 * GIB)}, 11),
        ({"arch": "aarch64-64k"}, 9),
    ],
)
def test_the_alignment_is_128_mib_or_the_block_size_by_release(changes, alignment):
    (report,) = of(resize(start(**changes), 4 * GIB), CapabilitiesReport)
    assert report.hot_add_alignment == alignment
    assert report.hot_add == report.balloon == ("arch" not in changes)


def test_a_guest_without_hot_add_or_balloon_is_asked_for_neither():
    model = start(arch="aarch64-64k")
    assert resize(model, 2 * GIB).outcome.function == "ballooning_enabled"
    record = resize(model, 8 * GIB)
    assert record.outcome.function == "hot_add_enabled"
    assert not of(record, HotAddRequest)


# --- less -----------------------------------------------------------------------------------


def test_pages_are_given_in_units_of_2_mib_and_510_ranges_a_message():
    model = start()
    before = managed(model)
    record = resize(model, 4 * GIB - 1100 * MIB)
    assert record.outcome
    (request,) = of(record, BalloonRequest)
    assert request.num_pages == 1100 * M
    answers = of(record, BalloonResponse)
    assert [(len(a.ranges), a.more_pages) for a in answers] == [(510, True), (40, False)]
    assert {r.page_cnt for a in answers for r in a.ranges} == {512}
    assert {r.start_page % 512 for a in answers for r in a.ranges} == {0}
    assert before - managed(model) == 1100 * M == len(model.kernel.ballooned)


def test_less_than_2_mib_is_given_page_by_page_after_the_rest():
    record = resize(start(), 4 * GIB - 3 * MIB - 8192)
    answers = of(record, BalloonResponse)
    assert [(len(a.ranges), a.ranges[0].page_cnt, a.more_pages) for a in answers] == [
        (1, 512, True),
        (258, 1, False),
    ]


def test_the_guest_keeps_its_floor_and_the_host_hears_of_it():
    model = start()
    record = resize(model, 0)
    assert (record.outcome.errno, record.outcome.function) == ("ENOMEM", "balloon_up")
    # The last request gets an empty answer, which is what ends the host's asking.
    assert of(record, BalloonResponse)[-1].ranges == ()
    assert max(request.num_pages for request in of(record, BalloonRequest)) == 585728
    (report,) = of(record, StatusReport)
    assert report.num_avail == balloon_floor_nr_pages(managed(model), 4096)


def test_what_was_given_is_not_backed_any_more_and_keeps_its_block_online():
    model = start()
    resize(model, 3 * GIB)
    assert not model.backing.backed.count(next(model.kernel.ballooned.ranges()))
    block = model.kernel.ballooned.max() // model.kernel.block_nr_pages
    outcome = model.perform(Offline(blocks=block)).outcome
    assert outcome.errno == "EBUSY"
    assert model.perform(Dump()).outcome
    assert model.perform(Dump(exclude_offline=False)).outcome.status == "fault"


def test_before_5_11_ballooned_pages_stay_in_memtotal():
    model = start(release="4.20")
    before, free = managed(model), model.kernel.free_nr_pages()
    assert resize(model, 3 * GIB).outcome
    assert managed(model) == before
    assert free - model.kernel.free_nr_pages() == 1024 * M
    assert not model.kernel.fake_offline
    assert resize(model, 4 * GIB).outcome
    assert model.kernel.free_nr_pages() == free


def test_7_3_counts_the_balloon_in_meminfo_and_vmstat():
    model = start(release="7.3")
    resize(model, 3 * GIB)
    seen = model.observe()
    assert seen.meminfo["Balloon"] == GIB // 1024
    assert seen.vmstat["nr_balloon_pages"] == 1024 * M
    assert "Balloon" not in start(release="6.12").observe().meminfo


def test_the_balloon_takes_no_page_of_the_movable_zone():
    model = start(auto_online_blocks="online_movable")
    model.perform(Plug(id="h", driver="hyperv", address=Address(8 * GIB), size=Size(GIB)))
    assert not resize(model, 0).outcome
    movable = model.kernel.zones[0, "Movable"].present
    assert len(movable) == 1024 * M
    assert not model.kernel.ballooned & movable


# --- more -----------------------------------------------------------------------------------


def test_what_was_taken_comes_back_first_and_the_rest_is_added():
    model = start()
    before = managed(model)
    resize(model, 3 * GIB)
    record = resize(model, 5 * GIB + 64 * MIB)
    assert record.outcome
    kinds = [type(message) for message in said(record)]
    assert kinds == [
        UnballoonRequest,
        UnballoonResponse,
        HotAddRequest,
        HotAddResponse,
        StatusReport,
    ]
    assert managed(model) - before == 1024 * M
    assert not model.kernel.ballooned
    (request,) = of(record, HotAddRequest)
    assert request.pages == request.region
    assert request.pages.page_cnt == 1024 * M
    assert any("64 MiB less" in event.text for event in record.events)


def test_which_pages_the_balloon_takes_and_gives_back_is_logged_unless_there_are_none():
    model = start()
    taken = [e for e in resize(model, 3 * GIB).events if e.kind == "ballooned"]
    (back,) = (e for e in resize(model, 4 * GIB).events if e.kind == "deflated")
    assert PfnSet.of(*(event.pfns for event in taken)) == back.pfns
    assert len(back.pfns) == 1024 * M
    balloon = HypervBalloon(model.kernel)
    balloon.probe()
    model.kernel.log.take()
    list(balloon.receive(encode(UnballoonRequest(trans_id=1, more_pages=False, ranges=()))))
    assert "deflated" not in {event.kind for event in model.kernel.log.take()}


def test_the_same_size_again_changes_nothing():
    model = start()
    for size in (3 * GIB, 3 * GIB, 5 * GIB, 5 * GIB):
        record = resize(model, size)
        before = managed(model)
    assert [type(message) for message in said(record)] == [StatusReport]
    assert managed(model) == before


def test_hot_add_goes_in_messages_of_2_gib_behind_all_memory():
    model = start()
    record = resize(model, 9 * GIB)
    requests = of(record, HotAddRequest)
    assert [(r.pages.start_page, r.pages.page_cnt) for r in requests] == [
        (0x140000, 0x80000),
        (0x1C0000, 0x80000),
        (0x240000, 0x40000),
    ]
    assert model.perform(Offline(id="balloon:3", part="last")).outcome


def test_transaction_ids_of_guest_and_host_each_count_up():
    model = start()
    messages = [m for size in (3, 5, 2) for m in said(resize(model, size * GIB))]
    for to_host in (True, False):
        ids = [m.trans_id for m in messages if m.TO_HOST is to_host]
        requests = ids if to_host else ids[2:]  # the host's first two answer the guest's
        assert requests == list(range(requests[0], requests[0] + len(requests)))


@pytest.mark.parametrize(
    ("to", "certainty"), [("online_movable", "unknown"), ("online", "certain")]
)
def test_free_movable_memory_counts_for_the_floor_and_the_kernel_may_be_left_without(to, certainty):
    """A real guest of 6.12 with ZONE_MOVABLE panics in out_of_memory, one without keeps running."""
    model = start(memory=Size(2 * GIB), auto_online_blocks=to)
    plug = Plug(id="h", driver="hyperv", address=Address(4 * GIB), size=Size(192 * MIB))
    assert model.perform(plug).outcome
    outcome = resize(model, 0).outcome
    assert (outcome.certainty, "out_of_memory" in outcome.doubt) == (
        certainty,
        certainty == "unknown",
    )
    assert resize(model, 4 * GIB).outcome.certainty == "certain"


def test_the_host_reads_a_pressure_of_what_is_ballooned_waiting_or_kept():
    model = start(auto_online_blocks="offline")
    (report,) = of(resize(model, 4 * GIB), StatusReport)
    floor = balloon_floor_nr_pages(managed(model), 4096)
    assert report.num_committed == floor
    model.perform(Fill(id="f", size=Size(64 * MIB)))
    (report,) = of(resize(model, 5 * GIB), StatusReport)
    assert report.num_committed == floor + 64 * M + 1024 * M  # added and not yet online
    model.perform(Online(id="balloon:1"))
    (report,) = of(resize(model, 4 * GIB), StatusReport)
    floor = balloon_floor_nr_pages(managed(model), 4096)
    assert report.num_committed == floor + 64 * M + 1024 * M  # ballooned


@pytest.mark.parametrize(
    ("mib", "floor_mib"),
    # compute_balloon_floor's own comment gives these points of the line.
    [(0, 8), (16, 16), (32, 24), (128, 72), (512, 168), (2048, 360), (8192, 744), (32768, 1512)],
)
def test_the_floor_goes_through_the_points_that_the_kernel_names(mib, floor_mib):
    assert balloon_floor_nr_pages(mib * M, 4096) == floor_mib * M
    assert balloon_floor_nr_pages(mib * 16, 65536) == floor_mib * 16


# --- what cannot be asked -------------------------------------------------------------------


def test_errors_name_the_value_and_the_rule():
    model = start()
    model.perform(Plug(id="h", driver="hyperv", address=Address(8 * GIB), size=Size(128 * MIB)))
    for step, why in [
        (Resize(id="h", size=Size(GIB)), "'h'.*keeps its size"),
        (Resize(id="balloon", size=Size(GIB + 1)), "0x40000001: need whole pages"),
        (Unplug(id="balloon"), "never removes"),
        (Plug(id="balloon", size=Size(GIB)), "'balloon'.*plugged already"),
        (
            Plug(id="x", driver="hyperv", address=Address(16 * GIB), size=Size(64 * GIB)),
            "16777215 at most",
        ),
    ]:
        with pytest.raises(InputError, match=why):
            model.perform(step)


def test_without_a_balloon_there_is_none_to_resize():
    with pytest.raises(InputError, match="'balloon': no such device"):
        resize(start(balloon=None), GIB)


# --- the guest, whatever comes --------------------------------------------------------------


def test_the_most_there_will_ever_be_is_kept():
    balloon = HypervBalloon(start(balloon=None).kernel)
    info = InfoMessage(trans_id=1, info_type=0, data=(1 << 20).to_bytes(8, "little"))
    assert list(balloon.receive(encode(info))) == []
    assert balloon.max_dynamic_page_count == 1 << 20


def test_states_follow_the_messages():
    balloon = HypervBalloon(start(balloon=None).kernel)
    assert balloon.state is DriverState.INITIALIZING
    balloon.probe()
    for message in (
        VersionResponse(trans_id=1, is_accepted=True),
        CapabilitiesResponse(trans_id=2, is_accepted=True),
    ):
        list(balloon.receive(encode(message)))
    assert balloon.state is DriverState.INITIALIZED
    seen = []
    request = encode(BalloonRequest(trans_id=3, num_pages=600 * 512))
    for raw in balloon.receive(request):
        seen.append((balloon.state, decode(raw)))
    assert [state for state, _ in seen] == [DriverState.BALLOON_UP, DriverState.INITIALIZED]
    ranges = seen[0][1].ranges
    list(balloon.receive(encode(UnballoonRequest(trans_id=4, more_pages=True, ranges=ranges))))
    assert balloon.state is DriverState.BALLOON_DOWN
    ranges = seen[1][1].ranges
    list(balloon.receive(encode(UnballoonRequest(trans_id=5, more_pages=False, ranges=ranges))))
    assert balloon.state is DriverState.INITIALIZED


def test_pages_that_were_not_given_are_not_taken_back():
    balloon = HypervBalloon(start(balloon=None).kernel)
    (raw,) = balloon.receive(encode(BalloonRequest(trans_id=1, num_pages=1024)))
    given = decode(raw).ranges
    for ranges in ((PageRange(0x1000, 1),), given + given[:1]):
        request = UnballoonRequest(trans_id=2, more_pages=False, ranges=ranges)
        with pytest.raises(MessageError, match="not ballooned"):
            list(balloon.receive(encode(request)))
    assert len(balloon.kernel.ballooned) == 1024


def test_a_message_that_only_guests_send_is_refused():
    balloon = HypervBalloon(start(balloon=None).kernel)
    with pytest.raises(MessageError, match="UNBALLOON_RESPONSE"):
        list(balloon.receive(encode(UnballoonResponse(trans_id=1))))


places = st.integers(0, 70).map(lambda n: 0x100000 + n * 0x1000) | st.integers(0, (1 << 40) - 1)
counts = st.sampled_from([0, 1, 0x1000, 0x4000, 0x8000, 0xC000, 0x20000])
ranges = st.builds(
    lambda start, count: PageRange(start, min(count, (1 << 40) - start)), places, counts
)
host_messages = st.one_of(
    st.builds(VersionResponse, trans_id=st.just(1), is_accepted=st.booleans()),
    st.builds(CapabilitiesResponse, trans_id=st.just(1), is_accepted=st.booleans()),
    st.builds(BalloonRequest, trans_id=st.just(1), num_pages=st.integers(0, 1 << 18)),
    st.builds(
        UnballoonRequest,
        trans_id=st.just(1),
        more_pages=st.booleans(),
        ranges=st.lists(ranges, max_size=3).map(tuple),
    ),
    st.builds(HotAddRequest, trans_id=st.just(1), pages=ranges, region=st.none() | ranges),
    st.builds(InfoMessage, trans_id=st.just(1), info_type=st.integers(0, 2), data=st.binary()),
)


@given(st.lists(host_messages, min_size=1, max_size=8), st.sampled_from(["6.1", "6.12", "7.3"]))
@example(
    messages=[
        HotAddRequest(trans_id=1, pages=PageRange(0x68000, 0x1000), region=None),
        BalloonRequest(trans_id=1, num_pages=1),
        HotAddRequest(trans_id=1, pages=PageRange(0x68001, 1), region=None),  # is ballooned
    ],
    rel="6.1",
)
def test_no_message_of_a_host_crashes_the_guest_and_every_page_stays_accounted_for(messages, rel):
    model = ModelMachine.start(
        Machine(memory=Size(GIB), release=rel, auto_online_blocks="online"), pages=False
    )
    kernel, balloon = model.kernel, HypervBalloon(model.kernel)
    balloon.probe()
    for message in messages:
        try:
            for raw in balloon.receive(encode(message)):
                assert decode(raw).TO_HOST
        except (MessageError, KernelFault):
            break
        for zone in kernel.zones.values():
            assert not kernel.used & kernel.fake_offline
            withheld = kernel.reserved | kernel.self_hosted | kernel.fake_offline
            assert kernel.nr_managed(zone) == len(zone.present - withheld)
            assert kernel.nr_free(zone) >= 0
        assert not kernel.ballooned - kernel.fake_offline
        for addition in kernel.additions:
            block = kernel.block_nr_pages
            assert addition.pfns.start % block == 0 == len(addition.pfns) % block


def test_the_host_backs_what_it_gives_back():
    model = start()
    backed = model.backing.backed.copy()
    resize(model, 2 * GIB)
    resize(model, 4 * GIB)
    assert model.backing.backed == backed


def reserves(model):
    return [zone.watermarks.protection for zone in model.kernel.zones.values()]


@pytest.mark.parametrize(("release", "follow"), [("6.12", False), ("7.3", True)])
def test_lowmem_reserves_follow_a_balloon_on_releases_where_they_follow_managed_pages(
    release, follow
):
    model = start(release=release)
    # A start without the balloon's own pages; both steps end at the size of the start.
    before = reserves(model)
    assert resize(model, 3 * GIB).outcome
    assert (reserves(model) != before) is follow
    assert resize(model, 4 * GIB).outcome
    assert reserves(model) == before


@pytest.mark.parametrize(("release", "flags"), [("6.1", 0x100800000), ("6.12", 0x800000)])
def test_flags_of_pages_that_are_kept_offline_and_of_pages_that_were_given(release, flags):
    """include/linux/kernel-page-flags.h: bit 23 is OFFLINE, 32 is RESERVED."""

    def flags_of(pfn):
        runs = model.observe().kpageflags
        return next(r.flags for r in runs if r.start_pfn <= pfn < r.start_pfn + r.nr_pages)

    model = start(release=release)
    half = Plug(id="hv", driver="hyperv", address=Address(0x144000 << 12), size=Size(64 * MIB))
    assert model.perform(half).outcome
    assert flags_of(0x140000) == flags_of(0x143FFF) == flags
    assert flags_of(0x144000) & 0x100800000 == 0
    # The driver onlines a late page as it does others (7.3 of drivers/hv/hv_balloon.c alike).
    late = Plug(id="late", driver="hyperv", address=Address(0x148000 << 12), size=Size(64 * MIB))
    rest = Plug(id="rest", driver="hyperv", address=Address(0x14C000 << 12), size=Size(64 * MIB))
    assert model.perform(late).outcome
    assert flags_of(0x14C000) == flags
    assert model.perform(rest).outcome
    assert flags_of(0x14C000) & 0x100800000 == 0
    assert resize(model, 3 * GIB).outcome
    taken = model.kernel.ballooned
    assert {flags_of(pfn) for pfn in (taken.min(), taken.max())} == {0x800000}


@pytest.mark.parametrize(
    ("below_mib", "kept_below", "kept_from"),
    [(128, (8, 1), (40, 2)), (512, (40, 2), (104, 3)), (2048, (104, 3), (232, 4)),
     (8192, (232, 4), (488, 5))],
)  # fmt: skip
def test_the_floor_changes_its_slope_at_each_bound(below_mib, kept_below, kept_from):
    """compute_balloon_floor: the lines meet at the bounds, so that pages beside them tell."""
    for distance in (-200, -64, 64, 200):
        total = below_mib * 256 + distance
        mib, shift = kept_below if distance < 0 else kept_from
        assert balloon_floor_nr_pages(total, 4096) == mib * 256 + (total >> shift)
