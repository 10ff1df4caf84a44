"""A sweep of a fleet from start to end: time, processor time, and memory of all its processes.

``python benchmarks/bench_sweep.py [SCENARIOS]``; by default all of examples/sweeps/fleet.toml,
100,000. What is promised is judged by processor time, which other work disturbs least: 100,000
scenarios on two cores in five minutes are 6 ms each.
"""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

GRID = Path(__file__).parents[1] / "examples/sweeps/fleet.toml"
MOST_MS, MOST_MIB = 6.0, 1024


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


def main() -> int:
    scenarios = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "altmap", "sweep", str(GRID), "-o", f"{folder}/out",
                   "-j", "2", "--limit", str(scenarios)]  # fmt: skip
        start, peak = time.monotonic(), 0.0
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while process.poll() is None:
            with contextlib.suppress(OSError):  # one of them has just ended
                peak = max(peak, rss_mib(process.pid))
            time.sleep(0.2)
        assert process.returncode == 0
        seconds = time.monotonic() - start
        kept = sum(path.stat().st_size for path in Path(folder, "out/parts").iterdir())
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime
    each_ms = 1000 * cpu / scenarios
    print(f"{scenarios} scenarios, 2 processes: {seconds:.0f} s, {cpu:.0f} s of processors")
    print(f"{each_ms:.2f} ms each on one core (at most {MOST_MS})")
    print(f"peak memory of all processes {peak:.0f} MiB (at most {MOST_MIB})")
    print(f"{kept / scenarios:.1f} bytes of Parquet each")
    return 0 if each_ms <= MOST_MS and peak <= MOST_MIB else 1


if __name__ == "__main__":
    sys.exit(main())
