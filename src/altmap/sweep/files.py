"""Summary and charts of a sweep, in the folder of its rows.

Effects: files.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import msgspec

from altmap.errors import InputError
from altmap.report.picture import png
from altmap.storage.files import write_file
from altmap.sweep.charts import chart_svgs, equal_charts
from altmap.sweep.summary import Summary
from altmap.sweep.text import summary_text

__all__ = ("write_summary",)


def write_summary(summary: Summary, title: str, folder: Path, *, charts: bool) -> str:
    """Write ``summary.txt``, ``summary.json`` and the folder ``charts``; return the text.

    Raises
    ------
    InputError
        If a file cannot be written.
    """
    text = summary_text(summary)
    made = {"schema": "altmap-sweep-summary", "version": 1, **asdict(summary)}
    files = {
        "summary.txt": text.encode(),
        "summary.json": msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n",
    }
    for name in equal_charts(summary) if charts else ():  # of an earlier run
        for suffix in (".svg", ".png"):
            (folder / "charts" / name).with_suffix(suffix).unlink(missing_ok=True)
    if charts:
        for name, svg in chart_svgs(summary, title).items():
            files[f"charts/{name}.svg"] = svg.encode()
            files[f"charts/{name}.png"] = png(svg)
    try:
        (folder / "charts").mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from error
    for name, raw in files.items():
        write_file(folder / name, raw)
    return text
