"""The probes: scenarios that altmap brings along, and the behaviours that each can tell.

Effects: files.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from altmap.model.arch import DEFAULT_ARCH
from altmap.scenario import Scenario, build_scenario, load_scenario, read_toml
from altmap.verify.check.measure import Probed
from altmap.verify.conformance import ConformanceCase

__all__ = ("Probe", "case_probes", "planned", "read_probes", "why_not_measured")


class Probe(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A scenario that tells behaviours apart, or confirms a rule that all records share.

    Attributes
    ----------
    name : str
    on : str
        The machine, which other probes share: a guest boots once for each.
    keys : dict
        Keys of the scenario's machine besides those of *on*; best those that a running kernel
        takes.
    measures : tuple of str
        Behaviours on which the scenario's result depends.
    rule : str
        What it confirms, with the kernel function, if it measures nothing.
    boot : bool
        What the kernel shows after its boot counts too, compared with a synthetic boot state.
    slow : bool
        Its guest boots for minutes.
    steps : list of dict
    """

    name: str
    on: str
    keys: dict[str, Any] = {}
    measures: tuple[str, ...] = ()
    rule: str = ""
    boot: bool = False
    slow: bool = False
    steps: list[dict[str, Any]] = []


class _File(msgspec.Struct, forbid_unknown_fields=True):
    cannot: dict[str, str]
    machines: dict[str, dict[str, Any]]
    probe: list[Probe]


@cache
def _read() -> _File:
    return msgspec.convert(read_toml(Path(__file__).with_name("probes.toml")), _File)


def read_probes(arch: str, *, slow: bool = True) -> list[Probe]:
    """Return the probes of an architecture, with those that take minutes or without."""
    return [each for each in _read().probe if arch in _arches(each) and (slow or not each.slow)]


def _arches(probe: Probe) -> list[str]:
    return list(_read().machines[probe.on].get("arches", ("x86_64",)))


def planned(probe: Probe, arch: str, release: str) -> Probed:
    """Return a probe as a scenario for a release, which has not run yet."""
    shared = {key: value for key, value in _read().machines[probe.on].items() if key != "arches"}
    machine = shared | probe.keys | {"arch": arch, "release": release}
    scenario = build_scenario(
        {"name": f"probe-{probe.name}", "machine": machine, "steps": probe.steps}
    )
    return Probed(probe.name, scenario, measures=probe.measures, rule=probe.rule, boot=probe.boot)


def case_probes(
    cases: Sequence[ConformanceCase], folder: Path, arch: str, record: str, release: str
) -> list[Probed]:
    """Return scenarios of conformance that run on a kernel, as probes that confirm rules.

    Parameters
    ----------
    cases : sequence of ConformanceCase
        Those that are slow, or may differ by chance, are left out.
    folder : Path
        Where their scenarios are.
    arch : str
    record : str
        The release that a case has to list.
    release : str
        Of the scenarios.
    """
    found = []
    for case in cases:
        if case.slow or case.cannot or case.differs or record not in case.releases:
            continue
        for name in case.scenarios:
            for settings in case.settings:
                path = folder / f"{name}.toml"
                scenario: Scenario = load_scenario(path, [*settings, f"release={release}"])
                if (scenario.machine.arch or DEFAULT_ARCH) == arch:
                    called = "+".join((name, *settings))
                    found.append(Probed(called, scenario, rule=scenario.description or name))
    return found


def why_not_measured(arch: str, *, slow: bool) -> dict[str, str]:
    """Return why a behaviour cannot be measured on an architecture, by the behaviour's name."""
    whys: dict[str, str] = {}
    mine = {name for probe in read_probes(arch) for name in probe.measures}
    for probe in _read().probe:
        for name in probe.measures:
            if name not in mine:
                some = whys.get(name, "measured on ")
                new = [each for each in _arches(probe) if each not in some.split(" ")]
                whys[name] = " ".join((some.strip(), *new))
    for probe in read_probes(arch):
        if probe.slow and not slow:
            whys |= dict.fromkeys(probe.measures, "its guest boots for minutes: --slow")
    return whys | _read().cannot
