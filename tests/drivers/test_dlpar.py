"""ppc64 dynamic LPAR; the numbers were measured on pseries guests with 6.12."""

import pytest

from altmap.errors import InputError
from altmap.machine import ModelMachine
from altmap.scenario import Machine, Plug, Size, Unplug

GIB = 1 << 30


def plugged(arch, **more):
    model = ModelMachine.start(
        Machine(arch=arch, memory=Size(2 * GIB), memmap_on_memory="on", **more)
    )
    before = model.observe()
    assert model.perform(Plug(id="d", size=Size(GIB))).outcome
    return model, before, model.observe()


@pytest.mark.parametrize(
    ("arch", "gained_kib", "memmap_pages"),
    [("ppc64le", 1032192, 4096), ("ppc64le-64k", 1048576, 64)],
)
def test_a_gib_gains_what_was_measured(arch, gained_kib, memmap_pages):
    _, before, after = plugged(arch)
    assert after.meminfo["MemTotal"] - before.meminfo["MemTotal"] == gained_kib
    # Rounded up per section of 16 MiB: 64 times one page of 64 KiB, four times the truth.
    assert after.vmstat["nr_memmap_pages"] == memmap_pages


def test_blocks_go_online_whatever_the_policy_says():
    _, _, after = plugged("ppc64le", auto_online_blocks="offline")
    new = [after.memory.blocks[id_].state for id_ in range(8, 12)]
    assert new == ["online"] * 4


def test_6_1_does_not_ask_for_a_self_hosted_memmap():
    _, before, after = plugged("ppc64le", release="6.1")
    assert after.meminfo["MemTotal"] - before.meminfo["MemTotal"] == 1048576


def test_removal_is_refused_by_name_as_long_as_it_is_not_modelled():
    model, _, _ = plugged("ppc64le")
    with pytest.raises(InputError, match="DLPAR"):
        model.perform(Unplug(id="d"))
