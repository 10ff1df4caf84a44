"""The lines of /proc/iomem: one for each DIMM, joined for drivers that merge."""

from altmap.model.machine import ModelMachine
from altmap.scenario import Address, Machine, Plug, Size, Unplug

MIB, GIB = 1 << 20, 1 << 30


def guest(**changes):
    settings = {
        "memory": Size(GIB),
        "release": "6.12",
        "auto_online_blocks": "online_movable",
        "memmap_on_memory": "on",
    }
    return ModelMachine.start(Machine(**settings | changes))


def lines(seen):
    return [(line.start >> 20, line.end >> 20) for line in seen.iomem if line.start >= 4 * GIB]


def test_each_dimm_is_a_resource_and_what_hyperv_adds_merges():
    model = guest()
    for index in range(2):
        model.perform(Plug(id=f"d{index}", size=Size(128 * MIB)))
    assert lines(model.observe()) == [(4096, 4224), (4224, 4352)]
    model = guest()
    for index in (1, 0, 3):
        address = Address(4 * GIB + index * 128 * MIB)
        model.perform(Plug(id=f"h{index}", driver="hyperv", size=Size(128 * MIB), address=address))
    assert lines(model.observe()) == [(4096, 4352), (4480, 4608)]


def test_the_resource_goes_with_the_device():
    model = guest()
    before = model.observe()
    model.perform(Plug(id="d", size=Size(256 * MIB)))
    assert lines(model.observe()) == [(4096, 4352)]
    assert model.perform(Unplug(id="d")).outcome
    assert model.observe().iomem == before.iomem
