"""A machine of 64 TiB: a write costs no more than on a small one, and numbers stay right."""

import threading

import pytest
from live_machines import LARGE

from altmap.live.filesystem import LiveFiles
from altmap.live.machine import LiveMachine
from altmap.live.tree import Tree
from altmap.pfn import PfnSet
from altmap.scenario import Offline

LAST = 32800
STATE = f"/sys/devices/system/memory/memory{LAST}/state"
NUMBERS = ("meminfo", "zoneinfo", "iomem")


def files_of(scenario):
    machine = LiveMachine.start(scenario)
    return LiveFiles(machine, Tree(machine), threading.RLock())


def read(files, path):
    return files.read(path, 1 << 20, 0, files.open(path, 0)).decode()


def write(files, path, word):
    files.write(path, word, 0, files.open(path, 1))


@pytest.fixture(scope="module")
def large():
    """The files after the last block has gone offline, online and offline."""
    files = files_of(LARGE)
    for word in (b"offline", b"online_movable", b"offline"):
        write(files, STATE, word)
        read(files, "/proc/meminfo")
    return files


@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_after_writes_are_those_of_the_same_step_at_once(large, name):
    steps = (*LARGE.steps, Offline(blocks=LAST))

    again = files_of(LARGE.replace(steps=steps))
    assert read(large, f"/proc/{name}") == read(again, f"/proc/{name}")


def test_a_write_and_a_read_count_no_pages_of_the_whole_machine(large, monkeypatch):
    counted = []
    count_many = PfnSet._count_many

    def counting(self, other):
        known = other._counts.in_common
        if len(self) >= 1 << 16 and self._counts not in known:
            counted.append((len(self), len(other)))
        return count_many(self, other)

    monkeypatch.setattr(PfnSet, "_count_many", counting)
    for word, state in ((b"online_movable", "online\n"), (b"offline", "offline\n")):
        write(large, STATE, word)
        assert read(large, STATE) == state
        assert read(large, "/proc/meminfo")

    assert counted == []
