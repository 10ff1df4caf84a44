"""Room for what must move, blocks that never go, and plans for whichever blocks can go."""

from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.errors import InputError
from altmap.host.explain import explain_block
from altmap.host.plan import decode_plan, encode_plan
from altmap.host.planner import plan_free, plan_remove
from altmap.host.planner_any import plan_free_any, plan_remove_any
from altmap.host.text.plan import plan_text
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import ModelMachine
from altmap.scenario import Fill, Machine, Size

MACHINES = Path(__file__).parent / "machines"
RECORDINGS = Path(__file__).parents[1] / "recordings" / "files"
PAGE_CACHE = MACHINES / "page-cache-6.12.tar.gz"
MIB = 1 << 20


def read(path, **files):
    sysroot = Sysroot.read(path)
    sysroot.files |= {name: raw.encode() for name, raw in files.items()}
    return sysroot


def without_flags(sysroot):
    sysroot.files = {name: raw for name, raw in sysroot.files.items() if "kpage" not in name}
    return sysroot


def full_dimm():
    """A DIMM whose one online block is full of tmpfs, and so is the rest of the machine."""
    sysroot = read(
        RECORDINGS / "linux-7.3-dimm.tar.xz",
        **{
            "sys/devices/system/memory/memory33/state": "offline\n",
            "sys/devices/system/memory/memory33/valid_zones": "Normal Movable\n",
        },
    )
    model = ModelMachine.start(Machine(), Observation.read(sysroot))
    free = model.kernel.free_nr_pages() * 4 // 1024
    assert model.perform(Fill(id="f", size=Size((free - 60) * MIB))).outcome
    return without_flags(model.observe().render())


# --- room ---


