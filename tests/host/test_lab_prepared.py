"""Ten prepared guests: explain and plan name the cause before the attempt; the attempt confirms it.

Most are one guest in a state of its own; each case leaves the guest as it found it.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from holder import NR_PAGES, hold_pages

from altmap.errors import LabError
from altmap.host.apply import ApplyResult, apply_plan, resume
from altmap.host.devices import devices_of
from altmap.host.explain import explain_block, worst
from altmap.host.journal import Journal
from altmap.host.planner import plan_free, plan_resize
from altmap.host.planner_add import PlugWish, plan_add
from altmap.lab import Hardware, fetch
from altmap.lab.capture import capture
from altmap.lab.dimm import plug_dimm, unplug_dimm
from altmap.lab.files import GuestFiles
from altmap.lab.insmod import load_module
from altmap.lab.snapshot import booted
from altmap.lab.virtio_mem import MODULES, plug_virtio_mem, resize_virtio_mem
from altmap.linux.observation import Observation

pytestmark = pytest.mark.lab

MIB, GIB = 1 << 20, 1 << 30
BLOCK = 128 * MIB
STATE = "sys/devices/system/memory/memory{}/state"
RELEASE = "6.12"
RULE = 'SUBSYSTEM=="memory", ACTION=="add", ATTR{state}=="offline", ATTR{state}="online_kernel"\n'


@dataclass
class Prepared:
    """A guest in which 32 is Movable, 34 in a kernel zone, 33, 35 and 36 offline."""

    guest: Any
    folder: Any
    said: list[str] = field(default_factory=list)

    def files(self, limit_seconds=3.0):
        return GuestFiles(self.guest, limit_seconds)

    def write(self, nr, word):
        return self.files().write(STATE.format(nr), word)

    def look(self, *, uses=False):
        sysroot = capture(self.guest, uses=uses)
        return sysroot, Observation.read(sysroot)

    def confirm(self, nr, cause, errno, *, uses=False, certainty="certain"):
        """Prove that both name the cause, and that the kernel then gives that errno."""
        sysroot, seen = self.look(uses=uses)
        found = explain_block(seen, nr)
        names = {blocker.name: blocker for blocker in found.blockers}
        assert cause in (*names, found.verdict), found
        if cause in names:
            assert names[cause].certainty == certainty
            assert worst(found.blockers).errno == errno
        obstacle = plan_free(sysroot, [nr]).obstacle
        assert obstacle is not None
        assert obstacle.prediction.errno == errno
        self.guest.run("dmesg -c")
        assert self.write(nr, "offline") == errno
        return found


def mixed_zones(on):
    on.confirm(0, "zones", "EINVAL")


def hole(on):
    on.confirm(7, "hole", "EINVAL")


def unmovable_page(on):
    mount = "mountpoint -q /sys/kernel/tracing || mount -t tracefs t /sys/kernel/tracing"
    ring = "/sys/kernel/tracing/per_cpu/cpu0/buffer_size_kb"
    on.guest.run(f"{mount}; echo 8192 >{ring}", 60)
    found = on.confirm(34, "kernel", "EBUSY")
    # The kernel dumps the page that it met; it is one of those that were named.
    log = on.guest.run("dmesg").text
    assert "unmovable page" in log
    pfn = int(log.split("pfn:")[1].split()[0], 16)
    pages = found.blockers
    assert min(each.first_pfn for each in pages) <= pfn < 35 * BLOCK // 4096
    on.guest.run(f"echo 8 >{ring}")


def memmap_of_another_block(on):
    plug_dimm(on.guest, "d2", 512 * MIB)
    found = on.confirm(34, "kernel", "EBUSY")
    kernel = {blocker.name: blocker for blocker in found.blockers}["kernel"]
    assert kernel.nr_pages >= 4 * 512  # four blocks' memmap
    assert unplug_dimm(on.guest, "d2").removed


def huge_pages(on):
    on.guest.run("echo 40 >/proc/sys/vm/nr_hugepages")
    sysroot, seen = on.look()
    found = explain_block(seen, 32)
    assert "hugetlb" in {blocker.name for blocker in found.blockers}
    assert found.verdict == "unknown"
    assert plan_free(sysroot, [32]).steps[0].certainty == "unknown"
    # Nobody uses them, so the kernel can dissolve them: they are no obstacle, and the pool shrinks.
    before = seen.meminfo["HugePages_Total"]
    assert on.write(32, "offline") is None
    _, after = on.look()
    assert after.meminfo["HugePages_Total"] < before
    on.guest.run("echo 0 >/proc/sys/vm/nr_hugepages")
    assert on.write(32, "online_movable") is None


def pinned_pages(on):
    on.guest.run(
        "mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup;"
        "echo +memory >/sys/fs/cgroup/cgroup.subtree_control; mkdir -p /sys/fs/cgroup/holder"
    )
    inode = on.guest.run("stat -c %i /sys/fs/cgroup/holder").text.strip()
    hold_pages(on.guest, "/sys/fs/cgroup/holder")
    found = on.confirm(32, "held", "EINTR", uses=True, certainty="unknown")
    (held,) = [blocker for blocker in found.blockers if blocker.name == "held"]
    assert held.nr_pages == NR_PAGES
    assert [(each.cgroup, each.nr_pages) for each in held.owners] == [(f"inode {inode}", NR_PAGES)]
    on.guest.run("kill $(cat /tmp/holder.pid)")
    assert on.write(32, "offline") is None
    assert on.write(32, "online_movable") is None


def competing_onliner(on):
    sysroot, _ = on.look()
    path = "usr/lib/udev/rules.d/40-redhat.rules"
    sysroot.files[path] = RULE.encode()
    plan = plan_add(sysroot, PlugWish(BLOCK, to="online_movable"))
    named = [risk for risk in plan.risks if path in risk.what]
    assert [risk.certainty for risk in named] == ["likely"]
    assert "the first to write decides the zone" in named[0].what
    (part,) = plan.steps[0].prediction.blocks
    state = f"/{STATE.format(part.first)}"
    # What udev would do: write as soon as the block appears.
    racing = f"until test -e {state}; do :; done; echo online_kernel >{state}"
    on.guest.run(f"sh -c '{racing}' >/dev/null 2>&1 &")
    with Journal(on.folder / "j", new=True) as journal:
        assert apply_plan(plan, on.files(), journal, on.said.append) is ApplyResult.WAITS
    plug_dimm(on.guest, "d3", BLOCK)
    on.guest.run(f"until grep -q online {state}; do :; done")
    with Journal(on.folder / "j", new=False) as journal:
        assert resume(plan, on.files(), journal, on.said.append) is ApplyResult.ROLLED_BACK
    assert any(line.endswith(f"memory{part.first} is online, not offline") for line in on.said)
    assert on.files().read(STATE.format(part.first)) == "online\n"  # not ours to take back


def full_machine(on):
    # Pages of a node's block move to other nodes; the other one is full.
    for node, least_kib in ((1, 24 << 10), (0, 0)):
        size_kib = 100 << 10
        if node:
            text = on.guest.run(f"cat /sys/devices/system/node/node{node}/meminfo").text
            size_kib = int(text.split("MemFree:")[1].split()[0]) - least_kib
        mount = f"mount -t tmpfs -o size=100%,mpol=bind:{node} full /full{node}"
        fill = f"dd if=/dev/zero of=/full{node}/f bs=1k count={size_kib}"
        assert on.guest.run(f"mkdir /full{node} && {mount} && {fill}", 60).status == 0
    found = on.confirm(32, "no room", "EINTR")
    assert found.moving_nr_pages >= 25_600
    on.guest.run("umount /full1")
    assert on.write(32, "offline") is None


def no_memory_for_the_memmap(on):
    sysroot, _ = on.look()
    plan = plan_add(sysroot, PlugWish(32 * GIB, to="online_kernel"))
    (risk,) = [risk for risk in plan.risks if "does not fit" in risk.what][:1]
    first = plan.steps[0].prediction.blocks
    size = sum(part.last - part.first + 1 for part in first) * BLOCK
    assert (risk.certainty, size > 0) == ("certain", True)
    added = plug_dimm(on.guest, "d1", size)
    assert on.files().read(STATE.format(added.address // BLOCK)) == "offline\n"
    # The whole takes every page that there is: the kernel says so, or stops for lack of memory.
    try:
        plug_dimm(on.guest, "d2", 32 * GIB)
        said = on.guest.run("dmesg").text
    except LabError as error:
        said = str(error)
    assert re.search("page allocation failure|deadlocked on memory|Out of memory", said)


def virtio_mem_that_refuses(on):
    for name in MODULES:
        load_module(on.guest, name)
    on.guest.run("echo online >/sys/devices/system/memory/auto_online_blocks")
    plug_virtio_mem(on.guest, "vm0", GIB, 256 * MIB)
    sysroot, seen = on.look()
    (device,) = [one for one in devices_of(seen) if one.driver == "virtio_mem"]
    plan = plan_resize(sysroot, device.name, 0)
    (step,) = plan.steps
    assert plan.obstacle is step
    assert step.prediction.errno == "EBUSY"
    assert "plugged" in step.prediction.why
    after = resize_virtio_mem(on.guest, "vm0", 0)
    assert after.plugged_bytes > 0
    _, now = on.look()
    assert [b for b in device.blocks if b in now.memory.blocks]


ONE_GUEST = (
    mixed_zones,
    hole,
    unmovable_page,
    memmap_of_another_block,
    huge_pages,
    pinned_pages,
    competing_onliner,
)
OFFLINE = "memhp_default_state=offline"


@pytest.fixture(scope="module")
def one_guest():
    with booted(fetch(RELEASE), Hardware(), OFFLINE) as guest:
        plug_dimm(guest, "d1", 640 * MIB)
        for nr, word in ((34, "online_kernel"), (32, "online_movable")):
            assert GuestFiles(guest).write(STATE.format(nr), word) is None
        yield guest


@pytest.mark.parametrize("cause", ONE_GUEST, ids=lambda cause: cause.__name__)
def test_the_cause_is_named_before_the_attempt_which_confirms_it(one_guest, tmp_path, cause):
    cause(Prepared(one_guest, tmp_path))


def test_a_full_machine_is_named_before_the_attempt_which_confirms_it(tmp_path):
    hardware = Hardware(memory_bytes=768 * MIB, node_bytes=(512 * MIB, 256 * MIB))
    with booted(fetch(RELEASE), hardware, OFFLINE) as guest:
        plug_dimm(guest, "d1", BLOCK)
        on = Prepared(guest, tmp_path)
        assert on.write(32, "online_movable") is None
        full_machine(on)


def test_a_memmap_that_does_not_fit_is_named_before_the_attempt_which_confirms_it(tmp_path):
    hardware = Hardware(memory_bytes=256 * MIB, maxmem_bytes=64 * GIB)
    with booted(fetch(RELEASE), hardware, OFFLINE) as guest:
        no_memory_for_the_memmap(Prepared(guest, tmp_path))


def test_a_virtio_mem_that_refuses_is_named_before_the_attempt_which_confirms_it(tmp_path):
    kernel = replace(fetch(RELEASE), modules=MODULES)
    with booted(kernel, Hardware(), OFFLINE) as guest:
        virtio_mem_that_refuses(Prepared(guest, tmp_path))


def test_pages_on_per_cpu_lists_are_in_nobody_s_way(tmp_path):
    # No CPU is on node 1, so that its kernel zone holds what was freed there and nothing else.
    hardware = Hardware(memory_bytes=768 * MIB, node_bytes=(512 * MIB, 256 * MIB))
    with booted(fetch(RELEASE), hardware, OFFLINE) as guest:
        plug_dimm(guest, "d1", BLOCK, node=1)
        on = Prepared(guest, tmp_path)
        assert on.write(32, "online_kernel") is None
        mount = "mkdir /t && mount -t tmpfs -o size=100%,mpol=bind:1 t /t"
        assert not guest.run(
            f"{mount} && dd if=/dev/zero of=/t/f bs=1k count=20000 && rm /t/f"
        ).status
        sysroot, seen = on.look()
        found = explain_block(seen, 32)
        assert (found.blockers, found.verdict) == ([], "no visible blocker")
        waiting = [note for note in found.notes if "free on per-CPU lists" in note]
        assert int(waiting[0].split()[0]) > 100
        (step,) = plan_free(sysroot, [32]).steps
        assert (step.prediction.status, step.certainty) == ("ok", "likely")
        assert on.write(32, "offline") is None
