import random
import re
import shutil
import subprocess

import pytest

from altmap.lab import Hardware, capture
from altmap.lab.capture import page_runs
from altmap.lab.snapshot import booted


def runs_by_a_loop(flags):
    runs = []
    for pfn, value in enumerate(flags):
        if runs and runs[-1][2] == value:
            runs[-1][1] += 1
        else:
            runs.append([pfn, 1, value])
    return [f"{start:#x} {nr_pages} {value:#x}" for start, nr_pages, value in runs]


@pytest.mark.parametrize("width", [8, 64])
@pytest.mark.parametrize(
    "flags",
    [
        [7],
        [0] * 5,
        [1, 2, 3],
        [5] * 4000 + [1 << 63],
        [],
        [9] + [8] * 7 + [9, *[8] * 7] * 40 + [8, 8],
        [(1 << 64) - 1, 0x0A0D2A00, 0x2A0A2A0A2A0A2A0A] * 30 + [0] * 17,
    ],
)
def test_page_runs_agree_with_a_loop_over_pages(flags, width, tmp_path):
    assert list(page_runs(od(flags, tmp_path, width))) == runs_by_a_loop(flags)


def test_page_runs_agree_with_a_loop_over_random_pages(tmp_path):
    randomness = random.Random(1)
    flags = [randomness.choice([0, 0x80, 1 << 20]) for _ in range(3000)]
    flags += [randomness.getrandbits(64) for _ in range(99)]
    flags += [value for value in flags[:200] for _ in range(randomness.randrange(40))]
    assert list(page_runs(od(flags, tmp_path))) == runs_by_a_loop(flags)


def od(flags, tmp_path, width=64):
    path = tmp_path / "kpageflags"
    path.write_bytes(b"".join(value.to_bytes(8, "little") for value in flags))
    command = [shutil.which("od"), "-A", "x", "-t", "x8", f"-w{width}", str(path)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


@pytest.mark.lab
def test_captured_files_are_what_the_guest_shows(guest):
    sysroot = capture(guest)
    for path in ("proc/version", "proc/cmdline", "proc/iomem", "sys/devices/system/node/possible"):
        assert sysroot.files[path] == guest.run(f"cat /{path}").output
    blocks = guest.run("ls -d /sys/devices/system/memory/memory[0-9]*").text.split()
    for block in blocks:
        for name in ("state", "online", "phys_index", "phys_device", "removable", "valid_zones"):
            path = f"{block[1:]}/{name}"
            assert sysroot.files[path] == guest.run(f"cat /{path}").output
        assert sysroot.links[f"{block[1:]}/node0"] == "../../node/node0"
    assert {"proc/zoneinfo", "proc/buddyinfo", "proc/pagetypeinfo", "proc/vmstat"} <= set(
        sysroot.files
    )
    assert sum(path.startswith("sys/firmware/memmap/") for path in sysroot.files) % 3 == 0


@pytest.mark.lab
def test_captured_page_flags_cover_the_file_without_gap(guest):
    nr_bytes = int(guest.run("wc -c </proc/kpageflags").text)
    end = 0
    for line in capture(guest).files["proc/kpageflags.runs"].decode().splitlines()[1:]:
        start_pfn, nr_pages, _flags = line.split()
        assert int(start_pfn, 16) == end
        end += int(nr_pages)
    assert end == nr_bytes // 8


@pytest.mark.lab
def test_idle_captures_hardly_differ_in_free_memory(guest):
    capture(guest)  # the first one fills caches
    free = [
        int(re.search(rb"MemFree: +(\d+)", capture(guest).files["proc/meminfo"])[1])
        for _ in range(3)
    ]
    # 64 kB: one batch of pages on a CPU's free list.
    assert max(free) - min(free) <= 256


@pytest.mark.lab
def test_capture_of_a_numa_guest_has_every_node(kernel):
    hardware = Hardware(machine="q35", memory_bytes=1 << 30, node_bytes=(512 << 20, 512 << 20))
    with booted(kernel, hardware, "") as guest:
        files = capture(guest).files
    assert files["sys/devices/system/node/has_memory"] == b"0-1\n"
    assert "sys/devices/system/node/node1/meminfo" in files
