"""Plans carried out on a modelled machine: surprises, crashes at every write, journals."""

import errno
import json
import os
import time
from pathlib import Path

import pytest
from modelled import Crash, ModelledFiles

from altmap.cli.main import main
from altmap.errors import InputError
from altmap.host.apply import ApplyResult, apply_plan, differences_from, resume, roll_back
from altmap.host.guard import hypervisor_of
from altmap.host.journal import Journal
from altmap.host.plan import encode_plan
from altmap.host.planner import plan_free, plan_remove, plan_resize
from altmap.host.planner_add import PlugWish, plan_add, plan_grow
from altmap.host.transport import LocalFiles
from altmap.linux.sysroot import Sysroot
from altmap.scenario import Plug, Resize, Size, Unplug

RECORDINGS = Path(__file__).parents[1] / "recordings" / "files"
DIMM = RECORDINGS / "linux-6.12-dimm.tar.xz"
MIB = 1 << 20
STATE = "sys/devices/system/memory/memory{}/state"


def say(text):
    pass


@pytest.fixture
def sysroot():
    return Sysroot.read(DIMM)


@pytest.fixture
def files(sysroot):
    return ModelledFiles(sysroot)


@pytest.fixture
def plan(sysroot):
    """Four writes, of both kinds."""
    return plan_of_four(sysroot)


def plan_of_four(sysroot):
    grown = plan_grow(sysroot, 1536 * MIB, PlugWish(0, to="online_movable"))
    freed = plan_free(sysroot, [32, 1])
    steps = [*grown.steps, *freed.steps]
    made = type(grown)(goal="four writes", assumes=grown.assumes, steps=steps)
    assert len(made.steps) == 4
    return made


def test_a_plan_is_carried_out_as_predicted(files, plan, tmp_path):
    said = []
    with Journal(tmp_path / "j", new=True) as journal:
        assert apply_plan(plan, files, journal, said.append) is ApplyResult.DONE
    assert files.writes == [(step.path, step.value) for step in plan.steps]
    assert all(line.endswith("as predicted") for line in said)
    events = [json.loads(line)["event"] for line in (tmp_path / "j").read_text().splitlines()]
    assert events == ["begin", *["intend", "done"] * 4, "end"]
    assert files.states()[1][34] == ("online", "Movable")
    assert files.states()[1][32] == ("offline", None)


@pytest.mark.parametrize("nr", range(4))
@pytest.mark.parametrize("kind", ["refused", "nothing-happens", "someone-else"])
def test_a_surprise_takes_everything_back(files, plan, tmp_path, nr, kind):
    before = files.states()
    step = plan.steps[nr]
    if kind == "refused":
        files.answers[step.path, step.value] = "EBUSY"
    elif kind == "nothing-happens":
        files.answers[step.path, step.value] = None
    else:

        def other(at):
            if at == nr:
                files.perform(files._step(STATE.format(2), "offline"))

        files.after_write = other
    with Journal(tmp_path / "j", new=True) as journal:
        assert apply_plan(plan, files, journal, say) is ApplyResult.ROLLED_BACK
    after = files.states()
    if kind == "someone-else":
        # What another one did is not ours to undo.
        assert after[1].pop(2) == ("offline", None)
        before[1].pop(2)
    assert after == before


def test_kept_is_what_was_done_before_the_surprise(files, plan, tmp_path):
    files.answers[plan.steps[2].path, plan.steps[2].value] = "EBUSY"
    with Journal(tmp_path / "j", new=True) as journal:
        assert apply_plan(plan, files, journal, say, keep=True) is ApplyResult.KEPT
    states = files.states()[1]
    assert (states[34][0], states[35][0], states[32][0]) == ("online", "online", "online")


def test_what_cannot_be_taken_back_is_said(files, plan, tmp_path):
    files.answers[plan.steps[2].path, plan.steps[2].value] = "EBUSY"
    files.answers[plan.steps[0].path, plan.steps[0].undo] = "EBUSY"
    with Journal(tmp_path / "j", new=True) as journal:
        assert apply_plan(plan, files, journal, say) is ApplyResult.STUCK
        assert journal.entries[-1].found == ApplyResult.STUCK
    states = files.states()[1]
    assert (states[34][0], states[35][0]) == ("online", "offline")


def crashing(nr):
    def crash(at):
        if at == nr:
            raise Crash

    return crash


