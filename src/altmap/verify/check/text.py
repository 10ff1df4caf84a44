"""What a check found, as text, as JSON, and as a release record."""

from __future__ import annotations

from typing import Any

from altmap.model.releases import Release
from altmap.verify.check.measure import MeasuredBehaviour, Measurement

__all__ = ("against_text", "check_json", "check_text", "differences", "record_text")

_VERDICTS = ("different", "unclear", "equal", "not measured")


def check_text(kernel: str, record: Release, found: Measurement) -> str:
    """Return a line for each behaviour, those that differ first, and the probes that differ."""
    lines = [f"{kernel}, beside the record of {record.name}:"]
    for verdict in _VERDICTS:
        some = [each for each in found.behaviours if each.verdict == verdict]
        if some:
            lines += ["", f"{verdict}: {len(some)}", *map(_line, some)]
    if found.different:
        lines += ["", "probes that no record predicts:"]
        lines += [f"  {name}: {nr} fields differ" for name, nr in found.different.items()]
    if found.failed:
        lines += ["", "probes that could not run:"]
        lines += [f"  {name}: {why}" for name, why in found.failed.items()]
    return "\n".join(lines)


def _line(each: MeasuredBehaviour) -> str:
    text = f"  {each.behaviour}"
    if each.verdict == "equal":
        return f"{text} = {_value_text(each.value)}  ({each.probe})"
    if each.verdict == "different":
        shown = _value_text(each.value)
        return f"{text} = {shown}, the record has {_value_text(each.record)}  ({each.probe})"
    return f"{text}  ({each.probe})" if each.probe else text


def against_text(names: tuple[str, str], first: Measurement, second: Measurement) -> str:
    """Return what differs between two kernels, with the probe that shows it."""
    changes = differences(first, second)
    pairs = zip(first.behaviours, second.behaviours, strict=True)
    nr_both = sum(_known(one) and _known(two) for one, two in pairs)
    lines = [f"{names[0]} against {names[1]}: {len(changes)} of {nr_both} behaviours differ"]
    for one, two in changes:
        values = f"{_value_text(one.value)} in {names[0]}, {_value_text(two.value)} in {names[1]}"
        lines.append(f"  {one.behaviour}: {values}  ({one.probe})")
    return "\n".join(lines)


def differences(
    first: Measurement, second: Measurement
) -> list[tuple[MeasuredBehaviour, MeasuredBehaviour]]:
    """Return the behaviours that are known of both kernels and have another value."""
    pairs = zip(first.behaviours, second.behaviours, strict=True)
    return [(a, b) for a, b in pairs if _known(a) and _known(b) and a.value != b.value]


def _known(each: MeasuredBehaviour) -> bool:
    return each.verdict in ("equal", "different")


def _value_text(value: object) -> str:
    """Return a value of a record in one line, as Python writes it; flags as a number."""
    if isinstance(value, int) and not isinstance(value, bool):
        return hex(value)
    return repr(value)


def check_json(kernel: str, record: Release, found: Measurement) -> dict[str, Any]:
    """Return the result as JSON's types."""
    return {
        "schema": "altmap-check",
        "version": 1,
        "kernel": kernel,
        "record": record.name,
        "behaviours": [
            {
                "behaviour": each.behaviour,
                "verdict": each.verdict,
                "record": each.record,
                "value": each.value,
                "probe": each.probe,
            }
            for each in found.behaviours
        ],
        "different": found.different,
        "failed": found.failed,
    }


def record_text(kernel: str, record: Release, found: Measurement) -> str:
    """Return a release record, as ``model/releases.py`` has them, made of what was measured."""
    lines = [
        f"# MeasuredBehaviour on {kernel}; what is not listed is that of {record.name}.",
        f'replace(_{record.name.replace(".", "_")}, name="...",',
    ]
    for each in found.behaviours:
        if _known(each):
            mark = "  # differs" if each.verdict == "different" else ""
            lines.append(f"    {each.behaviour}={each.value!r},{mark}")
    return "\n".join([*lines, ")"])
