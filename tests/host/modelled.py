"""A machine to apply plans to: the model behind a transport, where tests can interfere."""

from altmap.linux.observation import Observation
from altmap.model.machine import ModelMachine
from altmap.scenario import Machine, Offline, Online, SetTunables


class Crash(BaseException):
    """The process dies."""


class ModelledFiles:
    """Files of a machine that reacts as the model does.

    Cheats: only the files of plans react, and time does not pass.
    """

    def __init__(self, sysroot):
        self._base = sysroot
        self.machine = ModelMachine.start(Machine(), Observation.read(sysroot), pages=False)
        self.writes = []
        self.before_write = self.after_write = lambda nr: None
        self.answers = {}
        self._shown = None

    def read(self, path):
        if self._shown is None:
            self._shown = self.machine.observe().render(self._base)
        return self._shown.text(path)

    def names(self, path):
        self.read(path)
        below = [
            name for name in (*self._shown.files, *self._shown.links) if name.startswith(f"{path}/")
        ]
        return sorted({name.removeprefix(f"{path}/").partition("/")[0] for name in below})

    def write(self, path, word):
        self.before_write(len(self.writes))
        self.writes.append((path, word))
        refused = self.answers.get((path, word), "")
        if refused == "":
            refused = self.perform(self._step(path, word)).errno
        self.after_write(len(self.writes) - 1)
        return refused

    def perform(self, step):
        self._shown = None
        return self.machine.perform(step).outcome

    @staticmethod
    def _step(path, word):
        name = path.removeprefix("sys/devices/system/memory/")
        if name == "auto_online_blocks":
            return SetTunables(auto_online_blocks=word)
        nr = int(name.removeprefix("memory").removesuffix("/state"))
        return Offline(blocks=nr) if word == "offline" else Online(blocks=nr, to=word)

    def states(self):
        """Return state and current zone of every block, and the default word."""
        seen = self.machine.observe().memory
        return seen.auto_online_blocks, {
            nr: (block.state, block.valid_zones[0] if block.state == "online" else None)
            for nr, block in seen.blocks.items()
        }
