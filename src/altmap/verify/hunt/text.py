"""What a hunt found and reached, as text for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from altmap.verify.hunt.branches import all_branches
from altmap.verify.hunt.coverage import Coverage
from altmap.verify.hunt.finding import HuntFinding
from altmap.verify.hunt.store import RunRow

__all__ = ("findings_text", "report_text", "summary_text")

_VERDICTS = ("equal", "finding", "chance", "failed", "cannot")


def summary_text(rows: Sequence[RunRow], seconds: float) -> str:
    """Return one line: how many scenarios and steps ran, how fast, and what they showed."""
    counts = Counter(row.verdict for row in rows)
    verdicts = ", ".join(f"{counts[word]} {word}" for word in _VERDICTS if counts[word])
    nr_steps = sum(row.nr_steps for row in rows)
    pace = f", {len(rows) * 3600 / seconds:.0f} an hour" if seconds and rows else ""
    return f"{len(rows)} scenarios with {nr_steps} steps{pace}: {verdicts or 'none ran'}"


def findings_text(findings: Iterable[HuntFinding]) -> str:
    """Return a line for each finding: its key, how often it shows, and its reason."""
    lines = []
    for each in findings:
        how = "certain" if each.certain else f"chance, {each.nr_shown} of {each.nr_runs}"
        more = f" (and {len(each.reason) - 1} more)" if len(each.reason) > 1 else ""
        lines.append(f"{each.key}  {how:<14} {each.reason[0]}{more}")
    return "\n".join(lines) or "no findings"


def report_text(rows: Sequence[RunRow], coverage: Coverage) -> str:
    """Return what was reached, the rarest first, and how often."""
    return "\n".join(_report(rows, coverage))


def _report(rows: Sequence[RunRow], coverage: Coverage) -> Iterator[str]:
    yield summary_text(rows, sum(row.seconds for row in rows))
    branches = {name: coverage.model[name] for name in all_branches()}
    requests = Counter({name: n for name, n in coverage.model.items() if name not in branches})
    for side, reached in (("model", requests), ("real kernel", coverage.kernel)):
        yield ""
        yield f"{len(reached)} features reached by the {side}, with the number of scenarios:"
        yield from _rarest_first(reached)
    nr_reached = sum(map(bool, branches.values()))
    yield ""
    yield f"{nr_reached} of {len(branches)} branches of the model's rules reached:"
    yield from _rarest_first(branches)


def _rarest_first(reached: Mapping[str, int]) -> Iterator[str]:
    for feature, count in sorted(reached.items(), key=lambda item: (item[1], item[0])):
        yield f"{count:6}  {feature}"
