"""The schema from Python: immutable, and checked however a struct is made."""

import pickle

import msgspec
import pytest

from altmap.errors import InputError
from altmap.scenario import (
    DRIVER_KEYS,
    Address,
    Configure,
    Device,
    Dump,
    Fill,
    KernelConfig,
    Machine,
    Node,
    Offline,
    Online,
    Plug,
    Poison,
    Range,
    Region,
    Resize,
    Scenario,
    SetTunables,
    Size,
    Unplug,
    Veto,
    VirtioMemParameters,
    build_scenario,
    decode,
    parse_scenario,
    scenario_toml,
    schema,
    selected_blocks,
    step_name,
    step_table,
)

MIB, GIB = 1 << 20, 1 << 30
STRUCTS = [
    struct
    for struct in vars(schema).values()
    if isinstance(struct, type) and issubclass(struct, msgspec.Struct)
]
#: One of each struct, with what it needs.
MADE = [
    Scenario(name="s"),
    Machine(),
    Node(memory="1GiB"),
    VirtioMemParameters(),
    KernelConfig(ACPI_HOTPLUG_MEMORY=False),
    Device(id="d", address="4GiB", size="1GiB"),
    Region(address=0, size="1GiB"),
    Range(address=0, size="1GiB"),
    Plug(id="d", size="1GiB"),
    Unplug(id="d"),
    Resize(id="d", size="1GiB"),
    Online(id="d"),
    Offline(id="d"),
    Configure(id="d"),
    Fill(id="f", size="1MiB"),
    schema.Free(id="f"),
    schema.HugePages(nr_hugepages=4),
    schema.Reboot(),
    Poison(address="4GiB"),
    Veto(on="going_online"),
    Dump(),
    SetTunables(auto_movable_ratio=1),
    schema.Reboot(),
    schema.Write(file="/sys/devices/system/memory/memory1/state", word="online"),
]


def refusal(make, *args, **fields):
    """Return the message with which a call is refused."""
    with pytest.raises(InputError) as caught:
        make(*args, **fields)
    assert type(caught.value) is InputError
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- immutable -------------------------------------------------------------------------------


def test_there_is_one_of_every_struct():
    public = {struct for struct in STRUCTS if struct.__name__[0] != "_"} - {schema.Selection}
    assert {type(each) for each in MADE} == public


@pytest.mark.parametrize("made", MADE, ids=lambda made: type(made).__name__)
def test_a_struct_is_immutable_and_equal_to_its_copies(made):
    for name in made.__struct_fields__:
        with pytest.raises(AttributeError):
            setattr(made, name, getattr(made, name))
    copies = [made.replace(), made.__replace__(), pickle.loads(pickle.dumps(made))]
    assert {made, *copies} == {made}


def test_lists_are_kept_as_tuples():
    machine = Machine(nodes=[Node(memory="1GiB")], devices=[Device(id="d", address=0, size="1GiB")])
    plug = Plug(id="d", size="1GiB", more_ranges=[Range(address=0, size="1GiB")])
    offline = Offline(blocks=[32, "33-34"])
    made = Scenario(name="s", machine=machine, steps=[plug, offline])
    read = parse_scenario(
        """
        [machine]
        nodes = [{ memory = "1GiB" }]
        devices = [{ id = "d", address = 0, size = "1GiB" }]
        [[steps]]
        do = "plug"
        id = "d"
        size = "1GiB"
        more_ranges = [{ address = 0, size = "1GiB" }]
        [[steps]]
        do = "offline"
        blocks = [32, "33-34"]
        """,
        "s",
    )
    assert read == made
    assert hash(read) == hash(made)
    for scenario in (made, read):
        first, second = scenario.steps
        for each in (scenario.steps, scenario.machine.nodes, scenario.machine.devices):
            assert type(each) is tuple
        assert type(first.more_ranges) is type(second.blocks) is tuple


def test_a_changed_scenario_leaves_the_first_as_it_was():
    scenario = Scenario(name="s", machine=Machine(release="6.1", memory="1GiB"), steps=[Dump()])
    other = scenario.with_machine(release="6.12", policy=None)
    assert (scenario.machine.release, other.machine.release) == ("6.1", "6.12")
    assert other.machine.memory == GIB
    assert other.steps == scenario.steps
    shorter = scenario.with_steps(step for step in ())
    assert (len(scenario.steps), shorter.steps) == (1, ())
    assert shorter.machine == scenario.machine


