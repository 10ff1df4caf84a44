"""Prepared guests: explain and plan name the cause before the attempt; the attempt confirms it."""

import pytest

from altmap.host.apply import Result, apply_plan, differences_from, resume
from altmap.host.explain import explain_block
from altmap.host.guard import hypervisor_of
from altmap.host.journal import Journal
from altmap.host.planner import PlugWish, plan_add, plan_free, plan_grow, plan_remove
from altmap.lab import Guest, Hardware, fetch
from altmap.lab.capture import capture
from altmap.lab.dimm import plug_dimm, unplug_dimm
from altmap.lab.files import GuestFiles
from altmap.linux.observation import Observation

pytestmark = pytest.mark.lab

MIB, GIB = 1 << 20, 1 << 30
STATE = "sys/devices/system/memory/memory{}/state"
RELEASE = "6.12"


@pytest.fixture(scope="module")
def guest():
    """1 GiB, and a DIMM of 640 MiB: 32 and 33 Movable, 34 kernel, 35 and 36 offline."""
    with Guest(fetch(RELEASE), Hardware(), "memhp_default_state=offline") as running:
        plug_dimm(running, "d1", 640 * MIB)
        files = GuestFiles(running)
        for nr, word in ((34, "online_kernel"), (32, "online_movable"), (33, "online_movable")):
            assert files.write(STATE.format(nr), word) is None
        yield running


@pytest.fixture
def files(guest):
    return GuestFiles(guest, limit_seconds=4.0)


def say(text):
    pass


def seen(guest):
    sysroot = capture(guest)
    return sysroot, Observation.read(sysroot)


def test_holes_and_mixed_zones_are_named_before_the_kernel_refuses(guest, files):
    sysroot, shown = seen(guest)
    for nr, name in ((0, "zones"), (7, "hole")):
        found = explain_block(shown, nr)
        assert (found.verdict, found.blockers[0].name) == ("refused", name)
        assert plan_free(sysroot, [nr]).obstacle.prediction.errno == "EINVAL"
        assert files.write(STATE.format(nr), "offline") == "EINVAL"


def test_unmovable_pages_are_named_before_the_kernel_refuses(guest, files):
    # The second DIMM's memmap comes from existing memory; the guest's newest kernel zone is first.
    plug_dimm(guest, "d2", 512 * MIB)
    sysroot, shown = seen(guest)
    found = explain_block(shown, 34)
    assert found.verdict == "refused"
    kernel = {blocker.name: blocker for blocker in found.blockers}["kernel"]
    assert kernel.nr_pages >= 4 * 512  # four blocks' memmap
    assert any("the memmap of" in note for note in found.notes) is False  # none of it is online
    plan = plan_free(sysroot, [34])
    assert (plan.obstacle.prediction.errno, plan.obstacle.certainty) == ("EBUSY", "certain")
    assert files.write(STATE.format(34), "offline") == "EBUSY"
    assert unplug_dimm(guest, "d2").removed


def test_what_is_planned_happens_and_is_checked_step_by_step(guest, files, tmp_path):
    sysroot, shown = seen(guest)
    assert explain_block(shown, 33).verdict == "nothing visible in the way"
    assert hypervisor_of(files) is not None
    before = {nr: block.state for nr, block in shown.memory.blocks.items()}
    grown = plan_grow(sysroot, 1664 * MIB, PlugWish(0, to="online_movable"))
    assert list(differences_from(grown.assumes, files)) == []
    with Journal(tmp_path / "grow", new=True) as journal:
        assert apply_plan(grown, files, journal, say) is Result.DONE
    freed = plan_free(capture(guest), [35, 36])
    assert list(differences_from(grown.assumes, files)) != []
    with Journal(tmp_path / "free", new=True) as journal:
        assert apply_plan(freed, files, journal, say) is Result.DONE
    _, after = seen(guest)
    assert {nr: block.state for nr, block in after.memory.blocks.items()} == before


def test_a_surprise_in_a_guest_is_taken_back(guest, files, tmp_path):
    sysroot, _ = seen(guest)
    plan = plan_grow(sysroot, 1664 * MIB, PlugWish(0, to="online_movable"))
    assert [step.path for step in plan.steps] == [STATE.format(35), STATE.format(36)]
    said = []

    def onliner(text):
        """Another one onlines the next block behind the plan's back."""
        if not said:
            assert files.write(STATE.format(36), "online_kernel") is None
        said.append(text)

    with Journal(tmp_path / "j", new=True) as journal:
        result = apply_plan(plan, files, journal, onliner)
    assert said[0].endswith("as predicted")
    assert "EINVAL, predicted was that it is taken" in said[1]
    assert result is Result.ROLLED_BACK
    assert files.read(STATE.format(35)).strip() == "offline"
    assert files.write(STATE.format(36), "offline") is None


