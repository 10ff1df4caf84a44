"""What happens to memory blocks, as lines, as JSON, and as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Group
from rich.table import Table
from rich.text import Text

from altmap.errors import printable
from altmap.host.changes import BlockChange, MemoryView, Standing, ranges
from altmap.host.text.blocks import human_size
from altmap.host.watch import News
from altmap.linux.uevent import Uevent
from altmap.units import counted_size

__all__ = ("news_builtins", "news_lines", "start_builtins", "start_text", "watch_table")

_HEAD = {"schema": "altmap-watch", "version": 1}


def start_text(look: MemoryView, source: str) -> str:
    """Return what is watched."""
    block = look.memory.block_size_bytes
    states = [each.state for each in look.memory.blocks.values()]
    online = states.count("online")
    total = look.mem_total_kib
    parts = [
        f"watching {printable(source)}: {len(states)} blocks of {human_size(block)}",
        f"{human_size(online * block)} online",
        *([] if total is None else [f"MemTotal {counted_size(total)}"]),
    ]
    return ", ".join(parts)


def news_lines(news: News, stamp: str) -> Iterator[str]:
    """Yield a line for each event and each change.

    Parameters
    ----------
    news : News
    stamp : str
        The time, as it is told.
    """
    return (f"{stamp} {line}" for line in _lines(news))


def _lines(news: News) -> Iterator[str]:
    if news.lost:
        yield "some uevents were lost: too many came at once"
    for event in news.events:
        yield f"uevent {printable(event.action)} memory{event.block}{_extra(event)}"
    for change in news.changes:
        yield _change(change)
    if news.mem_total_kib is not None:
        before, after = news.mem_total_kib
        yield f"MemTotal {counted_size(after, after - before)}"


def _extra(event: Uevent) -> str:
    return "" if event.seqnum is None else f" (number {event.seqnum})"


def _change(change: BlockChange) -> str:
    name = _blocks(change.first, change.last)
    if change.before is None:
        return f"{name} appeared: {_standing(change.after, node=True)}"
    if change.after is None:
        return f"{name} gone: was {_standing(change.before)}"
    return f"{name} {_standing(change.before)} -> {_standing(change.after)}"


def _blocks(first: int, last: int) -> str:
    return f"memory{first}" if first == last else f"memory{first}-{last}"


def _standing(standing: Standing | None, *, node: bool = False) -> str:
    if standing is None:
        return "not there"
    text = standing.state + (f" {standing.zone}" if standing.zone else "")
    if node and standing.nodes:
        text += f", node {','.join(map(str, standing.nodes))}"
    return printable(text)


def start_builtins(news: News, deaf: str | None, interval_seconds: float) -> dict[str, Any]:
    """Return the first line as builtins: the machine as it is, and whether uevents are received."""
    look = news.look
    return {
        **_HEAD,
        "kind": "start",
        "time_seconds": news.time_seconds,
        "uevents": deaf is None,
        "why_no_uevents": deaf,
        "interval_seconds": interval_seconds,
        "block_size_bytes": look.memory.block_size_bytes,
        "mem_total_kib": look.mem_total_kib,
        "blocks": [
            {"first": each.first, "last": each.last, **_builtins(each.standing)}
            for each in ranges(look.memory)
        ],
    }


def news_builtins(news: News) -> Iterator[dict[str, Any]]:
    """Yield a line as builtins for each event and each change."""
    head = {**_HEAD, "time_seconds": news.time_seconds}
    if news.lost:
        yield {**head, "kind": "lost"}
    for event in news.events:
        yield {
            **head,
            "kind": "uevent",
            "action": event.action,
            "block": event.block,
            "fields": event.fields,
        }
    for change in news.changes:
        yield {
            **head,
            "kind": "change",
            "first": change.first,
            "last": change.last,
            "before": change.before and _builtins(change.before),
            "after": change.after and _builtins(change.after),
        }
    if news.mem_total_kib is not None:
        before, after = news.mem_total_kib
        yield {**head, "kind": "mem_total", "before_kib": before, "after_kib": after}


def _builtins(standing: Standing) -> dict[str, Any]:
    return {"state": standing.state, "zone": standing.zone, "nodes": list(standing.nodes)}


def watch_table(look: MemoryView, how: str, recent: Sequence[str], nr_lines: int) -> Group:
    """Return what a terminal shows: the blocks as they are, and the last things that happened.

    Parameters
    ----------
    look : MemoryView
    how : str
        What is watched and how, in lines.
    recent : sequence of str
        What happened, the last thing last.
    nr_lines : int
        Lines that the terminal has; the blocks get at least half of them.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for name in ("BLOCK", "SIZE", "STATE", "ZONE", "NODE"):
        table.add_column(name, justify="left" if name in ("STATE", "ZONE") else "right")
    block = look.memory.block_size_bytes
    rows = ranges(look.memory)
    # Besides: two lines above, the table's own four, and one that says how many are left out.
    room = max(2, nr_lines - 7)
    most = max(1, room - min(len(recent), room // 2))
    for each in rows[-most:]:
        table.add_row(
            f"{each.first}" if each.first == each.last else f"{each.first}-{each.last}",
            human_size((each.last - each.first + 1) * block),
            printable(each.standing.state),
            printable(each.standing.zone or ""),
            ",".join(map(str, each.standing.nodes)),
            style="dim" if each.standing.state == "offline" else None,
        )
    hidden = len(rows) - most
    parts: list[Any] = [*map(_line, how.split("\n")), table]
    if hidden > 0:
        parts.append(Text(f"… {hidden} ranges before these …", style="dim"))
    parts += map(_line, recent[-max(1, room - min(len(rows), most)) :])
    return Group(*parts)


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")
