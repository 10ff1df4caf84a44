"""Bugs as text for a terminal, as JSON's types, and as the page ``docs/bugs.md``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from altmap.studies.bugs.bug import Bug, Shown
from altmap.studies.claims.claim import Measured
from altmap.studies.claims.text import command, paragraph

__all__ = ("bugs_builtins", "bugs_page", "bugs_text")

_INDENT = 5


def bugs_text(found: Sequence[Shown], folder: str = "DIR", width: int = 80) -> str:
    """Return a paragraph for each bug and a summary, 80 columns wide at most."""
    paragraphs = [paragraph(_rows(shown, folder), width) for shown in found]
    nr_shown = sum(shown.reproduced is True for shown in found)
    missing = [shown.bug.id for shown in found if shown.reproduced is False]
    summary = (
        f"{len(found)} bugs: {nr_shown} shown where they are and nowhere else, "
        f"{sum(shown.reproduced is None for shown in found)} that no model here can show. "
        f"Not shown though they should: {', '.join(missing) or 'none'}."
    )
    return "\n\n".join([*paragraphs, paragraph([("", summary)], width)]) + "\n"


def _rows(shown: Shown, folder: str) -> Iterator[tuple[str, str]]:
    bug = shown.bug
    yield f"{bug.id:<{_INDENT}}", f"{shown.verdict}: {bug.subject}"
    yield _field("Since", bug.since)
    yield _field("Fixed", bug.fixed)
    if bug.trigger:
        yield _field("Trigger", bug.trigger)
    yield from (_measured("has it", item) for item in shown.affected)
    yield from (_measured("has not", item) for item in shown.sound)
    yield from (_field("Source", text) for text in bug.sources)
    if bug.reason:
        yield _field("Reason", bug.reason)
    if bug.affected:
        yield _field("Run", _run(bug, folder))


def _run(bug: Bug, folder: str = "DIR") -> str:
    return command(bug.affected[0].experiments[0], folder)


def _field(label: str, text: str) -> tuple[str, str]:
    return f"{'':{_INDENT}}{label + ':':<10}", text


def _measured(what: str, item: Measured) -> tuple[str, str]:
    wrong = "" if item.agrees else f" (must be {item.case.claimed})"
    return _field(what, f"{item.case.label}: {_value(item)}{wrong}")


def _value(item: Measured) -> str:
    return f"{item.value} {item.case.unit}".strip()


def bugs_builtins(found: Sequence[Shown]) -> dict[str, Any]:
    """Return the findings as JSON's types."""
    return {"schema": "altmap-bugs", "version": 1, "bugs": [_builtins(shown) for shown in found]}


def _builtins(shown: Shown) -> dict[str, Any]:
    bug = shown.bug
    return {
        "id": bug.id,
        "verdict": shown.verdict,
        "subject": bug.subject,
        "since": bug.since,
        "fixed": bug.fixed,
        "trigger": bug.trigger,
        "affected": [_item(item) for item in shown.affected],
        "sound": [_item(item) for item in shown.sound],
        "sources": list(bug.sources),
        "reason": bug.reason,
    }


def _item(item: Measured) -> dict[str, Any]:
    run = item.case.experiments[0]
    return {
        "label": item.case.label,
        "value": item.value,
        "unit": item.case.unit,
        "expected": item.case.claimed,
        "run": {"scenario": f"{run.scenario}.toml", "settings": list(run.settings)},
    }


# --- the page --------------------------------------------------------------------------------

_HEAD = """\
# Known bugs

Bugs of memory hotplug with a memmap in the added memory, in Linux (B) and in the patches of 2018
and 2017 (D and F, switches of the policy `rfc-2018`). Each that a model can hold is an experiment:
its symptom is measured where the bug is, and must be absent where it is not. `altmap bugs` measures
anew; this page is what it finds, written by `python docs/generate.py`.

- `altmap bugs B8 D4` shows some of them, `--json` says it to a program.
- `altmap bugs --write DIR` copies the scenarios, to run and to change them.
- The exit code is 0 when every bug shows where it is and nowhere else, 1 when one does not.

A release here is its record in [releases.md](releases.md): 6.1 and 6.12 are Debian's, with the
fixes that stable kernels had by then; others without a comparison are the first of their name.
*Source* is what the sources of the lab's kernels say. No bug was provoked in a real kernel for this
page: what a sound kernel does is compared with real ones by the scenarios of the project, what a
broken one does is derived.
"""


def bugs_page(found: Sequence[Shown]) -> str:
    """Return the text of ``docs/bugs.md``."""
    rows = [
        f"| [{s.bug.id}](#{s.bug.id.lower()}) | {s.bug.subject} | {s.bug.since} | {s.bug.fixed} | "
        f"{s.verdict} |"
        for s in found
    ]
    table = "\n".join(["| | bug | since | fixed | here |", "|---|---|---|---|---|", *rows])
    return "\n".join([_HEAD, table, "", *(_section(shown) for shown in found)])


def _section(shown: Shown) -> str:
    bug = shown.bug
    lines = [f"## {bug.id}", "", f"{bug.subject}.", ""]
    if shown.affected:
        lines += ["| | measured | must be |", "|---|---|---|"]
        lines += [_page_row(f"has it: {item.case.label}", item) for item in shown.affected]
        lines += [_page_row(f"has it not: {item.case.label}", item) for item in shown.sound]
        lines += [""]
    lines += [f"**Since:** {bug.since}.  ", f"**Fixed:** {bug.fixed}.  "]
    lines += [f"**Trigger:** {bug.trigger}.  "] if bug.trigger else []
    lines += [f"**Source:** {text}.  " for text in bug.sources]
    lines += [f"**Cannot be shown:** {bug.reason}.  "] if bug.reason else []
    lines += [f"**Run:** `{_run(bug)}`  "] if bug.affected else []
    return "\n".join([*lines[:-1], lines[-1].rstrip()]) + "\n"


def _page_row(label: str, item: Measured) -> str:
    return f"| {label} | {_value(item)} | {item.case.claimed} {item.case.unit} |".replace(
        "  |", " |"
    )
