"""A mounted machine beside what its parts cost: FUSE in Python, lsmem on a folder.

    python benchmarks/bench_live.py [--blocks 131072]

Three measurements of one run:

read
    Opening, reading and closing one small file, beside the same on a file system in Python that
    does nothing else. The median of many.
lsmem
    lsmem on a mounted machine of 131072 blocks, beside lsmem on the same files in a folder.
write
    A write to a block's ``state`` on a machine of 64 TiB and the next read of it, and of meminfo.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from altmap.live.machine import LiveMachine
from altmap.live.mounting import mounted
from altmap.scenario import Machine, Online, Plug, Scenario

ROUNDS = 2000
TARGET_READ_MICROSECONDS, TARGET_LSMEM_RATIO, TARGET_WRITE_MS = 100.0, 3.0, 5.0
MISSING = 77
MEMORY = "sys/devices/system/memory"
EMPTY = """
import contextlib, errno, stat, sys
import mfusepy
FOLDERS = {"/", "/sys", "/sys/devices", "/sys/devices/system", "/sys/devices/system/memory",
           "/sys/devices/system/memory/memory0"}
class Empty:
    use_ns = True
    def init_with_config(self, conn_info, config_3):
        config_3.direct_io = 1
        print("ready", flush=True)
    def getattr(self, path, fh=None):
        if path in FOLDERS:
            return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
        if path.endswith("/state"):
            return {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1, "st_size": 4096}
        raise OSError(errno.ENOENT, "")
    def open(self, path, flags):
        return 0
    def read(self, path, size, offset, fh):
        return b"offline\\n"[offset:offset + size]
with contextlib.suppress(RuntimeError):  # how a signal ends it
    mfusepy.FUSE(Empty(), sys.argv[1], foreground=True, nothreads=True, auto_unmount=True)
"""


def large(nr_blocks: int, block_size: str, memmap: str) -> Scenario:
    """Return a machine with so many blocks, of which all but the boot's are added and online."""
    boot = 64 << 30
    size = int(block_size.removesuffix("MiB")) << 20
    added = nr_blocks * size - boot
    return Scenario(
        name="large",
        machine=Machine(
            arch="x86_64-la57",
            release="6.12",
            memory=boot,
            block_size=block_size,
            memmap_on_memory=memmap,
            auto_online_blocks="offline",
        ),
        steps=[
            Plug(id="d", size=added, address=f"{boot + (2 << 30):#x}"),
            Online(id="d", to="online_movable"),
        ],
    )


@contextlib.contextmanager
def empty_files() -> Iterator[Path]:
    """Mount the file system in Python that does nothing."""
    with tempfile.TemporaryDirectory() as name:
        process = subprocess.Popen(
            [sys.executable, "-c", EMPTY, name],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield Path(name)
        finally:
            process.terminate()
            process.wait()


def read(path: str) -> None:
    """Open, read and close a file."""
    file = os.open(path, os.O_RDONLY)
    os.read(file, 4096)
    os.close(file)


def write(path: str, word: bytes) -> None:
    """Open, write and close a file."""
    file = os.open(path, os.O_WRONLY)
    os.write(file, word)
    os.close(file)


def median_seconds(call: Callable[[], object], rounds: int = ROUNDS) -> float:
    """Return the median time of a call."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def bench_read() -> bool:
    """Compare one small read with that of the file system that does nothing."""
    path = f"{MEMORY}/memory0/state"
    with empty_files() as nothing, mounted(Scenario(name="small")) as machine:
        for root in (nothing, machine.root):
            read(str(root / path))
        least = median_seconds(lambda: read(str(nothing / path)))
        ours = median_seconds(lambda: read(str(machine.root / path)))
    beyond = (ours - least) * 1e6
    print(
        f"read of state: {ours * 1e6:.0f} us, {beyond:.0f} us more than FUSE in Python alone "
        f"(target {TARGET_READ_MICROSECONDS:.0f})"
    )
    return beyond <= TARGET_READ_MICROSECONDS


def bench_lsmem(nr_blocks: int) -> bool:
    """Compare lsmem on a mounted machine with lsmem on a folder of its files."""
    scenario = large(nr_blocks, "512MiB", "on")
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        LiveMachine.start(scenario).model.observe().render().write(Path(name))
        folder = lsmem_seconds(name)
    with mounted(scenario) as machine:
        first = lsmem_seconds(str(machine.root))
        again = lsmem_seconds(str(machine.root))
    print(
        f"lsmem on {nr_blocks} blocks: folder {folder:.2f} s, mounted {first:.2f} s, again "
        f"{again:.2f} s, ratio {again / folder:.1f} (target {TARGET_LSMEM_RATIO:.0f})"
    )
    return again / folder <= TARGET_LSMEM_RATIO


def lsmem_seconds(root: str) -> float:
    """Return how long lsmem takes."""
    start = time.perf_counter()
    subprocess.run(["lsmem", "--sysroot", root], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def bench_write() -> bool:
    """Time a write and the next read on a machine of 64 TiB."""
    with mounted(large(32768, "2048MiB", "on")) as machine:
        folder = machine.root / MEMORY
        last = max(int(path.name[6:]) for path in folder.iterdir() if path.name[6:].isdigit())
        state, meminfo = str(folder / f"memory{last}/state"), str(machine.root / "proc/meminfo")

        def change(then: str) -> None:
            write(state, b"offline")
            read(then)
            write(state, b"online_movable")
            read(then)

        of_state = median_seconds(lambda: change(state), 50) / 2 * 1e3
        of_meminfo = median_seconds(lambda: change(meminfo), 50) / 2 * 1e3
    print(
        f"64 TiB: a write and the next read: {of_state:.1f} ms of state, {of_meminfo:.1f} ms of "
        f"meminfo (target {TARGET_WRITE_MS:.0f})"
    )
    return max(of_state, of_meminfo) <= TARGET_WRITE_MS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=131072)
    args = parser.parse_args()
    if shutil.which("lsmem") is None or shutil.which("fusermount3") is None:
        print("missing: lsmem (util-linux) or fusermount3 (fuse3)", file=sys.stderr)
        return MISSING
    met = [bench_read(), bench_write(), bench_lsmem(args.blocks)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
