"""Writes to the files of drivers, and of pools of huge pages."""

import pytest

from altmap.scenario import Plug

MEMORY = "/sys/devices/system/memory"
XEN = "/sys/devices/system/xen_memory/xen_memory0"
DAX = "/sys/bus/dax/drivers/kmem"


# --- Xen -------------------------------------------------------------------------------------


@pytest.fixture
def domain(live):
    return live(
        arch="x86_64", release="6.12", platform="xen", memory="1GiB", auto_online_blocks="online"
    )


def test_a_domain_shrinks_to_its_target_in_kilobytes_or_bytes(domain):
    assert domain.write(f"{XEN}/target_kb", "524288\n") == 0
    assert domain.read(f"{XEN}/target_kb") == "524288\n"
    assert domain.read(f"{XEN}/info/current_kb") == "524288\n"
    assert domain.write(f"{XEN}/target", "768M") == 0
    assert domain.read(f"{XEN}/info/current_kb") == f"{768 << 10}\n"
    assert domain.read(f"{XEN}/target") == f"{768 << 20}\n"


def test_a_target_is_read_up_to_the_first_character_of_no_number(domain):
    assert domain.write(f"{XEN}/target_kb", "0x80000 kB") == 0
    assert domain.read(f"{XEN}/target_kb") == "524288\n"


def test_a_target_that_is_out_of_reach_is_no_error_of_the_write(domain):
    assert domain.write(f"{XEN}/target_kb", str(1 << 40)) == 0
    assert any(line.startswith("step resize") and "ok" not in line for line in domain.machine.log)


# --- s390x -----------------------------------------------------------------------------------


@pytest.fixture
def standby(live):
    return live(
        Plug(id="s", driver="standby", size="512MiB"),
        arch="s390x",
        release="7.3",
        memory="1GiB",
        memmap_on_memory="on",
        auto_online_blocks="offline",
    )


def test_standby_memory_is_configured_onlined_and_deconfigured(standby):
    (first, *_) = standby.names("/sys/firmware/memory")
    folder = f"/sys/firmware/memory/{first}"
    assert standby.read(f"{folder}/config") == "0\n"
    assert first not in standby.names(MEMORY)
    assert standby.write(f"{folder}/memmap_on_memory", "0") == 0
    assert standby.read(f"{folder}/memmap_on_memory") == "0\n"
    assert standby.write(f"{folder}/config", "1\n") == 0
    assert standby.read(f"{MEMORY}/{first}/state") == "offline\n"
    assert standby.write(f"{folder}/memmap_on_memory", "1") == "EBUSY"
    assert standby.write(f"{MEMORY}/{first}/state", "online_movable") == 0
    assert standby.write(f"{folder}/config", "0") == "EBUSY"
    assert standby.write(f"{MEMORY}/{first}/state", "offline") == 0
    assert standby.write(f"{folder}/config", "maybe") == "EINVAL"
    assert standby.write(f"{folder}/config", "0") == 0
    assert first not in standby.names(MEMORY)


def test_standby_memory_of_older_kernels_has_no_such_files(live):
    old = live(
        Plug(id="s", driver="standby", size="512MiB"), arch="s390x", release="6.12", memory="1GiB"
    )
    assert "firmware" not in old.names("/sys")


# --- dax -------------------------------------------------------------------------------------


DAX_DEVICE = {"dax": "hmem", "size": "512MiB", "address": "0x100000000"}


def with_dax(live, release, **keys):
    return live(
        Plug(id="c", driver="kmem", **{**DAX_DEVICE, **keys}),
        arch="x86_64",
        release=release,
        memory="2GiB",
        memmap_on_memory="on",
        auto_online_blocks="offline",
    )


def test_a_dax_device_is_unbound_and_bound_again(live):
    files = with_dax(live, "6.12", memmap_on_memory=True)
    device = "/sys/bus/dax/devices/dax0.0"
    folder = "/sys/devices/platform/hmem.0/dax0.0"
    assert files.files.readlink(device) == "../../../devices/platform/hmem.0/dax0.0"
    assert files.read(f"{folder}/size") == f"{512 << 20}\n"
    assert "memory32" in files.names(MEMORY)
    assert files.write(f"{folder}/memmap_on_memory", "0") == "EBUSY"
    assert files.write(f"{DAX}/unbind", "dax0.0\n") == 0
    assert "memory32" not in files.names(MEMORY)
    assert "driver" not in files.names(folder)
    assert files.write(f"{DAX}/unbind", "dax0.0") == "ENODEV"
    assert files.write(f"{folder}/memmap_on_memory", "0") == 0
    assert files.write(f"{DAX}/bind", "dax0.0") == 0
    assert "memory32" in files.names(MEMORY)
    assert files.files.readlink(f"{folder}/driver") == "../../../../bus/dax/drivers/kmem"
    assert files.machine.steps[-1].memmap_on_memory is False
    assert files.write(f"{DAX}/bind", "dax0.0") == "EBUSY"


