"""Room in real guests: page cache, swap, and a DIMM that cannot be emptied; prediction, attempt.

One guest of 1 GiB with a DIMM in Movable; each case leaves it as it found it, the last but for its
DIMM.
"""

from dataclasses import replace

import pytest
from holder import hold_pages

from altmap.host.explain import explain_block
from altmap.host.planner import plan_free, plan_remove
from altmap.host.planner_any import plan_free_any
from altmap.lab import Hardware, fetch
from altmap.lab.capture import capture
from altmap.lab.dimm import OST_EJECT_IN_PROGRESS, plug_dimm, unplug_dimm
from altmap.lab.files import GuestFiles
from altmap.lab.insmod import load_module
from altmap.lab.snapshot import booted
from altmap.linux.observation import Observation
from altmap.model.machine import ModelMachine
from altmap.scenario import Machine, Unplug

pytestmark = pytest.mark.lab

MIB, GIB = 1 << 20, 1 << 30
STATE = "sys/devices/system/memory/memory{}/state"
MODULES = ("virtio_pci", "virtio_blk")
#: What the kernel keeps free between the low and high watermarks, and what else happens meanwhile.
TOLERANCE_KIB = 40 * 1024


@pytest.fixture(scope="module")
def guest(tmp_path_factory):
    """Boot a guest with 32 and 33 in Movable, a disk that reads as zeros, and one for swap."""
    kernel = replace(fetch("6.12"), modules=MODULES)
    swap = tmp_path_factory.mktemp("swap") / "disk"
    with swap.open("wb") as file:
        file.truncate(GIB)
    with booted(kernel, Hardware(), "memhp_default_state=offline") as running:
        plug_dimm(running, "d1", 256 * MIB)
        for nr in (32, 33):
            assert GuestFiles(running).write(STATE.format(nr), "online_movable") is None
        for name in MODULES:
            load_module(running, name)
        disk(running, "vda", driver="null-co", size=2 * GIB, read_zeroes=True)
        disk(running, "vdb", driver="file", filename=str(swap))
        yield running


def disk(guest, name, **node):
    guest.qmp.execute("blockdev-add", node_name=name, **node)
    guest.qmp.execute("device_add", driver="virtio-blk-pci", drive=name, id=f"disk-{name}")
    ready = f"for n in $(seq 100); do test -b /dev/{name} && exit 0; sleep 0.1; done; exit 1"
    assert guest.run(f"sh -c '{ready}'").status == 0


def look(guest, *, uses=False):
    sysroot = capture(guest, uses=uses)
    return sysroot, Observation.read(sysroot)


def meminfo(guest):
    return Observation.read(capture(guest)).meminfo


def test_blocks_full_of_page_cache_go_and_as_much_of_it_is_dropped(guest):
    files = GuestFiles(guest, 60.0)
    guest.run("sleep 9999 </dev/vda & echo $! >/tmp/reader; dd if=/dev/vda of=/dev/null bs=1M", 300)
    sysroot, before = look(guest)
    plan = plan_free_any(sysroot, 4)  # the two that hold none of it, and two of boot memory
    assert plan.obstacle is None
    blocks = [step.prediction.blocks[0].first for step in plan.steps]
    assert plan.work.dropped_bytes > 0
    for nr in blocks:
        assert files.write(STATE.format(nr), "offline") is None
    after = meminfo(guest)
    dropped = before.meminfo["Buffers"] - after["Buffers"]
    assert abs(plan.work.dropped_bytes // 1024 - dropped) < TOLERANCE_KIB
    assert abs(plan.steps[-1].prediction.mem_free_kib - after["MemFree"]) < TOLERANCE_KIB
    guest.run("kill $(cat /tmp/reader); echo 3 >/proc/sys/vm/drop_caches")
    for nr in blocks:
        assert files.write(STATE.format(nr), "online_movable" if nr > 31 else "online") is None


def test_pages_of_tmpfs_find_room_in_swap_and_only_with_swap(guest):
    files = GuestFiles(guest, 120.0)
    guest.run("mkdir -p /full; mount -t tmpfs -o size=100% full /full")
    size_mib = meminfo(guest)["MemFree"] // 1024 - 80
    assert guest.run(f"dd if=/dev/zero of=/full/f bs=1M count={size_mib}", 300).status == 0
    obstacle = plan_free(look(guest)[0], [32]).obstacle
    assert (obstacle.prediction.errno, obstacle.prediction.function) == ("EINTR", "offline_pages")
    # No attempt: with nothing left, the OOM killer would end the guest's few processes.
    assert guest.run("mkswap /dev/vdb && swapon /dev/vdb").status == 0
    sysroot, before = look(guest)
    assert explain_block(before, 32).verdict in ("no visible blocker", "unknown")
    plan = plan_free(sysroot, [32])
    assert plan.obstacle is None
    assert files.write(STATE.format(32), "offline") is None
    after = meminfo(guest)
    swapped = before.meminfo["SwapFree"] - after["SwapFree"]
    assert plan.work.swapped_bytes > 0
    assert abs(plan.work.swapped_bytes // 1024 - swapped) < TOLERANCE_KIB
    guest.run("rm /full/f; swapoff /dev/vdb; umount /full", 120)
    assert files.write(STATE.format(32), "online_movable") is None


def test_after_an_eject_of_held_pages_is_in_progress_nothing_follows(guest):
    guest.run(
        "mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup;"
        "echo +memory >/sys/fs/cgroup/cgroup.subtree_control; mkdir -p /sys/fs/cgroup/holder"
    )
    hold_pages(guest, "/sys/fs/cgroup/holder")
    sysroot, seen = look(guest, uses=True)
    names = {nr: {b.name for b in explain_block(seen, nr).blockers} for nr in (32, 33)}
    held = [nr for nr, found in names.items() if "held" in found]
    assert len(held) == 1
    name = seen.memory.blocks[32].firmware_node.rsplit("/", 1)[-1]
    plan = plan_remove(sysroot, name)
    assert plan.obstacle.prediction.errno == "EINTR"
    assert any("does not end" in risk.what for risk in plan.risks)
    model = ModelMachine.start(Machine(), seen, pages=False)
    predicted = model.perform(Unplug(id=name))
    assert predicted.outcome.status == "does_not_end"
    blocks = model.observe().memory.blocks
    result = unplug_dimm(guest, "d1", 15.0)
    assert (result.removed, result.ost_status) == (False, OST_EJECT_IN_PROGRESS)
    states = {nr: GuestFiles(guest).read(STATE.format(nr)).strip() for nr in (32, 33)}
    assert states == {nr: blocks[nr].state for nr in (32, 33)}
    assert states[held[0]] == "going-offline"
    # device_hotplug_lock is held: a write of another block waits until it is interrupted.
    assert GuestFiles(guest, 4.0).write(STATE.format(5), "offline") == "EINTR"
    # The eject goes on as soon as the pages are let go.
    guest.run("kill $(cat /tmp/holder.pid)")
    folder = f"/{STATE.format(held[0]).removesuffix('/state')}"
    gone = f"for n in $(seq 300); do test -d {folder} || exit 0; sleep 0.1; done; exit 1"
    assert guest.run(f"sh -c '{gone}'", 60).status == 0