def test_a_change_is_checked_like_a_new_struct():
    scenario = Scenario(name="s", machine=Machine(memory="1GiB"))
    assert scenario.with_machine(memory="2GiB").machine.memory == 2 * GIB
    assert refusal(scenario.with_machine, cpus=0) == "cpus 0: need 1 to 8192"
    assert refusal(scenario.with_machine, memroy=1) == (
        "Machine: unknown field 'memroy': did you mean 'memory'?"
    )
    plug = Plug(id="d", size="1GiB")
    assert plug.replace(size="2GiB").size == 2 * GIB
    assert refusal(plug.replace, size=0) == "size 0: need more than 0 bytes"
    assert refusal(scenario.with_steps, [3]) == "steps[0] 3: need a table"
    with pytest.raises(InputError):  # msgspec's own replace runs the checks as well
        msgspec.structs.replace(plug, driver="nonsense")


# --- sizes and addresses ---------------------------------------------------------------------


def test_sizes_and_addresses_are_text_or_bytes():
    for size in ("256MiB", 256 * MIB, Size("256MiB"), Size(256 * MIB)):
        assert Plug(id="d", size=size).size == 256 * MIB
        assert type(Plug(id="d", size=size).size) is Size
    for address in ("0x100000000", "4GiB", 4 * GIB, Address("4GiB")):
        assert type(Poison(address=address).address) is Address
        assert Poison(address=address).address == 4 * GIB
    assert Size() == Address() == 0


@pytest.mark.parametrize(
    ("value", "rule"),
    [
        ("256", "'256': need a unit, such as '256MiB'"),
        ("MiB", "'MiB': need a number and a unit, such as '128MiB'"),
        (-1, "-1: need a number of bytes >= 0 or text such as '128MiB'"),
        (True, "True: need a number of bytes >= 0 or text such as '128MiB'"),
        (1.5, "1.5: need a number of bytes >= 0 or text such as '128MiB'"),
        ((1 << 52) + 1, f"{(1 << 52) + 1}: need 4 PiB at most, the widest physical address"),
        ("5PiB", "'5PiB': need 4 PiB at most, the widest physical address"),
    ],
)
def test_a_wrong_size_is_refused_by_field_value_and_rule(value, rule):
    assert refusal(Machine, memory=value) == f"memory {rule}"
    assert refusal(Node, memory=value) == f"memory {rule}"
    assert refusal(Size, value) == f"size {rule}"


def test_the_widest_size_and_address_are_accepted():
    assert Size(1 << 52) == Address(1 << 52) == 1 << 52


def test_a_file_names_no_size_without_a_unit():
    data = {"name": "s", "machine": {"memory": 1 << 30}}
    assert refusal(build_scenario, data) == (
        "machine.memory 1073741824: need a number and a unit, such as '128MiB'"
    )


def test_a_wrong_address_is_refused():
    assert refusal(Poison, address=-1).startswith("address -1: need a number of bytes >= 0")
    assert refusal(Poison, address="here").startswith("address 'here': need a number and a unit")
    assert refusal(Poison, address=False).startswith("address False: need a number of bytes")


# --- names, types and words ------------------------------------------------------------------


def test_an_unknown_field_is_refused_with_the_nearest():
    assert refusal(Plug, id="d", size=1, adress=0) == (
        "Plug: unknown field 'adress': did you mean 'address'?"
    )
    assert refusal(Unplug, id="d", colour="red") == (
        "Unplug: unknown field 'colour': need one of name, id"
    )
    data = {"name": "s", "steps": [{"do": "unplug", "id": "d", "nane": "n"}]}
    assert refusal(build_scenario, data) == ("steps[0]: unknown field 'nane': did you mean 'name'?")
    assert refusal(build_scenario, {"name": "s", "stepps": []}) == (
        "unknown field 'stepps': did you mean 'steps'?"
    )


def test_a_missing_field_is_named():
    assert refusal(Plug, id="d") == "Plug: need the field 'size'"
    data = {"name": "s", "machine": {"devices": [{"id": "d", "address": 0}]}}
    assert refusal(build_scenario, data) == "machine.devices[0]: need the field 'size'"
    assert refusal(build_scenario, {}) == "need the field 'name'"
    assert refusal(build_scenario, {"name": "s", "steps": [{}]}) == (
        "steps[0]: need the field 'do'"
    )
    with pytest.raises(TypeError, match="positional"):
        Plug("d")


