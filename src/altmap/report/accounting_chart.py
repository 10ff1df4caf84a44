"""Memory accounting as a waterfall chart. Drawn by Altair, rendered by vl-convert."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from altmap.errors import InputError
from altmap.report.account import Level

__all__ = ("require_charts", "waterfall_svg")

_MIB = 1 << 20
_LEVEL, _LOSS, _ALL_LOST = "#0072b2", "#e69f00", "#d55e00"
_ROW_HEIGHT, _WIDTH, _CHARACTER = 32, 300, 6.6  # pixels


def require_charts() -> None:
    """Check that charts can be drawn.

    Raises
    ------
    InputError
        Names the extra that installs the missing module.
    """
    try:
        import altair as _altair  # noqa: F401
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
    import altair as alt
    import vl_convert

    rows = _rows(levels, {level.name: level.size_bytes for level in start})
    order = [row["row"] for row in rows]
    # The browser's font may be wider than the one that vl-convert measures with.
    width = max(_WIDTH, max(len(row["label"]) for row in rows) * _CHARACTER)
    base = alt.Chart(alt.InlineData(rows)).encode(
        y=alt.Y("row:O", sort=order, axis=None, scale=alt.Scale(paddingInner=0))
    )
    bars = base.mark_bar(height=11, yOffset=9).encode(
        x=alt.X("from:Q", title="MiB (2^20 bytes)", axis=alt.Axis(tickCount=4, format=",.0f")),
        x2="to:Q",
        color=alt.Color("colour:N", scale=None),
    )
    text = base.mark_text(
        align="left", baseline="top", fontSize=11, yOffset=-13, fill="currentColor"
    ).encode(x=alt.value(0), text="label:N")
    chart = (
        (bars + text)
        .properties(width=width, height=_ROW_HEIGHT * len(rows), background="transparent")
        .configure(font="sans-serif")
        .configure_view(stroke=None)
        .configure_axis(
            labelColor="currentColor",
            titleColor="currentColor",
            tickColor="currentColor",
            domainColor="currentColor",
            gridColor="currentColor",
            gridOpacity=0.15,
        )
    )
    svg: str = vl_convert.vegalite_to_svg(chart.to_json(), vl_version="6.4")
    return svg


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