@pytest.mark.parametrize("nr", range(4))
@pytest.mark.parametrize("when", ["before_write", "after_write"])
@pytest.mark.parametrize("then", ["resume", "rollback"])
def test_a_killed_apply_carries_on_or_goes_back(files, plan, tmp_path, nr, when, then):
    before = files.states()
    setattr(files, when, crashing(nr))
    with pytest.raises(Crash), Journal(tmp_path / "j", new=True) as journal:
        apply_plan(plan, files, journal, say)
    setattr(files, when, lambda at: None)
    with Journal(tmp_path / "j", new=False) as journal:
        if then == "resume":
            assert resume(plan, files, journal, say) is ApplyResult.DONE
        else:
            assert roll_back(plan, files, journal, say) is ApplyResult.ROLLED_BACK
    if then == "rollback":
        assert files.states() == before
    else:
        states = files.states()[1]
        assert [states[n][0] for n in (34, 35, 32, 1)] == ["online", "online", "offline", "offline"]
        # No step was done twice: that would have been refused.
        done = [entry for entry in journal.entries if entry.event == "done"]
        assert sorted({entry.step for entry in done}) == [1, 2, 3, 4]
        assert not any(entry.errno for entry in done)


@pytest.mark.parametrize("nr", range(4, 7))
def test_a_rollback_that_was_killed_is_carried_on(files, plan, tmp_path, nr):
    before = files.states()
    files.answers[plan.steps[3].path, plan.steps[3].value] = "EBUSY"
    files.before_write = crashing(nr)
    with pytest.raises(Crash), Journal(tmp_path / "j", new=True) as journal:
        apply_plan(plan, files, journal, say)
    files.before_write = lambda at: None
    with Journal(tmp_path / "j", new=False) as journal:
        assert resume(plan, files, journal, say) is ApplyResult.ROLLED_BACK
    assert files.states() == before


@pytest.mark.parametrize("cut", [1, 7, 30])
def test_a_line_that_was_cut_off_counts_as_not_written(files, plan, tmp_path, cut):
    # The line is on disk before the write, so without it nothing was written.
    files.before_write = crashing(1)
    with pytest.raises(Crash), Journal(tmp_path / "j", new=True) as journal:
        apply_plan(plan, files, journal, say)
    raw = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(raw[:-cut])
    files.before_write = lambda at: None
    with Journal(tmp_path / "j", new=False) as journal:
        assert resume(plan, files, journal, say) is ApplyResult.DONE
    lines = (tmp_path / "j").read_text().splitlines()
    assert [json.loads(line)["event"] for line in lines] == [
        "begin",
        *["intend", "done"] * 4,
        "end",
    ]


def test_after_a_reboot_what_was_done_is_gone_and_resume_says_so(files, plan, tmp_path, sysroot):
    files.before_write = crashing(2)
    with pytest.raises(Crash), Journal(tmp_path / "j", new=True) as journal:
        apply_plan(plan, files, journal, say)
    rebooted = ModelledFiles(sysroot)
    with Journal(tmp_path / "j", new=False) as journal:
        with pytest.raises(InputError, match="memory34 is offline, not online"):
            resume(plan, rebooted, journal, say)
        assert roll_back(plan, rebooted, journal, say) is ApplyResult.ROLLED_BACK
    assert rebooted.states() == ModelledFiles(sysroot).states()


def test_the_platform_s_step_is_waited_for(sysroot, tmp_path):
    files = ModelledFiles(sysroot)
    plan = plan_add(sysroot, PlugWish(256 * MIB, to="online_movable"))
    with Journal(tmp_path / "j", new=True) as journal:
        assert apply_plan(plan, files, journal, say) is ApplyResult.WAITS
    assert files.writes == []
    files.perform(Plug(id="d", size=Size(256 * MIB)))
    with Journal(tmp_path / "j", new=False) as journal:
        assert resume(plan, files, journal, say) is ApplyResult.DONE
    assert files.states()[1][37] == ("online", "Movable")


@pytest.mark.parametrize(
    ("size", "result"), [(64, ApplyResult.DONE), (62, ApplyResult.ROLLED_BACK)]
)
def test_memory_that_comes_within_blocks_is_waited_for_and_checked(tmp_path, size, result):
    path = RECORDINGS.parent / "virtio-mem/linux-6.12-virtio-mem-after.tar.xz"
    sysroot = Sysroot.read(path)
    files, said = ModelledFiles(sysroot), []
    plan = plan_resize(sysroot, "virtio0", 64 * MIB)
    with Journal(tmp_path / "j", new=True) as journal:
        assert apply_plan(plan, files, journal, say) is ApplyResult.WAITS
    files.perform(Resize(id="virtio0", size=Size(size * MIB)))
    with Journal(tmp_path / "j", new=False) as journal:
        assert resume(plan, files, journal, said.append) is result
    assert said[0].endswith("as predicted") == (result is ApplyResult.DONE)


