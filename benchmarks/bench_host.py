"""What each command costs on a busy machine, beside a read of the same bytes, lsmem and Python.

    python benchmarks/bench_host.py [--json] [--sizes 24GiB 1TiB] [--commands ...] [--folder DIR]

The machines (``busy_machine.py``) are in use: every second page is of another kind. Blocks have
128 MiB, and 2 GiB from 64 GiB on; ``SIZE/BLOCK`` asks for others, such as 1TiB/128MiB. The
files of 1 TiB take 6 GiB of the disk, those of 4 TiB 24 GiB, one machine at a time.

Reported are processor time and peak memory of each command, and what its target is measured by:

loop
    A fixed loop of Python (``yardstick.py``), beside the start of Python.
cat
    ``cat`` of the three files with a word for each page frame, beside a snapshot less one of the
    other files alone.
gzip
    ``gzip -6`` of the same bytes, which a compressed snapshot takes besides.
lsmem
    ``lsmem --sysroot``, beside which ``ls`` is measured.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from yardstick import RUNS, Cost, cost, loop_seconds

from altmap.units import format_size, parse_size

GIB, TIB = 1 << 30, 1 << 40
DEFAULT_SIZES = ("24GiB", "1TiB")
COMMANDS = ("lsmem", "ls", "account", "explain", "plan grow", "plan remove", "snapshot")
PAGE_FILES = ("kpageflags", "kpagecount", "kpagecgroup")
#: Most loops of Python that a command takes beside Python's start; most MB.
ACCOUNT_LOOPS, EXPLAIN_LOOPS, SMALL_PLAN_LOOPS, PLAN_LOOPS = 4, 3.2, 32, 320
PLAN_MB, LS_RATIO, SNAPSHOT_RATIO = 500, 1.0, 3.0


def commands(root: Path, size_bytes: int, block_bytes: int) -> dict[str, list[str]]:
    """Return the commands by name."""
    altmap = [sys.executable, "-m", "altmap"]
    inner, more = size_bytes // 2 // block_bytes, format_size(size_bytes + 32 * block_bytes)
    return {
        "ls": [*altmap, "ls", "-s", str(root)],
        "account": [*altmap, "account", str(root)],
        "explain": [*altmap, "explain", f"memory{inner}", str(root)],
        "plan grow": [*altmap, "plan", "grow", more, "--from", str(root)],
        "plan remove": [*altmap, "plan", "remove", "PNP0C80:00", "--from", str(root)],
    }


def measure(text: str, folder: Path, chosen: Sequence[str]) -> dict[str, object]:
    """Make a machine, measure each command on it, and remove it."""
    size_text, _, block_text = text.partition("/")
    size = parse_size(size_text)
    block = parse_size(block_text) if block_text else (2 * GIB if size >= 64 * GIB else 128 << 20)
    root = folder / "machine"
    maker = [sys.executable, str(Path(__file__).with_name("busy_machine.py"))]
    subprocess.run([*maker, str(root), str(size), str(block)], check=True)
    try:
        return {"size": text, "block_bytes": block} | _measured(root, folder, size, block, chosen)
    finally:
        shutil.rmtree(root)


def _measured(
    root: Path, folder: Path, size: int, block: int, chosen: Sequence[str]
) -> dict[str, object]:
    few = 1 if size >= TIB else RUNS
    all_commands = {"lsmem": ["lsmem", "--sysroot", str(root)]} | commands(root, size, block)
    costs = {"python": cost([sys.executable, "-c", "pass"], 5)}
    for name, command in all_commands.items():
        if name in chosen and shutil.which(command[0]):
            costs[name] = told(name, cost(command, few if "plan" in name else RUNS))
    if "snapshot" in chosen:
        costs |= of_snapshots(root, folder)
    loop = loop_seconds()
    return {
        "loop_seconds": loop,
        "costs": {
            name: {"seconds": each.seconds, "peak_mb": each.peak_mb, "code": each.code}
            for name, each in costs.items()
        },
        "targets": targets(costs, loop, size),
    }


def of_snapshots(root: Path, folder: Path) -> dict[str, Cost]:
    """Measure snapshots and what they are measured by.

    What is compared runs in turn, as reading costs more once the kernel has dropped a part of files
    as large as these.
    """
    packed, without = folder / "snapshot.tar", folder / "without"
    snapshot = [sys.executable, "-m", "altmap", "snapshot", "-o"]
    shutil.copytree(root, without, symlinks=True, ignore=shutil.ignore_patterns(*PAGE_FILES))
    in_turn = {
        "cat": ["cat", *(str(root / "proc" / name) for name in PAGE_FILES)],
        "snapshot of the others": [*snapshot, str(packed), str(without)],
        "snapshot": [*snapshot, str(packed), str(root)],
    }
    runs: dict[str, list[Cost]] = {name: [] for name in in_turn}
    for _ in range(RUNS):
        for name, command in in_turn.items():
            packed.unlink(missing_ok=True)
            runs[name].append(cost(command, 1))
    shutil.rmtree(without)
    costs = {
        name: told(name, min(each, key=lambda made: made.seconds)) for name, each in runs.items()
    }
    costs["gzip"] = told("gzip", cost(["gzip", "-6", "-c", str(packed)], 1))
    packed.unlink()
    zipped = Path(f"{packed}.gz")
    costs["snapshot.gz"] = told("snapshot.gz", cost([*snapshot, str(zipped), str(root)], 1))
    zipped.unlink()
    return costs


def told(name: str, made: Cost) -> Cost:
    """Say on standard error what a command cost, as a run may take long."""
    print(f"  {name}: {made.seconds:.2f} s, {made.peak_mb:.0f} MB", file=sys.stderr, flush=True)
    return made


def targets(costs: dict[str, Cost], loop: float, size: int) -> list[dict[str, object]]:
    """Return each target: what is measured, its figure, and the most that it may be."""

    def loops(name: str) -> float:
        return (costs[name].seconds - costs["python"].seconds) / loop

    plan = SMALL_PLAN_LOOPS if size <= 24 * GIB else PLAN_LOOPS
    rows = [
        (f"{name}, loops beside Python's start", loops(name), limit)
        for name, limit in (("account", ACCOUNT_LOOPS), ("explain", EXPLAIN_LOOPS))
        if name in costs
    ]
    for name in ("plan grow", "plan remove"):
        if name in costs:
            rows.append((f"{name}, loops", loops(name), plan))
            rows.append((f"{name}, MB", costs[name].peak_mb, PLAN_MB))
    if "lsmem" in costs and "ls" in costs:
        # Python starts in more time than lsmem takes for few blocks: bench_ls.py has many.
        beside = costs["ls"].seconds - costs["python"].seconds
        rows.append(("ls beside Python's start, of lsmem", beside / costs["lsmem"].seconds, 0.0))
    if "snapshot" in costs:
        cat = costs["cat"].seconds
        pages = costs["snapshot"].seconds - costs["snapshot of the others"].seconds
        rows.append(("snapshot less that of the other files, of cat", pages / cat, SNAPSHOT_RATIO))
        zipped = costs["snapshot.gz"].seconds - costs["gzip"].seconds
        rows.append(("compressed snapshot less gzip, of cat", zipped / cat, SNAPSHOT_RATIO))
    return [
        {"what": what, "figure": figure, "limit": limit, "met": not limit or figure <= limit}
        for what, figure, limit in rows
    ]


def print_text(result: dict) -> None:
    loop = result["loop_seconds"]
    print(
        f"{result['size']}, blocks of {format_size(result['block_bytes'])}; "
        f"a loop takes {loop:.3f} s"
    )
    for name, each in result["costs"].items():
        failed = f"  exit code {each['code']}" if each["code"] not in (0, 2) else ""
        print(f"  {name:12} {each['seconds']:8.2f} s {each['peak_mb']:7.0f} MB{failed}")
    for row in result["targets"]:
        if not row["limit"]:
            print(f"  info  {row['what']}: {row['figure']:.2f}")
            continue
        word = "pass" if row["met"] else "fail"
        print(f"  {word}  {row['what']}: {row['figure']:.2f} (target {row['limit']})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print numbers as JSON")
    parser.add_argument("--sizes", nargs="+", default=DEFAULT_SIZES, metavar="SIZE[/BLOCK]")
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    parser.add_argument("--folder", type=Path, help="where the machines are made")
    args = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        for size in args.sizes:
            results.append(measure(size, Path(folder), args.commands))
            if not args.json:
                print_text(results[-1])
    if args.json:
        print(json.dumps(results, indent=2))
    return 0 if all(row["met"] for each in results for row in each["targets"]) else 1


if __name__ == "__main__":
    raise SystemExit(main())
