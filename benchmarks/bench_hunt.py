"""How many planted defects a hunt finds: the sensitivity of `altmap hunt`.

    python benchmarks/bench_hunt.py hunt FOLDER [--minutes 30] [--kind pc] [--release 6.12] [-j N]
    python benchmarks/bench_hunt.py mutants FOLDER...
    python benchmarks/bench_hunt.py reach FOLDER --scenarios 300 [--kind pc] [--release 6.12]

The first command hunts as `altmap hunt` does, and keeps what each real kernel showed. The second
plants one defect after the other in a copy of the model (``hunt_mutants.toml``), predicts every
scenario of the hunt again, and tells after how many scenarios and seconds of the hunt the first
one differs. The real kernels do not run again: what they showed does not hang on the model. What
does is the choice between candidates, which was made by the model without a defect.

A scenario that differs without any defect counts for none.

The third command takes the model without a defect in place of the real kernel: then *mutants* tells
which defects the drawn scenarios reach at all, and after how many, without a guest.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
MUTANTS = Path(__file__).with_name("hunt_mutants.toml")


def record(folder: Path, options: argparse.Namespace) -> None:
    """Hunt, and keep each scenario with the real kernel's trace and when it ran."""
    from altmap.model.machine import predict
    from altmap.verify.both_sides import compare_with_lab, compare_with_trace
    from altmap.verify.hunt.hunter import Hunt, hunt
    from altmap.verify.hunt.space import family_of
    from altmap.verify.hunt.store import HuntStore
    from altmap.verify.hunt.text import summary_text

    family = family_of(options.kind)
    on_model = options.command == "reach"
    traces = folder / "traces"
    traces.mkdir(parents=True, exist_ok=True)
    began, kept = time.monotonic(), set[str]()

    def both(scenario):
        if on_model:
            comparison = compare_with_trace(scenario, predict(scenario))
        else:
            comparison = compare_with_lab(scenario, None, lambda _: None)
        if scenario.name not in kept:  # neither its repetitions nor what is made smaller
            kept.add(scenario.name)
            row = scenario, comparison.traces[1], time.monotonic() - began
            (traces / f"{scenario.name}.pickle").write_bytes(pickle.dumps(row))
        return comparison

    release = options.release or family.releases[0]
    seconds = 60 * options.minutes
    plan = Hunt(family, release, options.seed, seconds, options.scenarios, options.j)
    result = hunt(plan, HuntStore(folder), both, lambda line: print(line, flush=True))
    print(summary_text(result.rows, result.seconds))


@dataclass(frozen=True)
class Shown:
    """A scenario that differs: its number in the hunt, and when the hunt had run it."""

    name: str
    number: int
    minutes: float


def differing(folders: list[Path]) -> list[Shown]:
    """Return the scenarios on which the model that is imported differs, in each hunt's order."""
    from altmap.verify.both_sides import compare_with_trace

    found = []
    for folder in folders:
        rows = [pickle.loads(path.read_bytes()) for path in (folder / "traces").iterdir()]
        rows.sort(key=lambda row: row[2])
        for number, (scenario, trace, seconds) in enumerate(rows, 1):
            try:
                equal = compare_with_trace(scenario, trace).equal
            except Exception:  # a defect may end the prediction
                equal = False
            if not equal:
                found.append(Shown(scenario.name, number, seconds / 60))
    return sorted(found, key=lambda each: each.number)


def mutants(folders: list[Path]) -> int:
    """Plant each defect in a copy, and print when the hunt would have found it."""
    listed = tomllib.loads(MUTANTS.read_text(encoding="utf-8"))["mutant"]
    nr_scenarios = sum(len(list((folder / "traces").iterdir())) for folder in folders)
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name, "src")
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        usual = {each.name for each in _asked(copy, folders)}
        print(f"{nr_scenarios} scenarios; {len(usual)} differ without any defect")
        nr_found = 0
        for each in listed:
            path = copy / "altmap/model" / each["module"]
            original = path.read_text(encoding="utf-8")
            if original.count(each["before"]) != 1:
                sys.exit(f"{each['rule']}: {each['before']!r} is not once in {each['module']}")
            path.write_text(original.replace(each["before"], each["after"]), encoding="utf-8")
            shown = [one for one in _asked(copy, folders) if one.name not in usual]
            path.write_text(original, encoding="utf-8")
            nr_found += bool(shown)
            when = "NOT"
            if shown:
                first = shown[0]
                when = f"{len(shown):3} scenarios, first {first.number} ({first.minutes:.1f} min)"
            print(f"{when:>36}  {each['rule']}", flush=True)
    print(f"{nr_found} of {len(listed)} found")
    return 0


def _asked(copy: Path, folders: list[Path]) -> list[Shown]:
    command = [sys.executable, __file__, "differing", *map(str, folders)]
    environment = os.environ | {"PYTHONPATH": str(copy)}
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    if result.returncode:
        sys.exit(result.stderr.decode())
    return [Shown(**row) for row in json.loads(result.stdout)]


def main() -> int:
    parser = argparse.ArgumentParser(description="see the head of this file")
    parser.add_argument("command", choices=("hunt", "reach", "mutants", "differing"))
    parser.add_argument("folders", type=Path, nargs="+", metavar="FOLDER")
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--scenarios", type=int)
    parser.add_argument("--kind", default="pc")
    parser.add_argument("--release")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("-j", type=int, default=1)
    options = parser.parse_args()
    if options.command in ("hunt", "reach"):
        record(options.folders[0], options)
    elif options.command == "mutants":
        return mutants(options.folders)
    else:
        print(json.dumps([vars(each) for each in differing(options.folders)]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