def test_a_device_that_the_platform_took_back_is_gone_and_not_lost(tmp_path):
    sysroot = Sysroot.read(DIMM)
    base = "sys/devices/system/memory/memory33"
    sysroot.files[f"{base}/state"] = b"offline\n"
    sysroot.files[f"{base}/valid_zones"] = b"Normal Movable\n"
    files = ModelledFiles(sysroot)
    plan = plan_remove(sysroot, "PNP0C80:00")
    with Journal(tmp_path / "j", new=True) as journal:
        assert apply_plan(plan, files, journal, say) is ApplyResult.WAITS
    files.perform(Unplug(id="PNP0C80:00"))
    with Journal(tmp_path / "j", new=False) as journal:
        assert resume(plan, files, journal, say) is ApplyResult.DONE


def test_another_onliner_that_is_first_is_a_surprise(sysroot, tmp_path):
    files = ModelledFiles(sysroot)
    plan = plan_add(sysroot, PlugWish(256 * MIB, to="online_movable"))
    files.perform(Plug(id="d", size=Size(256 * MIB)))
    files.perform(files._step(STATE.format(37), "online"))
    said = []
    with Journal(tmp_path / "j", new=True) as journal:
        assert apply_plan(plan, files, journal, said.append) is ApplyResult.ROLLED_BACK
    assert said[0].endswith("memory37 is online, not offline")
    assert files.writes == []


def test_a_journal_is_of_one_plan_and_one_apply(files, plan, sysroot, tmp_path):
    path = tmp_path / "j"
    with Journal(path, new=True) as journal:
        with pytest.raises(InputError, match="another apply is at work"):
            Journal(path, new=False)
        apply_plan(plan, files, journal, say)
    with pytest.raises(InputError, match="is there already"):
        Journal(path, new=True)
    with Journal(path, new=False) as journal, pytest.raises(InputError, match="is over: done"):
        resume(plan, files, journal, say)
    other = plan_free(sysroot, [2])
    with Journal(path, new=False) as journal, pytest.raises(InputError, match="another plan"):
        resume(other, files, journal, say)


@pytest.mark.parametrize("raw", [b"", b"{}\n", b"x\n", b'{"event":"done"}\n', b"[1]\n"])
def test_a_file_that_is_no_journal_is_refused(tmp_path, raw):
    (tmp_path / "j").write_bytes(raw)
    with pytest.raises(InputError, match=r"^journal "):
        Journal(tmp_path / "j", new=False)


def test_an_entry_is_on_disk_before_the_write_it_announces(files, plan, tmp_path, monkeypatch):
    order = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (order.append("fsync"), real(fd))[1])
    files.before_write = lambda at: order.append("write")
    with Journal(tmp_path / "j", new=True) as journal:
        apply_plan(plan, files, journal, say)
    # The folder once, then begin, then intend - write - done for each step, then end.
    assert order == ["fsync", "fsync", *["fsync", "write", "fsync"] * 4, "fsync"]


def test_a_machine_that_changed_is_told_apart(files, plan):
    assert list(differences_from(plan.assumes, files)) == []
    files.perform(files._step(STATE.format(2), "offline"))
    lines = list(differences_from(plan.assumes, files))
    assert any("memory2 is offline, not online" in line for line in lines)
    assert any(line.startswith("MemTotal: ") for line in lines)


# --- the command, on folders: never on this machine ------------------------------------------


GUEST = {"proc/cpuinfo": b"processor : 0\nflags : fpu hypervisor sse\n"}


@pytest.fixture
def tree(sysroot, tmp_path):
    """A folder that takes every write and reacts to none."""
    root = tmp_path / "root"
    sysroot.write(root)
    for path, raw in GUEST.items():
        (root / path).write_bytes(raw)
    return root


@pytest.fixture
def plan_file(plan, tmp_path):
    path = tmp_path / "plan.json"
    path.write_text(encode_plan(plan))
    return path


def run(capsys, plan_file, tree, *options):
    assert str(tree) != "/"
    status = main(["apply", str(plan_file), "--root", str(tree), *options])
    out, err = capsys.readouterr()
    return status, out, err


def contents(tree):
    return {path: path.read_bytes() for path in tree.rglob("*") if path.is_file()}


def test_nothing_is_written_without_consent(capsys, plan_file, tree):
    before = contents(tree)
    status, _, err = run(capsys, plan_file, tree)
    assert (status, err) == (2, "altmap: apply: not confirmed (--yes confirms in advance)\n")
    assert contents(tree) == before
    assert not plan_file.with_name("plan.json.journal").exists()


