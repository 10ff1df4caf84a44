"""`altmap watch`: what changed between looks, and uevents of a real kernel's socket."""

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from altmap.cli.main import main
from altmap.host.changes import MemoryView, changes, ranges
from altmap.host.text.watch import news_builtins, news_lines, watch_table
from altmap.host.uevents import Heard
from altmap.host.watch import watch
from altmap.linux.memory import Block, MemoryFolder
from altmap.linux.sysroot import Sysroot
from altmap.linux.uevent import Uevent

DIMM = Path(__file__).parents[1] / "recordings/files/linux-6.12-dimm.tar.xz"
MIB = 1 << 20


def folder(blocks):
    return MemoryFolder(128 * MIB, "offline", blocks)


OFFLINE = Block("offline", valid_zones=("Normal", "Movable"), nodes=(0,))
MOVABLE = Block("online", valid_zones=("Movable", "Normal"), nodes=(0,))
BLOCKS = st.dictionaries(
    st.integers(0, 12),
    st.sampled_from([OFFLINE, MOVABLE, replace(MOVABLE, nodes=(1,)), Block("going-offline")]),
)


def standing_of(blocks):
    each = ranges(folder(blocks))
    return {nr: part.standing for part in each for nr in range(part.first, part.last + 1)}


@given(BLOCKS, BLOCKS)
def test_changes_lead_from_one_look_to_the_other(before, after):
    standing = standing_of(before)
    for change in changes(MemoryView(folder(before)), MemoryView(folder(after))):
        for nr in range(change.first, change.last + 1):
            assert standing.pop(nr, None) == change.before
            if change.after is not None:
                standing[nr] = change.after
    assert standing == standing_of(after)


@given(BLOCKS)
def test_nothing_changed_is_no_change(blocks):
    assert changes(MemoryView(folder(blocks)), MemoryView(folder(blocks))) == []


def test_an_event_and_its_change_are_told_together_and_silence_is_not():
    add = Uevent("online", "/devices/system/memory/memory34", {"SEQNUM": "7"})
    looks = [
        MemoryView(folder({34: OFFLINE, 35: OFFLINE}), 1000),
        MemoryView(folder({34: OFFLINE, 35: OFFLINE}), 1000),
        MemoryView(folder({34: MOVABLE, 35: OFFLINE}), 1128),
        MemoryView(folder({34: MOVABLE}), 1128),
    ]
    ears = iter([Heard(), Heard((add,)), Heard((), lost=True)])
    shown = iter(looks)

    class Ears:
        def wait(self, seconds):
            return next(ears)

    found = watch(lambda: next(shown), Ears(), 1.0, None)
    start, first, second = next(found), next(found), next(found)
    assert not start
    assert (first.look, second.look) == (looks[2], looks[3])
    lines = [line.partition(" ")[2] for news in (first, second) for line in news_lines(news, "now")]
    assert lines == [
        "uevent online memory34 (number 7)",
        "memory34 offline -> online Movable",
        "MemTotal 1.1 MiB, +128 KiB (1128 kB, +128)",
        "some uevents were lost: too many came at once",
        "memory35 gone: was offline",
    ]
    kinds = [each["kind"] for news in (first, second) for each in news_builtins(news)]
    assert kinds == ["uevent", "change", "mem_total", "lost", "change"]


def test_consecutive_blocks_are_one_line():
    added = folder(dict.fromkeys(range(32, 48), OFFLINE))
    (change,) = changes(MemoryView(folder({})), MemoryView(added))
    assert (change.first, change.last, change.before) == (32, 47, None)


@pytest.mark.parametrize("nr_lines", [1, 10, 24, 60])
def test_the_table_fits_the_terminal(nr_lines):
    blocks = {nr: (OFFLINE, MOVABLE)[nr % 2] for nr in range(200)}
    table = watch_table(
        MemoryView(folder(blocks)), "one\ntwo", [f"line {n}" for n in range(99)], nr_lines
    )
    console = Console(width=80, height=nr_lines, file=open(os.devnull, "w"))  # noqa: PTH123, SIM115
    with console.file, console.capture() as shown:
        console.print(table)
    text = shown.get()
    assert text.count("\n") <= max(nr_lines, 10)
    assert "line 98" in text
    assert " 199 " in text


@pytest.fixture
def root(tmp_path):
    Sysroot.read(DIMM).write(tmp_path / "root")
    return tmp_path / "root"


