"""Answers about a definition as one page that opens offline, in the style of all reports."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Sequence
from html import escape

from altmap.report import assets
from altmap.units import format_size
from altmap.vm.answers import BootedGuest, WayAnswer, boot_state
from altmap.vm.lint import LintFinding
from altmap.vm.text import boot_unit, cells_of, commands_of, shown_losses, units_of

__all__ = ("vm_page",)

_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src {style_hash}">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""


def vm_page(
    guest: BootedGuest, answers: Sequence[WayAnswer], findings: Sequence[LintFinding], version: str
) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    guest : BootedGuest
    answers : sequence of WayAnswer
    findings : sequence of LintFinding
    version : str
        Of altmap.
    """
    name = guest.definition.name
    parts = [
        f"<h1>{escape(name)}</h1>",
        *_head(guest, version),
        *_boot(guest),
        *(part for answer in answers for part in _way(guest, answer)),
        *_findings(findings),
    ]
    style = f"\n{assets.style()}"
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return _HTML.format(
        title=escape(name), style=style, style_hash=f"'sha256-{digest}'", body="\n".join(parts)
    )


def _head(guest: BootedGuest, version: str) -> Iterator[str]:
    kernel = guest.kernel
    facts = {
        "definition": guest.definition.format,
        "architecture": guest.machine.arch.name,
        "kernel": f"Linux {kernel.release} ({kernel.stated})",
        "command line": kernel.cmdline or "-",
        "memmap policy": guest.booted.kernel.policy.name,
        "altmap": version,
    }
    notes = [*guest.machine.notes, *guest.booted.notes]
    notes += [f"not understood: {each.value}: {each.reason}" for each in guest.definition.unread]
    notes += [f"command line: {each.value}: {each.reason}" for each in kernel.unread]
    items = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    yield f"<section><dl>{items}</dl>"
    yield "".join(f'<p class="soft">{escape(note)}</p>' for note in dict.fromkeys(notes))
    yield "</section>"


def _boot(guest: BootedGuest) -> Iterator[str]:
    state = boot_state(guest)
    size = boot_unit(state).text
    yield "<section><h2>At boot</h2>"
    yield (
        f"<p>{format_size(state.set_bytes)} are set, MemTotal is about "
        f"{size(state.mem_total_bytes)}, MemFree {size(state.mem_free_bytes)}; "
        f"{state.nr_blocks} memory blocks of {format_size(state.block_bytes)}, "
        f"{state.nr_online} online.</p>"
    )
    yield _table(("not in MemTotal", "cause"), shown_losses(state))
    zones = [
        (str(zone.node), zone.name, size(zone.present_bytes), size(zone.managed_bytes))
        for zone in state.zones
    ]
    yield _table(("node", "zone", "present", "managed"), zones)
    yield "</section>"


def _way(guest: BootedGuest, answer: WayAnswer) -> Iterator[str]:
    way = answer.way
    yield f"<section><h2>Growing by {escape(way.driver)}</h2>"
    yield f"<p>In multiples of {format_size(way.unit_bytes)}; the limit is {escape(way.limit)}.</p>"
    units = units_of(answer.rows)
    total, needs, memmap = (unit.name for unit in units)
    columns = (
        *("size", f"MemTotal, {total}", f"needs free, {needs}"),
        *(f"memmap, {memmap}: boot+added+own", "movable:kernel", "comes online"),
        *("to be given back", "gigantic pages"),
    )
    yield _table(columns, [cells_of(row, units) for row in answer.rows], "scroll wide")
    if answer.largest_add_bytes is not None:
        yield f"<p>Largest single step from boot: {format_size(answer.largest_add_bytes)}.</p>"
    yield f"<p>Stops at {format_size(answer.stops_bytes)}: {escape(answer.stops)}.</p>"
    commands = "\n".join(commands_of(guest, answer))
    if commands:
        shown = f'<pre tabindex="0">{escape(commands)}</pre>'
        yield f"<details><summary>Commands</summary>{shown}</details>"
    yield "</section>"


def _findings(findings: Sequence[LintFinding]) -> Iterator[str]:
    if not findings:
        return
    yield "<section><h2>Findings</h2>"
    for each in findings:
        at = f"line {each.line}: " if each.line is not None else ""
        yield f"<h3>{escape(each.rule)}</h3>"
        yield f"<p>{escape(at + each.what)}</p>"
        yield f"<p>{escape(each.consequence)}</p>"
        yield f"<p><b>change</b>: {escape(each.change)}</p>"
    yield "</section>"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], class_: str = "scroll") -> str:
    columns = "".join(f"<th>{escape(each)}</th>" for each in head)
    body = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    table = f"<table><thead><tr>{columns}</tr></thead><tbody>{body}</tbody></table>"
    return f'<div class="{class_}" tabindex="0">{table}</div>'
