"""An apply on a real kernel that is killed at every point of its journal, and by a reboot."""

import os
import signal

import pytest
from holder import hold_pages

from altmap.errors import InputError
from altmap.host.apply import ApplyResult, apply_plan, resume, roll_back
from altmap.host.journal import Journal
from altmap.host.planner import plan_free
from altmap.host.planner_add import PlugWish, plan_grow
from altmap.lab import Hardware, fetch
from altmap.lab.capture import capture
from altmap.lab.dimm import plug_dimm
from altmap.lab.files import GuestFiles
from altmap.lab.snapshot import booted

pytestmark = pytest.mark.lab

MIB = 1 << 20
STATE = "sys/devices/system/memory/memory{}/state"
#: begin; intend and done of two steps; end.
NR_ENTRIES = 6
NR_WRITES = 2


def say(text):
    pass


@pytest.fixture(scope="module")
def guest():
    """1 GiB, and a DIMM of 384 MiB: 32 Movable, 33 and 34 offline."""
    with booted(fetch("6.12"), Hardware(), "memhp_default_state=offline") as running:
        plug_dimm(running, "d1", 384 * MIB)
        assert GuestFiles(running).write(STATE.format(32), "online_movable") is None
        yield running


@pytest.fixture(scope="module")
def plan(guest):
    """Two writes, of both kinds."""
    sysroot = capture(guest)
    grown = plan_grow(sysroot, (1024 + 256) * MIB, PlugWish(0, to="online_movable"))
    freed = plan_free(sysroot, [32])
    made = type(grown)(goal="both", assumes=grown.assumes, steps=[*grown.steps[:1], *freed.steps])
    assert [step.value for step in made.steps] == ["online_movable", "offline"]
    return made


def states(guest):
    shown = guest.run(
        "cd /sys/devices/system/memory; for n in 32 33 34; do cat memory$n/state; "
        "set -- $(cat memory$n/valid_zones); echo $1; done"
    )
    return [tuple(pair) for pair in zip(*[iter(shown.text.split())] * 2, strict=True)]


class DyingJournal(Journal):
    """A journal whose process dies before or after the entry with a number is on disk."""

    def die_at(self, nr, when):
        self._nr, self._when, self._seen = nr, when, 0

    def add(self, entry):
        if self._seen == self._nr and self._when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        super().add(entry)
        if self._seen == self._nr:
            os.kill(os.getpid(), signal.SIGKILL)
        self._seen += 1


def killed(path, work):
    """Do work in a process of its own that is killed by SIGKILL, and wait for that."""
    pid = os.fork()
    if not pid:
        try:
            work()
        finally:
            os._exit(1)  # it was to die before
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == signal.SIGKILL
    return path.read_bytes()


# An entry is on disk before the next thing happens; so dying before the one is dying after what
# came before it, a write to the machine included.
POINTS = [(0, "after"), *((nr, "before") for nr in range(1, NR_ENTRIES)), (NR_ENTRIES - 1, "after")]


@pytest.mark.parametrize("then", ["resume", "rollback"])
def test_an_apply_that_is_killed_at_any_point_is_carried_on_or_taken_back(
    guest, plan, tmp_path, then
):
    files, before = GuestFiles(guest), states(guest)
    lines = []
    for nr, when in POINTS:
        path = tmp_path / f"{nr}-{when}"

        def work(path=path, nr=nr, when=when):
            with DyingJournal(path, new=True) as journal:
                journal.die_at(nr, when)
                apply_plan(plan, files, journal, say)

        lines.append(killed(path, work).count(b"\n"))
        if nr == NR_ENTRIES - 1 and when == "after":
            with Journal(path, new=False) as journal, pytest.raises(InputError, match="is over"):
                resume(plan, files, journal, say)
        elif then == "resume":
            with Journal(path, new=False) as journal:
                assert resume(plan, files, journal, say) is ApplyResult.DONE
        else:
            with Journal(path, new=False) as journal:
                assert roll_back(plan, files, journal, say) is ApplyResult.ROLLED_BACK
            assert states(guest) == before
            continue
        assert [state for state, _ in states(guest)] == ["offline", "online", "offline"]
        assert files.write(STATE.format(33), "offline") is None
        assert files.write(STATE.format(32), "online_movable") is None
        assert states(guest) == before
    assert lines == [1, 1, 2, 3, 4, 5, 6]


def test_a_rollback_that_is_killed_at_any_point_is_carried_on(guest, plan, tmp_path):
    files, before = GuestFiles(guest), states(guest)
    # A rollback of both steps adds: intend and done twice, end.
    for nr in range(5):
        path = tmp_path / f"{nr}"

        def begin(path=path):
            with DyingJournal(path, new=True) as journal:
                journal.die_at(NR_ENTRIES - 1, "before")
                apply_plan(plan, files, journal, say)

        def go_back(path=path, nr=nr):
            with DyingJournal(path, new=False) as journal:
                journal.die_at(nr, "before")
                roll_back(plan, files, journal, say)

        killed(path, begin)
        killed(path, go_back)
        with Journal(path, new=False) as journal:
            assert roll_back(plan, files, journal, say) is ApplyResult.ROLLED_BACK
        assert states(guest) == before


def test_after_a_reboot_an_apply_is_not_carried_on_but_taken_back(guest, plan, tmp_path):
    path = tmp_path / "j"

    def work():
        with DyingJournal(path, new=True) as journal:
            journal.die_at(4, "before")
            apply_plan(plan, GuestFiles(guest), journal, say)

    killed(path, work)
    # The machine starts anew: the same memory, and nothing of what was done.
    with booted(fetch("6.12"), Hardware(), "memhp_default_state=offline") as again:
        plug_dimm(again, "d1", 384 * MIB)
        files = GuestFiles(again)
        with Journal(path, new=False) as journal:
            with pytest.raises(InputError, match="memory33 is offline, not online"):
                resume(plan, files, journal, say)
            assert roll_back(plan, files, journal, say) is ApplyResult.ROLLED_BACK
        assert [files.read(STATE.format(nr)) for nr in (33, 34)] == ["offline\n"] * 2
    # The first machine stands for one that goes on: it is put back by hand.
    assert GuestFiles(guest).write(STATE.format(33), "offline") is None
    assert GuestFiles(guest).write(STATE.format(32), "online_movable") is None


@pytest.mark.parametrize("keep", [False, True])
def test_a_block_that_refuses_stops_the_apply(guest, plan, tmp_path, keep):
    before, said = states(guest), []
    # After the plan was made, somebody takes pages of memory32 and gives them to a pipe.
    hold_pages(guest, "/tmp")
    with Journal(tmp_path / "j", new=True) as journal:
        result = apply_plan(plan, GuestFiles(guest, 2.0), journal, said.append, keep=keep)
    guest.run("kill $(cat /tmp/holder.pid)")
    assert said[0].endswith("as predicted")
    assert said[1].endswith("EINTR, predicted was that it is taken")
    assert result is (ApplyResult.KEPT if keep else ApplyResult.ROLLED_BACK)
    after = states(guest)
    if keep:
        assert after == [before[0], ("online", "Movable"), before[2]]
        assert GuestFiles(guest).write(STATE.format(33), "offline") is None
    else:
        assert after == before
