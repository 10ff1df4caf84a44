"""What of the claims a real kernel can show: the same measure on a guest and on its prediction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from altmap.studies.claims.claim import Experiment, Load, Measure, Value, scenario_of
from altmap.studies.claims.measure import (
    block_kib,
    counter_at,
    fault_at,
    gained_kb,
    hosted_shown,
    kept_back_pages,
    missing_kb,
    most_hosted_in_a_block,
    offline_shown,
    touched_pages,
    used_kb_at,
    written_hosted,
)
from altmap.trace import Trace
from altmap.verify.both_sides import run_on_both

__all__ = (
    "REAL",
    "Agreement",
    "RealCase",
    "agreements",
    "agreements_builtins",
    "agreements_text",
    "cases_of",
)

#: What processes of a guest come and go by, and slab for each of eight blocks, as in comparisons.
_FREE_KB = (512 + 8 * 16) * 4


@dataclass(frozen=True, slots=True)
class RealCase:
    """One number of a claim that a guest shows.

    Attributes
    ----------
    claim : str
        Its id.
    label : str
    experiment : Experiment
        Under a policy that its kernel can follow.
    measure : Measure
        Reads it off either trace.
    unit : str
    tolerance : int
        How far the two may be apart; 0 where the number is exact.
    slow : bool
        Left out unless asked for: minutes, and much memory of the host.
    """

    claim: str
    label: str
    experiment: Experiment
    measure: Measure
    unit: str
    tolerance: int = 0
    slow: bool = False

    @property
    def needs_design(self) -> bool:
        """Whether its kernel is one that carries the design of 2018."""
        return _DESIGN in self.experiment.settings


@dataclass(frozen=True, slots=True)
class Agreement:
    """The result of a case on the real kernel and on the model."""

    case: RealCase
    observed: Value
    predicted: Value

    @property
    def agrees(self) -> bool:
        """Whether the two are equal, or within the tolerance."""
        if isinstance(self.observed, int) and isinstance(self.predicted, int):
            return abs(self.observed - self.predicted) <= self.case.tolerance
        return self.observed == self.predicted


def agreements(
    cases: Sequence[RealCase], load: Load, release: str | None, progress: Callable[[str], None]
) -> list[Agreement]:
    """Measure cases of claims on a real kernel, and on the model that starts where it had booted.

    Each experiment is run once on either.
    """
    traces: dict[Experiment, tuple[Trace, Trace]] = {}
    for case in cases:
        if case.experiment not in traces:
            scenario = scenario_of(case.experiment, load)
            if not case.needs_design:
                scenario = scenario.with_machine(release=release)
            touched = scenario.machine.arch is None
            traces[case.experiment] = run_on_both(scenario, progress, touched=touched)
    return [
        Agreement(case, *(case.measure([trace]) for trace in traces[case.experiment]))
        for case in cases
    ]


def _gib(mode: str) -> Experiment:
    return Experiment("real-round-trip", (f"memmap_on_memory={mode}",))


#: The kernel that carries the design of 2018, and the design in force on it.
_DESIGN = "release=6.12+rfc-2018"
_RFC = (_DESIGN, "policy=rfc-2018")
#: What a driver that does not set MHP_MEMMAP_ON_MEMORY gets from every kernel, asked or not.
_STOCK = ("policy=opt-in",)


def _hyperv(name: str, settings: tuple[str, ...], size: str = "") -> Experiment:
    return Experiment(f"hyperv-{name}", settings, (f"size={size}",) if size else ())


def _section(size: str = "128MiB") -> Experiment:
    return Experiment("dimm-one-section", _RFC, (f"size={size}",))


def _arch(arch: str) -> RealCase:
    experiment = Experiment("real-block", (f"arch={arch}",))
    return RealCase("C16", f"{arch}: memory block", experiment, block_kib, "KiB", slow=True)


_DESIGNED = "design of 2018"
_BIG = Experiment("real-big-blocks", ())


def _both(claim: str, what: str, measure: Measure, unit: str, tolerance: int = 0) -> list[RealCase]:
    return [
        RealCase(
            claim, f"1 GiB, memmap_on_memory {mode}: {what}", _gib(mode), measure, unit, tolerance
        )
        for mode in ("off", "on")
    ]


_ONLINE = 2  # the step of the scenario after which 1 GiB is online

#: Every case, in the order of the claims.
REAL: tuple[RealCase, ...] = (
    *_both("C1", "MemTotal gains", gained_kb("MemTotal", _ONLINE), "kB"),
    *_both("C1", "in use", used_kb_at(_ONLINE), "kB", _FREE_KB),
    *_both("C2", "present, but not managed", kept_back_pages(_ONLINE), "pages"),
    *_both("C3", "nr_memmap_pages gains at add", counter_at(1), "pages"),
    *_both("C3", "nr_memmap_pages left after removal", counter_at(-1), "pages"),
    *_both("C4", "missing of what was requested", missing_kb(_ONLINE), "kB"),
    *_both("C5", "pages of the DIMM that hold its memmap", hosted_shown(_ONLINE), "pages"),
    RealCase(
        "C7",
        f"{_DESIGNED}, the first 2 MiB are backed",
        _hyperv("first-half", _RFC, "2MiB"),
        fault_at,
        "",
    ),
    RealCase(
        "C7",
        f"{_DESIGNED}, the first 2 MiB are not backed",
        _hyperv("second-half", _RFC),
        fault_at,
        "",
    ),
    RealCase(
        "C7",
        "stock, the first 2 MiB are not backed",
        _hyperv("second-half", _STOCK),
        fault_at,
        "",
    ),
    RealCase(
        "C10",
        "stock, first half backed: MemTotal gains",
        _hyperv("first-half", _STOCK),
        gained_kb("MemTotal", _ONLINE),
        "kB",
    ),
    RealCase(
        "C10",
        "stock, first half backed: fake-offline",
        _hyperv("first-half", _STOCK),
        offline_shown(_ONLINE),
        "pages",
    ),
    RealCase(
        "C10",
        f"{_DESIGNED}, first half backed: MemTotal gains",
        _hyperv("first-half", _RFC),
        gained_kb("MemTotal", _ONLINE),
        "kB",
    ),
    RealCase(
        "C11",
        f"{_DESIGNED}, first half backed: touched before its pages go online",
        _hyperv("first-half", _RFC),
        touched_pages(before_online=True),
        "pages",
    ),
    RealCase(
        "C11",
        "stock, first half backed: touched before its pages go online",
        _hyperv("first-half", _STOCK),
        touched_pages(before_online=True),
        "pages",
    ),
    *_both("C12", "touched before online", touched_pages(before_online=True), "pages"),
    RealCase(
        "C12",
        f"{_DESIGNED}, one section: touched before online",
        _section(),
        touched_pages(before_online=True),
        "pages",
    ),
    RealCase(
        "C13",
        "1 GiB, memmap_on_memory on: most memmap pages in a block",
        _gib("on"),
        most_hosted_in_a_block(_ONLINE),
        "pages",
    ),
    RealCase(
        "C13",
        "1 GiB, memmap_on_memory on: first block's memmap pages that are written",
        _gib("on"),
        written_hosted(_ONLINE),
        "pages",
    ),
    RealCase(
        "C13",
        f"{_DESIGNED}, one section: its memmap pages that are written",
        _section(),
        written_hosted(_ONLINE),
        "pages",
    ),
    RealCase(
        "C13",
        f"{_DESIGNED}, two sections at once: memmap pages written in the first",
        _section("256MiB"),
        written_hosted(_ONLINE),
        "pages",
    ),
    RealCase(
        "C15",
        "2 GiB block: memmap pages in it",
        _BIG,
        most_hosted_in_a_block(_ONLINE),
        "pages",
        slow=True,
    ),
    *(_arch(arch) for arch in ("ppc64le", "s390x")),
    *(
        RealCase(
            "C17",
            f"stock, {size} backed: memmap",
            _hyperv("first-half", _STOCK, size),
            counter_at(1),
            "pages",
        )
        for size in ("128MiB", "64MiB", "32MiB")
    ),
    RealCase(
        "C18",
        "stock, second half backed: MemTotal gains",
        _hyperv("second-half", _STOCK),
        gained_kb("MemTotal", _ONLINE),
        "kB",
    ),
    RealCase(
        "C18",
        f"{_DESIGNED}, second half backed",
        _hyperv("second-half", _RFC),
        fault_at,
        "",
    ),
    *(
        RealCase("C19", f"stock, {words}: {what}", _hyperv(name, _STOCK), measure, unit)
        for name, words in (
            ("halves-in-order", "first half, then second"),
            ("halves-reversed", "second half, then first"),
        )
        for what, measure, unit in (
            ("fake-offline between", offline_shown(1), "pages"),
            ("fake-offline in the end", offline_shown(_ONLINE), "pages"),
            ("MemTotal gains", gained_kb("MemTotal", _ONLINE), "kB"),
            ("memmap", counter_at(_ONLINE), "pages"),
        )
    ),
)


def cases_of(ids: Sequence[str], *, slow: bool) -> list[RealCase]:
    """Return the cases of claims by id, all if none is named; slow ones only if asked for.

    A case may need a kernel that carries a design: see :attr:`RealCase.needs_design`.
    """
    wanted = {id_.upper() for id_ in ids}
    return [
        case for case in REAL if (not wanted or case.claim in wanted) and (slow or not case.slow)
    ]


def agreements_text(found: Sequence[Agreement]) -> str:
    """Return a line for each case, claims in order, and a summary."""
    lines, last = [], ""
    for item in found:
        head = item.case.claim if item.case.claim != last else ""
        last = item.case.claim
        mark = "=" if item.agrees else "!"
        unit = f" {item.case.unit}" if isinstance(item.observed, int) else ""
        value = f"{item.observed}{unit}"
        said = "" if item.observed == item.predicted else f" (model: {item.predicted})"
        within = f" within {item.case.tolerance}" if item.agrees and said else ""
        lines.append(f"{head:5}{mark} {value:>16}  {item.case.label}{said}{within}")
    wrong = sum(not item.agrees for item in found)
    lines.append(
        f"\n{len(found)} numbers of a real kernel: {len(found) - wrong} as the model says, "
        f"{wrong} not."
    )
    return "\n".join(lines) + "\n"


def agreements_builtins(found: Sequence[Agreement], release: str) -> dict[str, Any]:
    """Return the same as JSON's types."""
    made = [
        {
            "claim": item.case.claim,
            "label": item.case.label,
            "observed": item.observed,
            "predicted": item.predicted,
            "unit": item.case.unit,
            "tolerance": item.case.tolerance,
            "agrees": item.agrees,
        }
        for item in found
    ]
    return {"schema": "altmap-claims-lab", "version": 1, "release": release, "numbers": made}
