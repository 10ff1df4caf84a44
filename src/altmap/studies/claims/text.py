"""Findings as text for a terminal, as JSON's types, and as the page ``docs/claims.md``."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from altmap.studies.claims.claim import Claim, Experiment, Finding, Measured
from altmap.units import rounded_size

__all__ = ("claims_builtins", "claims_page", "claims_text", "command", "paragraph")

_WIDTH = 80
_INDENT = 6
#: kB from here on are shown in a larger unit too.
_LONG_KIB = 10_000


def command(experiment: Experiment, folder: str = "DIR") -> str:
    """Return the command that runs an experiment, its files being in a folder."""
    settings = "".join(f" --set {setting}" for setting in experiment.settings)
    return f"altmap run {folder}/{experiment.scenario}.toml{settings}"


def claims_text(findings: Sequence[Finding], folder: str = "DIR", width: int = 80) -> str:
    """Return a paragraph for each claim and a summary.

    Parameters
    ----------
    findings : sequence of Finding
    folder : str
        Where the scenarios are, for the commands shown.
    width : int
        Columns, 80 at most.
    """
    paragraphs = [paragraph(_rows(finding, folder), width) for finding in findings]
    return "\n\n".join([*paragraphs, "\n".join(_summary(findings))]) + "\n"


def paragraph(rows: Iterable[tuple[str, str]], width: int) -> str:
    """Return rows of a label and a text, which goes on below its own start; commands do not."""
    return "\n".join(
        textwrap.fill(
            text,
            len(label + text) if text.startswith("altmap ") else min(_WIDTH, width),
            initial_indent=label,
            subsequent_indent=" " * len(label),
            break_on_hyphens=False,
            break_long_words=False,
        )
        for label, text in rows
    )


def _rows(finding: Finding, folder: str) -> Iterator[tuple[str, str]]:
    claim = finding.claim
    yield f"{claim.id:<{_INDENT}}", finding.verdict
    if not finding.as_expected:
        yield _field("NOT as known", claim.expected)
    yield _field(f"The {claim.who}", claim.statement)
    yield _field("Asked", claim.question)
    yield from map(_measured, finding.measured)
    yield _field("Settled", claim.settled)
    if claim.note:
        yield _field("Note", claim.note)
    if claim.experiment:
        yield _field("Run", command(claim.experiment, folder))


def _field(label: str, text: str) -> tuple[str, str]:
    return f"{'':{_INDENT}}{label + ':':<14}", text


def _measured(item: Measured) -> tuple[str, str]:
    mark = {True: "=", False: "!", None: " "}[item.agrees]
    label = f"{'':{_INDENT}}{mark} {_value(item):>15}  "
    return label, f"{item.case.label}{_size(item)}{_claim(item)}"


def _value(item: Measured) -> str:
    return f"{item.value} {item.case.unit}".strip()


def _size(item: Measured) -> str:
    """Return what a number of kB is for people, empty if it reads well as it is."""
    if item.case.unit != "kB" or not isinstance(item.value, int) or item.value < _LONG_KIB:
        return ""
    return f", {rounded_size(item.value << 10)}"


def _claim(item: Measured) -> str:
    if item.agrees is None:
        return " (for comparison)"
    return "" if item.agrees else f" (the claim: {_claimed(item)})"


def _claimed(item: Measured) -> str:
    claimed = item.case.claimed
    if isinstance(claimed, range):
        return f"{claimed.start} to {claimed.stop - 1} {item.case.unit}".strip()
    return f"{claimed} {item.case.unit}".strip() if claimed is not None else ""


def _summary(findings: Sequence[Finding]) -> list[str]:
    kinds = ("holds only when", "holds", "refuted", "not testable here")
    counts = dict.fromkeys(kinds, 0)
    for finding in findings:
        counts[next(kind for kind in kinds if finding.verdict.startswith(kind))] += 1
    differing = [finding.claim.id for finding in findings if not finding.as_expected]
    return [
        f"{len(findings)} claim{'s' * (len(findings) > 1)}: {counts['holds']} hold, "
        f"{counts['holds only when']} hold only when ..., {counts['refuted']} refuted,",
        f"{counts['not testable here']} not testable here. Verdicts that differ from those known: "
        f"{', '.join(differing) or 'none'}.",
        "= agrees with the claim, ! does not; --write DIR gives you the scenarios.",
    ]


def claims_builtins(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return the findings as JSON's types."""
    return {
        "schema": "altmap-claims",
        "version": 1,
        "claims": [_builtins(finding) for finding in findings],
    }