def test_page_cache_is_room_in_plan_and_in_explain():
    """In that guest memory3 to 6 went offline at once; 481 MiB of Buffers were dropped."""
    plan = plan_free(read(PAGE_CACHE), [3, 4, 5, 6])
    assert plan.obstacle is None
    assert [step.certainty for step in plan.steps] == ["likely"] * 4
    assert plan.work.moved_bytes == 4 * 128 * MIB
    assert abs(plan.work.dropped_bytes // 1024 - 493260) < 25000
    assert plan.work.swapped_bytes == 0
    assert "page cache is dropped" in plan_text(plan)
    seen = Observation.read(read(PAGE_CACHE))
    for nr in (3, 4, 5, 6):
        found = explain_block(seen, nr)
        assert found.verdict == "no visible blocker"
        assert found.room_nr_pages > found.moving_nr_pages


def with_zone_counters(sysroot, change):
    text = sysroot.files["proc/zoneinfo"].decode()
    sysroot.files["proc/zoneinfo"] = "".join(map(change, text.splitlines(keepends=True))).encode()
    return sysroot


def test_without_counters_of_the_lru_lists_explain_does_not_know():
    sysroot = with_zone_counters(read(PAGE_CACHE), lambda s: "" if "nr_zone_" in s else s)
    assert explain_block(Observation.read(sysroot), 5).verdict == "unknown"


def test_dirty_page_cache_may_be_room():
    def dirty(line):
        name = line.split()[:1]
        return "      nr_zone_write_pending 999999\n" if name == ["nr_zone_write_pending"] else line

    sysroot = with_zone_counters(read(PAGE_CACHE), dirty)
    assert explain_block(Observation.read(sysroot), 5).verdict == "unknown"


def test_what_finds_no_room_may_be_killed_and_must_not_be_asked_back():
    plan = plan_remove(full_dimm(), "PNP0C80:00")
    assert plan.obstacle.prediction.errno == "EINTR"
    assert plan.work.moved_bytes > 0
    whats = [risk.what for risk in plan.risks]
    assert any("OOM killer may end processes" in what for what in whats)
    (removal,) = [risk for risk in plan.risks if "does not end" in risk.what]
    assert "kacpi_hotplug_wq" in removal.what
    assert removal.certainty == plan.steps[-1].certainty
    assert decode_plan(encode_plan(plan).encode(), "p") == plan


# --- blocks that never go ---


def test_a_kernel_without_hot_remove_refuses_every_block_for_certain():
    """include/linux/memory_hotplug.h: the stub of offline_pages() returns -EINVAL."""
    sysroot = read(MACHINES / "no-hot-remove.tar.gz")
    for nr in (1, 32):
        step = plan_free(sysroot, [nr]).obstacle
        assert (step.prediction.errno, step.prediction.function) == ("EINVAL", "offline_pages")
        assert step.certainty == "certain"
        assert step.prediction.work is None
    with pytest.raises(InputError, match=r"none of .* can go: .*CONFIG_MEMORY_HOTREMOVE"):
        plan_free_any(sysroot, 1)


# --- whichever can go ---


def test_any_blocks_are_those_with_least_to_move():
    sysroot = read(PAGE_CACHE)
    seen = Observation.read(sysroot)
    plan = plan_free_any(sysroot, 2)
    chosen = [step.prediction.blocks[0].first for step in plan.steps]
    free = {nr: explain_block(seen, nr) for nr in seen.memory.blocks}
    able = {nr: each for nr, each in free.items() if not each.blockers}
    order = sorted(able, key=lambda nr: (able[nr].moving_nr_pages, -nr))
    assert chosen == order[:2]
    assert plan.passed_over == []


def test_each_block_that_was_passed_over_has_its_reason():
    plan = plan_free_any(read(PAGE_CACHE), 8)
    named = {each.name: each for each in plan.passed_over}
    assert named["memory0"].why.startswith("zones: ")
    assert named["memory7"].why.startswith("hole: ")
    assert named["memory2"].certainty == "certain"
    assert named["memory2"].why.startswith("page-tables: ")
    assert len(plan.steps) + len(named) == 8
    assert any(risk.what == "only 640 MiB of 1 GiB can go" for risk in plan.risks)
    assert "passed over, certain: memory0: zones" in plan_text(plan)
    assert decode_plan(encode_plan(plan).encode(), "p") == plan


def test_any_plan_predicts_what_naming_the_blocks_does():
    any_plan = plan_free_any(read(PAGE_CACHE), 3)
    chosen = [step.prediction.blocks[0].first for step in any_plan.steps]
    assert plan_free(read(PAGE_CACHE), chosen).steps == any_plan.steps


def test_what_was_tried_and_refused_leaves_no_trace_in_the_plan():
    sysroot = full_dimm()
    with pytest.raises(InputError, match="none of"):
        plan_remove_any(sysroot, 512 * MIB)


def test_a_device_goes_as_a_whole_and_never_more_than_asked_for():
    sysroot = read(
        RECORDINGS / "linux-7.3-dimm.tar.xz",
        **{
            "sys/devices/system/memory/memory33/state": "offline\n",
            "sys/devices/system/memory/memory33/valid_zones": "Normal Movable\n",
        },
    )
    plan = plan_remove_any(sysroot, 512 * MIB)
    assert [step.by for step in plan.steps] == ["kernel", "platform"]
    assert "PNP0C80:00" in plan.steps[-1].title
    more = plan_remove_any(sysroot, 1024 * MIB)
    assert any(risk.what == "only 512 MiB of 1 GiB can go" for risk in more.risks)
    with pytest.raises(InputError, match="larger than the 256 MiB that are left"):
        plan_remove_any(sysroot, 256 * MIB)


def test_a_virtio_mem_device_is_made_smaller():
    path = next((RECORDINGS.parent / "virtio-mem").glob("*6.12*"))
    seen = Observation.read(Sysroot.read(path))
    assert seen.memory is not None
    plan = plan_remove_any(Sysroot.read(path), 128 * MIB)
    assert [step.by for step in plan.steps] == ["platform"]
    assert "requested" in plan.steps[0].title


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["free", "--any", "0"], "at least 1 block"),
        (["free"], "need either BLOCK or --any"),
        (["free", "3", "--any", "1"], "need either BLOCK or --any"),
        (["remove"], "need either DEVICE or --any"),
        (["remove", "--any", "100MiB"], "a multiple of the memory block, 128 MiB"),
        (["remove", "--any", "0MiB"], "a multiple of the memory block, 128 MiB"),
    ],
)
def test_wishes_that_cannot_be_are_one_line(words, what, capsys):
    assert main(["plan", *words, "--from", str(PAGE_CACHE)]) == 1
    assert what in capsys.readouterr().err


def test_without_a_device_nothing_can_be_removed():
    with pytest.raises(InputError, match="no device is plugged that could be removed"):
        plan_remove_any(read(PAGE_CACHE), 256 * MIB)
