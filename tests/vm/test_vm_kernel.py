"""What a command line and a configuration of a guest's kernel decide."""

import dataclasses

import pytest
from definitions import qemu

from altmap.errors import InputError
from altmap.vm.kernel import cmdline_words, guest_kernel

CONFIG = """\
# Linux/x86 6.6.9 Kernel Configuration
CONFIG_MEMORY_HOTPLUG=y
CONFIG_MEMORY_HOTREMOVE=y
CONFIG_MHP_MEMMAP_ON_MEMORY=y
CONFIG_ACPI_HOTPLUG_MEMORY=y
CONFIG_VIRTIO_MEM=m
CONFIG_HYPERV_BALLOON=m
CONFIG_VIRTIO_BALLOON=m
# CONFIG_MEMORY_HOTPLUG_DEFAULT_ONLINE is not set
"""


def test_words_are_split_as_the_kernel_does():
    words = cmdline_words('quiet memory-hotplug.x=1 a="b c" x=1 x=2 -- y=3')
    assert words == {"quiet": "", "memory_hotplug.x": "1", "a": "b c", "x": "2"}


@pytest.mark.parametrize(
    ("cmdline", "settings"),
    [
        ("memhp_default_state=online_movable", {"auto_online_blocks": "online_movable"}),
        ("memhp_default_state=wrong", {}),
        ("memory_hotplug.memmap_on_memory=1", {"memmap_on_memory": "on"}),
        ("memory_hotplug.memmap_on_memory", {"memmap_on_memory": "on"}),
        ("memory_hotplug.memmap_on_memory=force", {"memmap_on_memory": "force"}),
        ("memory_hotplug.memmap_on_memory=N", {"memmap_on_memory": "off"}),
        ("memory_hotplug.online_policy=auto-movable", {"online_policy": "auto-movable"}),
        ("memory_hotplug.auto_movable_ratio=400", {"auto_movable_ratio": 400}),
        ("memory_hotplug.auto_movable_numa_aware=0", {"auto_movable_numa_aware": False}),
        ("movable_node", {"movable_node": True}),
        ("hugetlb_free_vmemmap=on", {"hugetlb_free_vmemmap": True}),
        ("virtio_mem.force_bbm=1", {"virtio_mem": {"force_bbm": True}}),
    ],
)
def test_a_parameter_sets_a_key_of_the_machine(cmdline, settings):
    assert guest_kernel(qemu(), cmdline=cmdline).settings == settings


def test_the_definitions_command_line_counts_unless_another_is_given():
    definition = qemu(cmdline="movable_node")
    assert guest_kernel(definition).settings == {"movable_node": True}
    assert guest_kernel(definition, cmdline="quiet").settings == {}


@pytest.mark.parametrize(
    "word",
    [
        "memmap=64M@1G",
        "memmap=exactmap",
        "kernelcore=mirror",
        "cma=64M",
        "numa=fake=4",
        "hugetlb_cma=1G",
    ],
)
def test_what_is_not_modelled_is_named(word):
    (unread,) = guest_kernel(qemu(), cmdline=f"quiet {word}").unread
    assert unread.value == word


@pytest.mark.parametrize(
    "word",
    [
        *("crashkernel=256M", "hugepages=64", "swiotlb=noforce"),
        *("mem=2G", "memmap=64M$1G", "kernelcore=1G", "movablecore=30%", "numa=off"),
    ],
)
def test_words_that_size_boot_memory_are_the_machines(word):
    kernel = guest_kernel(qemu(), cmdline=f"quiet {word}")
    assert kernel.settings == {"cmdline": word}
    assert not kernel.unread


@pytest.mark.parametrize(
    ("arch", "config", "words"),
    [
        ("aarch64", "CONFIG_DMA_CMA=y\nCONFIG_CMA_SIZE_MBYTES=64\n", None),
        ("aarch64", "CONFIG_DMA_CMA=y\nCONFIG_CMA_SIZE_MBYTES=32\n", "cma=32M"),
        ("aarch64", "CONFIG_MEMORY_HOTPLUG=y\n", "cma=0M"),
        ("x86_64", "CONFIG_MEMORY_HOTPLUG=y\n", None),
    ],
)
def test_the_configuration_sizes_the_cma_area(arch, config, words):
    definition = dataclasses.replace(qemu(), arch=arch)
    assert guest_kernel(definition, config=config).settings.get("cmdline") == words


def test_cma_is_named_where_a_configuration_has_it_and_the_model_does_not():
    (unread,) = guest_kernel(qemu(), config="CONFIG_DMA_CMA=y\n", cmdline="cma=64M").unread
    assert "not modelled" in unread.reason
    assert not guest_kernel(qemu(), config="CONFIG_MODULES=y\n", cmdline="cma=64M").unread


def test_a_configuration_names_the_release_and_the_state_of_new_blocks():
    kernel = guest_kernel(qemu(), config=CONFIG)
    assert (kernel.release, kernel.stated) == ("6.6", "--config")
    assert kernel.settings == {"auto_online_blocks": "offline"}
    assert kernel.missing == {}
    assert kernel.removes


@pytest.mark.parametrize(
    ("option", "driver"),
    [
        ("VIRTIO_MEM", "virtio-mem"),
        ("ACPI_HOTPLUG_MEMORY", "dimm"),
        ("HYPERV_BALLOON", "hyperv"),
        ("VIRTIO_BALLOON", "balloon"),
    ],
)
def test_an_option_that_is_not_set_takes_its_driver_away(option, driver):
    config = CONFIG.replace(f"CONFIG_{option}=", "# CONFIG_X")
    missing = guest_kernel(qemu(), config=config).missing
    assert list(missing) == [driver]
    assert option in missing[driver]


def test_without_memory_hotplug_nothing_is_added():
    config = CONFIG.replace("CONFIG_MEMORY_HOTPLUG=y", "")
    assert set(guest_kernel(qemu(), config=config).missing) == {"dimm", "virtio-mem", "hyperv"}


def test_the_option_for_a_self_hosted_memmap_counts():
    config = CONFIG.replace("CONFIG_MHP_MEMMAP_ON_MEMORY=y", "")
    assert guest_kernel(qemu(), config=config).settings["memmap_on_memory"] == "off"


@pytest.mark.parametrize(
    ("definition", "keys", "driver"),
    [
        (qemu(arch="aarch64", machine="virt"), {}, "dimm"),
        (qemu(), {"cmdline": "acpi=off"}, "dimm"),
        (qemu(), {"cmdline": "acpi_no_memhotplug"}, "dimm"),
        (qemu(acpi=False), {}, "dimm"),
        (qemu(), {"release": "4.20"}, "virtio-mem"),
        (qemu(arch="ppc64le", machine="pseries"), {}, "virtio-mem"),
    ],
)
def test_a_driver_that_the_kernel_lacks_has_a_reason(definition, keys, driver):
    assert guest_kernel(definition, **keys).missing[driver]
    assert driver not in guest_kernel(qemu(acpi=True)).missing


def test_a_file_that_is_no_configuration_is_refused():
    with pytest.raises(InputError, match="--config: need lines such as"):
        guest_kernel(qemu(), config="hello")
