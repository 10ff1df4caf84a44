"""Answers about a definition as JSON's types: ``docs/vm.md`` describes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from altmap.vm.answers import BootedGuest, WayAnswer, boot_state
from altmap.vm.lint import LintFinding
from altmap.vm.thumb import RuleVerdict

__all__ = ("answers_builtins", "rules_builtins")


def answers_builtins(
    guests: Sequence[BootedGuest],
    answers: Sequence[WayAnswer],
    findings: Sequence[LintFinding],
    commands: Sequence[Sequence[str]],
) -> dict[str, Any]:
    """Return all answers; with several guests, each answer is the one of its guest."""
    guest = guests[0]
    several = len(guests) > 1
    return {
        "schema": "altmap-vm",
        "version": 1,
        "definition": _definition(guest),
        "kernel": _kernel(guest),
        "boot": asdict(boot_state(guest)),
        "ways": [
            ({"release": guests[at].kernel.release} if several else {})
            | _way(answer)
            | {"commands": list(commands[at]) if commands else []}
            for at, answer in enumerate(answers)
        ],
        "findings": [asdict(finding) for finding in findings],
        "notes": [*guest.machine.notes, *guest.booted.notes],
    }


def _definition(guest: BootedGuest) -> dict[str, Any]:
    made = asdict(guest.definition)
    made["written"] = {name: asdict(each) for name, each in guest.definition.written.items()}
    return made


def _kernel(guest: BootedGuest) -> dict[str, Any]:
    kernel = guest.kernel
    return {
        "arch": guest.machine.arch.name,
        "release": kernel.release,
        "stated": kernel.stated,
        "cmdline": kernel.cmdline,
        "settings": dict(kernel.settings),
        "missing": dict(kernel.missing),
        "not_modelled": [asdict(each) for each in kernel.unread],
    }


def _way(answer: WayAnswer) -> dict[str, Any]:
    way = answer.way
    return {
        "driver": way.driver,
        "defined": way.defined,
        "start_bytes": way.start_bytes,
        "limit_bytes": way.limit_bytes,
        "limit": way.limit,
        "unit_bytes": way.unit_bytes,
        "slots": way.slots,
        "missing": way.missing,
        "largest_add_bytes": answer.largest_add_bytes,
        "careful_add_bytes": answer.careful_add_bytes,
        "stops_bytes": answer.stops_bytes,
        "stops": answer.stops,
        "rows": [asdict(row) | {"movable_ratio": row.ratio} for row in answer.rows],
    }


def rules_builtins(
    driver: str, release: str, arch: str, verdicts: Sequence[RuleVerdict]
) -> dict[str, Any]:
    """Return the rules of thumb with their verdicts."""
    return {
        "schema": "altmap-vm-rules",
        "version": 1,
        "driver": driver,
        "release": release,
        "arch": arch,
        "rules": [
            {
                **asdict(each.rule),
                "verdict": each.text(),
                "counterexample": asdict(each.counterexample) if each.counterexample else None,
                "holds_from_bytes": each.holds_from_bytes,
                "trials": [asdict(trial) for trial in each.trials],
            }
            for each in verdicts
        ],
    }
