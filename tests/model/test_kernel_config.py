"""Options of the kernel's configuration: what a kernel without one does not do."""

import gzip
from dataclasses import replace

import pytest

from altmap.errors import InputError
from altmap.linux.evidence import evidence_of
from altmap.linux.observation import Observation
from altmap.model.machine import ModelMachine
from altmap.scenario import Device, KernelConfig, Machine, Offline, Plug, Resize, Unplug

DIMM = Plug(id="d", size="256MiB", address="4GiB")


def guest(arch="x86_64", config=None, **changes):
    return ModelMachine.start(
        Machine(
            **{
                "arch": arch,
                "release": "6.12",
                "memory": "2GiB",
                "memmap_on_memory": "on",
                "config": KernelConfig(**config or {}),
            }
            | changes
        )
    )


@pytest.mark.parametrize(
    ("option", "plug"),
    [
        ("ACPI_HOTPLUG_MEMORY", DIMM),
        ("MEMORY_HOTPLUG", DIMM),
        ("VIRTIO_MEM", Plug(id="d", driver="virtio-mem", size="1GiB", requested="256MiB")),
        ("MEMORY_HOTREMOVE", Plug(id="d", driver="virtio-mem", size="1GiB", requested="256MiB")),
        ("DEV_DAX_KMEM", DIMM.replace(driver="kmem", dax="pmem", node=0)),
        ("HYPERV_BALLOON", DIMM.replace(driver="hyperv")),
        ("ARCH_MEMORY_PROBE", Plug(id="d", driver="probe", address="4GiB", size="128MiB")),
    ],
)
def test_a_device_without_its_driver_is_never_noticed_and_stays(option, plug):
    model = guest(config={option: False})
    before = model.observe()
    outcome = model.perform(plug).outcome
    assert (outcome.status, outcome.errno) == ("refused", "ENODEV")
    assert f"CONFIG_{option}" in outcome.why
    assert model.observe() == before
    assert model.perform(Unplug(id="d")).outcome.errno == "ENODEV"
    assert model.perform(Resize(id="d", size="0MiB")).outcome.errno == "ENODEV"
    if option != "MEMORY_HOTREMOVE":
        assert model.perform(Offline(id="d")).outcome.errno == "ENOENT"
    with pytest.raises(InputError, match="plugged already"):
        model.perform(plug)
    assert guest(config={option: True}).perform(plug).outcome


def test_a_dimm_that_no_driver_notices_takes_its_addresses():
    model = guest(config={"ACPI_HOTPLUG_MEMORY": False})
    model.perform(Plug(id="a", size="256MiB"))
    with pytest.raises(InputError):
        model.perform(Plug(id="b", size="256MiB", address=model.devices.addresses()[0][0]))


def test_ppc64_needs_no_acpi():
    assert guest("ppc64le", {"ACPI_HOTPLUG_MEMORY": False}).perform(Plug(id="d", size="256MiB"))


def test_without_hot_remove_no_block_goes_offline_and_the_files_say_so():
    model = guest(config={"MEMORY_HOTREMOVE": False}, auto_online_blocks="online_movable")
    assert model.perform(DIMM).outcome
    outcome = model.perform(Offline(id="d", part="first")).outcome
    assert (outcome.errno, outcome.function) == ("EINVAL", "offline_pages")
    assert not model.perform(Unplug(id="d")).outcome
    block = model.observe().memory.blocks[32]
    assert (block.removable, block.valid_zones) == (False, None)


def test_without_memmap_on_memory_there_is_no_parameter_and_nothing_is_self_hosted():
    model = guest(config={"MHP_MEMMAP_ON_MEMORY": False})
    assert model.perform(DIMM).outcome
    assert not model.kernel.self_hosted
    assert "memmap_on_memory" not in model.observe().parameters
    assert "memmap_on_memory" in guest().observe().parameters


@pytest.mark.parametrize("word", ["offline", "online", "online_kernel", "online_movable"])
def test_the_default_for_new_blocks_is_configured_unless_the_scenario_says(word):
    config = {"MHP_DEFAULT_ONLINE_TYPE": word}
    assert guest(config=config).kernel.tunables.auto_online_blocks == word
    said = guest(config=config, auto_online_blocks="offline")
    assert said.kernel.tunables.auto_online_blocks == "offline"


