"""A fleet: its machines, and the requests for each over time.

Effects: clock, files.
"""

from __future__ import annotations

import csv
import datetime
import io
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

from altmap.errors import InputError, one_of
from altmap.model.arch import arch_named
from altmap.model.releases import release_for
from altmap.scenario import read_toml
from altmap.sweep.requests import DRIVERS
from altmap.units import format_size, parse_size

__all__ = ("FleetRequest", "Member", "csv_text", "members", "read_trace")


class FleetRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One request: a line of a trace.

    Attributes
    ----------
    time : str
        A time in ISO 8601, or a number of seconds.
    machine : str
        Name of the machine.
    driver : str
        The driver; the same in all lines of a machine.
    memory : str
        Boot memory.
    requested : str
        Memory from now on, boot memory included.
    arch, release, block_size : str
        Of this machine; optional.
    """

    time: str
    machine: str
    driver: str
    memory: str
    requested: str
    arch: str = ""
    release: str = ""
    block_size: str = ""


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One machine of a fleet, with its requests in the order of their time.

    Attributes
    ----------
    name, driver : str
    machine : dict
        Keys of a scenario's machine.
    requested_bytes : tuple of int
        Boot memory included.
    times : tuple of str
    """

    name: str
    driver: str
    machine: dict[str, str]
    requested_bytes: tuple[int, ...]
    times: tuple[str, ...]


def read_trace(path: Path) -> list[FleetRequest]:
    """Read a trace: CSV with a heading, Parquet, or TOML with tables ``[[requests]]``.

    Raises
    ------
    InputError
        Names the file, the line and the rule.
    """
    if path.suffix not in _READERS:
        raise InputError(f"trace {path}: need a name that ends with {', '.join(_READERS)}")
    try:
        return list(_lines(path, _READERS[path.suffix](path)))
    except OSError as error:
        raise InputError(f"trace {path}: {error.strerror or error}") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"trace {path}: {error}") from error


def _lines(path: Path, lines: Iterable[dict[str, Any]]) -> Iterator[FleetRequest]:
    for number, line in enumerate(lines, start=1):
        given = {key: _text(value) for key, value in line.items() if value not in (None, "")}
        try:
            made = msgspec.convert(given, FleetRequest)
            _check(made)
        except (msgspec.ValidationError, InputError) as error:
            raise InputError(f"trace {path}, request {number}: {error}") from error
        yield made


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime.datetime) else str(value)


def _check(line: FleetRequest) -> None:
    if line.driver not in DRIVERS:
        raise InputError(f"driver {line.driver!r}: {one_of(line.driver, DRIVERS)}")
    for text in filter(None, (line.memory, line.requested, line.block_size)):
        _size(text)
    if line.arch:
        arch_named(line.arch)
    if line.release:
        release_for(line.release)
    _when(line.time)


@lru_cache(maxsize=4096)
def _size(text: str) -> int:
    return parse_size(text)


def _when(time: str) -> tuple[int, float]:
    """Return the sort key of a time; numbers and dates are different kinds."""
    try:
        return 0, float(time)
    except ValueError:
        pass
    try:
        when = datetime.datetime.fromisoformat(time)
    except ValueError as error:
        raise InputError(
            f"time {time!r}: need seconds, or a date such as 2026-01-31T12:00:00"
        ) from error
    return 1, when.replace(tzinfo=when.tzinfo or datetime.UTC).timestamp()


def _csv(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        for line in csv.DictReader(file):
            if None in line:
                raise InputError(f"trace {path}: {line[None]} has no column")
            yield line


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    import polars as pl

    try:
        yield from pl.read_parquet(path).iter_rows(named=True)
    except pl.exceptions.PolarsError as error:
        raise ValueError(str(error).splitlines()[0]) from error


def _toml(path: Path) -> Iterator[dict[str, Any]]:
    try:
        data = read_toml(path)
    except InputError as error:
        raise ValueError(str(error)) from error
    lines = data.pop("requests", None)
    if data or not isinstance(lines, list) or not all(isinstance(each, dict) for each in lines):
        raise ValueError("need tables [[requests]] and nothing else")
    yield from lines


_READERS = {".csv": _csv, ".parquet": _parquet, ".toml": _toml}


def members(lines: Iterable[FleetRequest]) -> list[Member]:
    """Return the machines of a trace, sorted so that similar ones are adjacent.

    Raises
    ------
    InputError
        If a machine's fixed columns change, or its times are of two kinds.
    """
    by_name: dict[str, list[FleetRequest]] = {}
    for line in lines:
        by_name.setdefault(line.machine, []).append(line)
    made = [_member(name, mine) for name, mine in by_name.items()]
    return sorted(made, key=lambda each: (sorted(each.machine.items()), each.driver,
                                          each.requested_bytes, each.name))  # fmt: skip


def _member(name: str, lines: list[FleetRequest]) -> Member:
    whens = [_when(line.time) for line in lines]
    if len({kind for kind, _ in whens}) > 1:
        raise InputError(f"machine {name!r}: its times are both numbers and dates; need one kind")
    ordered = [line for _, line in sorted(zip(whens, lines, strict=True), key=lambda pair: pair[0])]
    first = ordered[0]
    kept = {
        key: getattr(first, key)
        for key in ("memory", "arch", "release", "block_size")
        if getattr(first, key)
    }
    for line in ordered:
        for key in ("driver", "memory", "arch", "release", "block_size"):
            if getattr(line, key) != getattr(first, key):
                raise InputError(
                    f"machine {name!r}: {key} {getattr(line, key)!r} at {line.time}, "
                    f"{getattr(first, key)!r} at {first.time}: need one value for each machine"
                )
    return Member(
        name=name,
        driver=first.driver,
        machine=kept,
        requested_bytes=tuple(_size(line.requested) for line in ordered),
        times=tuple(line.time for line in ordered),
    )


def csv_text(fleet: Sequence[Member]) -> str:
    """Return machines as a trace in CSV, which :func:`read_trace` reads."""
    made = io.StringIO()
    optional = ("arch", "release", "block_size")
    used = [key for key in optional if any(key in member.machine for member in fleet)]
    writer = csv.writer(made, lineterminator="\n")
    writer.writerow(["time", "machine", "driver", "memory", "requested", *used])
    for member in fleet:
        kept = [member.machine.get(key, "") for key in used]
        for time, size in zip(member.times, member.requested_bytes, strict=True):
            line = (time, member.name, member.driver, member.machine["memory"], format_size(size))
            writer.writerow([*line, *kept])
    return made.getvalue()
