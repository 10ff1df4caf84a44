"""What a check found, as text, as JSON, and as a release record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from altmap.linux.kpageflags import flag_names
from altmap.verify.check.measure import MeasuredBehaviour, Measurement

__all__ = (
    "against_json",
    "against_text",
    "check_json",
    "check_text",
    "differences",
    "record_text",
)

_VERDICTS = ("different", "unclear", "equal", "not measured")
_KNOWN = ("equal", "different")
#: Behaviours whose value is a set of page flags.
_FLAGS = ("memmap_page_flags", "nopage_flags")


def check_text(found: Measurement) -> str:
    """Return a line for each behaviour, those that differ first, and the probes that differ."""
    base = found.base.name
    lines = [f"{found.kernel} ({found.arch}), beside the record of {base}: {_counted(found)}"]
    for verdict in _VERDICTS:
        some = [each for each in found.behaviours if each.verdict == verdict]
        if some:
            lines += ["", f"{verdict}: {len(some)}", *map(_line, some)]
    parts = (
        ("rules confirmed", found.confirmed),
        ("probes that no record predicts", _fields(found)),
        ("probes that could not run", found.failed),
    )
    for heading, texts in parts:
        if texts:
            lines += ["", f"{heading}: {len(texts)}"]
            lines += [f"  {name}: {text}" for name, text in texts.items()]
    return "\n".join(lines)


def _counted(found: Measurement) -> str:
    known = [each for each in found.behaviours if each.verdict in _KNOWN]
    differ = sum(each.verdict == "different" for each in known)
    text = f"{len(known)} of {len(found.behaviours)} behaviours measured"
    return f"{text}, {differ or 'none'} differ{'s' if differ < 2 else ''}" if known else text


def _fields(found: Measurement) -> dict[str, str]:
    return {
        name: f"{nr} field{'' if nr == 1 else 's'} differ{'s' if nr == 1 else ''}"
        for name, nr in found.different.items()
    }


def _line(each: MeasuredBehaviour) -> str:
    if each.verdict == "not measured":
        return f"  {each.behaviour}: {each.why}"
    if each.verdict == "unclear":
        return f"  {each.behaviour}  ({each.probe})"
    text = f"  {each.behaviour} = {_value_text(each)}"
    if each.verdict == "different":
        text += f", the record has {_shown(each.behaviour, each.record)}"
    alike = " or ".join(_shown(each.behaviour, value) for value in each.alike)
    return f"{text}  ({each.probe}{f'; {alike} would show the same' if alike else ''})"


def against_text(first: Measurement, second: Measurement) -> str:
    """Return what differs between two kernels, with the probe that shows it."""
    changes = differences(first, second)
    kernels = f"{first.kernel} against {second.kernel} ({first.arch})"
    known = sum(_both_known(one, two) for one, two in _pairs(first, second))
    lines = [f"{kernels}: {len(changes)} of {known} behaviours differ"]
    for one, two in changes:
        values = f"{_value_text(one)} in {first.kernel}, {_value_text(two)} in {second.kernel}"
        lines.append(f"  {one.behaviour}: {values}  ({one.probe})")
    for each in (first, second):
        unsure = [f"  {name}: {text}" for name, text in (_fields(each) | each.failed).items()]
        if unsure:
            lines += ["", f"{each.kernel}, probes that tell nothing: {len(unsure)}", *unsure]
    by_record = [
        f"  {one.behaviour}: {one.why or two.why or 'either value would show the same on one'}"
        for one, two in _pairs(first, second)
        if one.record != two.record and not _both_known(one, two)
    ]
    if by_record:
        lines += ["", f"differ by their records, not measured: {len(by_record)}", *by_record]
    return "\n".join(lines)


def _pairs(
    first: Measurement, second: Measurement
) -> Iterator[tuple[MeasuredBehaviour, MeasuredBehaviour]]:
    return zip(first.behaviours, second.behaviours, strict=True)


def differences(
    first: Measurement, second: Measurement
) -> list[tuple[MeasuredBehaviour, MeasuredBehaviour]]:
    """Return the behaviours that are known of both kernels and have another value."""
    return [
        (one, two)
        for one, two in _pairs(first, second)
        if _both_known(one, two) and one.value != two.value
    ]


def _both_known(one: MeasuredBehaviour, two: MeasuredBehaviour) -> bool:
    """Tell whether both values were measured, and neither kernel may have the other's."""
    measured = one.verdict in _KNOWN and two.verdict in _KNOWN
    return measured and two.value not in one.alike and one.value not in two.alike


def _value_text(each: MeasuredBehaviour) -> str:
    return _shown(each.behaviour, each.value)


def _shown(behaviour: str, value: Any) -> str:
    """Return a value of a record in one line: flags by their names, else as Python writes it."""
    if behaviour in _FLAGS:
        return " ".join(flag_names(value)) or "none"
    return repr(value)


def _in_python(behaviour: str, value: Any) -> str:
    if behaviour in _FLAGS:
        return " | ".join(f"PageFlag.{name}" for name in flag_names(value)) or "0"
    return repr(value)


def check_json(found: Measurement) -> dict[str, Any]:
    """Return the result as JSON's types."""
    return {
        "schema": "altmap-check",
        "version": 2,
        "kernel": found.kernel,
        "arch": found.arch,
        "record": found.base.name,
        "packages": found.machine.get("packages", {}),
        "qemu": found.machine.get("qemu"),
        "behaviours": [asdict(each) for each in found.behaviours],
        "confirmed": found.confirmed,
        "different": found.different,
        "failed": found.failed,
    }


def against_json(first: Measurement, second: Measurement) -> dict[str, Any]:
    """Return two results, and the behaviours that differ, as JSON's types."""
    return {
        "schema": "altmap-check-against",
        "version": 1,
        "kernels": [check_json(first), check_json(second)],
        "differences": [one.behaviour for one, _ in differences(first, second)],
    }


def record_text(found: Measurement) -> str:
    """Return a release record, as ``model/releases.py`` has them, made of what was measured.

    Values that list architectures have this one; what was not measured is marked.
    """
    base = found.base.name
    lines = [
        f"# Measured on {found.kernel} ({found.arch}): {_counted(found)}.",
        f"# Lines with 'not measured' are those of {base}.",
        f'replace(_{base.replace(".", "_")}, name="...",',
    ]
    for each in found.behaviours:
        known = each.verdict in _KNOWN
        value = _in_python(each.behaviour, getattr(found.record, each.behaviour))
        mark = {"different": "  # differs", "equal": ""}.get(each.verdict, f"  # {each.verdict}")
        lines.append(f"    {'' if known else '# '}{each.behaviour}={value},{mark}")
    return "\n".join([*lines, ")"])
