"""What a real kernel says and shows while memory comes and goes, followed as on this machine."""

import pytest

from altmap.host.changes import MemoryView
from altmap.host.text.watch import news_lines
from altmap.host.uevents import Heard
from altmap.host.watch import watch
from altmap.lab import Guest, Hardware, fetch
from altmap.lab.capture import capture
from altmap.lab.dimm import plug_dimm, unplug_dimm
from altmap.linux import uevent
from altmap.linux.observation import Observation

pytestmark = pytest.mark.lab

MIB = 1 << 20
#: Writes the variables of each event, and two zero bytes; the shell's own are not of the event.
LISTEN = """env -i /bin/uevent /bin/sh -c '/bin/env -0; printf "\\0"' >/uevents 2>&1 </dev/null &
sleep 0.3"""
NOT_OF_THE_EVENT = ("PATH", "PWD", "SHLVL")


class GuestEars:
    """Uevents of a guest, as busybox hears them on the kernel's netlink socket."""

    def __init__(self, guest):
        self._guest, self._heard = guest, 0
        guest.run(LISTEN)

    def wait(self, seconds):
        raw = self._guest.run(f"sleep {seconds}; cat /uevents").output
        messages = raw.split(b"\0\0")[:-1]
        events = [self._event(message) for message in messages[self._heard :]]
        self._heard = len(messages)
        return Heard(tuple(event for event in events if event.block is not None))

    @staticmethod
    def _event(message):
        pairs = (part.split(b"=", 1) for part in message.strip(b"\0").split(b"\0"))
        fields = {name: value for name, value in pairs if name.decode() not in NOT_OF_THE_EVENT}
        head = fields[b"ACTION"] + b"@" + fields[b"DEVPATH"]
        parts = [head, *(name + b"=" + value for name, value in fields.items())]
        return uevent.parse(b"".join(part + b"\0" for part in parts))


def test_events_and_changes_of_a_dimm_are_told_as_they_happen():
    with Guest(fetch("6.12"), Hardware(), "memhp_default_state=offline") as guest:

        def look():
            seen = Observation.read(capture(guest))
            return MemoryView(seen.memory, seen.meminfo["MemTotal"])

        def write(nr, word):
            assert (
                guest.run(f"echo {word} >/sys/devices/system/memory/memory{nr}/state").status == 0
            )

        following = watch(look, GuestEars(guest), 0.5, None)
        assert not next(following)

        def after(act):
            act()
            news = next(following)
            return [line.partition(" ")[2].partition(" (")[0] for line in news_lines(news, "now")]

        assert after(lambda: plug_dimm(guest, "d1", 256 * MIB)) == [
            "uevent add memory32",
            "uevent add memory33",
            "memory32-33 appeared: offline, node 0",
        ]
        said = after(lambda: [write(nr, "online_movable") for nr in (32, 33)])
        assert said[:3] == [
            "uevent online memory32",
            "uevent online memory33",
            "memory32-33 offline -> online Movable",
        ]
        assert said[3].startswith("MemTotal ")
        assert after(lambda: write(33, "offline"))[:2] == [
            "uevent offline memory33",
            "memory33 online Movable -> offline",
        ]
        write(32, "offline")
        assert after(lambda: unplug_dimm(guest, "d1"))[:4] == [
            "uevent offline memory32",
            "uevent remove memory32",
            "uevent remove memory33",
            "memory32 gone: was online Movable",
        ]
