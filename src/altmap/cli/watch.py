"""``altmap watch``: changes of memory blocks, live.

Effects: clock, files, processes, terminal.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from altmap.cli.parser import Example, Verb
from altmap.cli.streams import show, terminal_of
from altmap.errors import InputError

if TYPE_CHECKING:
    from altmap.host.changes import MemoryView
    from altmap.host.uevents import Ears
    from altmap.host.watch import News

__all__ = ("VERB",)

DONE, NOTHING = 0, 1
_RECENT = 200


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-s",
        "--sysroot",
        "--root",
        metavar="FOLDER",
        type=Path,
        help="where another machine's sys and proc are, such as a host's below a container's "
        "folder: polled, without uevents; default: this host",
    )
    parser.add_argument("--once", action="store_true", help="end after the first change or event")
    parser.add_argument(
        "--interval",
        metavar="SECONDS",
        type=float,
        default=2.0,
        help="poll at least that often, and after each event; default: 2",
    )
    parser.add_argument(
        "--for", metavar="SECONDS", type=float, dest="limit", help="end after that time"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON object in each line")
    form.add_argument("--lines", action="store_true", help="print lines on a terminal too")


def _watch(args: argparse.Namespace) -> int:
    from altmap.host.watch import watch

    _check_seconds("--interval", args.interval, 0.05)
    if args.limit is not None:
        _check_seconds("--for", args.limit, 0.0)
    try:
        with _ended_by_sigterm(), _listener(args.sysroot) as (listener, why_not):
            found = watch(_view(args.sysroot or Path("/")), listener, args.interval, args.limit)
            return _show(args, found, why_not)
    except KeyboardInterrupt:
        return DONE


def _check_seconds(name: str, value: float, least: float) -> None:
    if not least <= value <= 10**9:
        raise InputError(f"{name} {value}: need seconds, at least {least:g}")


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End as by Ctrl-C, so that a terminal is left as it was."""

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _listener(sysroot: Path | None) -> Iterator[tuple[Ears, str | None]]:
    """Yield what receives uevents, and why it receives none."""
    from altmap.host.uevents import Deaf, listening

    if sysroot is not None:
        yield Deaf(), "they are not of this machine"
        return
    with listening() as ears:
        if isinstance(ears, str):
            yield Deaf(), ears
        else:
            yield ears, None


def _view(root: Path) -> Callable[[], MemoryView]:
    from altmap.host.changes import MemoryView
    from altmap.linux.blockfolder import read_blocks, read_total_kib

    return lambda: MemoryView(read_blocks(root), read_total_kib(root))


def _show(args: argparse.Namespace, found: Iterator[News], why_not: str | None) -> int:
    from altmap.host.text.watch import start_text

    start = next(found)
    uevents = "uevent listener active" if why_not is None else f"no uevents: {why_not}"
    what = start_text(start.look, "this host" if args.sysroot is None else str(args.sysroot))
    how = f"{what}\n{uevents}; polling every {args.interval:g} s"
    happened = islice(found, 1) if args.once else found
    if args.json:
        nr = _json_lines(args, start, happened, why_not)
    elif args.lines or not sys.stdout.isatty():
        nr = _text_lines(how, happened)
    else:
        nr = _live(how, start, happened)
    return NOTHING if args.once and not nr else DONE


def _json_lines(
    args: argparse.Namespace, start: News, found: Iterable[News], why_not: str | None
) -> int:
    from altmap.host.text.watch import news_builtins, start_builtins

    _print_json(start_builtins(start, why_not, args.interval))
    nr = 0
    for news in found:
        nr += 1
        for each in news_builtins(news):
            _print_json(each)
    return nr


def _print_json(made: dict[str, object]) -> None:
    import msgspec

    print(msgspec.json.encode(made).decode(), flush=True)


def _stamp(news: News) -> str:
    from datetime import datetime

    return datetime.fromtimestamp(news.time_seconds).strftime("%H:%M:%S.%f")[:-3]


def _text_lines(how: str, found: Iterable[News]) -> int:
    from altmap.host.text.watch import news_lines

    show(how)
    sys.stdout.flush()
    nr = 0
    for news in found:
        nr += 1
        show("\n".join(news_lines(news, _stamp(news))))
        sys.stdout.flush()
    return nr


def _live(how: str, start: News, found: Iterable[News]) -> int:
    from rich.console import Console
    from rich.live import Live

    from altmap.host.text.watch import news_lines, watch_table

    console = Console(file=terminal_of(sys.stdout))
    recent: list[str] = []
    shown = watch_table(start.look, how, recent, console.height)
    nr = 0
    with Live(shown, console=console, auto_refresh=False) as live:
        for news in found:
            nr += 1
            recent = [*recent, *news_lines(news, _stamp(news))][-_RECENT:]
            live.update(watch_table(news.look, how, recent, console.height), refresh=True)
    return nr


VERB = Verb(
    "watch",
    "follow uevents and changes of memory blocks",
    (
        Example("altmap watch", "a live table on a terminal, lines in a pipe; Ctrl-C ends it"),
        Example("altmap watch --once --for 60", "wait a minute for the first change"),
    ),
    (
        (0, "ended by Ctrl-C or --for; with --once: something happened"),
        (1, "with --once: nothing happened in that time"),
        (2, "the machine cannot be watched"),
    ),
    _add_arguments,
    _watch,
)
