"""How many planted defects a hunt finds: the sensitivity of `altmap hunt`.

    python benchmarks/bench_hunt.py hunt FOLDER [--minutes 30] [--kind pc] [--release 6.12] [-j N]
    python benchmarks/bench_hunt.py mutants FOLDER...
    python benchmarks/bench_hunt.py reach FOLDER --scenarios 300 [--kind pc] [--release 6.12]

The first command hunts as `altmap hunt` does, and keeps what each real kernel showed. The second
plants one defect after the other in a copy of the model (``hunt_mutants.toml``), predicts those
scenarios of the hunts again that run its lines, and tells after how many scenarios and minutes of
its hunt the first one differs. The real kernels do not run again: what they showed does not hang on
the model. What does is the choice between candidates, made by the model without a defect.

A scenario that differs without any defect counts for none.

The third command takes the model without a defect in place of the real kernel: then *mutants* tells
which defects the drawn scenarios reach at all, and after how many, without a guest.
"""

from __future__ import annotations

import argparse
import ast
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
        if on_model:
            comparison.files.clear()  # what a start from files loses is no finding
        return comparison

    release = options.release or family.releases[0]
    seconds = 60 * options.minutes
    plan = Hunt(family, release, options.seed, seconds, options.scenarios, options.j)
    result = hunt(plan, HuntStore(folder), both, lambda line: print(line, flush=True))
    print(summary_text(result.rows, result.seconds))


@dataclass(frozen=True)
class Kept:
    """A scenario of a hunt, in a file: its number there, and when the hunt had run it."""

    path: Path
    number: int
    minutes: float

    def differs(self) -> bool:
        """Tell whether the model that is imported differs from what the hunt kept."""
        from altmap.verify.both_sides import compare_with_trace

        scenario, trace, _ = pickle.loads(self.path.read_bytes())
        try:
            return not compare_with_trace(scenario, trace).equal
        except Exception:  # a defect may end the prediction
            return True


def kept_in(folders: list[Path]) -> list[Kept]:
    """Return the scenarios of all hunts, those first that ran early in their hunt."""
    found = []
    for folder in folders:
        paths = list((folder / "traces").glob("*.pickle"))
        when = {path: pickle.loads(path.read_bytes())[2] / 60 for path in paths}
        for number, path in enumerate(sorted(paths, key=when.__getitem__), 1):
            found.append(Kept(path, number, when[path]))
    return sorted(found, key=lambda each: each.minutes)


def usual(folders: list[Path], places: dict[str, tuple[str, int, int]]) -> dict[Path, list[str]]:
    """Return the rules whose lines each scenario runs that does not differ without any defect.

    Only those can show a defect there. A line outside of functions runs at the import, for all.
    """
    import altmap.model.machine

    source = str(Path(altmap.model.machine.__file__).parent)
    ran = set[str]()

    def enter(frame, *_):
        name, first = frame.f_code.co_filename, frame.f_code.co_firstlineno
        if not name.startswith(source) or name[len(source) + 1 :] not in modules:
            return None
        last = max(line or 0 for *_, line in frame.f_code.co_lines())
        near = [
            (rule, low, high)
            for rule, (module, low, high) in places.items()
            if name.endswith(module) and low <= last and high >= first
        ]

        def line(frame, *_):
            ran.update(rule for rule, low, high in near if low <= frame.f_lineno <= high)
            return line

        return line(frame) if near else None

    modules = {module for module, *_ in places.values()}
    found = {}
    for each in kept_in(folders):
        ran.clear()
        sys.settrace(enter)
        differs = each.differs()
        sys.settrace(None)
        if not differs:
            found[each.path] = sorted(ran)
    return found


def mutants(folders: list[Path]) -> int:
    """Plant each defect in a copy, and print when the hunt would have found it."""
    listed = tomllib.loads(MUTANTS.read_text(encoding="utf-8"))["mutant"]
    model = ROOT / "src/altmap/model"
    texts = {each["rule"]: (model / each["module"]).read_text("utf-8") for each in listed}
    places = {}
    for each in listed:
        text = texts[each["rule"]]
        if text.count(each["before"]) != 1:
            sys.exit(f"{each['rule']}: {each['before']!r} is not once in {each['module']}")
        line = text[: text.index(each["before"])].count("\n") + 1
        last = line + each["before"].rstrip("\n").count("\n")
        if _in_function(text, line):
            places[each["rule"]] = each["module"], line, last
    by_path, every = usual(folders, places), kept_in(folders)
    print(f"{len(every)} scenarios; {len(every) - len(by_path)} differ without any defect")
    nr_found = 0
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name, "src")
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        for each in listed:
            rule, path = each["rule"], copy / "altmap/model" / each["module"]
            ran = [
                one
                for one in every
                if one.path in by_path and (rule not in places or rule in by_path[one.path])
            ]
            path.write_text(texts[rule].replace(each["before"], each["after"]), "utf-8")
            first = _first_shown(copy, ran)
            path.write_text(texts[rule], "utf-8")
            nr_found += first is not None
            when = f"NOT by the {len(ran)} that reach it"
            if first is not None:
                when = f"scenario {first.number} ({first.minutes:.1f} min)"
            print(f"{when:>32}  {rule}", flush=True)
    print(f"{nr_found} of {len(listed)} found")
    return 0


def _in_function(text: str, line: int) -> bool:
    """Tell whether a line of a module is inside of a function."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return any(
        each.body[0].lineno <= line <= (each.end_lineno or 0)
        for each in ast.walk(ast.parse(text))
        if isinstance(each, functions)
    )


def _first_shown(copy: Path, ran: list[Kept]) -> Kept | None:
    """Return the first scenario that differs from the prediction of a copy of the model."""
    command = [sys.executable, __file__, "first", *(str(each.path) for each in ran)]
    environment = os.environ | {"PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"}
    result = subprocess.run(command, env=environment, capture_output=True, check=False)
    if result.returncode:
        sys.exit(result.stderr.decode())
    answer = result.stdout.decode().strip()
    return ran[int(answer)] if answer else None


def first(paths: list[Path]) -> int | None:
    """Return which of the scenarios differs first; those without any defect do not."""
    return next((n for n, path in enumerate(paths) if Kept(path, 0, 0.0).differs()), None)


def main() -> int:
    parser = argparse.ArgumentParser(description="see the head of this file")
    parser.add_argument("command", choices=("hunt", "reach", "mutants", "first"))
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
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
        found = first(options.folders)
        print("" if found is None else found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