def started(*arguments):
    """Start altmap watch with its own output, which the test reads."""
    command = [sys.executable, "-m", "altmap", "watch", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_folder_is_followed_until_it_is_interrupted(root, number):
    with started("-s", root, "--interval", "0.05", "--json") as ran:
        try:
            start = json.loads(ran.stdout.readline())
            state = root / "sys/devices/system/memory/memory34/state"
            state.write_text("online\n")
            (state.parent / "valid_zones").write_text("Movable\n")
            line = json.loads(ran.stdout.readline())
            ran.send_signal(number)
            _, err = ran.communicate(timeout=120)
        finally:
            ran.kill()
    assert (ran.returncode, err) == (0, "")
    assert (start["schema"], start["version"], start["kind"]) == ("altmap-watch", 1, "start")
    assert start["uevents"] is False
    assert start["blocks"][-1] == {
        "first": 34, "last": 35, "state": "offline", "zone": None, "nodes": [0]
    }  # fmt: skip
    assert (line["kind"], line["first"], line["last"]) == ("change", 34, 34)
    assert line["after"]["state"] == "online"


def test_once_ends_at_the_first_change_and_looks_no_more(root, monkeypatch):
    """The folder changes after the first lines are out, and cannot be read after the next one."""
    memory = root / "sys/devices/system/memory"

    class Output(io.StringIO):
        nr_flushed = 0

        def flush(self):
            self.nr_flushed += 1
            if self.nr_flushed == 1:
                (memory / "memory35/state").write_text("online\n")
            else:
                (memory / "block_size_bytes").write_text("garbage\n")

    monkeypatch.setattr(sys, "stdout", output := Output())
    assert main(["watch", "-s", str(root), "--once", "--interval", "0.05"]) == 0
    assert output.getvalue().splitlines()[-1].endswith("memory35 offline -> online Normal")


def test_once_says_by_its_exit_code_that_nothing_has_changed(root):
    assert main(["watch", "-s", str(root), "--once", "--interval", "0.05", "--for", "0.1"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [["--interval", "0"], ["--interval", "nan"], ["--for", "-1"], ["--for", "inf"],
     ["-s", "/dev/null"]],
)  # fmt: skip
def test_what_cannot_be_watched_is_said_in_one_line(capsys, arguments):
    assert main(["watch", "--for", "0", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_a_look_that_fails_later_ends_it_with_one_line(root):
    with started("-s", root, "--interval", "0.05") as ran:
        try:
            assert ran.stdout.readline().startswith("watching ")
            (root / "sys/devices/system/memory/memory34/state").write_text("\x1b[2J\n")
            _, err = ran.communicate(timeout=120)
        finally:
            ran.kill()
    assert ran.returncode == 2
    assert err.startswith("altmap: ")
    assert err.count("\n") == 1
    assert "\x1b" not in err


#: In a user and network namespace of its own a program may ask the kernel to broadcast a uevent,
#: which goes to listeners in that namespace only: real messages, and this machine hears nothing.
REAL_SOCKET = """
import ctypes, socket, struct, sys
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWUSER | CLONE_NEWNET):
    sys.exit(77)
from altmap.host.uevents import Heard, listening
with listening() as ears:
    assert not isinstance(ears, str), ears
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15) as speaker:
        speaker.bind((0, 0))
        def say(raw):
            # A netlink header: length, a type that is no control message, NLM_F_REQUEST.
            speaker.sendto(struct.pack("=IHHII", 16 + len(raw), 16, 1, 0, 0) + raw, (0, 0))
        head = b"@/devices/system/memory/memory"
        for nr in (34, 35):
            say(b"add%b%d\\0ACTION=add\\0SUBSYSTEM=memory\\0" % (head, nr))
        say(b"add@/devices/virtual/net/x\\0ACTION=add\\0SUBSYSTEM=net\\0")
        say(b"garbage\\0")
        heard = ears.wait(5.0)
        assert [(each.action, each.block) for each in heard.events] == [("add", 34), ("add", 35)]
        one, other = heard.events
        assert None not in (one.seqnum, other.seqnum) and one.seqnum < other.seqnum
        assert ears.wait(0.05) == Heard()
        # To the listeners' group, past the kernel: forged, and not believed.
        speaker.sendto(b"add%b36\\0ACTION=add\\0SUBSYSTEM=memory\\0" % head, (0, 1))
        say(b"remove%b34\\0ACTION=remove\\0" % head)
        events = ears.wait(5.0).events
        assert [(each.action, each.block) for each in events][-1] == ("remove", 34)
        assert 36 not in {each.block for each in events}
print("heard")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
def test_events_are_heard_from_the_kernel_and_from_nobody_else():
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(REAL_SOCKET)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    if ran.returncode == 77:
        pytest.skip("missing: user and network namespaces")
    assert (ran.returncode, ran.stdout) == (0, "heard\n"), ran.stderr
