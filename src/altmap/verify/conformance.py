"""Conformance: many scenarios on real kernels, and a table of how far predictions agree.

Effects: files, processes.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec

from altmap import __version__
from altmap.compare import Comparison, Verdict
from altmap.errors import AltmapError, InputError, LabError
from altmap.lab.side_by_side import check_interrupted, side_by_side
from altmap.lab.target import run_in_guest
from altmap.model.arch import DEFAULT_ARCH
from altmap.scenario import DEFAULT_RELEASE, Plug, Scenario, load_scenario, read_toml
from altmap.storage.lines import LineFile
from altmap.trace.run import scenario_sha256
from altmap.verify.both_sides import compare_with_trace

__all__ = ("ConformanceCase", "ConformanceRow", "conform", "conformance_page", "read_cases")

EQUAL, TOLERATED, DIFFERENT, CANNOT = "equal", "equal within tolerance", "different", "cannot run"


class ConformanceCase(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Scenarios and the kernels that they run on.

    Attributes
    ----------
    scenarios : list of str
        File names without ``.toml``, all in one folder.
    settings : list of list of str
        Keys of ``[machine]`` to set; each scenario runs once for each list.
    releases : list of str
    cannot : str
        Why no lab can run it; empty if one can.
    slow : bool
        Left out of quick runs.
    differs : str
        Why the prediction may differ, with the source.
    """

    scenarios: list[str]
    settings: list[list[str]] = msgspec.field(default_factory=lambda: [[]])
    releases: list[str] = msgspec.field(default_factory=lambda: [DEFAULT_RELEASE])
    cannot: str = ""
    slow: bool = False
    differs: str = ""


class _Cases(msgspec.Struct, forbid_unknown_fields=True):
    case: list[ConformanceCase]


@dataclass(frozen=True, slots=True)
class ConformanceRow:
    """How one scenario compares on one kernel.

    Attributes
    ----------
    scenario, arch, release, drivers : str
    verdict : str
        ``equal``, ``equal within tolerance``, ``different`` or ``cannot run``.
    nr_exact, nr_tolerated : int
        Fields that are equal, and those that are within a stated tolerance.
    why : str
        What differs, or why it cannot run.
    machine : dict
        The real kernel and its machine.
    sha256 : str
        Of the scenario that was run.
    """

    scenario: str
    arch: str
    release: str
    drivers: str
    verdict: str
    nr_exact: int = 0
    nr_tolerated: int = 0
    why: str = ""
    machine: dict[str, Any] = field(default_factory=dict)
    sha256: str = ""


def read_cases(path: Path) -> list[ConformanceCase]:
    """Read a file of cases.

    Raises
    ------
    InputError
        Naming the file, the place in it and the rule.
    """
    try:
        return msgspec.convert(read_toml(path), _Cases).case
    except (InputError, msgspec.ValidationError) as error:
        raise InputError(f"cases {path}: {error}") from error


def conform(
    cases: Iterable[ConformanceCase],
    folder: Path,
    nr_guests: int,
    progress: Callable[[str], None],
    kept: Path | None = None,
) -> list[ConformanceRow]:
    """Run every case and return its rows, in the order of the cases.

    Allocations of a running kernel vary, so that a scenario that differs is run again. Its row is
    *different* if both runs differ, and says so if only the first did.

    Parameters
    ----------
    cases : iterable of ConformanceCase
    folder : Path
        Where the scenarios are.
    nr_guests : int
        Guests that run side by side.
    progress : callable
        Takes a line of text for each row, as rows are finished.
    kept : Path, optional
        A file of finished rows, one JSON object a line. Scenarios whose rows it holds are not run
        again, so that an interrupted run resumes.

    Raises
    ------
    InputError
        If a scenario is missing or wrong, or *kept* cannot be written; nothing runs then.
    """
    jobs = [
        (load_scenario(folder / f"{name}.toml", [*settings, f"release={release}"]), settings, case)
        for case in cases
        for name in case.scenarios
        for settings in case.settings
        for release in case.releases
    ]

    with contextlib.ExitStack() as stack:
        rows = _Kept(None if kept is None else stack.enter_context(_rows_file(kept)))

        def run(job: tuple[Scenario, Sequence[str], ConformanceCase]) -> ConformanceRow:
            row = rows.find(job[0], job[1])
            if row is None:
                row = _row(*job)
                check_interrupted()
                rows.add(row)
            differs = job[2].differs
            if differs and row.verdict in (EQUAL, TOLERATED) and not row.why:
                row = replace(row, why=f"may differ: {differs}")
            progress(f"{row.scenario} {row.arch} {row.release}: {row.verdict} {row.why}".rstrip())
            return row

        with side_by_side(nr_guests) as pool:
            return list(pool.map(run, jobs))


def _rows_file(path: Path) -> LineFile:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return LineFile(path, f"rows {path}: another run is writing to it", flags=os.O_CREAT)
    except OSError as error:
        raise InputError(f"rows {path}: {error.strerror}") from error


