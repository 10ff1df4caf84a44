"""How long the command takes to start, and a scenario on the model once it has.

    python benchmarks/bench_start.py [--json]

start
    ``altmap --version`` in a process of its own, from fork to exit.
scenario
    Each file of ``scenarios/``: read, and predicted with every file shown after every step, in this
    process after one run of any. The slowest is what counts.

Targets are for processor time, which other work on the machine hardly changes, and ratios: of the
command to Python's own start, of a scenario to a fixed loop of Python (``yardstick.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from yardstick import loop_seconds

from altmap.model.machine import predict
from altmap.scenario import load_scenario

RUNS = 9
#: Most starts of Python, most loops.
TARGET_START, TARGET_SCENARIO = 8, 0.32
SCENARIOS = sorted((Path(__file__).parents[1] / "scenarios").glob("*.toml"))


def milliseconds(run: Callable[[], object], clock: Callable[[], float]) -> float:
    """Return the least time of a call by a clock, so that other work on the machine adds little."""
    times = []
    for _ in range(RUNS):
        started = clock()
        run()
        times.append(clock() - started)
    return min(times) * 1000


def processor() -> float:
    """Return the processor time of this process and of those it has waited for, in seconds."""
    used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def python() -> None:
    subprocess.run([sys.executable, "-c", "pass"], check=True)


def start() -> None:
    command = [sys.executable, "-m", "altmap", "--version"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def measure() -> dict[str, object]:
    """Measure both."""
    predict(load_scenario(SCENARIOS[0]))  # imports and caches
    scenarios = {
        path.stem: milliseconds(lambda path=path: predict(load_scenario(path)), time.process_time)
        for path in SCENARIOS
    }
    slowest = max(scenarios, key=lambda name: scenarios[name])
    path = next(path for path in SCENARIOS if path.stem == slowest)
    times = {"start": milliseconds(start, processor), "scenario": scenarios[slowest]}
    waited = {
        "start": milliseconds(start, time.perf_counter),
        "scenario": milliseconds(lambda: predict(load_scenario(path)), time.perf_counter),
    }
    units = {"start": milliseconds(python, processor), "scenario": loop_seconds() * 1000}
    limits = {"start": TARGET_START, "scenario": TARGET_SCENARIO}
    return {
        "runs": RUNS,
        "load": os.getloadavg()[0],
        "processor_ms": times,
        "waited_ms": waited,
        "slowest": slowest,
        "median_scenario_ms": statistics.median(scenarios.values()),
        "scenarios_ms": scenarios,
        "python_ms": units["start"],
        "loop_ms": units["scenario"],
        "targets": {
            name: {
                "figure": times[name] / units[name],
                "limit": limit,
                "met": times[name] < limit * units[name],
            }
            for name, limit in limits.items()
        },
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print numbers as JSON")
    args = parser.parse_args()
    result = measure()
    times, waited, targets = result["processor_ms"], result["waited_ms"], result["targets"]
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        print(f"least of {RUNS} runs, processor time (elapsed time); load {result['load']:.1f}")
        print(f"start     {times['start']:.0f} ms ({waited['start']:.0f} ms) for altmap --version")
        which = f"the slowest of {len(SCENARIOS)}, {result['slowest']}"
        middle = f"{result['median_scenario_ms']:.1f} ms for the one in the middle"
        print(f"scenario  {times['scenario']:.1f} ms ({waited['scenario']:.1f} ms) for {which};")
        print(f"          {middle}")
        for name, unit in (("start", "starts of Python"), ("scenario", "loops of Python")):
            target = targets[name]
            print(
                f"{'pass' if target['met'] else 'fail'}      {name}: {target['figure']:.2f} {unit} "
                f"(target {target['limit']})"
            )
    return 0 if all(target["met"] for target in targets.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
