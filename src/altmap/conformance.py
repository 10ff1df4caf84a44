"""Conformance: many scenarios on real kernels, one table of how far the model agrees."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from altmap.compare import Comparison, Verdict
from altmap.errors import AltmapError, InputError
from altmap.lab.target import run_in_guest
from altmap.release import DEFAULT_RELEASE
from altmap.scenario import Plug, Scenario, load_scenario
from altmap.verify import compare_with_trace

__all__ = ("Case", "Row", "conform", "conformance_page", "read_cases")

EQUAL, TOLERATED, DIFFERENT, CANNOT = "equal", "equal within tolerance", "different", "cannot run"


class Case(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Scenarios and the kernels that they run on.

    Attributes
    ----------
    scenarios : list of str
        File names without ``.toml``, beside each other in one folder.
    settings : list of list of str
        Keys of ``[machine]`` that are set, once for each list.
    releases : list of str
    cannot : str
        Why no real kernel here can be asked.
    slow : bool
        Left out of quick runs.
    """

    scenarios: list[str]
    settings: list[list[str]] = msgspec.field(default_factory=lambda: [[]])
    releases: list[str] = msgspec.field(default_factory=lambda: [DEFAULT_RELEASE])
    cannot: str = ""
    slow: bool = False


class _Cases(msgspec.Struct, forbid_unknown_fields=True):
    case: list[Case]


@dataclass(frozen=True, slots=True)
class Row:
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


def read_cases(path: Path) -> list[Case]:
    """Read a file of cases.

    Raises
    ------
    InputError
        Naming the file, the place in it and the rule.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        return msgspec.convert(data, _Cases).case
    except OSError as error:
        raise InputError(f"cases {path}: {error.strerror}") from error
    except (ValueError, msgspec.ValidationError) as error:
        raise InputError(f"cases {path}: {error}") from error


def conform(
    cases: Iterable[Case],
    folder: Path,
    nr_guests: int,
    progress: Callable[[str], None],
) -> list[Row]:
    """Run every case and return its rows, in the order of the cases.

    Parameters
    ----------
    cases : iterable of Case
    folder : Path
        Where the scenarios are.
    nr_guests : int
        Guests that run side by side.
    progress : callable
        Told each row when it is there.

    Raises
    ------
    InputError
        If a scenario is missing or wrong; nothing runs then.
    """
    jobs = [
        (load_scenario(folder / f"{name}.toml", [*settings, f"release={release}"]), settings, case)
        for case in cases
        for name in case.scenarios
        for settings in case.settings
        for release in case.releases
    ]

    def run(job: tuple[Scenario, Sequence[str], Case]) -> Row:
        row = _row(*job)
        progress(f"{row.scenario} {row.arch} {row.release}: {row.verdict} {row.why}".rstrip())
        return row

    with ThreadPoolExecutor(nr_guests) as pool:
        return list(pool.map(run, jobs))


def _row(scenario: Scenario, settings: Sequence[str], case: Case) -> Row:
    machine = scenario.machine
    drivers = sorted({step.driver for step in scenario.steps if isinstance(step, Plug)})
    name = " ".join([scenario.name, *settings])
    about = name, machine.arch or "x86_64", machine.release or "", ", ".join(drivers) or "-"
    if case.cannot:
        return Row(*about, CANNOT, why=case.cannot)
    try:
        observed, _ = run_in_guest(scenario, lambda _: None)
        comparison = compare_with_trace(scenario, observed)
    except AltmapError as error:
        return Row(*about, CANNOT, why=str(error).splitlines()[0])
    tolerated = sum(len(file.differences) for file in comparison.files)
    differing = list(_differences(comparison))
    exact = sum(file.nr_fields for file in comparison.files) - tolerated
    verdict = DIFFERENT if differing else TOLERATED if tolerated else EQUAL
    nr_tolerated = tolerated - len(differing)
    return Row(*about, verdict, exact, nr_tolerated, "; ".join(differing), observed.machine)


def _differences(comparison: Comparison) -> Iterator[str]:
    for file in comparison.files:
        if file.verdict is Verdict.DIFFERENT:
            fields = [d.field for d in file.differences if not d.within]
            yield f"{file.step} {file.file}: {', '.join(fields)}"


_WORDS = (EQUAL, TOLERATED, DIFFERENT, CANNOT)
_HEAD = """\
# Conformance

Each scenario on the model and on a real kernel, file by file. Made by `make conformance`; this run
is of {date}.

{nr_runs} runs on real kernels: {asked}. {nr_cannot} could not be asked here.

*equal within tolerance*: every exact field is equal, and free memory, which moves by itself, is
within a derived tolerance. [architecture.md](architecture.md) lists what is compared.
"""


def conformance_page(rows: Sequence[Row], date: str) -> str:
    """Return the table as a Markdown page."""
    counts = {word: sum(row.verdict == word for row in rows) for word in _WORDS}
    kernels = {
        f"{name} {version}"
        for row in rows
        for name, version in row.machine.get("packages", {}).items()
        if name.startswith(("linux-", "xen-"))
    }
    emulators = {str(row.machine["qemu"]) for row in rows if "qemu" in row.machine}
    asked = ", ".join(f"{counts[word]} {word}" for word in _WORDS if word != CANNOT)
    lines = [
        _HEAD.format(
            date=date, nr_runs=len(rows) - counts[CANNOT], asked=asked, nr_cannot=counts[CANNOT]
        ),
        *(f"- {text}" for text in [*sorted(emulators), *sorted(kernels)]),
        "",
        "| scenario | architecture | release | driver | result | exact fields | tolerated | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = (
            *(row.scenario, row.arch, row.release, row.drivers, row.verdict),
            *(row.nr_exact or "", row.nr_tolerated or "", row.why.replace("|", "\\|")),
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"
