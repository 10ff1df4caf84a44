"""What each page is, against a dumb loop over the files of real and modelled machines."""

from pathlib import Path

import pytest

from altmap.linux.kpageflags import is_memmap
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import predict
from altmap.pfn import PfnRange, PfnSet
from altmap.report.states import PageState, looks
from altmap.scenario import load_scenario
from altmap.storage.recording import read_recording
from altmap.trace import OK, StepRecord, Trace

ROOT = Path(__file__).parents[2]
RECORDINGS = sorted((ROOT / "tests/recordings/files").glob("*.tar.xz"))


def scenario_looks(name, *settings):
    trace = predict(load_scenario(ROOT / f"scenarios/{name}.toml", settings))
    return trace, looks(trace)


def files_look(path):
    seen = Observation.read(Sysroot.read(path))
    start = StepRecord("start", {}, OK, observation=seen)
    (look,) = looks(Trace("x", "files", "", "", {}, [start]))
    return seen, look


def pages_of(seen, id_):
    nr = seen.memory.block_size_bytes // 4096
    return PfnRange(id_ * nr, (id_ + 1) * nr)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_every_page_of_a_recording_has_one_state_and_it_is_that_of_its_flags(path):
    seen, look = files_look(path)
    blocks = PfnSet(pages_of(seen, id_) for id_ in seen.memory.blocks)
    assert sum(map(len, look.pages.values())) == len(blocks)
    assert PfnSet.of(*look.pages.values()) == blocks
    online = PfnSet(pages_of(seen, i) for i, b in seen.memory.blocks.items() if b.state == "online")
    assert look.pages[PageState.OFFLINE] == blocks - online
    ram = PfnSet(
        PfnRange(r.start // 4096, r.end // 4096) for r in seen.iomem if r.name == "System RAM"
    )
    for start, nr, flags in seen.kpageflags:
        run = PfnRange(start, start + nr)
        if not flags & (1 << 20) and flags & (1 << 10):
            assert look.pages[PageState.FREE].count(run) == online.count(run)
        elif is_memmap(flags):
            assert look.pages[PageState.MEMMAP].count(run) == online.count(run)
        elif not flags:
            in_ram = PfnSet.of(run) & ram & online
            assert look.pages[PageState.UNMOVABLE].count(run) == len(in_ram)
    # As the kernel counts them: what is present is online and no hole.
    present = sum(zone.pages["present"] for zone in seen.zoneinfo)
    assert len(online - look.pages[PageState.HOLE]) == pytest.approx(present, abs=512)


def test_no_backing_is_invented_for_a_real_machine():
    _, look = files_look(RECORDINGS[0])
    assert not look.unbacked
    assert not look.pages[PageState.UNBACKED]


def test_a_fault_is_shown_with_what_is_backed_and_what_is_not():
    trace, (_, dead, after) = scenario_looks("hyperv-64MiB-second-half", "policy=rfc-2018")
    fault = trace.steps[1].faults[0]
    assert dead.pages[PageState.FAULT] == fault.pfns == PfnSet([PfnRange(0x100000, 0x100008)])
    assert dead.pages[PageState.PLUGGED] == PfnSet([PfnRange(0x104000, 0x108000)])
    assert PfnSet.of(
        dead.pages[PageState.UNBACKED], dead.pages[PageState.MEMMAP], fault.pfns
    ) == PfnSet([PfnRange(0x100000, 0x104000)])
    assert dead.dead
    assert dead.blocks[32].state == "absent"
    assert (after.pages, after.blocks) == (dead.pages, dead.blocks)  # nothing happens to the dead


def test_what_the_driver_withholds_is_not_backed_until_the_host_gives_it():
    _, (start, half, whole) = scenario_looks("hyperv-64MiB-second-half", "policy=opt-in")
    assert 32 not in start.blocks
    first = PfnSet([PfnRange(0x100000, 0x104000)])
    assert half.pages[PageState.FAKE_OFFLINE] == first == half.unbacked
    assert whole.pages[PageState.FAKE_OFFLINE] == first
    assert not whole.unbacked
    assert (half.blocks[32].zones, half.blocks[32].owner) == ("Normal", "hv1")
    assert whole.blocks[32].owner == "hv1, hv2"


def test_the_memmap_of_an_offline_block_is_where_it_was_placed():
    _, shown = scenario_looks("dimm-1GiB", "auto_online_blocks=offline")
    stride = PfnSet(PfnRange(s, s + 512) for s in range(0x100000, 0x140000, 0x8000))
    assert shown[1].pages[PageState.MEMMAP] == stride
    assert len(shown[1].pages[PageState.OFFLINE]) == 0x40000 - len(stride)
    assert not shown[2].pages[PageState.MEMMAP]  # gone with the DIMM


def test_a_memmap_in_existing_memory_is_shown_while_it_is_needed():
    _, shown = scenario_looks("dimm-1GiB", "policy=existing")
    assert len(shown[1].pages[PageState.MEMMAP]) == 4096
    assert shown[1].pages[PageState.MEMMAP].max() < 0x100000
    assert not shown[2].pages[PageState.MEMMAP]


@pytest.mark.parametrize("name", ["zone-holes", "q35-6GiB", "policy-changes", "file-migrated"])
def test_states_are_disjoint_and_cover_the_blocks_of_every_step(name):
    trace, shown = scenario_looks(name)
    for step, look in zip(trace.steps, shown, strict=True):
        seen = step.observation
        blocks = PfnSet(pages_of(seen, id_) for id_ in seen.memory.blocks)
        assert sum(map(len, look.pages.values())) == len(PfnSet.of(*look.pages.values()))
        assert PfnSet.of(*look.pages.values()) == blocks
        free = sum(zone.pages["free"] for zone in seen.zoneinfo)
        assert len(look.pages[PageState.FREE]) == free
        assert set(look.blocks) == set(seen.memory.blocks)


def test_files_without_memory_blocks_give_no_map():
    start = StepRecord("start", {}, OK, observation=Observation())
    assert looks(Trace("x", "files", "", "", {}, [start])) is None


#: Which frames a Xen balloon gives up is not predicted; a kernel that a fault ended shows nothing.
TRACES = [
    path
    for path in sorted((ROOT / "tests/recordings/traces").glob("x86_64-*.tar.xz"))
    if "xen" not in path.name and "fault" not in path.name
]


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def test_added_memory_is_mapped_as_the_real_kernel_showed_it(path):
    """Which pages of online blocks are memmap, and which blocks are what, page for page."""
    recording = read_recording(path)
    start = recording.trace.steps[0].observation
    predicted = predict(recording.scenario, start)
    # A memmap in existing memory may lie anywhere there, and a real kernel does not tell where.
    anywhere = PfnSet.of(
        *(
            event.pfns
            for step in predicted.steps
            for event in step.events
            if event.kind == "memmap-placed" and "of existing memory" in event.text
        )
    )
    compared = 0
    for step, mine, other in zip(
        recording.trace.steps, looks(predicted), looks(recording.trace), strict=True
    ):
        seen = step.observation
        assert {id_: (b.state, b.zones, b.node) for id_, b in mine.blocks.items()} == {
            id_: (b.state, b.zones, b.node) for id_, b in other.blocks.items()
        }
        added = (
            PfnSet(
                pages_of(seen, id_)
                for id_, block in seen.memory.blocks.items()
                if id_ not in start.memory.blocks and block.state == "online"
            )
            - anywhere
        )
        for state in (PageState.MEMMAP, PageState.FAKE_OFFLINE, PageState.HOLE):
            assert mine.pages[state] & added == other.pages[state] & added
        # The running kernel takes some of it for itself, and keeps some on per-CPU lists.
        elsewhere = (mine.pages[PageState.FREE] & added) ^ (other.pages[PageState.FREE] & added)
        compared += len(added)
        assert len(elsewhere) <= max(4096, len(added) // 8)
    assert compared
