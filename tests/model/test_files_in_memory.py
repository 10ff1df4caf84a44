"""Files in memory: where their pages come from, and where they go when a block leaves."""

import pytest

from altmap.errors import InputError
from altmap.model.machine import ModelMachine
from altmap.scenario import Fill, Free, Machine, Offline, Plug, Size, Unplug

MIB = 1 << 20


@pytest.fixture
def model():
    made = ModelMachine.start(Machine(memory=Size(1 << 30), auto_online_blocks="online_movable"))
    assert made.perform(Plug(id="d", size=Size(256 * MIB))).outcome
    return made


def fill(model, mib=160, id_="f"):
    return model.perform(Fill(id=id_, size=Size(mib * MIB)))


def movable_free(model):
    return model.kernel.nr_free(model.kernel.movable_zone(0))


def test_user_pages_come_from_the_movable_zone_first(model):
    before = movable_free(model)
    assert fill(model).outcome
    assert before - movable_free(model) == 160 * MIB // 4096


def test_a_zone_gives_pages_down_to_its_low_watermark_before_the_next_is_asked(model):
    assert fill(model, 300).outcome
    movable = model.kernel.movable_zone(0)
    assert movable_free(model) == movable.watermarks.low


def test_a_file_survives_the_offline_of_its_blocks_and_the_unplug(model):
    assert fill(model).outcome
    total = len(model.kernel.files["f"])
    assert model.perform(Offline(id="d", part="first")).outcome
    assert len(model.kernel.files["f"]) == total
    assert model.perform(Unplug(id="d")).outcome
    file = model.kernel.files["f"]
    assert len(file) == total
    assert file.issubset(model.kernel.used)
    assert file.issubset(model.backing.backed)


def test_free_gives_every_page_back(model):
    before = model.observe().meminfo
    assert fill(model).outcome
    filled = model.observe().meminfo
    assert filled["Shmem"] - before["Shmem"] == 160 * 1024
    assert before["MemFree"] - filled["MemFree"] == 160 * 1024
    assert model.perform(Free(id="f")).outcome
    assert model.observe().meminfo == before


def test_a_file_larger_than_memory_is_refused_and_takes_nothing(model):
    before = model.observe()
    outcome = fill(model, 4096).outcome
    assert (outcome.status, outcome.errno) == ("refused", "ENOMEM")
    assert model.observe() == before


def test_names_are_checked(model):
    assert fill(model).outcome
    with pytest.raises(InputError, match="'f'"):
        fill(model)
    with pytest.raises(InputError, match="'g'"):
        model.perform(Free(id="g"))


def test_offline_that_finds_no_room_elsewhere_is_told_as_endless(model):
    assert fill(model, 1000).outcome
    outcome = model.perform(Offline(id="d", part="first")).outcome
    assert (outcome.errno, outcome.function) == ("EINTR", "offline_pages")
    assert "indefinitely" in outcome.why
