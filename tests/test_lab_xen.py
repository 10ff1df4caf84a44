"""The model of a Xen domain against real ones: every scenario, every exact field."""

from pathlib import Path

import pytest

from altmap.lab import fetch_xen
from altmap.report.text import comparison_text
from altmap.scenario import load_scenario
from altmap.verify import compare_with_lab

SCENARIOS = Path(__file__).parent.parent / "scenarios"
CASES = [
    ("xen-balloon", (), "6.12"),
    ("xen-balloon", (), "6.1"),
    ("xen-at-its-limit", ("memmap_on_memory=on",), "6.1"),
    ("xen-blocks-offline", ("memmap_on_memory=on",), "6.12"),
    ("xen-whole-section", (), "7.3"),
    ("xen-above-pci", (), "6.12"),
]


@pytest.mark.lab
@pytest.mark.parametrize(("name", "settings", "release"), CASES)
def test_prediction_equals_the_real_domain(name, settings, release):
    scenario = load_scenario(SCENARIOS / f"{name}.toml", settings)
    comparison = compare_with_lab(scenario, release, lambda _: None)
    assert comparison.equal, comparison_text(comparison, scenario.name)


@pytest.mark.lab
def test_xen_is_fetched_once_and_then_taken_from_the_cache(tmp_path, monkeypatch):
    xen = fetch_xen(tmp_path)
    # QEMU starts it by multiboot, from an ELF file.
    assert xen.image.read_bytes()[:4] == b"\x7fELF"
    assert list(xen.versions) == ["xen-hypervisor-4.17-amd64"]
    assert sorted(p.name for p in (tmp_path / "kernels/xen").iterdir()) == ["packages.json", "xen"]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert fetch_xen(tmp_path) == xen