WRONG = [
    (Machine, "cpus", "two", "need an integer"),
    (Machine, "cpus", True, "need an integer"),
    (Machine, "cpus", 1.0, "need an integer"),
    (Machine, "debug_vm", 1, "need true or false"),
    (Machine, "release", 6.12, "need text"),
    (
        Machine,
        "platform",
        "bochs",
        "need one of pc, q35, xen, virt, pseries, s390-ccw, cloud-hypervisor, firecracker, vmware, "
        "hyper-v, xen-hvm",
    ),
    (Machine, "memmap_on_memory", False, "need one of off, on, force"),
    (Machine, "nodes", 2, "need a list"),
    (Machine, "nodes", "two", "need a list"),
    (Machine, "virtio_mem", 1, "need a table"),
    (Machine, "virtio_mem", [], "need a table"),
    (Offline, "part", "second", "need one of all, first, middle, last"),
    (Offline, "blocks", 1.5, "need an integer or text or a list"),
    (Offline, "id", 3, "need text"),
    (Offline, "id", [], "need text"),
]


@pytest.mark.parametrize(("struct", "field", "value", "rule"), WRONG)
def test_a_wrong_type_or_word_is_refused_by_field_value_and_rule(struct, field, value, rule):
    assert refusal(struct, **{field: value}) == f"{field} {value!r}: {rule}"
    table = {field: value}
    place = "machine"
    if struct is Offline:
        table["do"], place = "offline", "steps[0]"
    data = (
        {"name": "s", "machine": table} if place == "machine" else {"name": "s", "steps": [table]}
    )
    assert refusal(build_scenario, data) == f"{place}.{field} {value!r}: {rule}"


def test_what_is_wrong_inside_a_list_or_table_is_named_by_its_place():
    assert refusal(Machine, nodes=[{"memory": "1GiB"}, {"memory": "x"}]).startswith(
        "nodes[1].memory 'x': need a number and a unit"
    )
    assert refusal(Machine, nodes=[{"memory": "1GiB"}, 3]) == "nodes[1] 3: need a table"
    assert refusal(Machine, nodes=[{}]) == "nodes[0]: need the field 'memory'"
    assert refusal(Offline, blocks=[1, 1.5]) == "blocks[1] 1.5: need an integer or text"
    assert refusal(Plug, id="d", size=1, more_ranges=[{"address": 0, "size": 0}]) == (
        "more_ranges[0].size 0: need more than 0 bytes"
    )
    assert refusal(Scenario, name="s", steps=[Dump(), {"do": "dmup"}]) == (
        "steps[1].do 'dmup': need one of plug, unplug, resize, online, offline, configure, fill, "
        "free, poison, veto, dump, set, hugepages, reboot, write; did you mean 'dump'?"
    )
    assert refusal(Scenario, name="s", steps=[{"do": "set", "auto_movable_ratio": -1}]) == (
        "steps[0].auto_movable_ratio -1: need 0 to 4294967295"
    )


def test_tables_are_taken_for_structs():
    made = Plug(id="d", size="64MiB", driver="hyperv", address="4GiB",
                region={"address": 4 * GIB, "size": "128MiB"})  # fmt: skip
    assert made.region == Region(address=4 * GIB, size=128 * MIB)
    assert Machine(nodes=({"memory": GIB},)).nodes == (Node(memory="1GiB"),)
    assert Scenario(name="s", steps=[{"do": "dump"}]).steps == (Dump(),)


def test_a_long_value_is_shown_in_part():
    message = refusal(Machine, memmap_on_memory="x" * 1000)
    assert len(message) < 100


def test_decoding_names_the_place_it_was_given():
    assert refusal(decode, {"cpus": 0}, Machine, "machine") == "machine.cpus 0: need 1 to 8192"
    assert refusal(decode, {"cpu": 0}, Machine, "a.b") == (
        "a.b: unknown field 'cpu': did you mean 'cpus'?"
    )
    assert refusal(decode, 3, Machine, "machine") == "machine 3: need a table"


class Other(msgspec.Struct, forbid_unknown_fields=True):
    """A table of another file, with what scenarios do not have."""

    values: dict[str, list[int]] = {}


def test_a_place_that_no_struct_describes_has_msgspecs_words():
    assert refusal(decode, {"values": {"a": ["x"]}}, Other).endswith("Expected `int`, got `str`")
    assert refusal(decode, {"values": {1: []}}, Other).startswith("values")


# --- the machine -----------------------------------------------------------------------------


