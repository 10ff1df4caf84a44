"""Kernel zones, ZONE_MOVABLE and offline memory blocks of a step: a line of text and a bar."""

from __future__ import annotations

from collections.abc import Sequence

from altmap.report.draw import KERNEL
from altmap.report.step_report import kernel_movable_offline_bytes
from altmap.report.text import zones_text
from altmap.trace import Trace
from altmap.units import rounded_size

__all__ = ("zones_bar", "zones_scale")

_WIDTH, _HEIGHT = 1000, 12
_FILLS = (KERNEL, "url(#slant)", "var(--offline)")


def zones_scale(traces: Sequence[Trace]) -> int:
    """Return the most bytes that a bar of some traces shows, zero if no file tells."""
    found = (
        kernel_movable_offline_bytes(trace, index)
        for trace in traces
        for index in range(len(trace.steps))
    )
    return max((sum(sizes) for sizes in found if sizes), default=0)


def zones_bar(trace: Trace, index: int, scale_bytes: int) -> str:
    """Return the text and the bar as HTML; empty after a crash, and if no file shows the zones.

    Parameters
    ----------
    trace : Trace
    index : int
        Of the step.
    scale_bytes : int
        The size of a bar as wide as the column.
    """
    sizes = kernel_movable_offline_bytes(trace, index)
    if sizes is None:
        return ""
    bars, left = "", 0.0
    for size, fill in zip(sizes, _FILLS, strict=True):
        width = size * _WIDTH / scale_bytes
        if size:
            bars += f'<rect x="{left:.1f}" width="{width:.1f}" height="{_HEIGHT}" fill="{fill}"/>'
        left += width
    kernel, _, offline = sizes
    text = zones_text(trace.steps[index].observation)
    text = text or f"kernel zones {rounded_size(kernel)}, ZONE_MOVABLE is empty"
    more = f"; {rounded_size(offline)} in offline memory blocks" if offline else ""
    return (
        f'{text}{more}<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" '
        f'aria-hidden="true">{bars}</svg>'
    )