def test_a_machine_that_is_no_guest_is_a_dry_run(capsys, plan, plan_file, tree):
    (tree / "proc/cpuinfo").write_text("flags : fpu\n")
    before = contents(tree)
    status, out, _ = run(capsys, plan_file, tree, "--yes")
    assert status == 0
    assert out.startswith("no file shows that this is a guest: a dry run")
    line, *entries = out.splitlines()[1:]
    assert line.startswith("Plan: ")
    paths = [f"/{step.path}" for step in plan.steps]
    assert entries == [
        f"[1-2] would online_movable memory34-35: 2 writes, {paths[0]} to {paths[1]}",
        f"[3-4] would offline memory1,32, the highest first: 2 writes, {paths[2]} to {paths[3]}",
    ]
    assert contents(tree) == before
    (tree / "proc/cpuinfo").write_bytes(GUEST["proc/cpuinfo"])
    before = contents(tree)
    assert run(capsys, plan_file, tree, "--yes", "--dry-run")[0] == 0
    assert contents(tree) == before


def test_a_machine_that_does_not_react_is_a_surprise_and_taken_back(capsys, plan_file, tree):
    status, _, err = run(capsys, plan_file, tree, "--yes")
    assert status == 1
    assert "memory34 is online_movable, not online" in err
    assert err.endswith("four writes: rolled back\n")
    assert (tree / STATE.format(34)).read_text().startswith("offline")
    status, _, err = run(capsys, plan_file, tree, "--yes")
    assert (status, "is there already" in err or "has changed" in err) == (2, True)


def test_a_changed_machine_is_refused_in_one_line(capsys, plan_file, tree):
    (tree / "sys/module/memory_hotplug/parameters/online_policy").write_text("auto-movable\n")
    status, _, err = run(capsys, plan_file, tree, "--yes")
    assert status == 2
    assert err == (
        "altmap: the machine has changed: online_policy: the plan assumes 'contig-zones', the "
        "machine says 'auto-movable'; make a new plan\n"
    )


def test_a_plan_that_would_be_refused_is_not_begun(capsys, sysroot, tree, tmp_path):
    path = tmp_path / "refused.json"
    path.write_text(encode_plan(plan_free(sysroot, [33])))
    for options in (["--yes"], ["--yes", "--attempt"]):
        status, _, err = run(capsys, path, tree, *options)
        assert status == 2
        assert "offline memory33: certain to be refused: EBUSY by has_unmovable_pages" in err


def test_nothing_to_resume_is_an_error(capsys, plan_file, tree):
    for option in ("--resume", "--rollback"):
        status, _, err = run(capsys, plan_file, tree, "--yes", option)
        assert (status, err.count("\n")) == (2, 1)


def test_the_local_transport_tells_the_errno(tmp_path, monkeypatch):
    files = LocalFiles(tmp_path, 60)
    assert files.read("absent") is None
    assert files.write("absent", "x") == "ENOENT"
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert files.write("link", "x") == "ELOOP"
    monkeypatch.setattr(
        os, "write", lambda fd, raw: (_ for _ in ()).throw(OSError(errno.EBUSY, ""))
    )
    (tmp_path / "state").write_text("")
    assert files.write("state", "offline") == "EBUSY"


def test_a_write_that_never_ends_is_interrupted(tmp_path, monkeypatch):
    (tmp_path / "state").write_text("")
    monkeypatch.setattr(os, "write", lambda fd, raw: time.sleep(30))
    assert LocalFiles(tmp_path, 0.2).write("state", "offline") == "EINTR"


class Shown:
    def __init__(self, **files):
        self.files = files

    def read(self, path):
        return self.files.get(path)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({}, None),
        ({"proc/cpuinfo": "flags : fpu hypervisor\n"}, "a hypervisor"),
        ({"proc/cpuinfo": "flags : fpu\nmodel name : hypervisor\n"}, None),
        ({"sys/hypervisor/type": "xen\n"}, "xen"),
        ({"sys/hypervisor/type": "xen\n", "proc/xen/capabilities": "control_d\n"}, None),
        ({"sys/class/dmi/id/sys_vendor": "QEMU\n"}, "QEMU"),
        ({"sys/class/dmi/id/sys_vendor": "Dell Inc.\n"}, None),
        (
            {
                "sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n",
                "sys/class/dmi/id/product_name": "Virtual Machine\n",
            },
            "Hyper-V",
        ),
        (
            {
                "sys/class/dmi/id/sys_vendor": "Microsoft Corporation\n",
                "sys/class/dmi/id/product_name": "Surface\n",
            },
            None,
        ),
        ({"proc/device-tree/hypervisor/compatible": "linux,kvm\0"}, "a hypervisor"),
    ],
)
def test_a_guest_is_told_from_bare_metal(files, found):
    assert hypervisor_of(Shown(**files)) == found
