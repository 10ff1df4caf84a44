"""One self-contained page: maps, memory accounting and event log of traces, and comparisons.

The page works offline: it contains style, script and data, and its security policy forbids the
browser to fetch anything. The same traces give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from altmap.compare import Comparison, Difference, FileVerdict, Verdict
from altmap.linux.observation import page_size_bytes
from altmap.report import assets, step_report
from altmap.report.accounting_chart import accounting_chart
from altmap.report.draw import INKS, NODES, PATTERNS, ZONE_FILLS
from altmap.report.legend import legend, several_nodes
from altmap.report.states import STATES, PageState, PageView, page_views
from altmap.report.tiles import TileMap, tile_map
from altmap.report.zones_bar import zones_bar, zones_scale
from altmap.trace import StepRecord, Trace
from altmap.units import format_size

__all__ = ("TraceGroup", "groups", "map_builtins", "page")


@dataclass(slots=True)
class TraceGroup:
    """Traces with the same steps, and their maps.

    Attributes
    ----------
    traces : list of Trace
    tiles : TileMap or None
        ``None`` if the files do not show memory blocks.
    page_size_bytes : int
    """

    traces: list[Trace]
    tiles: TileMap | None
    page_size_bytes: int


def groups(traces: Sequence[Trace], only: range | None = None) -> list[TraceGroup]:
    """Return traces grouped by scenario and steps, with their maps.

    Parameters
    ----------
    traces : sequence of Trace
    only : range, optional
        Ids of the memory blocks to map.
    """
    return [_group(alike, only) for alike in step_report.by_scenario(traces)]


def _group(traces: list[Trace], only: range | None) -> TraceGroup:
    found: list[list[PageView]] = []
    for trace in traces:
        views = page_views(trace)
        if views is not None:
            found.append(views)
    start = traces[0].steps[0].observation
    if len(found) != len(traces) or start is None or start.memory is None:
        return TraceGroup(traces, None, 4096)
    page_size = page_size_bytes(start) or 4096
    tiles = tile_map(found, start.memory.block_size_bytes // page_size, only)
    return TraceGroup(traces, tiles if tiles.rows else None, page_size)


def page(
    traces: Sequence[Trace],
    title: str,
    version: str,
    comparisons: Sequence[tuple[str, Comparison]] = (),
    only: range | None = None,
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    traces : sequence of Trace
    title : str
    version : str
        Of altmap, for the provenance.
    comparisons : sequence of (name, Comparison)
        Their differences come first.
    only : range, optional
        Ids of the memory blocks to map.
    """
    made = groups(traces, only)
    data = {
        "severe": int(PageState.UNBACKED),
        "states": [
            {
                "name": STATES[state].name,
                "meaning": STATES[state].meaning,
                "letter": STATES[state].letter,
                "colour": "var(--hole)" if state is PageState.HOLE else STATES[state].colour,
                "pattern": STATES[state].pattern,
                "ink": "light" if INKS.get(state) == "#fff" else "dark",
            }
            for state in PageState
        ],
        "zone_fills": ZONE_FILLS,
        "node_colours": NODES,
        "groups": [map_builtins(group, index) for index, group in enumerate(made)],
    }
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(_comparison("" if name == title else name, item) for name, item in comparisons),
        *(part for index, group in enumerate(made) for part in _section(index, group, title)),
        _provenance(traces, version),
    ]
    style, script = f"\n{assets.style()}", f"\n{assets.script()}"
    return _HTML.format(
        title=escape(title),
        style=style,
        style_hash=_hash(style),
        script_hash=_hash(script),
        patterns=PATTERNS,
        body="\n".join(parts),
        data=json.dumps(data, separators=(",", ":")).replace("<", "\\u003c"),
        script=script,
    )


