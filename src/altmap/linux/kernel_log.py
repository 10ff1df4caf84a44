"""Lines of the kernel's log, as ``dmesg``, ``journalctl`` and syslog daemons write them.

Only the message matters: what stands before it (time, level, host, caller) is recognised and cut
off. Lines of other programs are passed over.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

__all__ = ("KernelLine", "kernel_lines")

#: The kernel's own limit of a line, and room for what is put before it (``kernel/printk``:
#: LOG_LINE_MAX).
_MOST_CHARACTERS = 1024 + 400

_DATE = r"[A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d(?:\.\d{1,9})?"
_ISO = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
_FULL = r"[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})? [A-Z+0-9-]{1,6}"
_SECONDS = r"\[ {0,12}\d{1,10}\.\d{1,9}\]"
_UNIX = r"\d{9,11}\.\d{1,9}"
_HOST, _PID = r"[\w.:-]{1,253}", r"\[\d{1,10}\]"
#: ``journalctl -o short`` and its relatives, rsyslog: time, host, program. After seconds in
#: brackets, which ``dmesg`` writes too, a word and a colon can be the kernel's own.
_JOURNAL = re.compile(
    rf"(?P<time>{_DATE}|{_ISO}|{_FULL}|{_UNIX}) {_HOST} "
    rf"(?P<program>[^\s:\[]{{1,128}})(?:{_PID})?: "
)
_MONOTONIC = re.compile(
    rf"(?P<time>{_SECONDS}) {_HOST} (?P<program>kernel(?=: )|[^\s:\[]{{1,128}}(?={_PID}: ))"
    rf"(?:{_PID})?: "
)
#: What the kernel and ``dmesg`` put first, in this order (``kernel/printk/printk.c:
#: print_prefix``, util-linux: ``sys-utils/dmesg.c``).
_LEVEL = re.compile(r"<\d{1,3}>")
_WORDS = re.compile(r"(?:kern|user|daemon) {0,3}: ?[a-z]{2,8} {0,3}: ")
_TIME = re.compile(
    r"(?:\[(?P<a> {0,12}\d{1,10}\.\d{1,9})(?: <[ 0-9.+-]{1,20}>)?\]"
    r"|\[(?P<b>[A-Z][a-z]{2} [A-Z][a-z]{2} [ 0-9]\d \d\d:\d\d:\d\d \d{4})\]"
    rf"|(?P<c>{_ISO})(?= )) ?"
)
_CALLER = re.compile(r"\[ {0,9}[TC]\d{1,9}\] ?")
#: ``/dev/kmsg``: level, number, microseconds, flags.
_KMSG = re.compile(r"\d{1,4},\d{1,19},(?P<us>\d{1,19}),[^;]{1,64};")
_DMESG_JSON = re.compile(r'\s*"(?P<key>time|msg)": +(?P<value>.+?),?\s*')
_DMESG_FRAME = re.compile(r'\s*(?:"\w{1,16}": ?(?:\[|".{0,80}"|\d{1,12})?,?|[][{},]{0,4})\s*')


@dataclass(frozen=True, slots=True)
class KernelLine:
    """One message of the kernel.

    Attributes
    ----------
    number : int
        The line of the input, from 1 on.
    time : str
        As the log writes it; empty where it does not.
    text : str
        The message without what stands before it.
    """

    number: int
    time: str
    text: str


def kernel_lines(lines: Iterable[str]) -> Iterator[KernelLine]:
    """Yield the messages of a log.

    Parameters
    ----------
    lines : iterable of str
        Of any of the formats; ``journalctl -o json`` has one object a line, ``dmesg --json`` one
        key a line.
    """
    time = ""
    for number, line in enumerate(lines, 1):
        if not line.startswith("{"):  # JSON has more around the message
            line = line[:_MOST_CHARACTERS]
        line = line.rstrip("\r\n\0")
        if line.startswith("{"):
            found = _of_journal_json(line)
        elif (match := _DMESG_JSON.fullmatch(line)) is not None:
            text = _decoded(match["value"])
            if match["key"] == "time":
                time, found = text, None
            else:
                found = time, text
        elif _DMESG_FRAME.fullmatch(line):
            continue
        else:
            found = _of_text(line)
        if found is not None and found[1]:
            yield KernelLine(number, *found)


def _of_text(line: str) -> tuple[str, str] | None:
    """Return time and message; ``None`` for a line of another program."""
    time = ""
    match = _JOURNAL.match(line) or _MONOTONIC.match(line)
    if match is not None:
        if match["program"] != "kernel":
            return None
        time, line = match["time"].strip("[] "), line[match.end() :]
    match = _KMSG.match(line)
    if match is not None:
        return f"{int(match['us']) / 1e6:.6f}", line[match.end() :]
    for prefix in (_LEVEL, _WORDS):
        if (match := prefix.match(line)) is not None:
            line = line[match.end() :]
    if (match := _TIME.match(line)) is not None:
        time = time or next(text for text in match.groups() if text).strip()
        line = line[match.end() :]
    if (match := _CALLER.match(line)) is not None:
        line = line[match.end() :]
    return time, line


def _of_journal_json(line: str) -> tuple[str, str] | None:
    """Return time and message of an entry; ``None`` if another program wrote it."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(entry, dict) or entry.get("_TRANSPORT", "kernel") != "kernel":
        return None
    message, time = entry.get("MESSAGE"), entry.get("_SOURCE_MONOTONIC_TIMESTAMP", "")
    if not isinstance(message, str):
        return None
    if isinstance(time, str) and re.fullmatch(r"[0-9]{1,19}", time):
        return f"{int(time) / 1e6:.6f}", message
    return "", message


def _decoded(text: str) -> str:
    """Return a value of JSON as text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return ""
    return str(value) if isinstance(value, str | float | int) else ""
