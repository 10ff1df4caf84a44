"""Memory accounting as a waterfall chart, which vl-convert renders by Vega-Lite."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from altmap.errors import InputError
from altmap.report.account import Level

__all__ = ("require_charts", "waterfall_svg")

_MIB = 1 << 20
_LEVEL, _LOSS, _ALL_LOST = "#0072b2", "#e69f00", "#d55e00"
_INK = "currentColor"  # of the page
_AXIS_PARTS = ("label", "title", "tick", "domain", "grid")
_ROW_HEIGHT, _WIDTH, _CHARACTER = 32, 300, 6.6  # pixels


def require_charts() -> None:
    """Check that charts can be drawn.

    Raises
    ------
    InputError
        Names the extra that installs the missing module.
    """
    try:
        import vl_convert as _vl_convert  # noqa: F401
    except ImportError as error:
        raise InputError(
            f"report: charts and pictures need the Python module {error.name!r}: "
            "pip install 'altmap[report]' (not needed for text and JSON)"
        ) from error


def waterfall_svg(levels: Sequence[Level], start: Sequence[Level]) -> str:
    """Return the chart as SVG; text and axes inherit the page's text colour.

    Parameters
    ----------
    levels : sequence of Level
    start : sequence of Level
        The same machine before the first step; each level shows its difference to it.
    """
    import vl_convert

    rows = _rows(levels, {level.name: level.size_bytes for level in start})
    svg: str = vl_convert.vegalite_to_svg(json.dumps(_chart(rows)), vl_version="6.4")
    return svg


def _chart(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the chart in Vega-Lite's own words."""
    # The browser's font may be wider than the one that vl-convert measures with.
    width = max(_WIDTH, max(len(row["label"]) for row in rows) * _CHARACTER)
    place = {
        "field": "row",
        "type": "ordinal",
        "sort": [row["row"] for row in rows],
        "axis": None,
        "scale": {"paddingInner": 0},
    }
    bars = {
        "mark": {"type": "bar", "height": 11, "yOffset": 9},
        "encoding": {
            "x": {
                "field": "from",
                "type": "quantitative",
                "title": "MiB (2^20 bytes)",
                "axis": {"tickCount": 4, "format": ",.0f"},
            },
            "x2": {"field": "to"},
            "y": place,
            "color": {"field": "colour", "type": "nominal", "scale": None},
        },
    }
    labels = {
        "mark": {
            "type": "text",
            "align": "left",
            "baseline": "top",
            "fontSize": 11,
            "yOffset": -13,
            "fill": _INK,
        },
        "encoding": {
            "x": {"value": 0},
            "y": place,
            "text": {"field": "label", "type": "nominal"},
        },
    }
    return {
        "data": {"values": rows},
        "layer": [bars, labels],
        "width": width,
        "height": _ROW_HEIGHT * len(rows),
        "background": "transparent",
        "config": {
            "font": "sans-serif",
            "view": {"stroke": None},
            "axis": {f"{part}Color": _INK for part in _AXIS_PARTS} | {"gridOpacity": 0.15},
        },
    }


def _rows(levels: Sequence[Level], start: dict[str, int]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for level in levels:
        gained = level.size_bytes - start.get(level.name, level.size_bytes)
        change = f"  ({gained / _MIB:+,.1f})" if gained else ""
        rows.append(_row(len(rows), f"{level.name}  {_mib(level.size_bytes)}{change}", 0,
                         level.size_bytes, _LEVEL))  # fmt: skip
        top = level.size_bytes
        for loss in level.losses:
            colour = _ALL_LOST if loss.size_bytes == level.size_bytes else _LOSS
            bottom = top - loss.size_bytes
            label = f"− {_mib(loss.size_bytes)}  {loss.cause}"
            rows.append(_row(len(rows), label, bottom, top, colour))
            top = bottom
        for gain in level.gains:
            label = f"+ {_mib(gain.size_bytes)}  {gain.cause}"
            rows.append(_row(len(rows), label, top, top + gain.size_bytes, _LEVEL))
            top += gain.size_bytes
    return rows


def _row(number: int, label: str, start: int, end: int, colour: str) -> dict[str, Any]:
    return {
        "row": number,
        "label": label,
        "from": round(start / _MIB, 3),
        "to": round(end / _MIB, 3),
        "colour": colour,
    }


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / _MIB:,.1f} MiB"