def _hash(text: str) -> str:
    """Return what a security policy calls a style or script by; no other one is taken."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; \
style-src {style_hash}; script-src {script_hash}">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<svg class="patterns" width="0" height="0" aria-hidden="true"><defs>{patterns}</defs></svg>
{body}
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""


# --- data of the map -----------------------------------------------------------------------


def map_builtins(group: TraceGroup, index: int = 0) -> dict[str, Any]:
    """Return a group's maps as JSON's types; tiles, patterns and facts are numbered once."""
    tiles, traces = group.tiles, group.traces
    made: dict[str, Any] = {
        "scenario": traces[0].scenario,
        "steps": [step.name for step in traces[0].steps],
        "page_bytes": group.page_size_bytes,
    }
    if tiles is None:
        return made | {"rows": [], "traces": []}
    return made | {
        "block_pages": tiles.block_nr_pages,
        "block_bytes": tiles.block_nr_pages * group.page_size_bytes,
        "tile_pages": tiles.tile_nr_pages,
        "tile_bytes": tiles.tile_nr_pages * group.page_size_bytes,
        "rows": [[row.first, row.nr_blocks, row.nr_alike] for row in tiles.rows],
        "several_nodes": several_nodes(tiles),
        "tiles": [[tile.pages, tile.nr_unbacked] for tile in tiles.tiles],
        "patterns": tiles.patterns,
        "facts": [[f.state, f.zones, f.nodes, f.owners, f.zone_kind] for f in tiles.facts],
        "traces": [
            {
                "policy": trace.policy,
                "target": trace.target,
                "release": trace.release,
                "cells": tiles.cells[number],
                "events": [
                    [step, _id(index, number, step, at), [[r.start, r.end] for r in line.runs]]
                    for step, record in enumerate(trace.steps)
                    for at, line in enumerate(step_report.event_log(record))
                    if line.runs
                ],
            }
            for number, trace in enumerate(traces)
        ],
    }


#: Lines of a step that are shown; the others are folded, except faults and refusals.
_MOST_LINES = 12
_NEVER_FOLDED = ("fault", "refusal")


def _id(group: int, trace: int, step: int, line: int) -> str:
    return f"e{group}-{trace}-{step}-{line}"


# --- sections ------------------------------------------------------------------------------


def _section(index: int, group: TraceGroup, title: str) -> Iterator[str]:
    traces = group.traces
    name, scale = traces[0].scenario, zones_scale(traces)
    yield f'<section class="group" data-group="{index}">'
    yield f"<h2>{escape(name)}</h2>" if name != title else ""
    yield _control(index, traces)
    yield '<div class="columns">'
    for number, trace in enumerate(traces):
        yield f'<div class="column">{_heading(trace)}{_verdicts(trace)}{_zones(trace, scale)}'
        if group.tiles is not None:
            yield _map_box(number, trace)
        yield "</div>"
    yield f"</div>{legend(group.tiles) if group.tiles is not None else _NO_MAP}"
    yield from _accounting(traces)
    if any(step_report.event_log(step) for trace in traces for step in trace.steps):
        yield '<h3>Event log</h3><div class="columns">'
        for number, trace in enumerate(traces):
            yield f'<div class="column">{_heading(trace)}{_event_log(index, number, trace)}</div>'
        yield "</div>"
    yield "</section>"


def _control(index: int, traces: Sequence[Trace]) -> str:
    """Return the slider; of a single step there is nothing to choose, and it is hidden."""
    last = len(traces[0].steps) - 1
    hidden = "" if last else " hidden"
    return (
        f'<div class="control"{hidden}><output for="step{index}"></output>'
        '<button class="back" aria-label="one step back">◀</button>'
        f'<input type="range" id="step{index}" aria-label="step" min="0" max="{last}" '
        f'value="{step_report.default_step(traces)}">'
        '<button class="on" aria-label="one step forward">▶</button></div>'
    )


_NO_MAP = '<p class="soft">No map: the files show no memory blocks, or no page size.</p>'


def _heading(trace: Trace) -> str:
    name, *more = _about(trace)
    return f'<p><b>{escape(name)}</b> <span class="soft">{escape(", ".join(more))}</span></p>'


def _about(trace: Trace) -> list[str]:
    """Return what a trace is of: policy, target, release, those that it has."""
    return [word for word in (trace.policy, trace.target, trace.release) if word]


def _shown_at(items: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each different text once, with the steps that show it."""
    by_text: dict[str, list[str]] = {}
    for step, text in enumerate(items):
        by_text.setdefault(text, []).append(str(step))
    for text, steps in by_text.items():
        yield text, " ".join(steps)


