"""DIMMs of one memory block (128 MiB), which every release can make self-hosted."""

import errno
import re

import pytest

from altmap.lab import (
    Hardware,
    QemuRefusedError,
    capture,
    plug_dimm,
    unplug_dimm,
    write_block_state,
)
from altmap.lab.snapshot import booted

pytestmark = pytest.mark.lab

BLOCK_BYTES = 128 << 20
FIRST_ADDRESS = 0x100000000
FIRST_BLOCK = FIRST_ADDRESS // BLOCK_BYTES
MEMMAP_PAGES = BLOCK_BYTES // 4096 * 64 // 4096


def managed_pages(sysroot, zone):
    zones = sysroot.files["proc/zoneinfo"].decode().split("Node ")
    text = next(z for z in zones if z.startswith("0") and z.split()[2] == zone)
    return int(re.search(r"managed +(\d+)", text)[1])


def state(guest, block_id):
    return guest.run(f"cat /sys/devices/system/memory/memory{block_id}/state").text.strip()


@pytest.fixture
def dimm(guest):
    """A plugged, offline DIMM that is unplugged again."""
    plugged = plug_dimm(guest, "d1", BLOCK_BYTES)
    yield plugged
    assert unplug_dimm(guest, "d1").removed


def test_the_guest_has_added_the_block_when_plug_returns(guest, dimm):
    assert (dimm.address, dimm.ost_status) == (FIRST_ADDRESS, 0)
    assert state(guest, FIRST_BLOCK) == "offline"


def test_online_movable_hands_all_but_the_memmap_to_the_zone(guest, dimm):
    assert write_block_state(guest, FIRST_BLOCK, "online_movable") == 0
    assert managed_pages(capture(guest), "Movable") == BLOCK_BYTES // 4096 - MEMMAP_PAGES
    assert write_block_state(guest, FIRST_BLOCK, "offline") == 0
    assert managed_pages(capture(guest), "Movable") == 0


def test_online_block_is_given_back_by_unplug(guest):
    plug_dimm(guest, "d2", BLOCK_BYTES)
    assert write_block_state(guest, FIRST_BLOCK, "online_movable") == 0
    assert unplug_dimm(guest, "d2").removed
    path = f"sys/devices/system/memory/memory{FIRST_BLOCK}/state"
    assert path not in capture(guest).files


def test_qemu_says_why_it_refuses_and_keeps_nothing(guest, dimm):
    with pytest.raises(QemuRefusedError, match="address range conflicts"):
        plug_dimm(guest, "d2", BLOCK_BYTES, address=FIRST_ADDRESS)
    with pytest.raises(QemuRefusedError, match="must be aligned to"):
        plug_dimm(guest, "d2", BLOCK_BYTES, address=FIRST_ADDRESS + BLOCK_BYTES + 1)
    with pytest.raises(QemuRefusedError, match="'d9' not found"):
        unplug_dimm(guest, "d9")
    plug_dimm(guest, "d2", BLOCK_BYTES)
    assert unplug_dimm(guest, "d2").removed


@pytest.fixture(scope="module")
def full_guest(kernel):
    """A guest with one DIMM slot and two nodes, the second without memory."""
    hardware = Hardware(machine="q35", slots=1, node_bytes=(1 << 30, 0))
    with booted(kernel, hardware, "memhp_default_state=offline") as guest:
        plug_dimm(guest, "d1", BLOCK_BYTES, node=1)
        yield guest


def test_dimm_belongs_to_the_node_asked_for(full_guest):
    links = capture(full_guest).links
    assert f"sys/devices/system/memory/memory{FIRST_BLOCK}/node1" in links
    assert f"sys/devices/system/memory/memory{FIRST_BLOCK}/firmware_node" in links


def test_a_dimm_without_a_slot_is_refused(full_guest):
    with pytest.raises(QemuRefusedError, match="slot"):
        plug_dimm(full_guest, "d2", BLOCK_BYTES)


def test_guest_keeps_a_dimm_whose_pages_the_kernel_uses(guest):
    plug_dimm(guest, "kept", BLOCK_BYTES)
    # The memory below is all DMA and DMA32, so that the kernel allocates from this Normal zone.
    assert write_block_state(guest, FIRST_BLOCK, "online_kernel") == 0
    guest.run("mkdir /tmp/held; i=0; while [ $i -lt 300 ]; do mkdir /tmp/held/$i; i=$((i+1)); done")
    guest.kernel_log()
    assert write_block_state(guest, FIRST_BLOCK, "offline") == errno.EBUSY
    assert "unmovable page" in "\n".join(guest.kernel_log())
    refused = unplug_dimm(guest, "kept")
    assert (refused.removed, refused.ost_status) == (False, 0x82)
    assert unplug_dimm(guest, "kept") == refused
    assert state(guest, FIRST_BLOCK) == "online"