class _Kept:
    """The rows of earlier runs; where several are of one scenario, the last.

    Parameters
    ----------
    file : LineFile or None
        ``None`` keeps nothing.
    """

    def __init__(self, file: LineFile | None) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._rows: dict[tuple[str, str], ConformanceRow] = {}
        if file is None:
            return
        for number, line in enumerate(file.lines, start=1):
            try:
                row = msgspec.json.decode(line, type=ConformanceRow)
            except msgspec.DecodeError as error:
                raise InputError(f"rows {file.path}, line {number}: {error}") from error
            self._rows[row.scenario, row.release] = row

    def find(self, scenario: Scenario, settings: Sequence[str]) -> ConformanceRow | None:
        """Return the row of a scenario that has run and has not changed since."""
        row = self._rows.get((_name(scenario, settings), scenario.machine.release or ""))
        if row is None or row.verdict == CANNOT or row.sha256 != scenario_sha256(scenario):
            return None
        return row

    def add(self, row: ConformanceRow) -> None:
        """Write a row at the end of the file."""
        if self._file is not None:
            with self._lock:
                self._file.add(msgspec.json.encode(row))


def _name(scenario: Scenario, settings: Sequence[str]) -> str:
    return " ".join([scenario.name, *settings])


def _row(scenario: Scenario, settings: Sequence[str], case: ConformanceCase) -> ConformanceRow:
    machine = scenario.machine
    drivers: list[str] = sorted({step.driver for step in scenario.steps if isinstance(step, Plug)})
    if machine.platform == "xen":
        drivers.append("balloon")
    row = ConformanceRow(
        _name(scenario, settings),
        machine.arch or DEFAULT_ARCH,
        machine.release or "",
        ", ".join(drivers) or "-",
        CANNOT,
        why=case.cannot,
        sha256=scenario_sha256(scenario),
    )
    if case.cannot:
        return row
    try:
        first = _compared(row, scenario)
        if first.verdict in (EQUAL, TOLERATED):
            return first
        again = _compared(row, scenario)
    except InputError as error:
        return replace(row, why=_line(error))
    if again.verdict == DIFFERENT and case.differs:
        again = replace(again, why=f"{case.differs}: {again.why}")
    if again.verdict == first.verdict:
        return again
    before = f"the first of two runs: {first.verdict}, {first.why}"
    return replace(again, why="; ".join(filter(None, (before, again.why))))


def _line(error: AltmapError) -> str:
    return str(error).splitlines()[0]


def _compared(row: ConformanceRow, scenario: Scenario) -> ConformanceRow:
    try:
        observed, _ = run_in_guest(scenario, lambda _: None)
    except LabError as error:
        return replace(row, why=_line(error))
    comparison = compare_with_trace(scenario, observed)
    differences = [each for file in comparison.files for each in file.differences]
    tolerated = sum(each.within for each in differences)
    verdict = EQUAL if not differences else TOLERATED if comparison.equal else DIFFERENT
    return replace(
        row,
        verdict=verdict,
        nr_exact=sum(file.nr_fields for file in comparison.files) - len(differences),
        nr_tolerated=tolerated,
        why="; ".join(_differences(comparison)),
        machine=observed.machine,
    )


def _differences(comparison: Comparison) -> Iterator[str]:
    for file in comparison.files:
        if file.verdict is Verdict.DIFFERENT:
            fields = [d.field for d in file.differences if not d.within]
            yield f"{file.step} {file.file}: {', '.join(fields)}"


#: Files that a row of the page names; ``--rows`` keeps all.
_MOST_FILES = 3
_WORDS = (EQUAL, TOLERATED, DIFFERENT, CANNOT)
_HEAD = """\
# Conformance

Each scenario on the model and on a real kernel, file by file: altmap {version}, {date}.
`make conformance` generates this page; an interrupted run resumes.

{nr_runs} runs on real kernels: {verdicts}. {nr_cannot} could not be run here. Rows that differ come
first.

*equal within tolerance*: every exact field is equal, and free memory is within a derived tolerance.
[fidelity.md](fidelity.md) lists the fields that are compared.
"""


def _shortened(why: str) -> str:
    """Return what differs by file, of many files the first ones."""
    parts = why.split("; ")
    left = len(parts) - _MOST_FILES
    return why if left < 2 else "; ".join([*parts[:_MOST_FILES], f"and {left} files more"])


def conformance_page(rows: Sequence[ConformanceRow], date: str) -> str:
    """Return the table as a Markdown page."""
    counts = {word: sum(row.verdict == word for row in rows) for word in _WORDS}
    kernels = {
        f"{name} {version}"
        for row in rows
        for name, version in row.machine.get("packages", {}).items()
        if name.startswith(("linux-", "xen-"))
    }
    emulators = {str(row.machine["qemu"]) for row in rows if "qemu" in row.machine}
    verdicts = ", ".join(f"{counts[word]} {word}" for word in _WORDS if word != CANNOT)
    lines = [
        _HEAD.format(
            version=__version__,
            date=date,
            nr_runs=len(rows) - counts[CANNOT],
            verdicts=verdicts,
            nr_cannot=counts[CANNOT],
        ),
        "| scenario | architecture | release | driver | result | exact fields | tolerated | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in sorted(rows, key=lambda row: row.verdict != DIFFERENT):
        cells = (
            *(row.scenario, row.arch, row.release, row.drivers, row.verdict),
            *(row.nr_exact or "", row.nr_tolerated or "", _shortened(row.why).replace("|", "\\|")),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += ["", "## Kernels and emulators", ""]
    lines += [f"- {text}" for text in [*sorted(emulators), *sorted(kernels)]]
    return "\n".join(lines) + "\n"