def _verdicts(trace: Trace) -> str:
    texts = []
    for index in range(len(trace.steps)):
        verdict = step_report.verdict(trace, index)
        sign = {"fault": "✖", "refused": "⊘", "ok": "✔"}[verdict.kind]
        texts.append(
            f'<div class="verdict {verdict.kind}"><b>{sign} {escape(verdict.headline)}</b><br>'
            f"{escape(verdict.detail)}</div>"
        )
    return "".join(
        f'<div data-steps="{steps}" hidden>{text}</div>' for text, steps in _shown_at(texts)
    )


def _map_box(number: int, trace: Trace) -> str:
    name = escape(f"physical memory, {' '.join(_about(trace))}")
    return (
        f'<div class="map" data-trace="{number}">'
        f'<svg role="application" tabindex="0" aria-label="{name}. Arrow keys move from tile to '
        'tile, Enter goes to the event."></svg>'
        '<div class="tip" role="status" aria-live="polite" hidden></div></div>'
    )


def _zones(trace: Trace, scale: int) -> str:
    texts = [zones_bar(trace, index, scale) if scale else "" for index in range(len(trace.steps))]
    return "".join(
        f'<div class="zones" data-steps="{steps}" hidden>{text}</div>'
        for text, steps in _shown_at(texts)
        if text
    )


def _accounting(traces: Sequence[Trace]) -> Iterator[str]:
    """Yield the charts of all steps, to one scale."""
    levels = [
        [step_report.accounting(trace, index) for index in range(len(trace.steps))]
        for trace in traces
    ]
    scale = max((level.size_bytes for each in levels for step in each for level in step), default=0)
    if not scale:
        return
    yield '<h3>Memory accounting</h3><div class="columns">'
    for trace, each in zip(traces, levels, strict=True):
        charts = "".join(
            f'<div class="chart" data-steps="{steps}" hidden>{text}</div>'
            for text, steps in _shown_at(
                [accounting_chart(step, each[0], scale) if step else _NOT_SHOWN for step in each]
            )
        )
        yield f'<div class="column">{_heading(trace)}{charts}</div>'
    yield "</div>"


_NOT_SHOWN = '<p class="soft">not shown by the files</p>'


def _event_log(group: int, number: int, trace: Trace) -> str:
    items = []
    for index, step in enumerate(trace.steps):
        lines = _folded(
            [
                (line.lane, _line(line, _id(group, number, index, at)))
                for at, line in enumerate(step_report.event_log(step))
            ]
        )
        items.append(
            f'<li data-step="{index}"><button data-goto="{index}">{index} {escape(step.name)}'
            f"</button>{_badge(step) if index else ''}<ol>{lines}</ol></li>"
        )
    return f'<ol class="steps">{"".join(items)}</ol>'


def _folded(lines: Sequence[tuple[str, str]]) -> str:
    """Return a step's lines, those after the first few folded; faults and refusals stay visible."""
    first, rest = lines[:_MOST_LINES], lines[_MOST_LINES:]
    more = [text for lane, text in rest if lane not in _NEVER_FOLDED]
    fold = (
        f"<li><details><summary>{len(more)} more</summary><ol>{''.join(more)}</ol></details></li>"
        if more
        else ""
    )
    visible = [text for lane, text in rest if lane in _NEVER_FOLDED]
    return "".join([*(text for _, text in first), fold, *visible])


def _badge(step: StepRecord) -> str:
    status = step.outcome.status
    errno = f" {step.outcome.errno}" if step.outcome.errno else ""
    return f'<span class="badge {escape(status)}">{escape(status.replace("_", " ") + errno)}</span>'


def _line(line: step_report.LogLine, id_: str) -> str:
    function = f" <code>{escape(line.function)}</code>" if line.function else ""
    message = f'<br><code class="mono">{line.message.hex(" ", -4)}</code>' if line.message else ""
    return (
        f'<li class="{line.lane}" id="{id_}" tabindex="-1"><span class="lane">{line.lane}</span>'
        f"{escape(line.text)}{function}{message}</li>"
    )


# --- comparison ----------------------------------------------------------------------------