def test_memory_that_is_online_stays_when_its_device_is_unbound(live):
    files = with_dax(live, "6.12")
    assert files.write(f"{MEMORY}/memory32/state", "online_movable") == 0
    assert files.write(f"{DAX}/unbind", "dax0.0") == 0
    assert files.read(f"{MEMORY}/memory32/state") == "online\n"
    assert files.write(f"{DAX}/bind", "dax0.0") == "EBUSY"


def test_a_dax_device_has_one_driver(live):
    files = with_dax(live, "6.12")
    other = "/sys/bus/dax/drivers/device_dax"
    link = "/sys/devices/platform/hmem.0/dax0.0/driver"
    assert files.write(f"{other}/bind", "dax0.0") == "ENODEV"
    assert files.write(f"{other}/new_id", "dax0.0") == 0
    assert files.write(f"{other}/bind", "dax0.0") == "EBUSY"
    assert files.write(f"{other}/unbind", "dax0.0") == "ENODEV"
    assert files.write(f"{DAX}/unbind", "dax0.0") == 0
    assert files.write(f"{other}/new_id", "dax0.0") == 0
    assert files.files.readlink(link) == "../../../../bus/dax/drivers/device_dax"
    assert "memory32" not in files.names(MEMORY)
    assert files.write(f"{DAX}/bind", "dax0.0") == "EBUSY"
    assert files.write(f"{DAX}/new_id", "dax0.0") == 0  # what the probe returns is dropped
    assert "memory32" not in files.names(MEMORY)
    assert files.write(f"{other}/unbind", "dax0.0") == 0
    assert files.write(f"{DAX}/new_id", "dax0.0") == 0
    assert "memory32" in files.names(MEMORY)


def test_memory_that_stayed_keeps_device_dax_away(live):
    files = with_dax(live, "6.12")
    assert files.write(f"{MEMORY}/memory32/state", "online_movable") == 0
    assert files.write(f"{DAX}/unbind", "dax0.0") == 0
    assert files.write("/sys/bus/dax/drivers/device_dax/new_id", "dax0.0") == 0
    assert files.write("/sys/bus/dax/drivers/device_dax/bind", "dax0.0") == "EBUSY"


@pytest.mark.parametrize("name", ["dax0.0x", "", "mem0", "dax00.0", " dax0.0", "dax0.0 "])
def test_a_name_of_no_device_is_refused(live, name):
    files = with_dax(live, "6.12")
    assert files.write(f"{DAX}/bind", name) == "ENODEV"
    for driver in ("kmem", "device_dax"):
        for file in ("new_id", "remove_id"):
            assert files.write(f"/sys/bus/dax/drivers/{driver}/{file}", name) == "EINVAL"


def test_a_driver_may_be_told_of_a_device_that_is_not_there(live):
    files = with_dax(live, "6.12")
    assert files.write(f"{DAX}/bind", "dax9.0") == "ENODEV"
    for driver in ("kmem", "device_dax"):
        for file in ("new_id", "remove_id"):
            assert files.write(f"/sys/bus/dax/drivers/{driver}/{file}", "dax9.0\n") == 0


def test_a_device_of_kmem_is_for_device_dax_while_that_is_told_so(live):
    files = with_dax(live, "6.12")
    other = "/sys/bus/dax/drivers/device_dax"
    assert files.write(f"{DAX}/unbind", "dax0.0") == 0
    assert files.write(f"{other}/bind", "dax0.0") == "ENODEV"
    assert files.write(f"{other}/new_id", "dax0.0") == 0
    assert files.write(f"{other}/unbind", "dax0.0") == 0
    assert files.write(f"{other}/bind", "dax0.0") == 0
    assert files.write(f"{other}/unbind", "dax0.0") == 0
    assert files.write(f"{other}/remove_id", "dax0.0") == 0
    assert files.write(f"{other}/bind", "dax0.0") == "ENODEV"


def test_a_flag_that_was_written_is_shown(live):
    files = with_dax(live, "6.12", dax="cxl")
    folder = "/sys/devices/platform/ACPI0017:00/root0/decoder0.0/region0/dax_region0/dax0.0"
    assert files.write(f"{DAX}/unbind", "dax0.0") == 0
    assert files.read(f"{folder}/memmap_on_memory") == "1\n"
    assert files.write(f"{folder}/memmap_on_memory", "0") == 0
    assert files.read(f"{folder}/memmap_on_memory") == "0\n"


