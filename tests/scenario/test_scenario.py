"""Scenario files: what is malformed is refused in one line, with the value and the rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.errors import InputError
from altmap.scenario import (
    Offline,
    Online,
    Plug,
    SetTunables,
    Unplug,
    load_scenario,
    part_of,
    selected_blocks,
    step_name,
)

MIB = 1 << 20


def load(tmp_path, text):
    path = tmp_path / "some.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return load_scenario(path)


def steps(*lines):
    return "\n".join(f"[[steps]]\n{line}" for line in lines)


def test_a_scenario_is_read_as_its_file_says(tmp_path):
    scenario = load(
        tmp_path,
        """
        name = "two"
        [machine]
        memory = "1GiB"
        memmap_on_memory = "force"
        [[machine.nodes]]
        memory = "512MiB"
        [[machine.nodes]]
        memory = "512MiB"
        [[steps]]
        do = "plug"
        id = "d1"
        size = "128M"
        address = "0x100000000"
        [[steps]]
        do = "plug"
        id = "h1"
        driver = "hyperv"
        size = "64MiB"
        address = "4GiB"
        region = { address = 4294967296, size = "256MiB" }
        [[steps]]
        do = "online"
        id = "d1"
        to = "online_movable"
        part = "first"
        [[steps]]
        do = "offline"
        blocks = ["32", 33, "memory34-36"]
        [[steps]]
        do = "set"
        auto_movable_ratio = 100
        [[steps]]
        do = "unplug"
        id = "d1"
        """,
    )
    plug, hot_add, online, offline, write, unplug = scenario.steps
    assert scenario.name == "two"
    assert scenario.machine.memory == 1024 * MIB
    assert [node.memory for node in scenario.machine.nodes] == [512 * MIB] * 2
    assert plug == Plug(id="d1", size=128 * MIB, address=4 << 30)
    assert hot_add.region.address == 4 << 30
    assert hot_add.region.size == 256 * MIB
    assert online == Online(id="d1", to="online_movable", part="first")
    assert selected_blocks(offline) == [32, 33, 34, 35, 36]
    assert write == SetTunables(auto_movable_ratio=100)
    assert unplug == Unplug(id="d1")
    assert [step_name(step) for step in scenario.steps] == [
        "plug-d1",
        "plug-h1",
        "online-d1-first",
        "offline-memory32-36",
        "set",
        "unplug-d1",
    ]


def test_a_scenario_without_a_name_has_its_files(tmp_path):
    assert load(tmp_path, "").name == "some"


MALFORMED = {
    "not TOML": ("[machine", "not TOML"),
    "not UTF-8": (b'name = "\xff"', "not UTF-8"),
    "unknown key": ("nane = 'x'", "nane"),
    "unknown machine key": ("[machine]\nmemmory = '1GiB'", "memmory"),
    "unknown step key": (steps("do='plug'\nid='d'\nsize='128MiB'\nadress=0"), "adress"),
    "unknown do": (steps("do='plugin'\nid='d'"), "plugin"),
    "no do": (steps("id='d'"), "do"),
    "size without unit": (steps("do='plug'\nid='d'\nsize='128'"), "size '128': need a unit"),
    "size as a number": (
        steps("do='plug'\nid='d'\nsize=128"),
        "size 128: need a number and a unit",
    ),
    "wrong unit": (steps("do='plug'\nid='d'\nsize='128MIB'"), "unknown unit 'MIB'"),
    "memory without unit": ("[machine]\nmemory='1024'", "machine.memory '1024': need a unit"),
    "negative size": (steps("do='plug'\nid='d'\nsize='-1MiB'"), "size '-1MiB'"),
    "no bytes": (steps("do='plug'\nid='d'\nsize='0MiB'"), "more than 0"),
    "negative address": (steps("do='plug'\nid='d'\nsize='128MiB'\naddress=-1"), "address -1"),
    "address without 0x": (
        steps("do='plug'\nid='d'\nsize='128MiB'\naddress='100000000'"),
        "100000000",
    ),
    "no size": (steps("do='plug'\nid='d'"), "size"),
    "no id": (steps("do='plug'\nsize='128MiB'"), "id"),
    "unknown driver": (steps("do='plug'\nid='d'\nsize='128MiB'\ndriver='xen'"), "xen"),
    "hyperv without address": (
        steps("do='plug'\nid='d'\nsize='128MiB'\ndriver='hyperv'"),
        "need",
    ),
    "dimm with region": (
        steps("do='plug'\nid='d'\nsize='128MiB'\nregion={address=0,size='1GiB'}"),
        "region",
    ),
    "blocks by a name": (steps("do='online'\nblocks='Normal'"), "blocks 'Normal'"),
    "blocks backwards": (steps("do='online'\nblocks='39-32'"), "blocks '39-32'"),
    "blocks negative": (steps("do='online'\nblocks=-1"), "blocks -1"),
    "blocks empty": (steps("do='online'\nblocks=[]"), "blocks []"),
    "neither id nor blocks": (steps("do='online'"), "need either id or blocks"),
    "id and blocks": (steps("do='offline'\nid='d'\nblocks=32"), "need either id or blocks"),
    "unknown online type": (steps("do='online'\nid='d'\nto='movable'"), "movable"),
    "unknown part": (steps("do='online'\nid='d'\npart='second'"), "second"),
    "empty set": (steps("do='set'"), "steps[0].do 'set': need one of auto_online_blocks"),
    "set of an unknown word": (steps("do='set'\nauto_online_blocks='yes'"), "yes"),
    "bad name": ("name = 'a/b'", "name 'a/b'"),
    "name of dots": ("name = '..'", "name '..'"),
    "bad step name": (steps("do='set'\nname='a b'\nonline_policy='contig-zones'"), "'a b'"),
    "unknown mode": ("[machine]\nmemmap_on_memory='Y'", "Y"),
    "mode as a boolean": ("[machine]\nmemmap_on_memory=true", "memmap_on_memory"),
    "no CPU": ("[machine]\ncpus=0", "cpus 0"),
    "unknown platform": ("[machine]\nplatform='bochs'", "bochs"),
    "steps no list": ("steps = 'none'", "steps"),
    "machine no table": ("machine = 3", "machine"),
    "name no text": ("name = 3", "name"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_a_malformed_scenario_is_refused_in_one_line_with_value_and_rule(tmp_path, case):
    text, expected = MALFORMED[case]
    with pytest.raises(InputError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert message.startswith(f"scenario {tmp_path / 'some.toml'}: ")
    assert expected in message
    assert "\n" not in message


def test_the_offending_step_is_named(tmp_path):
    with pytest.raises(InputError, match=r"steps\[1\]"):
        load(tmp_path, steps("do='unplug'\nid='d'", "do='set'"))
    with pytest.raises(InputError, match=r"steps\[1\]"):
        load(tmp_path, steps("do='unplug'\nid='d'", "do='online'\nblocks='x'"))


@pytest.mark.parametrize("path", ["missing.toml", "."])
def test_a_file_that_cannot_be_read_is_refused_in_one_line(tmp_path, path):
    with pytest.raises(InputError) as caught:
        load_scenario(tmp_path / path)
    assert str(caught.value).startswith("scenario ")
    assert "\n" not in str(caught.value)


@given(st.text(max_size=60))
def test_any_text_is_a_scenario_or_is_refused(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("any") / "some.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    message = "scenario "
    try:
        load_scenario(path)
    except InputError as error:
        message = str(error)
    assert message.startswith("scenario ")


@pytest.mark.parametrize(
    ("part", "ids"),
    [("all", [4, 5, 6, 7]), ("first", [4]), ("middle", [6]), ("last", [7])],
)
def test_a_part_of_a_device_is_one_of_its_blocks(part, ids):
    assert part_of(range(4, 8), part) == ids
    assert part_of(range(4, 5), part) == [4]


def test_a_step_name_has_no_characters_that_a_folder_cannot():
    assert step_name(Unplug(id="../d 1")) == "unplug-.._d_1"
    assert step_name(Offline(blocks=32)) == "offline-memory32"
    assert step_name(Offline(blocks=32, name="mine")) == "mine"
