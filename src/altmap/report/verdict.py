"""How runs end, a line for each: ok, the first refusal, or the fault."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from altmap.errors import printable
from altmap.report.text import pages_text
from altmap.trace import StepRecord, Trace

__all__ = ("all_ok", "verdict", "verdict_lines")


def all_ok(trace: Trace) -> bool:
    """Tell whether no step was refused, ended in a fault, or was not reached."""
    return all(step.outcome for step in trace.steps)


def verdict(trace: Trace) -> str:
    """Return how a run ends: a fault, which ends it, else the first refusal, else ``ok``.

    Steps are numbered as in the table of a run: the start is 0.
    """
    for number, step in enumerate(trace.steps):
        if step.outcome.status == "fault":
            return f"fault at step {number}: {_touch(step)}"
    for number, step in enumerate(trace.steps):
        outcome = step.outcome
        if not outcome:
            by = outcome.function or "the kernel"
            doubt = "" if outcome.certainty == "certain" else f" ({outcome.certainty})"
            ending = f"refused {outcome.errno}" if outcome.ends else "does not end"
            return f"{ending} by {by} at step {number}{doubt}"
    return "ok"


def _touch(step: StepRecord) -> str:
    """Return the function of the kernel and the page frames that it touched."""
    if not step.faults:
        return step.outcome.why
    fault = step.faults[0]
    return f"{fault.access} by {fault.function} at {pages_text(fault.pfns)}"


def verdict_lines(traces: Sequence[Trace], width: int | None = None) -> str:
    """Return a line for each run: scenario, policy and verdict, in columns.

    Parameters
    ----------
    traces : sequence of Trace
    width : int, optional
        Columns of the terminal, at which lines are wrapped; without it they are not.
    """
    heads = [(printable(trace.scenario), printable(trace.policy)) for trace in traces]
    widths = [max(map(len, column)) for column in zip(*heads, strict=True)]
    out = []
    for (scenario, policy), trace in zip(heads, traces, strict=True):
        head = f"{scenario:{widths[0]}}  {policy:{widths[1]}}  "
        line = head + printable(verdict(trace))
        wrapped = [line] if width is None else textwrap.wrap(line, width, subsequent_indent="    ")
        out.extend(wrapped)
    return "\n".join(out) + "\n"
