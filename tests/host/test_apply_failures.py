"""Disk, terminal or user end an apply in the middle: exit code and journal stay true."""

import errno
import fcntl
import io
import itertools
import json
import os
from pathlib import Path

import pytest
from modelled import ModelledFiles

from altmap.cli.main import main
from altmap.errors import InputError
from altmap.host import transport
from altmap.host.apply import apply_plan
from altmap.host.journal import Entry, Journal, check_order
from altmap.host.plan import encode_plan
from altmap.host.planner import plan_free
from altmap.host.planner_add import PlugWish, plan_grow
from altmap.host.transport import LocalFiles
from altmap.linux.sysroot import Sysroot

DIMM = Path(__file__).parents[1] / "recordings/files/linux-6.12-dimm.tar.xz"
MEMORY = "sys/devices/system/memory"
SYSROOT = Sysroot.read(DIMM)
WISH = PlugWish(0, to="online_movable")


def plan_of_four():
    """Return a plan of four writes, of both kinds."""
    grown, freed = plan_grow(SYSROOT, 1536 << 20, WISH), plan_free(SYSROOT, [32, 1])
    return type(grown)(
        goal="four writes", assumes=grown.assumes, steps=[*grown.steps, *freed.steps]
    )


PLAN = plan_of_four()


class Disk:
    """Fails one call on the journal: the *nth* write or fsync, or none."""

    def __init__(self, monkeypatch):
        self.nth, self.kind, self.calls, self.errno = -1, "write", 0, errno.ENOSPC
        self._write = os.write
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fail(self, kind, nth, number=errno.ENOSPC):
        self.kind, self.nth, self.calls, self.errno = kind, nth, 0, number

    def _refuses(self, kind, fd):
        if kind not in self.kind or Path(f"/proc/self/fd/{fd}").readlink().suffix != ".journal":
            return False
        self.calls += 1
        return self.calls == self.nth

    def write(self, fd, raw):
        if self._refuses("write", fd):
            if self.kind == "half a write":
                self._write(fd, raw[: len(raw) // 2])
            raise OSError(self.errno, os.strerror(self.errno))
        return self._write(fd, raw)

    def fsync(self, fd):
        if self._refuses("fsync", fd):
            raise OSError(self.errno, os.strerror(self.errno))


class Host:
    """A modelled machine, a plan and its journal, and the command."""

    def __init__(self, folder, monkeypatch, capsys):
        self.files = ModelledFiles(SYSROOT)
        self.before = self.files.states()
        self.plan = folder / "plan.json"
        self.plan.write_text(encode_plan(PLAN))
        self.journal = folder / "plan.json.journal"
        self.root = folder / "root"
        (self.root / MEMORY).mkdir(parents=True)
        self._capsys = capsys
        monkeypatch.setattr(transport, "LocalFiles", lambda root, limit: self.files)

    def apply(self, *options):
        words = ["apply", str(self.plan), "--root", str(self.root), "--yes", "--on-bare-metal"]
        status = main([*words, *options])
        out, err = self._capsys.readouterr()
        assert "Traceback" not in err
        assert "internal error" not in err
        assert out == ""
        return status, err

    @property
    def is_as_before(self):
        return self.files.states() == self.before

    @property
    def is_done(self):
        states = self.files.states()[1]
        return [states[nr][0] for nr in (34, 35, 32, 1)] == [
            *("online", "online", "offline", "offline")
        ]


@pytest.fixture
def host(tmp_path, monkeypatch, capsys):
    return Host(tmp_path, monkeypatch, capsys)


@pytest.fixture
def disk(monkeypatch):
    return Disk(monkeypatch)


KINDS = ["write", "half a write", "fsync"]
#: How many of the four writes succeed before the command, and what it is then asked for.
STARTS = {
    "apply": (4, []),
    "mismatch": (2, []),
    "resume": (4, ["--resume"]),
    "rollback": (4, ["--rollback"]),
}


def check(host, status, err, options):
    if status == 0:
        assert host.is_as_before if "--rollback" in options else host.is_done
    elif status in (1, 2):
        assert host.is_as_before
    else:
        assert status == 64
        assert not host.is_as_before
        assert not host.is_done or "steps begun: 1, 2, 3, 4" in err


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("start", STARTS)
@pytest.mark.parametrize("then", ["--resume", "--rollback"])
def test_whichever_line_the_disk_refuses_the_exit_code_is_true_and_nothing_is_lost(
    start, kind, then, tmp_path, monkeypatch, capsys, disk
):
    most, options = STARTS[start]
    for nth in itertools.count(1):
        folder = tmp_path / f"{nth}"
        folder.mkdir()
        host = Host(folder, monkeypatch, capsys)
        if options:
            disk.fail(kind, 6)  # two steps are begun
            assert host.apply()[0] == 64
        if start == "mismatch":
            host.files.answers[PLAN.steps[most].path, PLAN.steps[most].value] = "EBUSY"
        disk.fail(kind, nth)
        status, err = host.apply(*options)
        failed = disk.calls >= nth
        check(host, status, err, options)
        assert failed == ("No space left on device" in err)
        # There is space again.
        disk.fail(kind, -1)
        host.files.answers.clear()
        status, err = host.apply(then)
        if status == 0:
            assert host.is_done if then == "--resume" else host.is_as_before
        elif status == 1:
            assert host.is_as_before  # what was begun to be rolled back is
        else:
            assert status == 2
            over = ("is over" in err, not host.journal.exists())
            assert any(over) or host.is_as_before
        if not failed:
            break
    assert nth > 4


def test_a_journal_without_its_first_line_is_no_obstacle(host, disk):
    disk.fail("half a write", 1)
    assert host.apply()[0] == 2
    assert not host.journal.exists()
    disk.fail("write", -1)
    assert host.apply()[0] == 0
    assert host.is_done


@pytest.mark.parametrize("rest", [b"", b"{", b'{"event":"begin","plan":"0123'])
def test_what_a_crash_left_of_the_first_line_counts_as_no_journal(host, rest):
    host.journal.write_bytes(rest)
    assert host.apply()[0] == 0


@pytest.mark.parametrize("rest", [b"x", b"{}", b'{"event":"begin","plan":"0123\n', b"\n"])
def test_what_is_no_start_of_a_journal_is_not_written_over(host, rest):
    host.journal.write_bytes(rest)
    status, err = host.apply()
    assert (status, "is there already" in err) == (2, True)
    assert host.journal.read_bytes() == rest


@pytest.mark.parametrize("option", ["--resume", "--rollback"])
@pytest.mark.parametrize("raw", [b"precious" * 30, b"text\nwithout an end", b"\xff\xfe\n", b""])
def test_a_file_that_is_no_journal_is_not_changed(host, option, raw):
    host.journal.write_bytes(raw)
    status, err = host.apply(option)
    assert (status, err.count("\n")) == (2, 1)
    assert host.journal.read_bytes() == raw


@pytest.mark.parametrize("options", [[], ["--resume"], ["--rollback"]])
def test_a_link_in_the_place_of_a_journal_is_not_followed(host, tmp_path, options):
    other = tmp_path / "other"
    other.write_text("")
    host.journal.symlink_to(other)
    status, err = host.apply(*options)
    assert (status, "symbolic link" in err) == (2, True)
    assert other.read_text() == ""


@pytest.mark.parametrize("option", ["--resume", "--rollback"])
def test_a_pipe_or_device_is_no_journal_and_not_waited_for(host, tmp_path, option):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        status, err = host.apply(option, "--journal", str(path))
        assert (status, "need a regular file" in err) == (2, True)


def entries(*words):
    """Return entries: ``intend 1``, ``done 1``, ``undo 1``, ``undone 1``, ``begin``, ``end``."""
    made = []
    for word in words:
        event, _, step = word.partition(" ")
        undo = event.startswith("und")
        event = {"undo": "intend", "undone": "done"}.get(event, event)
        made.append(Entry(event=event, step=int(step or 0), undo=undo))
    return made


@pytest.mark.parametrize(
    "words",
    [
        ("begin", "intend 1", "done 1", "intend 2"),
        ("begin", "intend 1", "intend 1", "done 1", "end"),  # the first time a crash was between
        ("begin", "intend 1", "done 1", "intend 2", "undo 2", "undone 2", "undo 1", "undone 1"),
        ("begin", "intend 1", "undo 1", "undo 1", "undone 1", "end"),
    ],
)
def test_entries_that_an_apply_writes_are_in_order(words):
    check_order(entries(*words), 2)


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("begin", "intend 0"), "line 2: step 0: need 1 to 2"),
        (("begin", "intend -1"), "line 2: step -1: need 1 to 2"),
        (("begin", "intend 3"), "line 2: step 3: need 1 to 2"),
        (("begin", "done 1"), "line 2: need the step's 'intend' before 'done'"),
        (("begin", "intend 1", "done 2"), "line 3: need the step's 'intend' before 'done'"),
        (("begin", "intend 1", "undone 1"), "line 3: need the step's 'intend' before 'done'"),
        (("begin", "intend 2"), "line 2: step 2: need the steps in order"),
        (("begin", "intend 1", "intend 2"), "line 3: step 2: need the steps in order"),
        (("begin", "undo 1"), "line 2: step 1: need the steps in order"),
        (("begin", "intend 1", "undo 1", "intend 1"), "line 4: step 1: need the steps in order"),
        (("begin", "begin"), "line 2: need one 'begin', first"),
        (("begin 1",), "line 1: need one 'begin', first"),
        (("begin", "end", "intend 1"), "line 2: need nothing after 'end'"),
    ],
)
def test_entries_in_another_order_are_no_journal(words, rule):
    with pytest.raises(InputError) as refused:
        check_order(entries(*words), 2)
    assert rule in str(refused.value)


