"""A sweep of a fleet from start to end: time, processor time, and memory of all its processes.

``python benchmarks/bench_sweep.py [SCENARIOS]``; by default all of examples/sweeps/fleet.toml,
100,000. What is promised is judged by processor time, which other work disturbs least, in loops of
Python (``yardstick.py``): 100,000 scenarios on two cores in five minutes are 6 ms each.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import polars as pl
from yardstick import loop_seconds

GRID = Path(__file__).parents[1] / "examples/sweeps/fleet.toml"
PROCESSES = 2
#: Loops of Python that a scenario takes: 6 ms where a loop takes 62 ms.
MOST_LOOPS, MOST_MIB = 0.096, 1024


def family(pid: int) -> list[int]:
    """Return a process and all that it started."""
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += family(int(child))
    return found


def rss_mib(pid: int) -> float:
    total = 0
    for each in family(pid):
        total += int(Path(f"/proc/{each}/statm").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def measure(scenarios: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "altmap", "sweep", str(GRID), "-o", f"{folder}/out",
                   "-j", str(PROCESSES), "--limit", str(scenarios)]  # fmt: skip
        start, peak = time.monotonic(), 0.0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            with contextlib.suppress(OSError):  # one of them has just ended
                peak = max(peak, rss_mib(process.pid))
            time.sleep(0.2)
        assert process.returncode == 0
        seconds = time.monotonic() - start
        parts = list(Path(folder, "out/parts").iterdir())
        rows = pl.read_parquet(parts)
    assert len(rows) == scenarios
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    figures = {
        "loops_each": (used.ru_utime + used.ru_stime) / scenarios / loop_seconds(),
        "peak_mib": peak,
    }
    limits = {"loops_each": MOST_LOOPS, "peak_mib": MOST_MIB}
    return {
        "scenarios": scenarios,
        "load": os.getloadavg()[0],
        "waited_seconds": seconds,
        "processor_seconds": used.ru_utime + used.ru_stime,
        "done_alike": scenarios / rows["digest"].n_unique(),
        **figures,
        "targets": {
            name: {"limit": limit, "share": figures[name] / limit, "met": figures[name] < limit}
            for name, limit in limits.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenarios", nargs="?", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="print numbers as JSON")
    args = parser.parse_args()
    result = measure(args.scenarios)
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        print(
            f"{result['scenarios']} scenarios by {PROCESSES} processes: "
            f"{result['waited_seconds']:.0f} s, {result['processor_seconds']:.0f} s of processors; "
            f"load {result['load']:.1f}"
        )
        print(f"{result['done_alike']:.1f} scenarios are alike in the mean, and done once")
        for name, target in result["targets"].items():
            print(
                f"{'pass' if target['met'] else 'fail'}  {name} {result[name]:.3f}, "
                f"{target['share']:.2f} of the limit {target['limit']}"
            )
    return 0 if all(target["met"] for target in result["targets"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
