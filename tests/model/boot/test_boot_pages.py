"""What the kernel reserves and uses at boot, its parameters, and the files that show it."""

import pytest

from altmap.linux.kpageflags import PageFlag
from altmap.model.boot import boot
from altmap.model.boot.reserved import boot_parts
from altmap.model.machine import ModelMachine
from altmap.model.releases import RELEASES
from altmap.scenario import Machine, Resize, Size, VirtioMemParameters

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize("release", ["6.1", "6.12"])
def test_reserved_are_the_memmap_and_what_boot_keeps(release):
    machine = Machine(memory=Size(2 * GIB), release=release)
    kernel, _, _ = boot(machine)
    record = RELEASES[release]
    kept = sum(part.size_bytes for part in boot_parts(machine, kernel.arch, record))
    # 2 GiB have 8192 pages of struct pages.
    assert len(kernel.reserved) == 8192 + kept // 4096
    assert len(kernel.used) == record.boot_used_bytes // 4096
    assert not kernel.reserved & kernel.used


def test_on_a_small_machine_three_quarters_are_reserved_and_of_the_rest_used():
    kernel = boot(Machine(memory=Size(128 * MIB)))[0]
    # 32638 pages of RAM; of the 3998 below 16 MiB the 158 below 1 MiB are reserved.
    assert len(kernel.boot_ram) == 32638
    assert len(kernel.reserved) == 32638 * 3 // 4
    assert len(kernel.used) == (32638 - 3998 - (24478 - 158)) * 3 // 4


def test_the_files_show_every_page_that_booted():
    model = ModelMachine.start(Machine(memory=Size(GIB)))
    flags = model.observe().kpageflags
    free = flags.select(lambda word: bool(word & PageFlag.BUDDY))
    assert len(free) == model.kernel.free_nr_pages()
    assert flags.select(lambda word: bool(word & PageFlag.RESERVED)) == model.kernel.reserved


@pytest.mark.parametrize(
    ("arch", "line"),
    [("x86_64", (0x1000, 0x9FC00)), ("aarch64", (GIB, 2 * GIB)), ("ppc64le", (0, GIB))],
)
def test_iomem_begins_with_the_ram_that_is_not_the_firmwares(arch, line):
    first = boot(Machine(arch=arch, memory=Size(GIB)))[2].iomem[0]
    assert (first.start, first.end) == line


def test_a_release_without_auto_movable_has_contig_zones():
    def policy(release):
        machine = Machine(release=release, online_policy="auto-movable")
        return boot(machine)[0].tunables.online_policy

    without = next(name for name, record in RELEASES.items() if not record.has_auto_movable)
    assert policy(without) == "contig-zones"
    assert policy("6.12") == "auto-movable"


@pytest.mark.parametrize(
    ("arch", "release", "word"),
    [("x86_64", "6.1", "offline"), ("x86_64", "6.12", "online"), ("s390x", "6.12", "offline")],
)
def test_the_default_online_type_is_debians_unless_it_is_given(arch, release, word):
    machine = {"arch": arch, "release": release}
    assert boot(Machine(**machine))[0].tunables.auto_online_blocks == word
    given = Machine(**machine, auto_online_blocks="online_movable")
    assert boot(given)[0].tunables.auto_online_blocks == "online_movable"


def test_parameters_of_virtio_mem_are_the_scenarios():
    given = VirtioMemParameters(unplug_online=False, force_bbm=True, bbm_block_size=Size(GIB))
    tunables = boot(Machine(virtio_mem=given))[0].tunables.virtio_mem
    assert (tunables.unplug_online, tunables.force_bbm) == (False, True)
    assert (tunables.bbm_block_size_bytes, tunables.bbm_safe_unplug) == (GIB, True)


@pytest.mark.parametrize("release", ["6.1", "6.12"])
def test_a_xen_domain_is_backed_by_its_allocation_at_boot(release):
    kernel, backing, files = boot(
        Machine(platform="xen", release=release, memory=Size(512 * MIB), xen_max_memory=Size(GIB))
    )
    # Page 0 is the domain's, and no RAM.
    assert len(backing.backed) + 1 == files.balloon.current_kb // 4 == 512 * MIB // 4096
    assert len(kernel.boot_ram) + 1 == GIB // 4096
    unbacked = kernel.boot_ram - backing.backed
    assert (kernel.fake_offline if release == "6.1" else kernel.reserved & unbacked) == unbacked


def test_ballooned_pages_of_a_booted_domain_are_populated_for_the_first_time():
    model = ModelMachine.start(
        Machine(platform="xen", release="6.1", memory=Size(512 * MIB), xen_max_memory=Size(GIB))
    )
    record = model.perform(Resize(id="balloon", size=Size(600 * MIB)))
    assert record.outcome
    assert not [event for event in record.events if "backed already" in event.text]
    assert len(model.backed) + 1 == 600 * MIB // 4096


def test_a_xen_domain_maps_small_pages_and_has_no_khugepaged():
    tunables = boot(Machine(platform="xen", memory=Size(512 * MIB)))[0].tunables
    assert not tunables.direct_map_1g
    assert not tunables.direct_map_2m
    assert not tunables.khugepaged
    tunables = boot(Machine(memory=Size(512 * MIB)))[0].tunables
    assert tunables.direct_map_1g
    assert tunables.direct_map_2m
    assert tunables.khugepaged
