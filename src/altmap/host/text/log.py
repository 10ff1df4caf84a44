"""Explanations of the kernel's log, as text."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from altmap.errors import printable
from altmap.host.errnos import Reason
from altmap.host.explain_log import LogExplanation, LogFinding

__all__ = ("log_text",)


def log_text(found: LogExplanation, width: int = 100) -> str:
    """Return each message with block, owner, rule and remedy; messages without a rule are short."""
    lines: list[str] = []
    for finding in found.findings:
        lines.extend(_of_finding(finding, width))
    if not found.findings:
        lines.append(f"no message about memory hotplug in {found.nr_lines} lines of the kernel")
    for note in found.notes:
        lines.extend(_wrap(f"note: {note}", width, ""))
    return "\n".join(map(str.rstrip, lines)) + "\n"


def _of_finding(finding: LogFinding, width: int) -> Iterator[str]:
    time = f"[{finding.time}] " if finding.time else ""
    times = f" ({finding.count} times)" if finding.count > 1 else ""
    yield from _wrap(f"{time}{finding.text}{times}", width, "")
    if where := _where(finding):
        yield from _wrap(where, width, "  ")
    if finding.page is not None:
        pfn = "" if finding.page.pfn is None else f"pfn {finding.page.pfn:#x}: "
        yield from _wrap(f"page: {pfn}{finding.page.what}", width, "  ")
    elif finding.pfn is not None:
        yield from _wrap(f"page: pfn {finding.pfn:#x}", width, "  ")
    for reason in finding.reasons:
        yield from _wrap(f"{reason.operation}: {reason.errno} by {reason.function}", width, "  ")
        yield from _wrap(f"rule: {reason.rule}", width, "  ")
        yield from _wrap(f"helps: {_cure(finding, reason)}", width, "  ")
    if finding.says:
        yield from _wrap(finding.says, width, "  ")


def _cure(finding: LogFinding, reason: Reason) -> str:
    """Return what helps: with the page's kind if it is known, and with the block's number."""
    kind = None if finding.page is None else finding.page.kind
    cure = reason.cure
    if kind is not None and reason.function == "start_isolate_page_range":
        cure = f"{kind.cure}; {cure}"
    if finding.blocks is None:
        return cure
    return cure.replace("explain BLOCK", f"explain {finding.blocks[0]}")


def _where(finding: LogFinding) -> str:
    parts = []
    if finding.blocks is not None:
        first, last = finding.blocks
        parts.append(f"memory{first}" if first == last else f"memory{first}-{last}")
    if finding.start_address is not None and finding.end_address is not None:
        if finding.end_address > finding.start_address + 1:
            parts.append(f"[{finding.start_address:#x}, {finding.end_address:#x})")
        else:
            parts.append(f"{finding.start_address:#x}")
    if finding.device is not None:
        parts.append(f"device {finding.device}")
    if finding.now:
        parts.append(finding.now)
    return ", ".join(parts)


def _wrap(text: str, width: int, indent: str) -> Iterator[str]:
    yield from textwrap.wrap(
        printable(text),
        width,
        initial_indent=indent,
        subsequent_indent=indent + "  ",
        break_long_words=False,
    )
