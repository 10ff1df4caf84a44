"""Placements that were only proposed, accounting by name, and what leaves before what."""

import pytest

from altmap.errors import InputError
from altmap.model.arch import ARCHES
from altmap.model.kernel.accounting import ACCOUNTINGS, POLICIES, policy_named
from altmap.model.kernel.defects import DEFECTS
from altmap.model.kernel.memmap import AddRequest, Memmap
from altmap.model.kernel.placements import PLACEMENTS
from altmap.model.machine import ModelMachine
from altmap.model.releases import RELEASES
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Address, Machine, Offline, Online, Plug, Size, Unplug

MIB, GIB = 1 << 20, 1 << 30
BASE, BLOCK = 0x100000, 32768


def place(name, usable=None, *, asks=False, nr_blocks=1, mode="on", others=()):
    pfns = PfnRange(BASE, BASE + nr_blocks * BLOCK)
    request = AddRequest(pfns, asks, BLOCK, mode, usable, others)
    return PLACEMENTS[name].place(ARCHES["x86_64"], RELEASES["6.12"], request)


# --- hinted --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("start", "end", "at"),
    [
        (0, BLOCK, 0),
        (BLOCK // 2, BLOCK, BLOCK // 2),
        (1, BLOCK, 512),  # the first whole pageblock
        (BLOCK - 512, BLOCK, BLOCK - 512),
        (BLOCK - 511, BLOCK, None),
        (0, 511, None),
        (0, 0, None),
    ],
)
def test_a_hinted_memmap_is_the_first_aligned_one_inside_the_hint(start, end, at):
    memmap = place("hinted", PfnRange(BASE + start, BASE + end))
    if at is None:
        assert not memmap.self_hosted
    else:
        assert PfnSet.of(memmap.hosted()) == PfnSet([PfnRange(BASE + at, BASE + at + 512)])


def test_a_driver_that_names_no_place_gets_existing_memory():
    assert not place("hinted", asks=True).self_hosted


def test_a_hint_that_covers_everything_serves_each_block_at_its_start():
    memmap = place("hinted", PfnRange(BASE, BASE + 8 * BLOCK), nr_blocks=8)
    assert memmap == place("per-block", nr_blocks=8)