def test_bounds_of_the_machine():
    Machine(cpus=1), Machine(cpus=8192)
    Machine(auto_movable_ratio=0), Machine(auto_movable_ratio=(1 << 32) - 1)
    node = Node(memory="1GiB")
    Machine(nodes=[node] * 1024)
    assert refusal(Machine, cpus=0) == "cpus 0: need 1 to 8192"
    assert refusal(Machine, cpus=8193) == "cpus 8193: need 1 to 8192"
    assert refusal(Machine, auto_movable_ratio=-1).startswith("auto_movable_ratio -1: need 0 to")
    assert refusal(Machine, auto_movable_ratio=1 << 32).endswith("need 0 to 4294967295")
    assert refusal(Machine, nodes=[node] * 1025) == "nodes 1025: need 1024 at most"


def test_a_xen_domain_fits_its_host():
    Machine(platform="xen", memory="1GiB", xen_max_memory="1GiB", xen_host_memory="1280MiB")
    Machine(platform="xen", memory="3840MiB")
    Machine(platform="xen", xen_max_memory="1GiB")  # as much as it boots with
    Machine(xen_max_memory="1MiB")  # of a sysroot
    for fields, message in [
        ({"nodes": [Node(memory="1GiB")]}, "nodes: a Xen domain here has one node"),
        ({"memory": "3841MiB"}, "xen_host_memory 0x100000000: need whole MiB, machine.memory and"),
        ({"memory": "1GiB", "xen_host_memory": "1279MiB"}, "xen_host_memory 0x4ff00000: need"),
        ({"xen_host_memory": (2 << 30) + 4096}, "xen_host_memory 0x80001000: need whole MiB"),
        ({"memory": "1GiB", "xen_max_memory": "1023MiB"}, "xen_max_memory 0x3ff00000: need"),
        ({"xen_max_memory": "1023MiB"}, "machine.memory 0x40000000 at least"),
        ({"xen_max_memory": (1 << 30) + 2048}, "xen_max_memory 0x40000800: need whole pages"),
    ]:
        assert message in refusal(Machine, platform="xen", **fields)
    for name in ("xen_host_memory", "xen_max_memory"):
        assert refusal(Machine, platform="pc", **{name: "2GiB"}) == (
            f"{name}: need the platform 'xen'"
        )


def device(id_, address, size=GIB, **fields):
    return Device(id=id_, address=address, size=size, **fields)


def test_devices_are_apart_and_have_ids_of_their_own():
    Machine(devices=[device("b", 5 * GIB), device("a", 4 * GIB)])
    assert refusal(Machine, devices=[device("a", 0), device("a", GIB)]) == (
        "devices 'a': need ids that differ"
    )
    assert refusal(Machine, devices=[device("b", 5 * GIB - 1), device("a", 4 * GIB)]) == (
        "devices 'a' and 'b': overlap at 0x13fffffff"
    )


def test_a_device_has_what_its_driver_knows():
    device("d", 0, node=1023)
    device("d", 0, driver="virtio-mem", requested=0, block="2MiB")
    assert refusal(device, "", 0) == "id '': need a name for the device"
    assert refusal(device, "d", 0, size=0) == "size 0: need more than 0 bytes"
    assert refusal(device, "d", 0, node=1024) == "node 1024: need 0 to 1023"
    assert refusal(device, "d", 0, node=-1) == "node -1: need 0 to 1023"
    assert refusal(device, "d", 0, driver="disk").startswith("driver 'disk': need one of dimm, ")
    for key in ("requested", "block"):
        assert refusal(device, "d", 0, **{key: 0}) == (
            f"{key}: only with the driver virtio-mem, not dimm"
        )


# --- steps -----------------------------------------------------------------------------------

#: Keys of a plug that only some drivers know, each with a value.
OWN = {
    "region": Region(address=4 * GIB, size=GIB),
    "more_ranges": [Range(address=8 * GIB, size=GIB)],
    "dax": "cxl",
    "memmap_on_memory": False,
    "increment": "1MiB",
    "requested": 0,
    "block": "2MiB",
}


def test_every_key_of_a_driver_is_tried():
    assert set(OWN) == {key for keys in DRIVER_KEYS.values() for key in keys.own}


