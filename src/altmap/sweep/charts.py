"""Five charts of a sweep: memory missing in MemTotal, memmap, failures, gigantic pages, movable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from altmap.sweep.summary import Summary
from altmap.units import format_size

__all__ = ("chart_svgs", "equal_charts", "value_text", "varying")

_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999"]
_FAILED = {"refused": "#e69f00", "fault": "#d55e00"}
_MOST_GROUPS = 40
_WIDTH, _ROW = 420, 18  # pixels

#: File name, heading, axis, and the columns of the summary whose values are stacked.
_CHARTS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("not-seen", "Requested memory that is not in MemTotal", "percent of requested memory",
     ("not_seen_percent",)),
    ("overhead", "Memmap of added memory", "percent of added memory", ("overhead_percent",)),
    ("failures", "Scenarios with a step that failed", "percent of scenarios that ran",
     ("refused", "fault")),
    ("gigantic", "Gigantic pages: available in kernel zones, and lost in added memory",
     "pages, mean of machines whose kernel keeps running",
     ("gigantic_after_mean", "gigantic_lost_mean")),
    ("movable", "Movable to kernel memory", "ratio", ("movable_ratio",)),
)  # fmt: skip
_NAMES = {"gigantic_after_mean": "available", "gigantic_lost_mean": "lost"}


def chart_svgs(summary: Summary, title: str) -> dict[str, str]:
    """Return each chart whose bars differ as SVG by name; needs the extra ``report``."""
    groups = sorted(summary.groups, key=lambda group: -group["scenarios"])[:_MOST_GROUPS]
    shown = [group for group in summary.groups if group in groups]
    left = len(summary.groups) - len(shown)
    note = f"; the {len(shown)} largest of {len(summary.groups)} groups" if left else ""
    by = varying(summary)
    without = equal_charts(summary)
    subtitle = [f"{title}{note}", f"a bar for each {' · '.join(by)}"]
    return {
        name: _svg(_values(shown, by, _occurring(shown, columns)), heading, subtitle, axis)
        for name, heading, axis, columns in _CHARTS
        if name not in without
    }


def equal_charts(summary: Summary) -> dict[str, str]:
    """Return the charts of which all bars would be equal, with what each would show."""
    bars = {
        name: {
            tuple(each["text"] for each in _values([group], summary.by, columns))
            for group in summary.groups
        }
        for name, _, _, columns in _CHARTS
    }
    several = len(summary.groups) > 1
    return {name: next(iter(of))[0] for name, of in bars.items() if several and len(of) == 1}


def varying(summary: Summary) -> tuple[str, ...]:
    """Return the columns that differ between groups; the first one if there is only one group."""
    names = (name for name in summary.by if len({group[name] for group in summary.groups}) > 1)
    return tuple(names) or summary.by[:1]


def _occurring(groups: Sequence[dict[str, Any]], columns: Sequence[str]) -> Sequence[str]:
    """Return the columns that a group has anything of; all if none has."""
    return [name for name in columns if any(group[name] for group in groups)] or columns


def _label(group: dict[str, Any], by: Sequence[str]) -> str:
    """Return the label of a group."""
    return " · ".join(value_text(name, group[name]) for name in by)


def value_text(name: str, value: Any) -> str:
    """Return a value of a column as text."""
    if isinstance(value, int) and name.endswith("_bytes"):
        return format_size(value)
    if name == "release":
        return f"Linux {value}"
    if name == "nodes":
        return "1 node" if value == 1 else f"{value} nodes"
    return str(value) if value not in (None, "") else f"no {name}"


def _values(
    groups: Sequence[dict[str, Any]], by: Sequence[str], columns: Sequence[str]
) -> list[dict[str, Any]]:
    """Return a record for each part of each bar; the first part of a bar has its text."""
    made = []
    for at, group in enumerate(groups):
        values = [_value(group, column) for column in columns]
        known = [value for value in values if value is not None]
        label = " + ".join(f"{value:,.2f}" if value else "0" for value in known if any(known))
        for order, (column, value) in enumerate(zip(columns, values, strict=True)):
            made.append(
                {
                    "at": at,
                    "group": _label(group, by),
                    "what": _NAMES.get(column, column if column in _FAILED else ""),
                    "order": order,
                    "value": round(value or 0, 4),
                    "end": max(0, round(sum(known), 4)),
                    "text": "" if order else label or ("0" if known else "no value"),
                    "colour": _FAILED.get(column, _COLOURS[order]),
                }
            )
    return made


def _value(group: dict[str, Any], column: str) -> float | None:
    value: float | None = group[column]
    if column in _FAILED:
        return 100 * (value or 0) / group["run"] if group["run"] else None
    return value


def _svg(values: list[dict[str, Any]], heading: str, subtitle: list[str], axis: str) -> str:
    import altair as alt
    import vl_convert

    colours = {each["what"]: each["colour"] for each in values}
    several = any(colours)
    least = min((each["value"] for each in values), default=0)
    most = max((each["end"] for each in values), default=0) or 1
    scale = alt.Scale(domain=[min(0, least), most], nice=False)
    base = alt.Chart(alt.InlineData(values)).encode(
        y=alt.Y("group:N", sort=alt.EncodingSortField("at"), title=None,
                axis=alt.Axis(labelLimit=420, ticks=False, labelPadding=6)),
    )  # fmt: skip
    bars = base.mark_bar().encode(
        x=alt.X("value:Q", title=axis, stack="zero" if several else None, scale=scale,
                axis=alt.Axis(tickCount=6)),
        color=alt.Color(
            "what:N",
            scale=alt.Scale(domain=list(colours), range=list(colours.values())),
            legend=alt.Legend(title=None, orient="top", offset=4) if several else None,
        ),
        order="order:O",
    )  # fmt: skip
    text = base.mark_text(align="left", dx=4, fontSize=10).encode(
        x=alt.X("end:Q", scale=scale), text="text:N"
    )
    chart = (
        (bars + text)
        .properties(
            width=_WIDTH,
            height=max(60, _ROW * len({each["at"] for each in values})),
            background="white",
            title=alt.TitleParams(heading, subtitle=subtitle, anchor="start", offset=8),
        )
        .configure_view(stroke=None)
        .configure_axis(gridColor="#eeeeee", titleFontWeight="normal")
    )
    svg: str = vl_convert.vegalite_to_svg(chart.to_json(), vl_version="6.4")
    return svg
