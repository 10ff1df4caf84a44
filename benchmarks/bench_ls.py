"""`altmap ls` against util-linux' lsmem on 131072 memory blocks (16 TiB), in one run.

Exit code 1 if ours takes more than lsmem's time. The tree is made in memory (/dev/shm) if it
can be, so that what is measured is the programs.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

NR_BLOCKS = 131072
ROUNDS = 3
MOST_RATIO = 1.0
#: The table, and everything of every block.
OPTIONS = ("", "-a -J -o +NODE,ZONES")


def make_tree(root: Path) -> None:
    memory = root / "sys/devices/system/memory"
    node = root / "sys/devices/system/node/node0"
    memory.mkdir(parents=True)
    node.mkdir(parents=True)
    (memory / "block_size_bytes").write_text("8000000\n")
    for nr in range(NR_BLOCKS):
        online = nr % 4096 < 4000
        files = {
            "state": "online" if online else "offline",
            "online": "1" if online else "0",
            "phys_index": f"{nr:08x}",
            "phys_device": "0",
            "removable": "1",
            "valid_zones": "Normal" if online else "Normal Movable",
        }
        folder = f"{memory}/memory{nr}"
        os.mkdir(folder)  # noqa: PTH102  # a million names: Path costs more than the files
        for name, text in files.items():
            with open(f"{folder}/{name}", "w") as file:  # noqa: PTH123
                file.write(f"{text}\n")
        os.symlink("../../node/node0", f"{folder}/node0")  # noqa: PTH211
        os.symlink(f"../../memory/memory{nr}", f"{node}/memory{nr}")  # noqa: PTH211


def seconds(command: list[str]) -> float:
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - start)
    return best


def main() -> int:
    lsmem = shutil.which("lsmem")
    if lsmem is None:
        print("lsmem of util-linux is not installed", file=sys.stderr)
        return 77
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as name:
        make_tree(Path(name))
        ratios = [ratio(lsmem, name, options) for options in OPTIONS]
    return 0 if max(ratios) <= MOST_RATIO else 1


def ratio(lsmem: str, root: str, options: str) -> float:
    ends = ["--sysroot", root, *options.split()]
    theirs = seconds([lsmem, *ends])
    ours = seconds([sys.executable, "-m", "altmap", "ls", *ends])
    print(
        f"{NR_BLOCKS} blocks, {options or 'table'}: lsmem {theirs:.2f} s, "
        f"altmap ls {ours:.2f} s, ratio {ours / theirs:.2f}"
    )
    return ours / theirs


if __name__ == "__main__":
    sys.exit(main())
