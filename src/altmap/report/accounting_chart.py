"""Memory accounting as a chart of the page: a line of text and a bar for each level and loss."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from altmap.report.account import Level, Loss
from altmap.report.step_report import size_text

__all__ = ("accounting_chart",)

_WIDTH, _NARROWEST = 1000, 3


def accounting_chart(levels: Sequence[Level], start: Sequence[Level], scale_bytes: int) -> str:
    """Return the chart as HTML.

    Parameters
    ----------
    levels : sequence of Level
        If the first one is lost completely, as after a crash, the others are not shown.
    start : sequence of Level
        The same machine before the first step; each level shows its difference to it.
    scale_bytes : int
        The size of a bar as wide as the chart. Charts that are compared share it.
    """
    before = {level.name: level.size_bytes for level in start}
    shown = levels[:1] if _is_lost(levels[0]) else levels
    items = [item for level in shown for item in _items(level, before, scale_bytes)]
    return f'<ol class="levels">{"".join(items)}</ol>'


def _is_lost(level: Level) -> bool:
    return any(loss.size_bytes == level.size_bytes for loss in level.losses)


def _items(level: Level, before: dict[str, int], scale: int) -> Iterator[str]:
    gained = level.size_bytes - before.get(level.name, level.size_bytes)
    change = f' <span class="soft">({size_text(gained, scale, "+")})</span>' if gained else ""
    text = f"<b>{escape(level.name)}</b> {size_text(level.size_bytes, scale)}{change}"
    yield _item("level", text, 0, level.size_bytes, scale)
    top = level.size_bytes
    kind = "lost" if _is_lost(level) else "loss"
    for loss in level.losses:
        yield _item(kind, _change("−", loss, scale), top - loss.size_bytes, top, scale)
        top -= loss.size_bytes
    for gain in level.gains:
        yield _item("gain", _change("+", gain, scale), top, top + gain.size_bytes, scale)
        top += gain.size_bytes


def _change(sign: str, loss: Loss, scale: int) -> str:
    return f"{sign} {size_text(loss.size_bytes, scale)} {escape(loss.cause)}"


def _item(kind: str, text: str, start: int, end: int, scale: int) -> str:
    width = max(_NARROWEST if end > start else 0, round((end - start) * _WIDTH / scale))
    left = min(round(start * _WIDTH / scale), _WIDTH - width)
    return (
        f'<li class="{kind}">{text}<svg viewBox="0 0 {_WIDTH} 8" preserveAspectRatio="none" '
        f'aria-hidden="true"><rect x="{left}" width="{width}" height="8"/></svg></li>'
    )
