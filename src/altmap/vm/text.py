"""Answers about a definition as text: at boot, a table for each way, what to change."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from altmap.errors import printable
from altmap.report.tables import plain_table
from altmap.units import format_size
from altmap.vm.answers import BootedGuest, BootState, WayAnswer, boot_state
from altmap.vm.lint import LintFinding
from altmap.vm.reach import Reached
from altmap.vm.thumb import RuleVerdict
from altmap.vm.words import command, total_bytes

__all__ = (
    "answers_text",
    "cells_of",
    "commands_of",
    "comparison_table",
    "mib",
    "rules_text",
    "ways_table",
)

_MIB = 1 << 20

#: What is less is left out of the list: it would read 0 MiB.
_LEAST_SHOWN_BYTES = 1 << 19


def mib(size_bytes: int) -> str:
    """Return a size in whole MiB, with thousands separated: ``12,433 MiB``."""
    return f"{size_bytes / _MIB:,.0f} MiB"


def answers_text(
    guest: BootedGuest,
    answers: Sequence[WayAnswer],
    findings: Sequence[LintFinding],
    width: int,
    *,
    with_commands: bool = False,
) -> str:
    """Return all answers for people.

    Parameters
    ----------
    guest : BootedGuest
    answers : sequence of WayAnswer
    findings : sequence of LintFinding
    width : int
        Columns.
    with_commands : bool
        Also the hypervisor's commands that reach the last size of each table.
    """
    parts = ["".join(f"{line}\n" for line in _head(guest, width))]
    parts.append(_boot(boot_state(guest), width))
    for answer in answers:
        parts.append(ways_table(answer, width))
        parts.append("".join(f"{line}\n" for line in _ends(answer, width)))
        if with_commands:
            parts += [f"  {line}\n" for line in commands_of(guest, answer)]
    if not answers:
        parts.append("While it runs, the definition lets no memory be added.\n")
    parts.append("".join(f"{line}\n" for line in _findings(findings, width)))
    return "".join(parts)


def _head(guest: BootedGuest, width: int) -> Iterator[str]:
    definition, kernel = guest.definition, guest.kernel
    yield f"{printable(definition.name)}: {definition.format}, {guest.machine.arch.name}"
    words = f", command line {kernel.cmdline!r}" if kernel.cmdline else ""
    yield from _wrap(f"kernel: Linux {kernel.release} ({kernel.stated}){words}", width)
    notes = [*guest.machine.notes, *guest.booted.notes]
    for unread in (*definition.unread, *kernel.unread):
        at = f"line {unread.line}: " if unread.line is not None else ""
        notes.append(f"not understood: {at}{unread.value}: {unread.reason}")
    for note in dict.fromkeys(notes):
        yield from _wrap(f"note: {note}", width)


def _boot(state: BootState, width: int) -> str:
    lines = [
        "",
        f"At boot: {format_size(state.set_bytes)} are set, MemTotal is about "
        f"{mib(state.mem_total_bytes)}, MemFree {mib(state.mem_free_bytes)}",
    ]
    for size, why in state.losses:
        if size < _LEAST_SHOWN_BYTES:
            continue
        lines += _wrap(f"- {mib(size)}: {why}", width, "  ")
    lines.append(
        f"  {state.nr_blocks} memory blocks of {format_size(state.block_bytes)}, "
        f"{state.nr_online} online; nodes: {', '.join(map(str, state.nodes))}"
    )
    for zone in state.zones:
        lines.append(
            f"  node {zone.node}, zone {zone.name}: {mib(zone.present_bytes)} present, "
            f"{mib(zone.managed_bytes)} managed"
        )
    return "\n".join(lines) + "\n"


def ways_table(answer: WayAnswer, width: int) -> str:
    """Return the table of the sizes that one way reaches."""
    way = answer.way
    title = f"Growing by {way.driver}, in multiples of {format_size(way.unit_bytes)}"
    if not way.defined:
        title += " (not in the definition)"
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, title_style="", padding=(0, 1, 0, 0)
    )
    gigantic = next((row.gigantic_page_bytes for row in answer.rows if row.gigantic_page_bytes), 0)
    memmap = "memmap, MiB:\nboot+added+own"
    for name in ("size", "MemTotal\nMiB", "needs free\nMiB", memmap, "movable:\nkernel"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("comes online", no_wrap=True)
    table.add_column("given back", no_wrap=True)
    pages = f"{format_size(gigantic) if gigantic else '1 GiB'}\npages"
    table.add_column(pages, justify="right", no_wrap=True)
    for row in answer.rows:
        table.add_row(*cells_of(row))
    return "\n" + plain_table(table, width)


def cells_of(row: Reached) -> list[str]:
    """Return a row of the table, one text for each column."""
    size = format_size(row.size_bytes)
    if row.result == "refused":
        return [size, row.result, "", "", "", "", "", ""]
    size = f"≈ {size}" if row.result == "about" else size
    memmap = (row.memmap_boot_bytes, row.memmap_added_bytes, row.memmap_self_bytes)
    return [
        size,
        f"{row.mem_total_bytes / _MIB:,.0f}",
        f"{row.needs_free_bytes / _MIB:,.0f}" if row.needs_free_bytes else "-",
        "+".join(f"{each / _MIB:,.0f}" for each in memmap) if any(memmap) else "-",
        f"{row.ratio:.1f}:1",
        _online(row),
        _given(row),
        str(row.gigantic),
    ]


def _online(row: Reached) -> str:
    parts = [
        f"{format_size(size)} {where}"
        for size, where in (
            (row.online_kernel_bytes, "kernel"),
            (row.online_movable_bytes, "Movable"),
            (row.offline_bytes, "offline"),
        )
        if size
    ]
    return ", ".join(parts) or "-"


def _given(row: Reached) -> str:
    parts = [
        f"{word} {format_size(size)}"
        for word, size in (
            ("certain", row.given.certain),
            ("likely", row.given.likely),
            ("not", row.given.unlikely),
        )
        if size
    ]
    return ", ".join(parts) or "-"


def _ends(answer: WayAnswer, width: int) -> Iterator[str]:
    way = answer.way
    last = answer.rows[-1] if answer.rows else None
    if last is not None and last.result == "about":
        yield from _wrap(f"≈: {last.why}: each further block costs as much", width, "  ")
    elif last is not None and last.result != "ok":
        yield from _wrap(f"{format_size(last.size_bytes)}: {last.result}: {last.why}", width, "  ")
    if answer.largest_add_bytes is not None:
        yield from _wrap(f"largest single step from boot: {_largest(answer)}", width, "  ")
    several = [row for row in answer.rows if row.result == "ok" and len(row.adds_bytes) > 1]
    if several and way.driver == "dimm":
        sizes = " + ".join(map(format_size, several[0].adds_bytes))
        yield from _wrap(
            f"from {format_size(several[0].size_bytes)} on in several steps: {sizes}", width, "  "
        )
    yield from _wrap(f"stops at {format_size(answer.stops_bytes)}: {answer.stops}", width, "  ")


def _largest(answer: WayAnswer) -> str:
    largest, careful = answer.largest_add_bytes, answer.careful_add_bytes
    if not largest:
        return "none"
    if not careful or careful >= largest:
        return format_size(largest)
    return f"{format_size(largest)}; {format_size(careful)} leave half of the free memory"


def commands_of(guest: BootedGuest, answer: WayAnswer) -> Iterator[str]:
    """Yield the hypervisor's commands that reach the last size of a table."""
    definition, way = guest.definition, answer.way
    reached = [row for row in answer.rows if row.result != "refused"]
    if not reached:
        return
    row, total = reached[-1], total_bytes(definition)
    if way.driver == "balloon":
        yield command(definition, "balloon", total=row.size_bytes)
    elif way.driver == "virtio-mem" and way.devices:
        missing = row.size_bytes - way.start_bytes
        for device in way.devices:
            now = device.requested_bytes or 0
            more = min(missing, device.size_bytes - now)
            if more > 0:
                missing, total = missing - more, total + more
                yield command(
                    definition, "resize", id_=device.name, size_bytes=now + more, total=total
                )
    elif way.driver == "virtio-mem":
        size = sum(row.adds_bytes)
        if size:
            yield command(
                definition,
                "add_virtio_mem",
                id_="virtiomem-added",
                size_bytes=size,
                region_bytes=max(size, way.limit_bytes - way.start_bytes),
                total=total + size,
            )
    else:
        for number, size in enumerate(row.adds_bytes):
            total += size
            yield command(
                definition, "add", id_=f"dimm-added{number}", size_bytes=size, total=total
            )