@pytest.mark.parametrize("key", OWN)
@pytest.mark.parametrize("driver", DRIVER_KEYS)
def test_a_key_of_a_driver_is_refused_with_every_other(driver, key):
    fields = {"id": "d", "size": GIB, "driver": driver, key: OWN[key]}
    if DRIVER_KEYS[driver].needs_address:
        fields["address"] = 4 * GIB
    if key in DRIVER_KEYS[driver].own:
        assert getattr(Plug(**fields), key) is not None
        return
    having = ", ".join(name for name, keys in DRIVER_KEYS.items() if key in keys.own)
    assert refusal(Plug, **fields) == f"{key}: only with the driver {having}, not {driver}"


@pytest.mark.parametrize("driver", DRIVER_KEYS)
def test_a_driver_needs_an_address_or_names_a_node_as_its_record_says(driver):
    keys = DRIVER_KEYS[driver]
    plug = {"id": "d", "size": GIB, "driver": driver}
    if keys.needs_address:
        assert refusal(Plug, **plug) == f"address: a {driver} plug needs one"
    plug["address"] = 0
    Plug(**plug)
    if keys.names_node:
        assert Plug(**plug, node=0).node == 0
    else:
        assert refusal(Plug, **plug, node=0) == f"node 0: a {driver} host names no node"


def test_the_records_of_drivers():
    # Hyper-V and the probe file take an address; Hyper-V and z/VM know no nodes.
    assert [name for name, keys in DRIVER_KEYS.items() if keys.needs_address] == ["hyperv", "probe"]
    assert [name for name, keys in DRIVER_KEYS.items() if not keys.names_node] == [
        "hyperv",
        "standby",
    ]


def test_a_plug_has_an_id_and_a_size():
    assert refusal(Plug, id="", size=1) == "id '': need a name for the device"
    assert refusal(Plug, id="d", size=0) == "size 0: need more than 0 bytes"
    assert refusal(Plug, id="d", size=1, driver="xen") == (
        f"driver 'xen': need one of {', '.join(DRIVER_KEYS)}"
    )
    assert refusal(Range, address=0, size=0) == "size 0: need more than 0 bytes"


@pytest.mark.parametrize(("address", "size"), [(4 * GIB, GIB), (4 * GIB + MIB, GIB - MIB)])
def test_a_region_holds_the_range(address, size):
    region = Region(address=4 * GIB, size=GIB)
    Plug(id="d", driver="hyperv", address=address, size=size, region=region)
    for wrong in ({"address": 4 * GIB - 1}, {"size": size + 1}):
        fields = {"address": address, "size": size} | wrong
        assert refusal(Plug, id="d", driver="hyperv", region=region, **fields).startswith(
            "region [0x100000000, 0x140000000): need to hold the range that is added, "
        )


@pytest.mark.parametrize("step", [Online, Offline, Configure])
def test_a_selection_is_a_device_or_blocks(step):
    assert step(id="d", part="middle").blocks is None
    assert step(blocks=[1]).id is None
    assert refusal(step) == "blocks: need either id or blocks"
    assert refusal(step, id="d", blocks=1) == "blocks: need either id or blocks"
    assert refusal(step, blocks=1, part="first") == (
        "part 'first': selects from a device, not from blocks"
    )


@pytest.mark.parametrize(
    ("blocks", "ids"),
    [
        (0, [0]),
        ("memory7", [7]),
        ("7-9", [7, 8, 9]),
        ("7-7", [7]),
        ((3, "1-2", "memory0"), [3, 1, 2, 0]),
        (999_999_999, [999_999_999]),
    ],
)
def test_blocks_are_numbers_names_and_ranges(blocks, ids):
    for step in (Offline(blocks=blocks), Veto(on="going_online", blocks=blocks)):
        assert selected_blocks(step) == ids
    assert selected_blocks(Offline(id="d")) is None


@pytest.mark.parametrize(
    ("blocks", "rule"),
    [
        (-1, "blocks -1: need a block id such as 32"),
        (10**9, "blocks 1000000000: need a block id such as 32"),
        ("9-7", "blocks '9-7': need a block id such as 32"),
        ("node7", "blocks 'node7': need a block id such as 32"),
        ("", "blocks '': need a block id such as 32"),
        ([], "blocks []: need at least one block"),
        ([0, "1-1048576"], "blocks '1-1048576': need 1048576 blocks at most"),
    ],
)
def test_blocks_by_another_name_are_refused(blocks, rule):
    assert refusal(Offline, blocks=blocks).startswith(rule)
    assert refusal(Veto, on="going_online", blocks=blocks).startswith(rule)


def test_as_many_blocks_as_there_may_be_are_accepted():
    assert len(selected_blocks(Offline(blocks=[0, "1-1048575"]))) == 1 << 20


