"""Observation with and without per-page files."""

from altmap.model.machine import ModelMachine
from altmap.scenario import Machine, Offline, Online, Plug, Size

GIB = 1 << 30


def test_without_pages_every_counter_is_the_same():
    for pages in (True, False):
        model = ModelMachine.start(
            Machine(memory=Size(GIB), memmap_on_memory="on", auto_online_blocks="online"),
            pages=pages,
        )
        model.perform(Plug(id="d", size=Size(GIB)))
        model.perform(Offline(id="d", part="last"))
        model.perform(Online(id="d", part="last", to="online_movable"))
        seen = model.observe()
        if pages:
            expected = seen
        else:
            for name in ("meminfo", "vmstat", "zoneinfo", "iomem", "memory", "nodes"):
                assert getattr(seen, name) == getattr(expected, name), name
