"""Reports as files: the format follows the name; a file is written completely or not at all.

Effects: files.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from altmap import __version__
from altmap.compare import Comparison
from altmap.errors import InputError, missing_extra
from altmap.report.page import TraceGroup, groups, map_builtins, page
from altmap.report.text import comparison_text
from altmap.storage.files import write_file
from altmap.storage.saved import Saved
from altmap.trace import Trace

__all__ = (
    "FORMATS",
    "ReportOptions",
    "check_output",
    "report_on",
    "require_charts",
    "write_comparisons",
    "write_report",
)

FORMATS = (".html", ".svg", ".png", ".txt", ".json")


@dataclass(frozen=True, slots=True)
class ReportOptions:
    """Which part of the traces a report shows.

    Attributes
    ----------
    title : str or None
    step : int or None
        For a picture.
    blocks : range or None
        Ids of the memory blocks to map.
    """

    title: str | None = None
    step: int | None = None
    blocks: range | None = None

    @classmethod
    def parse(cls, title: str | None, step: int | None, blocks: str | None) -> ReportOptions:
        """Return the options from the command line's text.

        Raises
        ------
        InputError
            If the blocks are not a range.
        """
        if blocks is None:
            return cls(title, step)
        match = re.fullmatch(r"(?:memory)?(\d{1,15})(?:-(?:memory)?(\d{1,15}))?", blocks, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise InputError(f"--blocks {blocks!r}: need A-B, such as 32-39")
        return cls(title, step, range(first, last + 1))


def check_output(path: Path, formats: Sequence[str] = FORMATS) -> None:
    """Check that a report can be written, before it is computed.

    Raises
    ------
    InputError
        If the format is unknown, the folder does not exist, or an extra is not installed.
    """
    if path.suffix not in formats:
        raise InputError(f"output {path}: need a name that ends with {', '.join(formats)}")
    if not path.parent.is_dir():
        raise InputError(f"output {path}: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"output {path}: is a folder")
    if path.suffix == ".png":
        require_charts()


def require_charts() -> None:
    """Check that charts and PNG can be drawn.

    Raises
    ------
    InputError
        Names the extra that installs the missing module.
    """
    try:
        import vl_convert as _vl_convert  # noqa: F401
    except ImportError as error:
        missing = missing_extra("report: charts and PNG need", error, "report")
        raise InputError(f"{missing} (not needed for pages, SVG, text and JSON)") from error


def write_report(found: Saved, options: ReportOptions, path: Path) -> None:
    """Write the report in the format that the path's ending names.

    Raises
    ------
    InputError
        If the traces lack the requested step or blocks, or the file cannot be written.
    """
    write_file(path, _made(found, options, path.suffix))


def _made(found: Saved, options: ReportOptions, suffix: str) -> bytes:
    if suffix == ".txt":
        return report_on(found, options).encode()
    if suffix == ".json":
        return _json(found, options)
    if suffix == ".html":
        title = options.title or _title(found.traces, found.comparisons)
        made = page(found.traces, title, __version__, found.comparisons, options.blocks)
        return made.encode()
    from altmap.report.picture import png, svg

    group = _only_group(found, options)
    picture = svg(group, options.title or _title(found.traces, ()), options.step)
    return png(picture) if suffix == ".png" else picture.encode()


def report_on(found: Saved, options: ReportOptions, width: int = 80) -> str:
    """Return the report as text of that many columns."""
    from altmap.report.tables import report_text

    parts = [comparison_text(comparison, name) for name, comparison in found.comparisons]
    if found.traces:
        parts.append(report_text(groups(found.traces, options.blocks), width))
    return "\n".join(parts)


def write_comparisons(found: Sequence[tuple[str, Comparison]], path: Path) -> None:
    """Write comparisons: a page with the maps of both sides, or JSON or text of the findings."""
    traces = [trace for _, comparison in found for trace in comparison.traces]
    if path.suffix != ".html":
        traces = []
    write_report(Saved(traces, list(found)), ReportOptions(), path)


def _title(traces: Sequence[Trace], comparisons: Sequence[tuple[str, Comparison]]) -> str:
    titles = [name for name, _ in comparisons] or [t.description or t.scenario for t in traces]
    return ", ".join(dict.fromkeys(titles))


def _only_group(found: Saved, options: ReportOptions) -> TraceGroup:
    made = groups(found.traces, options.blocks)
    if len(made) != 1:
        raise InputError(f"a picture shows one scenario, and {len(made)} were given")
    steps = len(made[0].traces[0].steps)
    if options.step is not None and not 0 <= options.step < steps:
        raise InputError(f"--step {options.step}: need 0 to {steps - 1}")
    if made[0].tiles is None:
        raise InputError("a picture needs files with memory blocks: sys/devices/system/memory")
    return made[0]


def _json(found: Saved, options: ReportOptions) -> bytes:
    """Return comparisons in the form that is read again, or the maps and traces of a report."""
    if found.comparisons and not found.traces:
        items: list[Any] = [comparison.to_builtins(name) for name, comparison in found.comparisons]
        raw = msgspec.json.encode(items[0] if len(items) == 1 else items)
    else:
        made = {
            "schema": "altmap-report",
            "version": 1,
            "traces": [trace.to_builtins() for trace in found.traces],
            "maps": [
                map_builtins(group, index)
                for index, group in enumerate(groups(found.traces, options.blocks))
            ],
        }
        raw = msgspec.json.encode(made)
    return msgspec.json.format(raw, indent=2) + b"\n"