def _builtins(finding: Finding) -> dict[str, Any]:
    claim = finding.claim
    return {
        "id": claim.id,
        "verdict": finding.verdict,
        "expected": claim.expected,
        "as_expected": finding.as_expected,
        "who": claim.who,
        "statement": claim.statement,
        "question": claim.question,
        "measured": [
            {
                "label": item.case.label,
                "value": item.value,
                "unit": item.case.unit,
                "claimed": _claimed_builtins(item),
                "agrees": item.agrees,
                "when": item.case.when,
                "nr_runs": len(item.case.experiments),
            }
            for item in finding.measured
        ],
        "settled": claim.settled,
        "note": claim.note,
        "run": _run_builtins(claim),
    }


def _claimed_builtins(item: Measured) -> int | str | list[int] | None:
    claimed = item.case.claimed
    return [claimed.start, claimed.stop - 1] if isinstance(claimed, range) else claimed


def _run_builtins(claim: Claim) -> dict[str, Any] | None:
    run = claim.experiment
    if run is None:
        return None
    return {"scenario": f"{run.scenario}.toml", "settings": list(run.settings)}


# --- the page --------------------------------------------------------------------------------

_HEAD = """\
# The claims of 2018

In November 2018 a series proposed to take the memmap of hot-added memory from that memory itself,
for every driver. One reply made or quoted 24 claims about it. Each is an experiment here: a
scenario, policies, a number read off the traces, and a verdict computed from the numbers.
`altmap claims` makes them anew; this page is what it finds, written by `python docs/generate.py`.

- `altmap claims C7 C15` shows some of them, `--json` says it to a program.
- `altmap claims --write DIR` copies the scenarios, to run and to change them.
- The exit code is 0 when every verdict is the known one, 1 when one is not.

*Holds only when* names the conditions under which what was measured is what was claimed. A number
marked *comparison* judges nothing. *On real kernels* lists what `altmap claims --on lab` measured:
the same measure on a real kernel and on the model that starts where that kernel had booted. *Rests
on* says whether a claim's numbers are the model's alone. *stock* is Debian's 6.12; *design of 2018*
is 6.12 with the design inserted ([lab.md](lab.md#the-design-of-2018-as-a-kernel)). Where the
kernel's release is not the question, the scenarios use 6.12 with the policy in question.
"""


def claims_page(findings: Sequence[Finding], real: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of ``docs/claims.md``.

    Parameters
    ----------
    findings : sequence of Finding
    real : sequence of mapping
        The numbers of real kernels, as ``altmap claims --on lab --json`` gives them.
    """
    rows = [
        f"| [{f.claim.id}](#{f.claim.id.lower()}) | {f.claim.statement} | {f.verdict} | "
        f"{_rests_on(_of(f, real))} |"
        for f in findings
    ]
    table = "\n".join(["| | claim | verdict | rests on |", "|---|---|---|---|", *rows])
    sections = [_section(finding, _of(finding, real)) for finding in findings]
    return "\n".join([_HEAD, table, "", *sections])


def _of(finding: Finding, real: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    return [number for number in real if number["claim"] == finding.claim.id]


def _rests_on(numbers: Sequence[Mapping[str, Any]]) -> str:
    if not numbers:
        return "the model"
    return "model and kernel" if all(number["agrees"] for number in numbers) else "the model only"


def _section(finding: Finding, real: Sequence[Mapping[str, Any]]) -> str:
    claim = finding.claim
    lines = [
        f"## {claim.id}",
        "",
        f"The {claim.who}: {claim.statement}",
        "",
        f"*{claim.question}*",
        "",
    ]
    if finding.measured:
        lines += ["| measured | | the claim |", "|---|---|---|"]
        lines += [_page_row(item) for item in finding.measured]
        lines += [""]
    if real:
        lines += ["| on real kernels | model | kernel |", "|---|---|---|"]
        lines += [_real_row(number) for number in real]
        lines += [""]
    lines += [f"**Verdict:** {finding.verdict}.  ", f"**Rests on:** {_rests_on(real)}.  "]
    lines += [f"**Settled:** {claim.settled}.  "]
    lines += [f"**Note:** {claim.note}  "] if claim.note else []
    lines += [f"**Run:** `{command(claim.experiment)}`  "] if claim.experiment else []
    return "\n".join([*lines[:-1], lines[-1].rstrip()]) + "\n"


def _real_row(number: Mapping[str, Any]) -> str:
    predicted, observed = (
        f"{value} {number['unit']}" if isinstance(value, int) else str(value)
        for value in (number["predicted"], number["observed"])
    )
    within = number["tolerance"] if number["agrees"] and predicted != observed else 0
    tolerance = f" (within {within})" if within else ""
    return f"| {number['label']} | {predicted} | {observed}{tolerance} |"


def _page_row(item: Measured) -> str:
    said = "comparison" if item.agrees is None else _claimed(item)
    said += ": no" if item.agrees is False else ""
    return f"| {item.case.label} | {_value(item)} | {said} |"