def test_one_apply_at_a_time_changes_a_machine_whatever_its_journal(host):
    folder = os.open(host.root / MEMORY, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    status, err = host.apply("--journal", str(host.plan.with_name("another")))
    assert (status, err) == (2, "altmap: apply: another apply is at work on this machine\n")
    assert host.files.writes == []
    os.close(folder)
    assert host.apply()[0] == 0


def test_a_machine_without_memory_blocks_is_refused_in_one_line(host):
    (host.root / MEMORY).rmdir()
    status, err = host.apply()
    assert (status, err.count("\n")) == (2, 1)


def test_a_full_terminal_does_not_end_what_is_done(host, monkeypatch):
    class Full(io.StringIO):
        def write(self, text):
            raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("sys.stderr", Full())
    words = ["apply", str(host.plan), "--root", str(host.root), "--yes", "--on-bare-metal"]
    assert main(words) == 0
    assert host.is_done


def test_an_interrupt_says_how_to_go_on(host):
    def interrupt(nr):
        raise KeyboardInterrupt

    host.files.before_write = interrupt
    status, err = host.apply()
    assert (status, "--resume continues it, --rollback rolls it back" in err) == (130, True)


# --- what a plan may say -----------------------------------------------------------------------


def changed(host, change):
    made = json.loads(host.plan.read_text())
    change(made)
    host.plan.write_text(json.dumps(made))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda p: p["assumes"]["parameters"].update({"../x": "1"}), "need letters, digits and"),
        (lambda p: p["assumes"]["parameters"].update({"": "1"}), "need letters, digits and"),
        (lambda p: p["assumes"]["blocks"][0].update(last=1 << 28), "Expected `int` <= 268435455"),
        (lambda p: p["assumes"]["blocks"][0].update(first=-1), "Expected `int` >= 0"),
        (lambda p: p["assumes"]["blocks"][0].update(first=9), "need the first one first"),
        (lambda p: p["assumes"]["blocks"][0].update(last=1 << 27), "need at most 2097152 in all"),
        (lambda p: p["assumes"]["blocks"][0].update(state="on"), "state 'on': need one of online"),
        (lambda p: p["assumes"]["blocks"][0].update(zone="HI"), "zone 'HI': need one of DMA"),
        (lambda p: p["steps"][0]["prediction"]["blocks"][0].update(last=0), "need the first one f"),
        (lambda p: p["steps"][0].update(by="platform"), "step 1: is the platform's: need no path"),
    ],
)
def test_a_plan_says_nothing_that_no_plan_of_ours_says(host, change, rule):
    changed(host, change)
    status, err = host.apply()
    assert (status, err.count("\n"), rule in err) == (2, 1, True), err
    assert host.files.writes == []