def test_the_state_of_a_dax_device_is_one_word_for_all_its_memory(live):
    files = with_dax(live, "7.3")
    path = "/sys/devices/platform/hmem.0/dax0.0/state"
    assert files.read(path) == "offline\n"
    assert files.write(path, "offline") == "EINVAL"
    assert files.write(path, "online") == "EBUSY"
    assert files.write(path, "unplugged\n") == 0
    assert "memory32" not in files.names(MEMORY)
    assert files.write(path, "online_movable") == 0
    assert files.read(path) == "online_movable\n"
    assert files.read(f"{MEMORY}/memory32/valid_zones") == "Movable\n"
    assert files.read(f"{MEMORY}/auto_online_blocks") == "offline\n"


def test_files_of_a_dax_device_follow_the_release(live):
    folder = "/sys/devices/platform/hmem.0/dax0.0"
    assert {"state", "memmap_on_memory"} <= set(with_dax(live, "7.3").names(folder))
    assert not {"state", "memmap_on_memory"} & set(with_dax(live, "6.1").names(folder))


@pytest.mark.parametrize(
    ("dax", "region", "numa_node"),
    [
        ("cxl", "platform/ACPI0017:00/root0/decoder0.0/region0/dax_region0", "-1"),
        ("hmem", "platform/hmem.0", "0"),
    ],
)
def test_a_dax_device_lies_below_the_region_of_its_memory(live, dax, region, numa_node):
    files = with_dax(live, "6.12", dax=dax)
    folder = f"/sys/devices/{region}/dax0.0"
    assert (
        files.files.readlink("/sys/bus/dax/devices/dax0.0") == f"../../../devices/{region}/dax0.0"
    )
    up = "../" * (region.count("/") + 3)
    assert files.files.readlink(f"{folder}/subsystem") == f"{up}bus/dax"
    assert files.read(f"{folder}/numa_node") == f"{numa_node}\n"
    assert files.read(f"/sys/devices/{region}/dax_region/id") == "0\n"


def test_the_ranges_of_a_dax_device_are_its_mappings(live):
    files = with_dax(
        live,
        "6.12",
        more_ranges=[{"address": "0x140000000", "size": "256MiB"}],
    )
    folder = "/sys/devices/platform/hmem.0/dax0.0"
    shown = [
        [
            files.read(f"{folder}/mapping{n}/{name}").strip()
            for name in ("start", "end", "page_offset")
        ]
        for n in (0, 1)
    ]
    assert shown == [
        ["0x100000000", "0x11fffffff", "0x0"],
        ["0x140000000", "0x14fffffff", "0x20000000"],
    ]
    assert "mapping2" not in files.names(folder)


# --- huge pages ------------------------------------------------------------------------------

POOL = "/sys/kernel/mm/hugepages/hugepages-2048kB"


def test_a_pool_grows_and_shrinks_by_its_number(live):
    files = live(arch="x86_64", release="6.12", memory="1GiB")
    assert files.write(f"{POOL}/nr_hugepages", "40\n") == 0
    assert files.read(f"{POOL}/nr_hugepages") == "40\n"
    assert files.read(f"{POOL}/free_hugepages") == "40\n"
    assert "HugePages_Total:      40\n" in files.read("/proc/meminfo")
    assert files.write(f"{POOL}/nr_hugepages", "15") == 0
    assert files.read("/proc/sys/vm/nr_hugepages") == "15\n"
    assert files.write("/proc/sys/vm/nr_hugepages", "0") == 0
    assert files.read(f"{POOL}/nr_hugepages") == "0\n"


def test_a_pool_gets_as_many_pages_as_there_are(live):
    files = live(arch="x86_64", release="6.12", memory="1GiB")
    assert files.write(f"{POOL}/nr_hugepages", str(2**63)) == 0
    assert 200 < int(files.read(f"{POOL}/nr_hugepages")) < 512


@pytest.mark.parametrize("text", ["", "many", "-1", "0x10", "1 2"])
def test_what_is_no_number_is_einval(live, text):
    files = live(arch="x86_64", release="6.12", memory="1GiB")
    assert files.write(f"{POOL}/nr_hugepages", text) == "EINVAL"


def test_the_machines_number_is_shared_by_its_nodes(live):
    files = live(
        arch="x86_64", release="6.12", memory="2GiB", nodes=[{"memory": "1GiB"}, {"memory": "1GiB"}]
    )
    node = "/sys/devices/system/node/node{}/hugepages/hugepages-2048kB/nr_hugepages"
    assert files.write(f"{POOL}/nr_hugepages", "21") == 0
    assert [files.read(node.format(n)) for n in (0, 1)] == ["11\n", "10\n"]
    assert files.write(node.format(1), "3") == 0
    assert files.read(f"{POOL}/nr_hugepages") == "14\n"
    assert files.write(f"{POOL}/nr_hugepages", "2") == 0  # node 1 has no more than 3 to give
    assert [files.read(node.format(n)) for n in (0, 1)] == ["2\n", "0\n"]
