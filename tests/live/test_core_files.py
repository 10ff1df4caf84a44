"""Writes to the files of memory blocks and of the core: 0 or the errno that the kernel returns."""

import os
from pathlib import Path

import pytest

from altmap.linux.sysroot import Sysroot
from altmap.live.filesystem import errno_number
from altmap.live.tree import Folder
from altmap.scenario import Fill, Offline, Online, Plug, SetTunables, Veto
from altmap.trace import OK, Outcome

MEMORY = "/sys/devices/system/memory"
PARAMETERS = "/sys/module/memory_hotplug/parameters"
ACTIONS = "/sys/kernel/debug/notifier-error-inject/memory/actions"
CAPTURED = Path(__file__).parents[1] / "recordings/files/linux-6.12-dimm.tar.xz"
BLOCK = f"{MEMORY}/memory32"


def test_a_block_goes_online_and_offline_by_its_state(guest):
    assert guest.read(f"{BLOCK}/state") == "offline\n"
    assert guest.write(f"{BLOCK}/state", "online_movable\n") == 0
    assert guest.read(f"{BLOCK}/state") == "online\n"
    assert guest.read(f"{BLOCK}/valid_zones") == "Movable\n"
    assert guest.write(f"{BLOCK}/state", "offline") == 0
    assert guest.read(f"{BLOCK}/state") == "offline\n"


def test_the_state_that_a_block_has_is_einval_in_state_and_no_error_in_online(guest):
    assert guest.write(f"{BLOCK}/state", "offline") == "EINVAL"
    assert guest.write(f"{BLOCK}/online", "0") == 0
    assert guest.write(f"{BLOCK}/online", "1") == 0
    assert guest.write(f"{BLOCK}/state", "online") == "EINVAL"
    assert guest.write(f"{BLOCK}/online", "on") == 0


@pytest.mark.parametrize(
    "word", ["", "Online", "online\n\n", "going-offline", "1", b"\xff\0online"]
)
def test_a_word_that_the_kernel_does_not_know_is_einval(guest, word):
    assert guest.write(f"{BLOCK}/state", word) == "EINVAL"
    assert guest.read(f"{BLOCK}/state") == "offline\n"


def test_bytes_behind_a_nul_are_not_seen(guest):
    assert guest.write(f"{BLOCK}/state", b"online\0offline") == 0
    assert guest.read(f"{BLOCK}/online") == "1\n"


@pytest.mark.parametrize("name", ["removable", "phys_index", "phys_device", "valid_zones"])
def test_a_file_without_a_store_cannot_be_opened_for_writing(guest, name):
    assert guest.write(f"{BLOCK}/{name}", "1") == "EACCES"


def test_a_refusal_is_the_models_own(guest):
    assert guest.write(f"{MEMORY}/memory0/state", "offline") == "EINVAL"
    assert "memory_block_offline" in guest.machine.log[-1]


def test_auto_online_blocks_takes_the_words_of_state(guest):
    path = f"{MEMORY}/auto_online_blocks"
    assert guest.write(path, "online_kernel\n") == 0
    assert guest.read(path) == "online_kernel\n"
    assert guest.write(path, "keep") == "EINVAL"
    guest.machine.perform(Plug(id="d2", size="128MiB"))
    assert guest.read(f"{MEMORY}/memory36/state") == "online\n"


def test_parameters_are_written_as_their_kinds_are(guest):
    assert guest.write(f"{PARAMETERS}/online_policy", "auto-movable\n") == 0
    assert guest.read(f"{PARAMETERS}/online_policy") == "auto-movable\n"
    assert guest.write(f"{PARAMETERS}/online_policy", "auto") == "EINVAL"
    assert guest.write(f"{PARAMETERS}/auto_movable_ratio", "0x10") == 0
    assert guest.read(f"{PARAMETERS}/auto_movable_ratio") == "16\n"
    assert guest.write(f"{PARAMETERS}/auto_movable_ratio", "-1") == "EINVAL"
    assert guest.write(f"{PARAMETERS}/auto_movable_numa_aware", "off") == 0
    assert guest.read(f"{PARAMETERS}/auto_movable_numa_aware") == "N\n"