@pytest.mark.parametrize("name", ["path", "value", "undo"])
def test_a_step_of_the_platform_writes_nothing(host, name):
    def change(made):
        step = made["steps"][0]
        step["by"] = "platform"
        for other in {"path", "value", "undo"} - {name}:
            step[other] = None

    changed(host, change)
    assert f"need no {name}" in host.apply()[1]


def test_blocks_that_are_to_be_absent_are_looked_up_and_not_counted_out(host):
    absent = {"first": 1000, "last": (1 << 28) - 1, "state": "absent"}
    changed(host, lambda made: made["assumes"]["blocks"].append(absent))
    changed(host, lambda made: made["steps"][0]["prediction"]["blocks"].append(absent))
    assert host.apply()[0] == 0
    changed(host, lambda made: made["assumes"]["blocks"][-1].update(first=35))
    host.journal.unlink()
    assert "has changed" in host.apply()[1]


@pytest.mark.parametrize("options", [["--dry-run"], []])
def test_what_a_plan_says_is_shown_escaped(host, options, capsys, monkeypatch):
    hostile = "\x1b[2K\r\x1b]0;title\x07\u202e"
    changed(host, lambda made: made.update(goal=hostile))
    changed(host, lambda made: made["steps"][0].update(title=hostile))
    main(["apply", str(host.plan), "--root", str(host.root), "--on-bare-metal", "--yes", *options])
    shown = "".join(capsys.readouterr())
    assert not set(shown) & set("\x1b\r\x07\u202e")


@pytest.mark.parametrize("kind", ["pipe", "link", "device", "folder"])
def test_a_machines_files_are_regular_ones(kind, tmp_path):
    path = tmp_path / "x"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/etc/hostname" if kind == "link" else "/dev/zero")
    files = LocalFiles(tmp_path, 1)
    assert files.read("x") is None
    if kind != "folder":
        assert files.write("x", "online") is not None


def test_nothing_is_recorded_after_the_end(tmp_path):
    files = ModelledFiles(SYSROOT)
    with Journal(tmp_path / "j", new=True) as journal:
        apply_plan(PLAN, files, journal, lambda text: None)
    check_order(journal.entries, len(PLAN.steps))
