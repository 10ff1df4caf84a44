"""`altmap ls` against util-linux' lsmem on 131072 memory blocks (16 TiB), in one run.

Exit code 1 if ours takes more than lsmem's processor time. The tree is made in memory (/dev/shm)
if it can be, so that what is measured is the programs.
"""

import os
import shutil
import sys
import tempfile
from pathlib import Path

from yardstick import cost

NR_BLOCKS = 131072
MOST_RATIO = 1.0
#: The table, and everything of every block.
OPTIONS = ("", "-o +NODE,ZONES", "-a -J -o +NODE,ZONES")


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


def without_devices(root: str) -> list[str]:
    """Return what runs a command with *root* on a mount without devices, as /sys is, if it can.

    Elsewhere a file is looked at before it is opened: opening a device may act.
    """
    if os.statvfs(root).f_flag & os.ST_NODEV or os.geteuid():
        return []
    remount = 'mount --bind "$0" "$0" && mount -o remount,bind,nodev "$0" && exec "$@"'
    return ["unshare", "--mount", "--", "sh", "-c", remount, root]


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
    ends, prefix = ["--sysroot", root, *options.split()], without_devices(root)
    theirs = cost([*prefix, lsmem, *ends]).seconds
    ours = cost([*prefix, sys.executable, "-m", "altmap", "ls", *ends]).seconds
    print(
        f"{NR_BLOCKS} blocks, {options or 'table'}: lsmem {theirs:.2f} s of processor time, "
        f"altmap ls {ours:.2f} s, ratio {ours / theirs:.2f} (target {MOST_RATIO})",
        flush=True,
    )
    return ours / theirs


if __name__ == "__main__":
    sys.exit(main())
