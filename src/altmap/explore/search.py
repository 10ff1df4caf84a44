"""Breadth-first search, level by level: the shortest sequence of steps that breaks each rule.

Effects: clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from altmap.explore.share import (
    Limits,
    Parcel,
    Report,
    SavedShare,
    Share,
    rare_collections,
)
from altmap.explore.space import Space
from altmap.scenario import Step

__all__ = ("Found", "Local", "Process", "SearchResult", "search")


@dataclass(frozen=True, slots=True)
class Found:
    """A broken rule, and a shortest sequence that breaks it."""

    rule: str
    why: str
    steps: tuple[Step, ...]


@dataclass(slots=True)
class SearchResult:
    """The result of a search.

    Attributes
    ----------
    found : list of Found
        One for each broken rule, the shortest first.
    nr_states, nr_transitions : int
        Different states, and possible steps that were tried.
    nr_computed : int
        Steps that ran on the model; the results of the others were carried over.
    depth : int
        Length up to which every sequence was tried.
    ended_by : str
        The limit that ended it before the bounds were reached, empty if none.
    whole : bool
        All reachable states were found; more depth finds no others.
    """

    found: list[Found] = field(default_factory=list)
    nr_states: int = 1
    nr_transitions: int = 0
    nr_computed: int = 0
    depth: int = 0
    ended_by: str = ""
    whole: bool = False


class Process(Protocol):
    """A share of the search, in this or another process."""

    def begin(self, parcels: Sequence[Parcel], steps: dict[int, Step], limits: Limits) -> None:
        """Receive states, and expand a level."""
        ...

    def end(self) -> Report:
        """Return the report on the level."""
        ...

    def save(self) -> SavedShare:
        """Return the share's state for a later run."""
        ...

    def resume(self, saved: SavedShare) -> None:
        """Continue with the share's part of an earlier run."""
        ...


class Local:
    """A share in this process."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._report = Report()

    def begin(self, parcels: Sequence[Parcel], steps: dict[int, Step], limits: Limits) -> None:
        """Receive states, and expand a level."""
        self._report = Report()
        self._share.receive(parcels, steps, self._report)
        self._share.expand(limits, self._report)

    def end(self) -> Report:
        """Return the report on the level."""
        return self._report

    def save(self) -> SavedShare:
        """Return the share's state for a later run."""
        return self._share.save()

    def resume(self, saved: SavedShare) -> None:
        """Continue with the share's part of an earlier run."""
        self._share.resume(saved)


@rare_collections()
def search(
    space: Space,
    processes: Sequence[Process] | None = None,
    *,
    seconds: float | None = None,
    most_bytes: int | None = None,
    first_only: bool = False,
    result: SearchResult | None = None,
    on_level: Callable[[SearchResult, int], None] | None = None,
) -> SearchResult:
    """Search a space within its bounds.

    Parameters
    ----------
    space : Space
    processes : sequence of Process, optional
        The processes that share the work; this process alone by default.
    seconds : float, optional
        Time after which the search ends.
    most_bytes : int, optional
        Memory of all processes together.
    first_only : bool
        End at the first broken rule.
    result : SearchResult, optional
        Of an earlier run that the processes continue.
    on_level : callable, optional
        Called after each level with the result so far and the number of waiting states.
    """
    parts = processes or [Local(Share(space))]
    nr_parts = len(parts)
    limits = Limits(
        None if seconds is None else time.monotonic() + seconds,
        space.exploration.bounds.states // nr_parts,
        (1 << 62) if most_bytes is None else most_bytes // nr_parts,
    )
    incoming: list[list[Parcel]] = [[] for _ in parts]
    if result is None:
        result = SearchResult()
        start = space.start
        incoming[Share(space, 0, nr_parts).owner(start.values) % nr_parts].append(
            Parcel.of([start])
        )
    open_rules = {rule.name for rule in space.rules} - {found.rule for found in result.found}
    steps: dict[int, Step] = {}
    most_depth = space.exploration.bounds.depth
    while True:
        for part, parcels in zip(parts, incoming, strict=True):
            part.begin(parcels, steps, limits)
        reports = [part.end() for part in parts]
        steps = {number: step for report in reports for number, step in report.steps.items()}
        incoming = [[report.outgoing[i] for report in reports] for i in range(nr_parts)]
        _add_reports(result, reports, open_rules, space)
        result.ended_by = next((r.ended_by for r in reports if r.ended_by), "")
        nr_waiting = sum(report.nr_waiting for report in reports)
        nr_waiting += sum(parcel.nr_states for parcels in incoming for parcel in parcels)
        if result.ended_by:
            break
        result.depth += 1
        result.whole = not nr_waiting
        if on_level is not None:
            on_level(result, nr_waiting)
        if not nr_waiting or result.depth >= most_depth or not open_rules:
            break
        if first_only and result.found:
            break
    # States in transit are checked and saved, but not expanded.
    past = Limits(deadline=0.0)
    for part, parcels in zip(parts, incoming, strict=True):
        part.begin(parcels, steps, past)
    _add_reports(result, [part.end() for part in parts], open_rules, space)
    return result


def _add_reports(
    result: SearchResult, reports: Sequence[Report], open_rules: set[str], space: Space
) -> None:
    """Add up the reports on a level; of each broken rule the shortest sequence is kept."""
    for report in reports:
        space.add_steps(report.steps)
    result.nr_transitions += sum(report.nr_transitions for report in reports)
    result.nr_computed = sum(report.nr_computed for report in reports)
    result.nr_states = sum(report.nr_states for report in reports)
    for rule in [rule.name for rule in space.rules if rule.name in open_rules]:
        broken = [report.found[rule] for report in reports if rule in report.found]
        if broken:
            why, numbers = min(broken, key=lambda item: (len(item[1]), item[1]))
            open_rules.discard(rule)
            found = Found(rule, why, tuple(space.steps[number] for number in numbers))
            result.found.append(found)
    result.found.sort(key=lambda found: len(found.steps))
