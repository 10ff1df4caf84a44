"""The state of each page, against a plain loop over the files of real and modelled machines."""

from pathlib import Path

import pytest

from altmap.linux.kpageflags import is_memmap
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import predict
from altmap.pfn import PfnRange, PfnSet
from altmap.report.states import PageState, page_views
from altmap.scenario import load_scenario
from altmap.storage.recording import read_recording
from altmap.trace import OK, StepRecord, Trace

ROOT = Path(__file__).parents[2]
RECORDINGS = sorted((ROOT / "tests/recordings/files").glob("*.tar.xz"))


def scenario_views(name, *settings):
    trace = predict(load_scenario(ROOT / f"scenarios/{name}.toml", settings))
    return trace, page_views(trace)


def files_view(path):
    seen = Observation.read(Sysroot.read(path))
    start = StepRecord("start", {}, OK, observation=seen)
    (view,) = page_views(Trace("x", "files", "", "", {}, [start]))
    return seen, view


def pages_of(seen, id_):
    nr = seen.memory.block_size_bytes // 4096
    return PfnRange(id_ * nr, (id_ + 1) * nr)


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_every_page_of_a_recording_has_the_one_state_of_its_flags(path):
    seen, view = files_view(path)
    blocks = PfnSet(pages_of(seen, id_) for id_ in seen.memory.blocks)
    assert sum(map(len, view.pages.values())) == len(blocks)
    assert PfnSet.of(*view.pages.values()) == blocks
    online = PfnSet(pages_of(seen, i) for i, b in seen.memory.blocks.items() if b.state == "online")
    assert view.pages[PageState.OFFLINE] == blocks - online
    ram = PfnSet(
        PfnRange(r.start // 4096, r.end // 4096) for r in seen.iomem if r.name == "System RAM"
    )
    for start, nr, flags in seen.kpageflags:
        run = PfnRange(start, start + nr)
        if not flags & (1 << 20) and flags & (1 << 10):
            assert view.pages[PageState.FREE].count(run) == online.count(run)
        elif is_memmap(flags):
            assert view.pages[PageState.MEMMAP].count(run) == online.count(run)
        elif not flags:
            in_ram = PfnSet.of(run) & ram & online
            assert view.pages[PageState.UNMOVABLE].count(run) == len(in_ram)
    # As the kernel counts them: present pages are online and not holes.
    present = sum(zone.pages["present"] for zone in seen.zoneinfo)
    assert len(online - view.pages[PageState.HOLE]) == pytest.approx(present, abs=512)


def test_a_real_machine_has_no_unbacked_pages():
    _, view = files_view(RECORDINGS[0])
    assert not view.unbacked
    assert not view.pages[PageState.UNBACKED]


def test_a_fault_is_shown_with_backed_and_unbacked_pages():
    trace, (_, crashed, after) = scenario_views("hyperv-64MiB-second-half", "policy=rfc-2018")
    fault = trace.steps[1].faults[0]
    assert crashed.pages[PageState.FAULT] == fault.pfns == PfnSet([PfnRange(0x100000, 0x100008)])
    assert crashed.pages[PageState.PLUGGED] == PfnSet([PfnRange(0x104000, 0x108000)])
    assert PfnSet.of(
        crashed.pages[PageState.UNBACKED], crashed.pages[PageState.MEMMAP], fault.pfns
    ) == PfnSet([PfnRange(0x100000, 0x104000)])
    assert crashed.crashed
    assert crashed.blocks[32].state == "absent"
    assert (after.pages, after.blocks) == (
        crashed.pages,
        crashed.blocks,
    )  # no step changes it


def test_fake_offline_pages_are_unbacked_until_the_host_backs_them():
    _, (start, half, whole) = scenario_views("hyperv-64MiB-second-half", "policy=opt-in")
    assert 32 not in start.blocks
    first = PfnSet([PfnRange(0x100000, 0x104000)])
    assert half.pages[PageState.FAKE_OFFLINE] == first == half.unbacked
    assert whole.pages[PageState.FAKE_OFFLINE] == first
    assert not whole.unbacked
    assert (half.blocks[32].zones, half.blocks[32].owner) == ("Normal", "hv1")
    assert whole.blocks[32].owner == "hv1, hv2"


def test_the_memmap_of_an_offline_block_is_shown_where_it_was_placed():
    _, shown = scenario_views("dimm-1GiB", "auto_online_blocks=offline")
    stride = PfnSet(PfnRange(s, s + 512) for s in range(0x100000, 0x140000, 0x8000))
    assert shown[1].pages[PageState.MEMMAP] == stride
    assert len(shown[1].pages[PageState.OFFLINE]) == 0x40000 - len(stride)
    assert not shown[2].pages[PageState.MEMMAP]  # removed with the DIMM


def test_a_memmap_in_existing_memory_is_shown_until_it_is_freed():
    _, shown = scenario_views("dimm-1GiB", "policy=existing")
    assert len(shown[1].pages[PageState.MEMMAP]) == 4096
    assert shown[1].pages[PageState.MEMMAP].max() < 0x100000
    assert not shown[2].pages[PageState.MEMMAP]


@pytest.mark.parametrize("name", ["zone-holes", "q35-6GiB", "policy-changes", "file-migrated"])
def test_states_are_disjoint_and_cover_the_blocks_of_every_step(name):
    trace, shown = scenario_views(name)
    for step, view in zip(trace.steps, shown, strict=True):
        seen = step.observation
        blocks = PfnSet(pages_of(seen, id_) for id_ in seen.memory.blocks)
        assert sum(map(len, view.pages.values())) == len(PfnSet.of(*view.pages.values()))
        assert PfnSet.of(*view.pages.values()) == blocks
        free = sum(zone.pages["free"] for zone in seen.zoneinfo)
        assert len(view.pages[PageState.FREE]) == free
        assert set(view.blocks) == set(seen.memory.blocks)


def test_files_without_memory_blocks_give_no_map():
    start = StepRecord("start", {}, OK, observation=Observation())
    assert page_views(Trace("x", "files", "", "", {}, [start])) is None


#: Which frames a Xen balloon takes is not predicted; after a crash a kernel shows no files.
#: Of Xen, where no block is added; ended by a fault; a pool that spreads over boot memory too, or a
#: balloon whose size is chance.
OTHERS = ("xen", "fault", "hvo", "balloon-floor")
TRACES = [
    path
    for path in sorted((ROOT / "tests/recordings/traces").glob("x86_64-*.tar.xz"))
    if not any(name in path.name for name in OTHERS)
]


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def test_the_map_of_added_memory_equals_that_of_the_real_kernel(path):
    """Memmap, fake-offline pages and holes of online blocks page for page, and facts of blocks."""
    recording = read_recording(path)
    start = recording.trace.steps[0].observation
    predicted = predict(recording.scenario, start)
    # A memmap in existing memory may lie anywhere there, and no file of a real kernel shows where.
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
        recording.trace.steps, page_views(predicted), page_views(recording.trace), strict=True
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
        # The running kernel allocates some pages, and has some on per-CPU lists.
        elsewhere = (mine.pages[PageState.FREE] & added) ^ (other.pages[PageState.FREE] & added)
        compared += len(added)
        assert len(elsewhere) <= max(4096, len(added) // 8)
    assert compared


RECORDED_FAULT = ROOT / "tests/recordings/traces/x86_64-6.12+rfc-2018-hyperv-fault.tar.xz"


def test_of_a_real_kernel_no_page_is_shown_as_not_backed():
    """Its files do not tell what the host backs, after a crash neither."""
    view = page_views(read_recording(RECORDED_FAULT).trace)[1]
    assert view.crashed
    assert view.pages[PageState.FAULT]
    for state in (PageState.UNBACKED, PageState.PLUGGED):
        assert not view.pages[state]
    assert not view.unbacked


def test_frames_of_firmware_in_boot_blocks_are_not_shown_as_not_backed():
    """A real kernel has struct pages of them: below 1 MiB, and above the last RAM of a block."""
    recording = read_recording(RECORDED_FAULT)
    start = recording.trace.steps[0].observation
    view = page_views(predict(recording.scenario, start))[0]
    assert not view.unbacked