def test_a_fill_names_its_pages():
    Fill(id="a" * 64, size=1)
    Fill(id="f", size="4MiB", kind="hugetlb", page_size="2MiB", node=0)
    Fill(id="f", size="2MiB", kind="hugetlb-file", page_size="2MiB")
    assert refusal(Fill, id="f", size=0) == "size 0: need more than 0 bytes"
    for id_ in ("a" * 65, "", "-f", "a b", "a/b"):
        assert refusal(Fill, id=id_, size=1) == (
            f"id {id_!r}: need letters, digits and . _ - only, 64 at most"
        )
    for key in ("page_size", "node"):
        for kind in ("file", "held", "pinned", "kernel"):
            assert refusal(Fill, id="f", size=1, kind=kind, **{key: 0}) == (
                f"{key}: only with kind 'hugetlb' or 'hugetlb-file'"
            )
    for page_size in (0, 3):
        assert refusal(Fill, id="f", size=4, kind="hugetlb", page_size=page_size) == (
            f"size 0x4: need a multiple of page_size {page_size:#x}"
        )


def test_a_set_writes_something_within_bounds():
    SetTunables(fail_allocation=0)
    SetTunables(fail_allocation=2)
    SetTunables(acpi_memory_hotplug=False)
    assert refusal(Veto, on="going_online", times=0).startswith("times 0: need 1 to ")
    assert refusal(SetTunables, fail_allocation=3) == "fail_allocation 3: need 0 to 2"
    assert refusal(SetTunables, fail_allocation=-1) == "fail_allocation -1: need 0 to 2"
    assert refusal(SetTunables, name="n").startswith("do 'set': need one of auto_online_blocks, ")


@pytest.mark.parametrize("name", ["a", "9", "a.b_c+d-e"])
def test_a_name_is_part_of_a_file_s_name(name):
    assert Scenario(name=name).name == Dump(name=name).name == name
    for wrong in ("", ".a", "-a", "a/b", "a b", "a\n", "ä"):
        message = f"name {wrong!r}: need letters, digits and . _ + - only"
        assert refusal(Scenario, name=wrong) == message
        assert refusal(Dump, name=wrong) == message
        assert refusal(Plug, id="d", size=1, name=wrong) == message
        assert refusal(Offline, id="d", name=wrong) == message


def test_a_size_of_zero_is_a_size():
    assert Resize(id="d", size=0).size == 0
    assert Node(memory=0).memory == 0


# --- written ---------------------------------------------------------------------------------


def test_a_step_is_written_without_defaults_and_read_again():
    steps = [
        Plug(id="d", size="1GiB", address="4GiB", more_ranges=[Range(address=0, size=1)]),
        Offline(blocks=[1, "2"]),
        SetTunables(fail_block_devices=True),
    ]
    tables = [{"do": type(step).__struct_config__.tag, **step_table(step)} for step in steps]
    assert tables[0] == {
        "do": "plug",
        "size": GIB,
        "id": "d",
        "address": 4 * GIB,
        "more_ranges": [{"address": 0, "size": 1}],
    }
    assert tables[1] == {"do": "offline", "blocks": [1, "2"]}
    assert Scenario(name="s", steps=tables).steps == tuple(steps)
    text = scenario_toml({"name": "s", "steps": [tables[1], tables[2]]})
    assert parse_scenario(text, "s").steps == tuple(steps[1:])


def test_a_step_without_a_name_is_named_after_what_it_does():
    assert step_name(Configure(id="s", config=False, part="last")) == "deconfigure-s-last"
    assert step_name(Poison(address="4GiB")) == "poison-0x100000000"
    assert step_name(Veto(on="going_online")) == "veto-going_online"
    assert step_name(Dump()) == "dump"
    assert step_name(Offline(blocks=[3, 1])) == "offline-memory3-1"


@pytest.mark.parametrize(
    ("fields", "rule"),
    [
        ({"nr_hugepages": -1}, "nr_hugepages -1: need 0 to"),
        ({"nr_hugepages": 1, "node": -1}, "node -1: need 0 to"),
        ({"nr_hugepages": 1, "page_size": 0}, "page_size 0: need more than 0 bytes"),
    ],
)
def test_a_pool_has_a_number_a_node_and_a_size(fields, rule):
    assert refusal(schema.HugePages, **fields).startswith(rule)
    assert schema.HugePages(nr_hugepages=0).node is None