def test_a_parameter_of_the_boot_is_eacces(guest):
    assert guest.write(f"{PARAMETERS}/memmap_on_memory", "Y") == "EACCES"


def test_a_release_without_a_parameter_has_no_file_of_it(live):
    old = live(arch="x86_64", release="5.10", memory="1GiB")
    assert old.read(f"{PARAMETERS}/online_policy") == "ENOENT"


def test_eject_is_enabled_by_0_and_1_only(guest):
    path = "/sys/firmware/acpi/hotplug/memory/enabled"
    assert guest.read(path) == "1\n"
    assert guest.write(path, "2") == "EINVAL"
    assert guest.write(path, "0\n") == 0
    assert guest.read(path) == "0\n"


def test_a_page_is_soft_offlined_by_its_address(guest):
    path = f"{MEMORY}/soft_offline_page"
    assert guest.read(path) == "EACCES"
    assert guest.write(path, "page") == "EINVAL"
    assert guest.write(path, "0x1800000") == 0
    assert "HardwareCorrupted:     4 kB" in guest.read("/proc/meminfo")


def test_an_injected_error_vetoes_until_it_is_0(guest):
    path = f"{ACTIONS}/MEM_GOING_ONLINE/error"
    assert guest.read(path) == "0\n"
    assert guest.write(path, "-12\n") == 0
    assert guest.read(path) == "-12\n"
    assert guest.write(f"{BLOCK}/state", "online") == "ENOMEM"
    assert guest.write(path, "0") == 0
    assert guest.write(f"{BLOCK}/state", "online") == 0


def test_an_injected_error_is_clamped_as_the_module_does(guest):
    path = f"{ACTIONS}/MEM_GOING_OFFLINE/error"
    assert guest.write(path, "5") == 0
    assert guest.read(path) == "0\n"
    assert guest.write(path, "x") == "EINVAL"
    assert guest.write(path, "-4096") == "EINVAL"  # no scenario has that veto


def test_probe_is_there_where_the_scenario_uses_it(live, guest):
    assert guest.write(f"{MEMORY}/probe", "0x100000000") == "ENOENT"
    first = Plug(id="p", driver="probe", size="128MiB", address="0x100000000")
    probing = live(first, arch="x86_64", release="6.12", memory="1GiB")
    assert probing.write(f"{MEMORY}/probe", "0x108000000\n") == 0
    assert "memory33" in probing.names(MEMORY)
    assert probing.write(f"{MEMORY}/probe", "0x108001000") == "EINVAL"
    assert probing.write(f"{MEMORY}/probe", "0x108000000") == "EEXIST"


def test_a_write_is_a_step_that_can_be_saved(guest):
    guest.write(f"{BLOCK}/state", "online_movable")
    guest.write(f"{BLOCK}/state", "bogus")
    guest.write(f"{BLOCK}/online", "0")
    guest.write(f"{MEMORY}/auto_online_blocks", "online")
    guest.write(f"{ACTIONS}/MEM_GOING_ONLINE/error", "-1")
    assert guest.machine.saved("done").steps == (
        Plug(id="d1", size="512MiB"),
        Online(blocks=32, to="online_movable"),
        Offline(blocks=32),
        SetTunables(auto_online_blocks="online"),
        Veto(on="going_online", errno="EPERM"),
    )


def test_uevents_announce_what_changed(guest):
    guest.machine.uevents.clear()
    guest.write(f"{BLOCK}/state", "online")
    guest.write(f"{BLOCK}/uevent", "change\n")
    assert guest.write(f"{BLOCK}/uevent", "changed") == "EINVAL"
    assert guest.machine.uevents == [
        "online@/devices/system/memory/memory32",
        "change@/devices/system/memory/memory32",
    ]


