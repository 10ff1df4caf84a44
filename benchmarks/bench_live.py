"""A mounted machine beside what its parts cost: FUSE in Python, lsmem on a folder.

    python benchmarks/bench_live.py [--blocks 131072]

Three measurements of one run:

read
    Opening, reading and closing one small file, beside the same on a file system in Python that
    does nothing else. The median of many.
lsmem
    lsmem on a mounted machine of 131072 blocks, beside lsmem on the same files in a folder, and on
    a file system in Python that answers from a dictionary: the least that FUSE in Python takes.
write
    A write to a block's ``state`` on a machine of 64 TiB and the next read of it, and of meminfo.
clients
    With ``--clients SECONDS``: eight clients that read and write at once; none gets a wrong answer.

Processor time is that of the program and of the server together, as others may use the machine.
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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from yardstick import Cost, cost

from altmap.live.machine import LiveMachine
from altmap.live.mounting import mounted
from altmap.scenario import Machine, Online, Plug, Scenario

ROUNDS, LSMEM_ROUNDS = 2000, 2
TARGET_READ_MICROSECONDS, TARGET_LSMEM_RATIO, TARGET_WRITE_MS = 100.0, 1.5, 5.0
MISSING, NR_CLIENTS = 77, 8
MEMORY = "sys/devices/system/memory"
EMPTY = """
import contextlib, errno, stat, sys
import mfusepy
FOLDER = {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2}
FILE = {"st_mode": stat.S_IFREG | 0o644, "st_nlink": 1, "st_size": 4096}
NR_BLOCKS, SIZE = int(sys.argv[2]), sys.argv[3].encode()
NAMES = {"removable": b"1\\n", "state": b"offline\\n", "valid_zones": b"Movable\\n"}
MEMORY = "/sys/devices/system/memory"
NODES = {folder: (FOLDER, []) for folder in ("/", "/sys", "/sys/devices", "/sys/devices/system")}
NODES[MEMORY] = FOLDER, ["block_size_bytes", *(f"memory{block}" for block in range(NR_BLOCKS))]
NODES[MEMORY + "/block_size_bytes"] = FILE, SIZE
for name in NODES[MEMORY][1][1:]:
    NODES[f"{MEMORY}/{name}"] = FOLDER, [*NAMES, "node0"]
    NODES[f"{MEMORY}/{name}/node0"] = FOLDER, []
    NODES |= {f"{MEMORY}/{name}/{file}": (FILE, shown) for file, shown in NAMES.items()}