def test_struct_pages_of_a_hinted_memmap_lie_behind_its_offset():
    memmap = place("hinted", PfnRange(BASE + BLOCK // 2, BASE + BLOCK))
    at = BASE + BLOCK // 2
    assert memmap.frames_of(PfnRange(BASE, BASE + 64)) == PfnSet([PfnRange(at, at + 1)])
    assert memmap.frames_of(memmap.described) == PfnSet.of(memmap.hosted())


def machine(policy, **keys):
    return ModelMachine.start(
        Machine(policy=policy, memmap_on_memory="on", auto_online_blocks="online_movable", **keys)
    )


def hot_add(made, address, size):
    plug = Plug(id="hv1", driver="hyperv", address=Address(address), size=Size(size))
    return made.perform(plug)


@pytest.mark.parametrize(
    ("policy", "status"),
    [("rfc-2018", "fault"), ("per-block", "fault"), ("hinted", "ok"), ("shared-host", "ok")],
)
def test_the_second_half_of_a_section_is_enough_if_the_driver_names_it(policy, status):
    made = machine(policy)
    assert hot_add(made, 4 * GIB + 64 * MIB, 64 * MIB).outcome.status == status


def test_what_hyperv_backs_pays_for_its_memmap_under_a_hint():
    made = machine("hinted")
    before = made.kernel.total_ram_nr_pages()
    hot_add(made, 4 * GIB + 64 * MIB, 64 * MIB)
    assert made.kernel.total_ram_nr_pages() - before == (64 - 2) * 256


@pytest.mark.parametrize(("mib", "hosted"), [(1, 0), (2, 512), (64, 512)])
def test_a_backed_part_below_two_mib_holds_no_memmap(mib, hosted):
    made = machine("hinted")
    assert hot_add(made, 4 * GIB, mib * MIB).outcome.status == "ok"
    assert len(made.kernel.self_hosted) == hosted


# --- shared-host ---------------------------------------------------------------------------


def test_one_section_of_128_mib_holds_the_memmaps_of_8_gib():
    others = ()
    for nr in range(9):
        pfns = PfnRange(BASE + nr * 8 * BLOCK, BASE + (nr + 1) * 8 * BLOCK)
        request = AddRequest(pfns, True, BLOCK, "on", None, others)
        memmap = PLACEMENTS["shared-host"].place(ARCHES["x86_64"], RELEASES["6.12"], request)
        others += (memmap,)
    assert len(others[0].hosted()) == BLOCK
    places = [memmap.host for memmap in others[1:8]]
    assert places == [PfnRange(BASE + n * 4096, BASE + (n + 1) * 4096) for n in range(1, 8)]
    assert others[8].host is None
    assert others[8].self_hosted  # the ninth GiB is the next host


@pytest.mark.parametrize(("asks", "nr_blocks"), [(False, 8), (True, 1)])
def test_who_does_not_ask_or_is_one_section_is_no_host(asks, nr_blocks):
    memmap = place("shared-host", asks=asks, nr_blocks=nr_blocks)
    assert not memmap.self_hosted
    assert memmap.host is None


def test_a_driver_that_does_not_ask_is_served_by_another_s_host():
    host = Memmap(ARCHES["x86_64"], PfnRange(0, 8 * BLOCK), 8 * BLOCK, BLOCK)
    assert place("shared-host", others=(host,)).host == PfnRange(4096, 4096 + 512)


def test_the_host_leaves_last():
    made = machine("shared-host")
    for id_ in ("host", "guest"):
        assert made.perform(Plug(id=id_, size=Size(GIB))).outcome
    assert made.perform(Offline(id="guest")).outcome
    refused = made.perform(Offline(id="host", part="first")).outcome
    assert (refused.status, refused.errno) == ("refused", "EBUSY")
    assert "memmap" in refused.why
    assert made.perform(Offline(id="host", part="last")).outcome
    assert made.perform(Unplug(id="guest")).outcome
    assert made.perform(Unplug(id="host")).outcome


def test_a_host_that_was_never_online_leaves_last_too():
    made = machine("shared-host")
    made.kernel.tunables.auto_online_blocks = "offline"
    for id_ in ("host", "guest"):
        made.perform(Plug(id=id_, size=Size(GIB)))
    assert made.perform(Unplug(id="host")).outcome.errno == "EBUSY"


def test_a_guest_of_a_host_takes_nothing_from_existing_memory():
    made = machine("shared-host")
    made.perform(Plug(id="host", size=Size(GIB)))
    before, blocks = made.kernel.free_nr_pages(), made.kernel.self_hosted.copy()
    made.perform(Plug(id="guest", size=Size(GIB)))
    assert made.kernel.free_nr_pages() - before == 8 * BLOCK
    assert made.kernel.self_hosted == blocks


# --- accounting ----------------------------------------------------------------------------


def gained(policy):
    made = machine(policy)
    start = made.observe()
    made.perform(Plug(id="d1", size=Size(GIB)))
    now = made.observe()
    keys = ("MemTotal", "MemFree")
    present = [sum(z.pages["present"] for z in seen.zoneinfo) for seen in (start, now)]
    return (
        now.meminfo["MemTotal"] - start.meminfo["MemTotal"],
        present[1] - present[0],
        now.meminfo.get("PageMetadata"),
        {key: now.meminfo[key] - start.meminfo[key] for key in keys}["MemFree"],
    )


#: From 1 GiB = 1048576 kB in 262144 pages, 1/64 of it memmap.
SEEN = {
    "merged": (1032192, 262144, None),
    "hidden": (1032192, 258048, None),
    "total": (1048576, 262144, None),
    "meminfo": (1032192, 262144, 16384),
}


@pytest.mark.parametrize("accounting", ACCOUNTINGS)
@pytest.mark.parametrize("place_", ["opt-in", "rfc-2018", "per-block", "hinted"])
def test_every_place_can_be_counted_in_every_way(place_, accounting):
    total, present, line, free = gained(f"{place_}+{accounting}")
    assert (total, present, line) == SEEN[accounting]
    assert abs(free - 1032192) <= 8  # page tables: which ones, the place decides


@pytest.mark.parametrize("accounting", ACCOUNTINGS)
def test_accounting_says_nothing_of_a_memmap_in_existing_memory_but_the_line(accounting):
    line = 16384 if accounting == "meminfo" else None
    assert gained(f"existing+{accounting}")[:3] == (1048576, 262144, line)


def test_names_of_parts_are_the_same_policy():
    assert policy_named("rfc-2018+hidden").accounting == policy_named("rfc-2018").accounting
    assert policy_named("rfc-2018+hidden").name == "rfc-2018"
    assert policy_named("opt-in+total").accounting == POLICIES["total-and-allocated"].accounting
    assert policy_named("rfc-2018:D4,D3").name == "rfc-2018:D3,D4"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("opt-in+nothing", ["'nothing'", "merged", "meminfo"]),
        ("opt-in:D3", ["only rfc-2018"]),
        ("rfc-2018:D9", ["'D9'", "D1, D3, D4, D6, F1"]),
        ("rfc-2018:", ["''"]),
        ("rfc-2018:D7", ["no model can hold D7", DEFECTS["D7"].reason]),
        ("total-and-allocated+merged", ["total-and-allocated+merged"]),
        ("some.module:Class", ["some.module:Class", "opt-in"]),
    ],
)
def test_a_policy_of_wrong_parts_is_refused(name, words):
    with pytest.raises(InputError) as caught:
        policy_named(name)
    assert all(word in str(caught.value) for word in words)


def test_a_scenario_s_policy_runs_no_code(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('run')", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match="evil:Policy"):
        ModelMachine.start(Machine(policy="evil:Policy"))


# --- add that fails ------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["opt-in", "existing", "shared-host", "rfc-2018"])
@pytest.mark.parametrize("release", ["6.6", "6.12"])
def test_an_add_that_fails_late_leaves_the_machine_as_before(policy, release):
    made = machine(policy, release=release)
    made.kernel.failures.block_devices = True
    before = made.observe()
    failed = made.perform(Plug(id="d1", size=Size(GIB))).outcome
    assert (failed.errno, failed.function) == ("ENOMEM", "create_memory_block_devices")
    after = made.observe()
    assert (after.meminfo, after.zoneinfo, after.vmstat) == (
        before.meminfo,
        before.zoneinfo,
        before.vmstat,
    )
    assert set(after.memory.blocks) == set(before.memory.blocks)
    assert made.perform(Plug(id="d2", size=Size(GIB))).outcome  # it fails once
    assert made.perform(Online(id="d2")).outcome.errno == "EINVAL"  # online already


def test_what_a_host_section_holds_is_named_and_kept_by_the_addition():
    made = machine("shared-host")
    assert made.perform(Plug(id="host", size=Size(GIB))).outcome
    record = made.perform(Plug(id="served", size=Size(GIB)))
    assert record.outcome
    (placed,) = (e for e in record.events if e.kind == "memmap-placed")
    addition = made.kernel.additions[-1]
    assert addition.memmap.host is not None
    assert addition.host_pages == placed.pfns == PfnSet([addition.memmap.host])
