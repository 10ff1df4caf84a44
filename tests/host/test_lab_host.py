"""Plans carried out on a real kernel: as predicted, with a surprise, with the platform's help."""

import pytest

from altmap.host.apply import ApplyResult, apply_plan, differences_from, resume
from altmap.host.explain import explain_block
from altmap.host.guard import hypervisor_of
from altmap.host.journal import Journal
from altmap.host.planner import plan_free, plan_remove
from altmap.host.planner_add import PlugWish, plan_grow
from altmap.lab import Hardware, fetch
from altmap.lab.capture import capture
from altmap.lab.dimm import plug_dimm, unplug_dimm
from altmap.lab.files import GuestFiles
from altmap.lab.snapshot import booted
from altmap.linux.observation import Observation

pytestmark = pytest.mark.lab

MIB, GIB = 1 << 20, 1 << 30
STATE = "sys/devices/system/memory/memory{}/state"
RELEASE = "6.12"


@pytest.fixture(scope="module")
def guest():
    """1 GiB, and a DIMM of 640 MiB: 32 and 33 Movable, 34 kernel, 35 and 36 offline."""
    with booted(fetch(RELEASE), Hardware(), "memhp_default_state=offline") as running:
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


def test_what_is_planned_happens_and_is_checked_step_by_step(guest, files, tmp_path):
    sysroot, shown = seen(guest)
    assert explain_block(shown, 33).verdict == "no visible blocker"
    assert hypervisor_of(files) is not None
    before = {nr: block.state for nr, block in shown.memory.blocks.items()}
    grown = plan_grow(sysroot, 1664 * MIB, PlugWish(0, to="online_movable"))
    assert list(differences_from(grown.assumes, files)) == []
    with Journal(tmp_path / "grow", new=True) as journal:
        assert apply_plan(grown, files, journal, say) is ApplyResult.DONE
    freed = plan_free(capture(guest), [35, 36])
    assert list(differences_from(grown.assumes, files)) != []
    with Journal(tmp_path / "free", new=True) as journal:
        assert apply_plan(freed, files, journal, say) is ApplyResult.DONE
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
    assert result is ApplyResult.ROLLED_BACK
    assert files.read(STATE.format(35)).strip() == "offline"
    assert files.write(STATE.format(36), "offline") is None


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
        assert apply_plan(plan, files, journal, say) is ApplyResult.WAITS
    assert unplug_dimm(guest, "d4").removed
    with Journal(tmp_path / "j", new=False) as journal:
        assert resume(plan, files, journal, say) is ApplyResult.DONE