class Empty:
    use_ns = True
    def init_with_config(self, conn_info, config_3):
        conn_info.want &= ~(3 << 13)
        config_3.direct_io = 1
        config_3.entry_timeout = 3600.0
        config_3.attr_timeout = config_3.negative_timeout = 0.0
        print("ready", flush=True)
    def getattr(self, path, fh=None):
        if path not in NODES:
            raise OSError(errno.ENOENT, "")
        return NODES[path][0]
    def readdir(self, path, fh):
        return [".", "..", *NODES[path][1]]
    def open(self, path, flags):
        return 0
    def read(self, path, size, offset, fh):
        return NODES[path][1][offset:offset + size]
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
def empty_files(nr_blocks: int) -> Iterator[tuple[Path, int]]:
    """Mount the file system in Python that answers from a dictionary; yield its process, too."""
    with tempfile.TemporaryDirectory() as name:
        process = subprocess.Popen(
            [sys.executable, "-c", EMPTY, name, str(nr_blocks), "20000000"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield Path(name), process.pid
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
    with empty_files(1) as (nothing, _), mounted(Scenario(name="small")) as machine:
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
        folder = lsmem(name).seconds
    with empty_files(nr_blocks) as nothing, mounted(scenario) as machine:
        both = nothing, (machine.root, server(machine.root))
        # One after the other: how the host places two processes makes a factor of two.
        _, first = (lsmem_mounted(*each) for each in both)
        rounds = [[lsmem_mounted(*each) for each in both] for _ in range(LSMEM_ROUNDS)]
    least, again = (min(times) for times in zip(*rounds, strict=True))
    print(
        f"lsmem on {nr_blocks} blocks, processor time of both sides: folder {folder:.2f} s, FUSE "
        f"in Python alone {least:.2f} s, mounted {first:.2f} s, again {again:.2f} s: "
        f"{again / folder:.1f} times the folder, {again / least:.1f} times FUSE in Python "
        f"(target {TARGET_LSMEM_RATIO})"
    )
    return again / least <= TARGET_LSMEM_RATIO


def lsmem(root: str) -> Cost:
    """Return what lsmem costs."""
    return cost(["lsmem", "--sysroot", root], 1)


def lsmem_mounted(root: Path, pid: int) -> float:
    """Return the processor time of lsmem and of the server."""
    started = process_seconds(pid)
    return lsmem(str(root)).seconds + process_seconds(pid) - started


def both_seconds(root: Path, call: Callable[[], object], rounds: int) -> float:
    """Return the processor time of one call, in this process and in the server."""
    call()
    started = time.process_time() + server_seconds(root)
    for _ in range(rounds):
        call()
    return (time.process_time() + server_seconds(root) - started) / rounds


def server(root: Path) -> int:
    """Return the number of the server's process, which its socket's name has."""
    socket = (root / "altmap/socket").read_text(encoding="utf-8").strip()
    return int(socket.split("-")[-1].removesuffix(".socket"))


def server_seconds(root: Path) -> float:
    """Return the processor time of the server so far."""
    return process_seconds(server(root))


def process_seconds(pid: int) -> float:
    """Return the processor time of a process so far."""
    fields = Path("/proc", str(pid), "stat").read_text()
    user, system = fields.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


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

        of_state, of_meminfo = (
            both_seconds(machine.root, lambda then=then: change(then), 100) / 2 * 1e3
            for then in (state, meminfo)
        )
    print(
        f"64 TiB: a write and the next read, processor time of both sides: {of_state:.1f} ms of "
        f"state, {of_meminfo:.1f} ms of meminfo (target {TARGET_WRITE_MS:.0f})"
    )
    return max(of_state, of_meminfo) <= TARGET_WRITE_MS


def bench_clients(seconds: float) -> bool:
    """Have eight clients online, offline and read a block each; count wrong and missing answers."""
    scenario = Scenario(
        name="clients",
        machine=Machine(release="6.12", memory="1GiB", auto_online_blocks="offline"),
        steps=[Plug(id="d", size="1GiB")],
    )
    with mounted(scenario) as machine, ThreadPoolExecutor(NR_CLIENTS) as pool:
        folders = [machine.root / MEMORY / f"memory{32 + nr}" for nr in range(NR_CLIENTS)]
        began = server_seconds(machine.root)
        results = list(pool.map(lambda folder: client(folder, seconds), folders))
        used = server_seconds(machine.root) - began
        writes = sum("/state" in line for line in machine.log if line.startswith("write "))
    rounds, wrong = (sum(column) for column in zip(*results, strict=True))
    print(
        f"{NR_CLIENTS} clients for {seconds:.0f} s: {rounds} rounds, {writes} writes in the log, "
        f"{wrong} wrong answers, the least {min(r for r, _ in results)} rounds of a client, server "
        f"{used:.1f} s of processor time"
    )
    return not wrong and min(r for r, _ in results) > 0


def client(folder: Path, seconds: float) -> tuple[int, int]:
    """Return how often a block went online and offline, and how often what was read was wrong."""
    state, zoneinfo = str(folder / "state"), folder.parents[4] / "proc/zoneinfo"
    rounds = wrong = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for word in (b"online_movable", b"offline"):
            write(state, word)
            shown = Path(state).read_bytes()
            wrong += shown != word.partition(b"_")[0] + b"\n"
        text = zoneinfo.read_text()
        wrong += not (text.startswith("Node 0, zone") and text.endswith("\n"))
        rounds += 1
    return rounds, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=131072)
    parser.add_argument("--clients", type=float, metavar="SECONDS", help="eight clients at once")
    args = parser.parse_args()
    if shutil.which("lsmem") is None or shutil.which("fusermount3") is None:
        print("missing: lsmem (util-linux) or fusermount3 (fuse3)", file=sys.stderr)
        return MISSING
    if args.clients is not None:
        return 0 if bench_clients(args.clients) else 1
    met = [bench_read(), bench_write(), bench_lsmem(args.blocks)]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