def _findings(findings: Sequence[LintFinding], width: int) -> Iterator[str]:
    for each in findings:
        at = f"line {each.line}: " if each.line is not None else ""
        yield ""
        yield from _wrap(f"{each.rule}: {at}{each.what}", width)
        yield from _wrap(each.consequence, width, "  ")
        yield from _wrap(f"change: {each.change}", width, "  ")


def comparison_table(titles: Sequence[str], answers: Sequence[WayAnswer], width: int) -> str:
    """Return ways or kernels side by side: the same sizes, and what each makes of them."""
    table = Table(title="Side by side", title_justify="left", box=SIMPLE_HEAD, title_style="")
    table.add_column("size")
    table.add_column("")
    for title in titles:
        table.add_column(printable(title))
    rows = [{row.size_bytes: row for row in answer.rows} for answer in answers]
    for size in sorted({size for each in rows for size in each}):
        named = [each.get(size) for each in rows]
        for label, cells in _lines_of(named):
            table.add_row(format_size(size) if label.startswith("MemTotal") else "", label, *cells)
    stops = [f"{format_size(each.stops_bytes)}: {each.stops}" for each in answers]
    table.add_row("stops at", "", *stops)
    return plain_table(table, width)


def _lines_of(rows: Sequence[Reached | None]) -> Iterator[tuple[str, list[str]]]:
    labels = (
        *("MemTotal, MiB", "needs free, MiB", "memmap, MiB"),
        *("movable:kernel", "comes online", "given back"),
    )
    columns = []
    for row in rows:
        if row is None:
            columns.append(["-"] * len(labels))
        elif row.result == "refused":
            columns.append([row.result, "", "", "", "", ""])
        else:
            columns.append(cells_of(row)[1:7])
    for at, label in enumerate(labels):
        yield label, [column[at] for column in columns]


def _wrap(text: str, width: int, indent: str = "") -> list[str]:
    return textwrap.wrap(
        printable(text), width, initial_indent=indent, subsequent_indent=indent + "  "
    )


def rules_text(
    driver: str, release: str, arch: str, verdicts: Sequence[RuleVerdict], width: int
) -> str:
    """Return the rules of thumb with their verdicts."""
    lines = [f"Rules of thumb for {driver}, Linux {release}, {arch}"]
    for each in verdicts:
        lines += _wrap(f"{each.rule.name}: {each.rule.text}", width)
        lines += _wrap(each.text(), width, "  ")
    return "\n".join(lines) + "\n"