def test_a_competing_onliner_is_noticed_after_the_plug(guest, files, tmp_path):
    plan = plan_add(capture(guest), PlugWish(128 * MIB, to="online_movable"))
    with Journal(tmp_path / "j", new=True) as journal:
        assert apply_plan(plan, files, journal, say) is Result.WAITS
    added = plug_dimm(guest, "d3", 128 * MIB)
    nr = added.address // (128 * MIB)
    (part,) = plan.steps[0].prediction.blocks
    assert (part.first, part.last, part.state) == (nr, nr, "offline")
    assert files.write(STATE.format(nr), "online_kernel") is None
    said = []
    with Journal(tmp_path / "j", new=False) as journal:
        assert resume(plan, files, journal, said.append) is Result.ROLLED_BACK
    assert said[0].endswith(f"memory{nr} is online, not offline")


def test_hugetlb_pages_are_named_as_undecided(guest, files):
    guest.run("echo 40 >/proc/sys/vm/nr_hugepages")
    _, shown = seen(guest)
    found = {nr: explain_block(shown, nr) for nr in (32, 33)}
    holding = [nr for nr, each in found.items() if "hugetlb" in {b.name for b in each.blockers}]
    assert holding
    assert {found[nr].verdict for nr in holding} == {"unknown"}
    # Nobody uses them, so the kernel can dissolve them.
    assert files.write(STATE.format(holding[0]), "offline") is None
    guest.run("echo 0 >/proc/sys/vm/nr_hugepages")
    assert files.write(STATE.format(holding[0]), "online_movable") is None


def test_a_device_whose_removal_was_planned_goes(guest, files, tmp_path):
    plug_dimm(guest, "d4", 128 * MIB)
    _, before = seen(guest)
    nr = max(before.memory.blocks)
    assert files.write(STATE.format(nr), "online_movable") is None
    sysroot, shown = seen(guest)
    name = shown.memory.blocks[nr].firmware_node.rsplit("/", 1)[-1]
    plan = plan_remove(sysroot, name)
    assert [step.by for step in plan.steps] == ["kernel", "platform"]
    with Journal(tmp_path / "j", new=True) as journal:
        assert apply_plan(plan, files, journal, say) is Result.WAITS
    assert unplug_dimm(guest, "d4").removed
    with Journal(tmp_path / "j", new=False) as journal:
        assert resume(plan, files, journal, say) is Result.DONE


def test_a_memmap_that_does_not_fit_is_told_with_a_first_step_that_does():
    hardware = Hardware(memory_bytes=256 * MIB, maxmem_bytes=64 * GIB)
    with Guest(fetch(RELEASE), hardware, "memhp_default_state=offline") as small:
        sysroot = capture(small)
        plan = plan_add(sysroot, PlugWish(32 * GIB, to="online_kernel"))
        (risk,) = [risk for risk in plan.risks if "does not fit" in risk.what][:1]
        first = plan.steps[0].prediction.blocks
        size = sum(part.last - part.first + 1 for part in first) * 128 * MIB
        assert (risk.certainty, size > 0) == ("certain", True)
        added = plug_dimm(small, "d1", size)
        state = STATE.format(added.address // (128 * MIB))
        assert GuestFiles(small).read(state) == "offline\n"


def test_pages_that_have_nowhere_to_go_are_foreseen():
    # Pages of a node's block move to other nodes; the other one is full here.
    hardware = Hardware(memory_bytes=768 * MIB, node_bytes=(512 * MIB, 256 * MIB))
    with Guest(fetch(RELEASE), hardware, "memhp_default_state=offline") as two:
        plug_dimm(two, "d1", 128 * MIB)
        files = GuestFiles(two, limit_seconds=3.0)
        assert files.write(STATE.format(32), "online_movable") is None
        for node, least_kib in ((1, 24 << 10), (0, 0)):
            size_kib = 100 << 10
            if node:
                text = two.run(f"cat /sys/devices/system/node/node{node}/meminfo").text
                size_kib = int(text.split("MemFree:")[1].split()[0]) - least_kib
            mount = f"mount -t tmpfs -o size=100%,mpol=bind:{node} full /full{node}"
            fill = f"dd if=/dev/zero of=/full{node}/f bs=1k count={size_kib}"
            assert two.run(f"mkdir /full{node} && {mount} && {fill}", 60).status == 0
        sysroot, shown = seen(two)
        found = explain_block(shown, 32)
        assert found.moving_nr_pages >= 25_600
        assert found.verdict == "no room"
        assert plan_free(sysroot, [32]).obstacle.prediction.errno == "EINTR"
        assert files.write(STATE.format(32), "offline") == "EINTR"
        two.run("umount /full1")
        assert files.write(STATE.format(32), "offline") is None
