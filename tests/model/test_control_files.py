"""Writes that a shell does: what the kernel refuses is a result, and the steps after it are done.

The errnos are those that guests of Debian's 6.1, 6.12 and 7.3 gave (busybox ash, as root).
"""

import pytest

from altmap.errors import InputError
from altmap.model.machine import ModelMachine, predict
from altmap.scenario import Address, Machine, Offline, Online, Plug, Scenario, Size, Write

MIB, GIB = 1 << 20, 1 << 30
MEMORY, PARAMETERS = "/sys/devices/system/memory", "/sys/module/memory_hotplug/parameters"


def guest(release="6.12", **changes):
    model = ModelMachine.start(
        Machine(memory=Size(GIB), release=release, auto_online_blocks="offline", **changes)
    )
    assert model.perform(Plug(id="d", size=Size(256 * MIB))).outcome
    return model


@pytest.mark.parametrize(
    ("file", "word", "errno", "function"),
    [
        (f"{MEMORY}/memory33/state", "foo", "EINVAL", "state_store"),
        (f"{MEMORY}/memory33/state", "Online", "EINVAL", "state_store"),
        (f"{MEMORY}/memory33/state", "offline", "EINVAL", "state_store"),  # already
        (f"{MEMORY}/memory33/online", "maybe", "EINVAL", "online_store"),
        (f"{MEMORY}/memory33/valid_zones", "2", "EACCES", "kernfs_fop_open"),
        (f"{MEMORY}/memory33/phys_index", "online", "EACCES", "kernfs_fop_open"),
        (f"{MEMORY}/memory999/state", "online", "ENOENT", "open"),
        (f"{MEMORY}/memory999/valid_zones", "x", "ENOENT", "open"),
        (f"{MEMORY}/auto_online_blocks", "foo", "EINVAL", "auto_online_blocks_store"),
        (f"{MEMORY}/block_size_bytes", "1", "EACCES", "kernfs_fop_open"),
        (f"{MEMORY}/soft_offline_page", "page", "EINVAL", "soft_offline_page_store"),
        (f"{MEMORY}/soft_offline_page", "0x800000000000", "ENXIO", None),
        (f"{MEMORY}/soft_offline_page", "0xffffffffffffffff", "ENXIO", "soft_offline_page"),
        (f"{MEMORY}/soft_offline_page", "0x10000000000000000", "EINVAL", "soft_offline_page_store"),
        (f"{PARAMETERS}/memmap_on_memory", "1", "EACCES", "kernfs_fop_open"),
        (f"{PARAMETERS}/online_policy", "foo", "EINVAL", "set_online_policy"),
        (f"{PARAMETERS}/auto_movable_ratio", "-5", "EINVAL", "param_set_uint"),
        (f"{PARAMETERS}/auto_movable_ratio", "08", "EINVAL", "param_set_uint"),
        (f"{PARAMETERS}/auto_movable_ratio", "4294967296", "ERANGE", "param_set_uint"),
        (f"{PARAMETERS}/auto_movable_numa_aware", "maybe", "EINVAL", "param_set_bool"),
        (f"{PARAMETERS}/auto_movable_numa_aware", "o", "EINVAL", "param_set_bool"),
        (f"{PARAMETERS}/nothing", "1", "EACCES", "kernfs_fop_open"),
    ],
)
def test_what_the_kernel_refuses_is_a_result_and_changes_nothing(file, word, errno, function):
    model = guest()
    before = model.observe()
    outcome = model.perform(Write(file=file, word=word)).outcome
    assert (outcome.status, outcome.errno) == ("refused", errno)
    assert function in (None, outcome.function)
    assert model.observe() == before


@pytest.mark.parametrize(
    ("file", "word", "parameter", "value"),
    [
        (f"{MEMORY}/auto_online_blocks", "online_kernel", "auto_online_blocks", "online_kernel"),
        (f"{PARAMETERS}/online_policy", "auto-movable", "online_policy", "auto-movable"),
        (f"{PARAMETERS}/auto_movable_ratio", "0x10", "auto_movable_ratio", 16),
        (f"{PARAMETERS}/auto_movable_ratio", "010", "auto_movable_ratio", 8),
        (f"{PARAMETERS}/auto_movable_ratio", "4294967295", "auto_movable_ratio", 0xFFFFFFFF),
        (f"{PARAMETERS}/auto_movable_numa_aware", "off", "auto_movable_numa_aware", False),
        (f"{PARAMETERS}/auto_movable_numa_aware", "nonsense", "auto_movable_numa_aware", False),
        (f"{PARAMETERS}/auto_movable_numa_aware", "1", "auto_movable_numa_aware", True),
    ],
)
def test_a_word_that_the_kernel_takes_sets_the_parameter(file, word, parameter, value):
    model = guest()
    assert model.perform(Write(file=file, word=word)).outcome
    assert model.parameter(parameter) == value


@pytest.mark.parametrize(
    ("file", "word", "state"),
    [
        ("state", "online_movable", "online"),
        ("online", "1", "online"),
        ("online", "0", "offline"),  # offline already: no error
    ],
)
def test_a_blocks_files_online_it(file, word, state):
    model = guest()
    assert model.perform(Write(file=f"{MEMORY}/memory32/{file}", word=word)).outcome
    assert model.observe().memory.blocks[32].state == state


def test_a_release_without_the_parameters_has_no_folder_for_them():
    model = ModelMachine.start(Machine(memory=Size(GIB), release="4.20"))
    outcome = model.perform(Write(file=f"{PARAMETERS}/online_policy", word="x")).outcome
    assert outcome.errno == "ENOENT"


def test_a_refused_step_does_not_end_the_sequence():
    steps = [
        Online(blocks=99),
        Offline(blocks=[99, 98]),
        Plug(id="odd", size=Size(64 * MIB)),
        Online(id="odd"),
        Plug(id="d", size=Size(256 * MIB), address=Address(0x120000000)),
        Online(blocks=[36, 99, 37]),
        Write(file=f"{MEMORY}/memory37/state", word="nonsense"),
        Online(blocks=37),
    ]
    machine = Machine(memory=Size(GIB), release="6.12", auto_online_blocks="offline")
    trace = predict(Scenario(name="s", machine=machine, steps=steps))
    errnos = [step.outcome.errno for step in trace.steps[1:]]
    assert errnos == ["ENOENT", "ENOENT", "EINVAL", "ENOENT", None, "ENOENT", "EINVAL", None]
    blocks = trace.steps[-1].observation.memory.blocks
    assert [nr for nr in blocks if nr >= 32 and blocks[nr].state == "online"] == [36, 37]


@pytest.mark.parametrize(
    ("file", "word", "why"),
    [
        ("/etc/passwd", "x", "need a file in /sys"),
        (f"{MEMORY}/../x", "x", "need a file in /sys"),
        (f"{MEMORY}/memory1/power/control", "x", "need a file in /sys"),
        (f"{MEMORY}/memory1/state", "x; reboot", "need letters"),
        (f"{MEMORY}/memory1/state", "", "need letters"),
        (f"{MEMORY}/memory1/state", "-n", "need letters"),
        (f"{MEMORY}/memory1/state", "a\n", "need letters"),
    ],
)
def test_a_write_elsewhere_or_of_what_a_shell_takes_apart_is_an_error(file, word, why):
    with pytest.raises(InputError, match=why):
        Write(file=file, word=word)


def test_files_that_the_model_does_not_have_are_errors():
    with pytest.raises(InputError, match="not modelled"):
        guest().perform(Write(file=f"{MEMORY}/hard_offline_page", word="0"))
