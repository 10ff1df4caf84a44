"""Traces that several modules report on."""

from pathlib import Path

import pytest

from altmap.model.machine import predict
from altmap.scenario import load_scenario

ROOT = Path(__file__).parents[2]


def predicted(name, *policies):
    path = ROOT / f"scenarios/{name}.toml"
    return [predict(load_scenario(path, [f"policy={policy}"])) for policy in policies]


@pytest.fixture(scope="session")
def hyperv():
    """The case of 2018: 64 MiB, the second half of a section, under two policies."""
    return predicted("hyperv-64MiB-second-half", "rfc-2018", "opt-in")


@pytest.fixture(scope="session")
def dimm():
    return predicted("dimm-1GiB", "opt-in")
