"""Answers about a definition as text: at boot, a table for each way, what to change."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from altmap.errors import printable
from altmap.model.kernel.accounting import DEFAULT_POLICY
from altmap.report.tables import plain_table
from altmap.units import SizeUnit, column_unit, format_size
from altmap.vm.answers import BootedGuest, BootState, WayAnswer, boot_state
from altmap.vm.lint import LintFinding
from altmap.vm.reach import Reached
from altmap.vm.thumb import RuleVerdict
from altmap.vm.words import command, total_bytes

__all__ = (
    "answers_text",
    "boot_unit",
    "cells_of",
    "commands_of",
    "comparison_table",
    "rules_text",
    "shown_losses",
    "units_of",
    "ways_table",
)

#: What is less is left out of the list: it would read 0 MiB.
_LEAST_SHOWN_BYTES = 1 << 19


def shown_losses(state: BootState) -> list[tuple[str, str]]:
    """Return what is not in MemTotal, each with its cause."""
    unit = column_unit(size for size, _ in state.losses)
    least = max(_LEAST_SHOWN_BYTES, unit.nr_bytes // 2000)
    return [(unit.text(size), why) for size, why in state.losses if size >= least]


def boot_unit(state: BootState) -> SizeUnit:
    """Return the unit of MemTotal, of MemFree and of the zones at boot."""
    return column_unit([state.mem_total_bytes, *(zone.present_bytes for zone in state.zones)])


def units_of(rows: Sequence[Reached]) -> tuple[SizeUnit, SizeUnit, SizeUnit]:
    """Return the units of the columns MemTotal, needs free and memmap."""
    return (
        column_unit(row.mem_total_bytes for row in rows),
        column_unit(row.needs_free_bytes for row in rows),
        column_unit(size for row in rows for size in _memmap(row)),
    )


def _memmap(row: Reached) -> tuple[int, int, int]:
    return row.memmap_boot_bytes, row.memmap_added_bytes, row.memmap_self_bytes


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
    policy = guest.booted.kernel.policy.name
    if policy != DEFAULT_POLICY:
        yield f"memmap policy: {printable(policy)}"
    notes = [*guest.machine.notes, *guest.booted.notes]
    for unread in definition.unread:
        at = f"line {unread.line}: " if unread.line is not None else ""
        notes.append(f"not understood: {at}{unread.value}: {unread.reason}")
    notes += [f"command line: {each.value}: {each.reason}" for each in kernel.unread]
    for note in dict.fromkeys(notes):
        yield from _wrap(f"note: {note}", width)


def _boot(state: BootState, width: int) -> str:
    size = boot_unit(state).text
    lines = [
        "",
        *_wrap(
            f"At boot: {format_size(state.set_bytes)} are set, MemTotal is about "
            f"{size(state.mem_total_bytes)}, MemFree {size(state.mem_free_bytes)}",
            width,
        ),
    ]
    for lost, why in shown_losses(state):
        lines += _wrap(f"- {lost}: {why}", width, "  ")
    blocks = (
        f"{state.nr_blocks} memory blocks of {format_size(state.block_bytes)}, "
        f"{state.nr_online} online; nodes: {', '.join(map(str, state.nodes))}"
    )
    lines += _wrap(blocks, width, "  ")
    for zone in state.zones:
        amounts = f"{size(zone.present_bytes)} present, {size(zone.managed_bytes)} managed"
        lines += _wrap(f"node {zone.node}, zone {zone.name}: {amounts}", width, "  ")
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
    units = units_of(answer.rows)
    total, needs, memmap = (unit.name for unit in units)
    for name in (
        *("size", f"MemTotal\n{total}", f"needs free\n{needs}"),
        *(f"memmap, {memmap}:\nboot+added+own", "movable:\nkernel"),
    ):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("comes online", no_wrap=True)
    table.add_column("given back", no_wrap=True)
    table.add_column(f"{_gigantic(answer.rows)}\npages", justify="right", no_wrap=True)
    for row in answer.rows:
        table.add_row(*cells_of(row, units))
    shown = plain_table(table, width)
    if max(map(len, shown.splitlines())) <= width:
        return f"\n{shown}"
    return f"\n{title}\n{plain_table(_side_by_side([''], [answer]), width)}"


def cells_of(row: Reached, units: tuple[SizeUnit, SizeUnit, SizeUnit]) -> list[str]:
    """Return a row of the table, one text for each column; *units* are those of its sizes."""
    size = format_size(row.size_bytes)
    if row.result == "refused":
        return [size, row.result, "", "", "", "", "", ""]
    size = f"≈ {size}" if row.result == "about" else size
    total, needs, memmap = units
    return [
        size,
        total.number(row.mem_total_bytes),
        needs.number(row.needs_free_bytes) if row.needs_free_bytes else "-",
        "+".join(map(memmap.number, _memmap(row))) if any(_memmap(row)) else "-",
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
    table = plain_table(_side_by_side(titles, answers), width)
    stops = (
        f"{title} stops at {format_size(each.stops_bytes)}: {each.stops}"
        for title, each in zip(titles, answers, strict=True)
    )
    lines = [line for text in stops for line in _wrap(text, width)]
    return "Side by side\n" + table + "".join(f"{line}\n" for line in lines)


def _side_by_side(titles: Sequence[str], answers: Sequence[WayAnswer]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("size", no_wrap=True)
    table.add_column("", no_wrap=True)
    for title in titles:
        table.add_column(printable(title))
    rows = [{row.size_bytes: row for row in answer.rows} for answer in answers]
    every = [row for answer in answers for row in answer.rows]
    units = units_of(every)
    total, needs, memmap = (unit.name for unit in units)
    labels = (
        *(f"MemTotal, {total}", f"needs free, {needs}", f"memmap, {memmap}:\nboot+added+own"),
        *("movable:kernel", "comes online", "given back", f"{_gigantic(every)} pages"),
    )
    for size in sorted({row.size_bytes for row in every}):
        found = [each.get(size) for each in rows]
        columns = [
            ["-"] * len(labels) if row is None else cells_of(row, units)[1:] for row in found
        ]
        for number, (label, *cells) in enumerate(zip(labels, *columns, strict=True)):
            table.add_row("" if number else format_size(size), label, *cells)
    return table


def _gigantic(rows: Sequence[Reached]) -> str:
    """Return the size of the gigantic pages that a table counts."""
    return format_size(next(filter(None, (row.gigantic_page_bytes for row in rows)), 1 << 30))


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
