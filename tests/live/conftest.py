"""Machines whose files are read and written without FUSE."""

import errno
import threading

import pytest

from altmap.live.filesystem import LiveFiles
from altmap.live.machine import LiveMachine
from altmap.live.tree import Tree
from altmap.scenario import Machine, Plug, Scenario


class Files:
    """Reads and writes as programs do: by path; an errno is returned as its name."""

    def __init__(self, machine):
        self.machine = machine
        self.tree = Tree(machine)
        self.files = LiveFiles(machine, self.tree, threading.RLock())

    def read(self, path):
        return self._ended(self._read, path)

    def _read(self, path):
        handle = self.files.open(path, 0)
        return self.files.read(path, 1 << 20, 0, handle).decode()

    def write(self, path, text):
        return self._ended(self._write, path, text)

    def _write(self, path, text):
        raw = text if isinstance(text, bytes) else text.encode()
        self.files.write(path, raw, 0, self.files.open(path, 1))
        return 0

    def names(self, path):
        return sorted(set(self.files.readdir(path, 0)) - {".", ".."})

    @staticmethod
    def _ended(call, *arguments):
        try:
            return call(*arguments)
        except OSError as error:
            return errno.errorcode[error.errno]


@pytest.fixture(scope="session")
def live():
    """Return a function that makes a machine's files from its keys and steps."""

    def make(*steps, sysroot=None, **machine):
        scenario = Scenario(name="test", machine=Machine(**machine), steps=steps)
        return Files(LiveMachine.start(scenario, sysroot))

    return make


@pytest.fixture
def guest(live):
    """A guest of 1 GiB with a DIMM of 512 MiB, whose blocks 32-35 are offline."""
    return live(
        Plug(id="d1", size="512MiB"),
        arch="x86_64",
        release="6.12",
        memory="1GiB",
        auto_online_blocks="offline",
    )