def test_debug_vm_and_the_optimisation_of_huge_pages_follow_their_options():
    assert guest(config={"DEBUG_VM": True}).kernel.tunables.debug_vm
    assert not guest(config={"DEBUG_VM": True}, debug_vm=False).kernel.tunables.debug_vm
    assert not guest(config={"DEBUG_VM": False}, debug_vm=True).kernel.tunables.debug_vm
    hvo = {"HUGETLB_PAGE_OPTIMIZE_VMEMMAP": False}
    assert not guest(config=hvo, hugetlb_free_vmemmap=True).kernel.tunables.hugetlb_free_vmemmap


def test_an_option_that_decides_nothing_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'ACPI_HOTPLUG_MEMORY'"):
        KernelConfig(ACPI_HOTPLUG_MEMRY=False)
    with pytest.raises(InputError, match="unknown field 'SMP': need one of MEMORY_HOTPLUG"):
        KernelConfig(SMP=True)


# --- a sysroot -------------------------------------------------------------------------------


def of_files(seen=None, machine=None, **files):
    """Return a machine that starts from the files of a modelled one, and from these."""
    seen = seen or guest("aarch64").observe()
    given = {path.replace("__", "/"): raw for path, raw in files.items()}
    seen = replace(seen, evidence=evidence_of({"proc/version": seen.version.encode(), **given}))
    return ModelMachine.start(machine or Machine(arch="aarch64"), seen)


ALL = b"".join(b"CONFIG_%s=y\n" % name.encode() for name in KernelConfig.__struct_fields__)


def test_the_configuration_of_the_sysroot_counts_and_the_scenario_overrules_it():
    config = ALL.replace(b"CONFIG_VIRTIO_MEM=y\n", b"# CONFIG_VIRTIO_MEM is not set\n")
    model = of_files(**{"proc__config.gz": gzip.compress(config)})
    assert model.kernel.tunables.unset == {"VIRTIO_MEM"}
    overruled = Machine(
        arch="aarch64", config=KernelConfig(VIRTIO_MEM=True, DEV_DAX_KMEM=False, DEBUG_VM=True)
    )
    model = of_files(machine=overruled, **{"proc__config.gz": gzip.compress(config)})
    assert model.kernel.tunables.unset == {"DEV_DAX_KMEM"}
    assert model.kernel.tunables.debug_vm


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (b"", "offline"),
        (b"CONFIG_MEMORY_HOTPLUG_DEFAULT_ONLINE=y\n", "online"),
        (b"CONFIG_MHP_DEFAULT_ONLINE_TYPE_ONLINE_MOVABLE=y\n", "online_movable"),
    ],
)
def test_the_configured_default_counts_where_no_file_shows_the_running_one(text, word):
    seen = guest("aarch64").observe()
    seen = replace(seen, memory=replace(seen.memory, auto_online_blocks=None))
    model = of_files(seen, **{"proc__config.gz": gzip.compress(ALL + text)})
    assert model.kernel.tunables.auto_online_blocks == word
    shown = replace(seen, memory=replace(seen.memory, auto_online_blocks="online_kernel"))
    model = of_files(shown, **{"proc__config.gz": gzip.compress(ALL + text)})
    assert model.kernel.tunables.auto_online_blocks == "online_kernel"


def named(release):
    seen = guest("aarch64").observe()
    return of_files(replace(seen, version=f"Linux version {release} (b@c) #1"))


@pytest.mark.parametrize(
    ("release", "noticed"),
    [
        ("6.12.118+deb13-arm64", False),
        ("7.3.4+deb13-arm64-16k", False),
        ("6.1.0-56-arm64", False),
        ("6.12.0-55.el10.aarch64", True),
        ("6.12.118", True),
    ],
)
def test_debians_arm64_kernels_never_notice_a_dimm(release, noticed):
    model = named(release)
    outcome = model.perform(Plug(id="d", size="256MiB")).outcome
    assert outcome.errno == (None if noticed else "ENODEV")


def test_files_that_only_an_option_brings_tell():
    seen = guest("aarch64", {"MEMORY_HOTREMOVE": False, "MHP_MEMMAP_ON_MEMORY": False}).observe()
    model = of_files(seen)
    assert model.kernel.tunables.unset == {"MEMORY_HOTREMOVE", "MHP_MEMMAP_ON_MEMORY"}
    assert any("CONFIG_MEMORY_HOTREMOVE, by the files of" in note for note in model.notes)
    assert of_files().kernel.tunables.unset == set()


def test_a_device_that_is_there_at_boot_is_not_noticed_either():
    device = Device(id="d", address="4GiB", size="256MiB")
    model = guest(config={"ACPI_HOTPLUG_MEMORY": False}, devices=[device])
    assert any("'d' at boot: not added: ENODEV" in note for note in model.notes)
    assert isinstance(model.observe(), Observation)
