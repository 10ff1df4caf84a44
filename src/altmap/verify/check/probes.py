"""The probes: scenarios that altmap brings along, and the behaviours that each can tell.

Effects: files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from altmap.scenario import Scenario, build_scenario, read_toml

__all__ = ("Probe", "probe_scenario", "read_probes")


class Probe(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A scenario that tells behaviours apart.

    Attributes
    ----------
    name : str
    arch : str
        Of the guest.
    measures : tuple of str
        Behaviours on which the scenario's result depends.
    machine : dict
        Keys of the scenario's machine, without ``arch`` and ``release``.
    steps : list of dict
    """

    name: str
    arch: str = "x86_64"
    measures: tuple[str, ...]
    machine: dict[str, Any] = {}
    steps: list[dict[str, Any]]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    probe: list[Probe]


def read_probes(arch: str) -> list[Probe]:
    """Return the probes of an architecture."""
    tables = read_toml(Path(__file__).with_name("probes.toml"))
    return [each for each in msgspec.convert(tables, _File).probe if each.arch == arch]


def probe_scenario(probe: Probe, release: str) -> Scenario:
    """Return a probe as a scenario for a release."""
    machine = probe.machine | {"arch": probe.arch, "release": release}
    return build_scenario({"name": f"probe-{probe.name}", "machine": machine, "steps": probe.steps})