def test_a_number_below_proc_sys_is_read_and_written_at_its_start_only(guest):
    path = "/proc/sys/vm/nr_hugepages"
    guest.write(path, "12")
    handle = guest.files.open(path, os.O_RDWR)
    assert guest.files.read(path, 1, 0, handle) == b"1"
    assert guest.files.read(path, 1, 1, handle) == b""
    assert guest.files.write(path, b"5", 2, handle) == 1
    assert guest.read(path) == "12\n"


def test_a_read_that_goes_on_shows_what_the_one_before_did_and_another_what_is_now(guest):
    path = f"{BLOCK}/state"
    handle = guest.files.open(path, os.O_RDONLY)
    assert guest.files.read(path, 3, 0, handle) == b"off"
    guest.write(path, "online")
    assert guest.files.read(path, 100, 3, handle) == b"line\n"
    assert guest.files.read(path, 100, 8, handle) == b""
    assert guest.files.read(path, 100, 2, handle) == b"line\n"
    assert guest.files.read(path, 100, 0, handle) == b"online\n"


def test_a_file_of_debugfs_is_its_owners(guest):
    shown = guest.files.getattr(f"{ACTIONS}/MEM_GOING_ONLINE/error")
    assert (shown["st_mode"] & 0o777, shown["st_size"]) == (0o600, 0)
    shown = guest.files.getattr(f"{BLOCK}/state")
    assert (shown["st_mode"] & 0o777, shown["st_size"]) == (0o644, 4096)


def test_the_folder_of_all_blocks_has_uevents_too(guest):
    guest.machine.uevents.clear()
    assert guest.write(f"{MEMORY}/uevent", "change") == 0
    assert guest.machine.uevents == ["change@/devices/system/memory"]


def test_each_name_is_listed_once_and_can_be_found(live):
    captured = Sysroot.read(CAPTURED)
    for files in (live(sysroot=captured), live(arch="s390x", release="6.12", memory="1GiB")):
        folders = [""]
        while folders:
            folder = folders.pop()
            names = [name for name in files.files.readdir(f"/{folder}", 0) if name not in "..."]
            assert len(names) == len(set(names)), folder
            for name in names:
                path = f"{folder}/{name}".lstrip("/")
                node = files.tree.find(path)
                assert node is not None, path
                folders += [path] if isinstance(node, Folder) else []


def test_a_captured_machine_shows_its_own_files_until_something_changes(live):
    captured = Sysroot.read(CAPTURED)
    files = live(sysroot=captured)
    # Watermarks and what follows from them are computed anew; these are not.
    for path in ("proc/version", "proc/iomem", "proc/cmdline", "proc/vmstat"):
        assert files.read(f"/{path}") == captured.text(path), path
    for path in captured.files:
        if "/memory/memory" in path:
            assert files.read(f"/{path}") == captured.text(path), path


def test_a_write_that_the_kernel_would_not_return_from_is_interrupted(guest):
    assert guest.write(f"{BLOCK}/state", "online_movable") == 0
    guest.machine.perform(Fill(id="held", size="700MiB", kind="held"))
    answers = {
        guest.write(f"{MEMORY}/memory{block}/state", "offline") for block in (32, *range(1, 8))
    }
    assert answers <= {0, "EBUSY", "EINTR", "EINVAL"}
    assert "EINTR" in answers


def test_what_a_step_ends_with_is_an_errno():
    refused = Outcome.refused("EHWPOISON", "f", "")
    assert errno_number(refused) == 133
    assert errno_number(Outcome.refused("EBUSY", "f", "")) == 16
    assert errno_number(Outcome("does_not_end")) == 4
    assert errno_number(Outcome("fault")) == 5
    assert errno_number(Outcome("not_reached")) == 5
    assert errno_number(OK) == 0