def _comparison(name: str, comparison: Comparison) -> str:
    files = comparison.files
    bad = [(file, item) for file in files for item in file.differences if not item.within]
    near = [(file, item) for file in files for item in file.differences if item.within]
    kind, sign, head = ("refused", "✖", f"{len(bad)} fields differ") if bad else (
        "ok", "✔", "everything is equal, or within a stated tolerance")  # fmt: skip
    parts = [
        f'<section class="comparison"><h2>{escape(f"{name}: " if name else "")}'
        f"{escape(comparison.predicted)} against {escape(comparison.observed)}</h2>",
        f'<div class="verdict {kind}"><b>{sign} {head}</b><br>{_counts(files)}</div>',
    ]
    if bad:
        parts.append(f'<h3>What differs</h3><div class="differs">{_differences(bad)}</div>')
    if near:
        parts.append(
            f"<details><summary>Within tolerance: {len(near)} fields</summary>"
            f"{_differences(near)}</details>"
        )
    facts = _items(comparison.provenance)
    about = f"<details><summary>What was compared</summary><dl>{facts}</dl></details>"
    parts.append(f"{_equal(files)}{about if facts else ''}</section>")
    return "".join(parts)


def _counts(files: Sequence[FileVerdict]) -> str:
    counts = [f"{sum(f.verdict is kind for f in files)} {kind}" for kind in Verdict]
    return f"{len(files)} files after their steps: {', '.join(counts)}"


def _differences(items: Sequence[tuple[FileVerdict, Difference]]) -> str:
    rows = "".join(
        f"<tr><td>{escape(file.step)}<br><code>{escape(file.file)}</code></td>"
        f"<td>{escape(item.field)}</td>"
        f'<td class="value"><code>{escape(item.predicted)}</code></td>'
        f'<td class="value"><code>{escape(item.observed)}</code></td>'
        f'<td class="prose">{escape(item.tolerance)}{"<br>" if item.tolerance else ""}'
        f'<span class="soft">{escape(item.source)}</span></td></tr>'
        for file, item in items
    )
    return (
        '<div class="scroll" tabindex="0"><table><thead><tr><th>step, file</th><th>field</th>'
        f"<th>predicted</th><th>observed</th><th>rule</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _equal(files: Sequence[FileVerdict]) -> str:
    rows = "".join(
        f"<tr><td>{escape(file.step)}</td><td><code>{escape(file.file)}</code></td>"
        f"<td>{escape(file.verdict)}</td><td>{file.nr_fields}</td></tr>"
        for file in files
        if file.verdict in (Verdict.EQUAL, Verdict.MISSING)
    )
    return (
        '<details><summary>What was equal</summary><div class="scroll" tabindex="0"><table>'
        "<thead><tr><th>step</th><th>file</th><th></th><th>fields</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div></details>"
    )


# --- provenance ----------------------------------------------------------------------------


def _provenance(traces: Sequence[Trace], version: str) -> str:
    parts = ["<section><h2>Provenance</h2>", f"<dl>{_items({'altmap': version})}</dl>"]
    facts_by_trace = {
        f"{trace.scenario}: {', '.join(_about(trace))}": _facts_of(trace) for trace in traces
    }
    for name, facts in facts_by_trace.items():
        parts.append(
            f"<details><summary>{escape(name)}</summary><dl>{_items(facts)}</dl></details>"
        )
    return "".join([*parts, "</section>"])


def _facts_of(trace: Trace) -> dict[str, object]:
    notes = {f"note {n}": note for n, note in enumerate(trace.notes, start=1)}
    head = {"scenario, sha256": trace.scenario_sha256, "release": trace.release}
    return {**head, "policy": trace.policy, **trace.machine, **notes}


def _items(facts: Mapping[str, object]) -> str:
    """Return the facts that say something, as names and values."""
    texts = {key: _value(key, value) for key, value in facts.items()}
    return "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(text)}</dd>" for key, text in texts.items() if text
    )


def _value(key: str, value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_value(name, each)}" for name, each in value.items() if each)
    text = str(value)
    return format_size(int(text)) if key.endswith("_bytes") and text.isdecimal() else text
