"""Boot memory of any size costs what its runs of pages cost, not its blocks or sections."""

import pytest

from altmap.errors import InputError
from altmap.model.boot.layout import unused_bytes
from altmap.model.machine import ModelMachine
from altmap.model.observe import memory as memory_file
from altmap.scenario import Machine, Node, Plug, Size

TIB, GIB, PAGE = 1 << 40, 1 << 30, 4096


def test_what_is_above_the_limit_of_the_memory_model_is_in_no_zone():
    model = ModelMachine.start(Machine(memory=Size(1 << 52)), pages=False)
    end = max(zone.span.end for zone in model.kernel.zones.values())
    assert end * PAGE == 64 * TIB  # x86_64 without la57: MAX_PHYSMEM_BITS is 46
    present = sum(len(zone.present) for zone in model.kernel.zones.values())
    hole, firmware = 1 * GIB, 4 << 20
    assert 64 * TIB - hole - firmware < present * PAGE <= 64 * TIB - hole
    (note,) = model.notes
    assert "lie above 64 TiB" in note
    assert unused_bytes(Machine(memory=Size(1 << 52)), model.kernel.arch) == (1 << 52) + hole - (
        64 * TIB
    )


def test_memory_below_the_limit_has_no_note():
    assert not ModelMachine.start(Machine(memory=Size(6 * GIB)), pages=False).notes


def test_each_node_has_only_what_is_below_the_limit():
    nodes = (Node(memory=Size(40 * TIB)), Node(memory=Size(40 * TIB)))
    model = ModelMachine.start(Machine(nodes=nodes), pages=False)
    present = {0: 0, 1: 0}
    for zone in model.kernel.zones.values():
        present[zone.node] += len(zone.present) * PAGE
    assert present[0] == pytest.approx(40 * TIB, abs=4 << 20)
    assert present[1] == 24 * TIB - 1 * GIB


def test_more_pages_than_can_be_modelled_are_refused_at_once():
    with pytest.raises(InputError, match="need at most 0x400000000000 at boot"):
        ModelMachine.start(Machine(arch="x86_64-la57", memory=Size(1 << 52)))


@pytest.mark.parametrize("memory", [1 * TIB, 64 * TIB])
def test_blocks_that_are_alike_are_worked_out_once(memory, monkeypatch):
    counted, block = [], memory_file.block_shown

    def count(kernel, nr, *args, **kwargs):
        counted.append(nr)
        return block(kernel, nr, *args, **kwargs)

    monkeypatch.setattr(memory_file, "block_shown", count)
    model = ModelMachine.start(Machine(memory=Size(memory)), pages=False)
    shown = model.observe().memory
    assert len(shown.blocks) == len(model.kernel.added_blocks) >= 512
    assert len(counted) < 16


def test_every_block_is_what_it_is_by_itself():
    machine = Machine(
        memory=Size(3 * GIB), auto_online_blocks="offline", block_size=Size(128 << 20)
    )
    model = ModelMachine.start(machine, pages=False)
    assert model.perform(Plug(id="a", size=Size(GIB))).outcome
    assert model.perform(Plug(id="b", size=Size(GIB))).outcome
    kernel, shown = model.kernel, model.observe().memory
    assert list(shown.blocks) == list(kernel.added_blocks)
    for nr, block in shown.blocks.items():
        assert block == memory_file.block_shown(kernel, nr, None, has_nodes=True)
