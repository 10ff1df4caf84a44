"""Five pictures of a sweep: what is not seen, what memmap costs, what fails, what is left whole."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from altmap.pfn import format_size
from altmap.sweep.summary import Summary

__all__ = ("chart_svgs", "word")

_COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999"]
_FAILED = {"refused": "#e69f00", "fault": "#d55e00"}
_MOST_GROUPS = 40
_WIDTH, _ROW = 420, 18  # pixels

#: File name, heading, axis, and the columns of the summary whose values are stacked.
_CHARTS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("not-seen", "Memory asked for that MemTotal does not show", "percent of what was asked for",
     ("not_seen_percent",)),
    ("overhead", "Memmap of added memory", "percent of added memory", ("overhead_percent",)),
    ("failures", "Scenarios with a step that failed", "percent of scenarios that ran",
     ("refused", "fault")),
    ("gigantic", "Gigantic pages that kernel zones could give, and those lost in added memory",
     "pages, mean of machines that live", ("gigantic_after_mean", "gigantic_lost_mean")),
    ("movable", "Movable to kernel memory", "ratio", ("movable_ratio",)),
)  # fmt: skip
_NAMES = {"gigantic_after_mean": "could be had", "gigantic_lost_mean": "lost"}


def chart_svgs(summary: Summary, title: str) -> dict[str, str]:
    """Return each picture as SVG by name; needs the extra ``report``."""
    groups = sorted(summary.groups, key=lambda group: -group["scenarios"])[:_MOST_GROUPS]
    shown = [group for group in summary.groups if group in groups]
    left = len(summary.groups) - len(shown)
    note = f"; the {len(shown)} largest of {len(summary.groups)} groups" if left else ""
    return {
        name: _svg(_values(shown, summary.by, columns), heading, f"{title}{note}", axis)
        for name, heading, axis, columns in _CHARTS
    }


def _label(group: dict[str, Any], by: Sequence[str]) -> str:
    """Return what a group is, in words."""
    return " · ".join(word(name, group[name]) for name in by)


def word(name: str, value: Any) -> str:
    """Return a value of a column as people read it."""
    if isinstance(value, int) and name.endswith("_bytes"):
        return format_size(value)
    if name == "release":
        return f"Linux {value}"
    return str(value) if value not in (None, "") else f"no {name}"


def _values(
    groups: Sequence[dict[str, Any]], by: Sequence[str], columns: Sequence[str]
) -> list[dict[str, Any]]:
    made = []
    for at, group in enumerate(groups):
        for order, column in enumerate(columns):
            value = group[column]
            if column in _FAILED:
                value = 100 * value / group["run"] if group["run"] else None
            made.append(
                {
                    "at": at,
                    "group": _label(group, by),
                    "what": _NAMES.get(column, column) if len(columns) > 1 else "",
                    "order": order,
                    "value": 0 if value is None else round(value, 4),
                    "text": "no value" if value is None else f"{value:,.2f}",
                    "colour": _FAILED.get(column, _COLOURS[order]),
                }
            )
    return made


def _svg(values: list[dict[str, Any]], heading: str, subtitle: str, axis: str) -> str:
    import altair as alt
    import vl_convert

    colours = {each["what"]: each["colour"] for each in values}
    several = len(colours) > 1
    base = alt.Chart(alt.InlineData(values)).encode(
        y=alt.Y("group:N", sort=alt.EncodingSortField("at"), title=None,
                axis=alt.Axis(labelLimit=420)),
    )  # fmt: skip
    bars = base.mark_bar().encode(
        x=alt.X("value:Q", title=axis, stack="zero" if several else None),
        color=alt.Color(
            "what:N",
            scale=alt.Scale(domain=list(colours), range=list(colours.values())),
            legend=alt.Legend(title=None, orient="top") if several else None,
        ),
        order="order:O",
    )
    text = base.mark_text(align="left", dx=4, fontSize=10).encode(x=alt.X("value:Q"), text="text:N")
    chart = (bars if several else bars + text).properties(
        width=_WIDTH,
        height=max(60, _ROW * len({each["at"] for each in values})),
        background="white",
        title=alt.TitleParams(heading, subtitle=subtitle, anchor="start"),
    )
    svg: str = vl_convert.vegalite_to_svg(chart.to_json(), vl_version="6.4")
    return svg
