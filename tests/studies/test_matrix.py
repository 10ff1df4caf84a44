"""Drivers against policies: each cell is a run, and each driver has a row."""

import json
import re
from pathlib import Path

import pytest

from altmap.cli import main as cli
from altmap.model.arch import ARCHES
from altmap.model.kernel.placements import PLACEMENTS
from altmap.model.machine import DRIVERS, predict
from altmap.scenario import parse_scenario
from altmap.studies.claims.matrix import (
    SEEN,
    case_scenario,
    lab_scenario,
    matrix,
    matrix_page,
    matrix_text,
    scenario_files,
)
from altmap.studies.claims.partial import PARTIAL, Partial
from altmap.verify.both_sides import compare_with_lab
from built import skip_unless_built


@pytest.fixture(scope="module")
def cells():
    return {(c.driver, c.policy, c.arch): c for c in matrix()}


def test_every_driver_has_a_row():
    # A Xen domain's balloon is there from the start, nothing is plugged.
    assert set(PARTIAL) == {*DRIVERS, "xen"}, (
        "give the driver a record in altmap/studies/claims/partial.py"
    )


def test_every_driver_meets_every_policy_on_each_of_its_architectures(cells):
    assert set(cells) == {
        (partial.driver, policy, arch)
        for partial in PARTIAL.values()
        for policy in PLACEMENTS
        for arch in partial.arches
    }
    assert {arch for partial in PARTIAL.values() for arch in partial.arches} <= set(ARCHES)


def test_nobody_faults_who_was_asked(cells):
    for policy in ("opt-in", "existing", "hinted", "shared-host"):
        assert {c.verdict for key, c in cells.items() if key[1] == policy} == {"safe"}, policy


@pytest.mark.parametrize(
    ("policy", "arch", "verdict"),
    [
        ("rfc-2018", "x86_64", "add"),
        ("per-block", "x86_64", "online"),
    ],
)
def test_hyperv_with_one_page(cells, policy, arch, verdict):
    assert cells["hyperv", policy, arch].verdict == verdict


def test_what_two_drivers_refuse_faults_no_more(cells):
    """virtio-mem vetoes a part of a block; a paravirtual Xen domain cannot map such a memmap."""
    assert cells["virtio-mem", "per-block", "x86_64"].verdict == "refused"
    for policy in ("rfc-2018", "per-block"):
        assert cells["xen", policy, "x86_64"].verdict == "refused"


def test_a_dimm_is_backed_and_safe(cells):
    assert {c.verdict for key, c in cells.items() if key[0] == "dimm"} == {"safe"}


def test_the_scenario_behind_a_cell_runs_to_its_verdict(cells):
    for name, text in scenario_files(list(cells.values())).items():
        trace = predict(parse_scenario(text, "cell"), pages=False)
        cell = next(c for c in cells.values() if c.name == name)
        faulted = any(step.faults for step in trace.steps)
        vetoed = any(event.kind == "veto" for step in trace.steps for event in step.events)
        refused = vetoed or not all(step.outcome for step in trace.steps)
        assert faulted is bool(cell.fault), name
        assert (refused and not faulted) is (cell.verdict == "refused"), name
        added = any(event.kind == "added" for step in trace.steps for event in step.events)
        assert added or faulted or refused, name


def test_a_driver_appears_by_its_record():
    partial = PARTIAL["hyperv"]
    mine = Partial("hyperv", ("x86_64",), partial.cases[1:2], {"release": "6.1"})
    found = {c.policy: c for c in matrix({"hyperv": mine})}
    assert found["rfc-2018"].case == "the second half of a block"
    assert 'release = "6.1"' in found["rfc-2018"].scenario
    assert found["hinted"].verdict == "safe"


# --- the command -------------------------------------------------------------------------------


def test_the_command_prints_writes_and_its_scenarios_run(tmp_path, capsys):
    folder = tmp_path / "cells"
    assert cli.main(["claims", "--matrix", "--write", str(folder)]) == 0
    out = capsys.readouterr().out
    row = r"^hyperv +x86_64 +safe +fault:add +safe +fault:online +safe +safe$"
    assert re.search(row, out, re.MULTILINE)
    safe = out.count("safe") + out.count("refused")
    assert len(list(folder.iterdir())) == safe + out.count("  write of pfn")
    assert cli.main(["run", str(folder / "hyperv-rfc-2018-x86_64.toml")]) == 0
    assert "the kernel crashes" in capsys.readouterr().out


def test_a_cell_that_ends_in_a_fault_is_marked_in_text_and_page(cells):
    for (driver, policy, arch), cell in cells.items():
        alone = {"text": matrix_text([cell]), "page": matrix_page([cell])}
        row = next(x for x in alone["page"].splitlines() if x.startswith(f"| {driver} | {arch}"))
        marked = bool(cell.fault)
        assert (f"**✖ {cell.verdict}**" in row) is marked, (driver, policy, arch)
        assert (f" fault:{cell.verdict}" in alone["text"]) is marked
        assert ("the kernel crashes in that step" in alone["text"]) is marked
        assert marked is (cell.verdict not in ("safe", "refused"))


def test_the_text_fits_100_columns(cells):
    assert max(map(len, matrix_text(list(cells.values())).splitlines())) <= 100


def test_json_says_the_same(capsys, cells):
    assert cli.main(["claims", "--matrix", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["schema"], made["version"]) == ("altmap-matrix", 1)
    said = {(c["driver"], c["policy"], c["arch"]): c["verdict"] for c in made["cells"]}
    assert said == {key: cell.verdict for key, cell in cells.items()}


def test_memory_that_the_kernel_vetoes_to_take_back_stays(cells, capsys):
    """arm64 since 7.1, with pages of 4 KiB: blocks that host their own memmap."""
    later = matrix(release="7.3")
    stays = {(c.driver, c.policy, c.arch) for c in later if c.verdict == "stays"}
    hosted = {("dimm", policy, "aarch64") for policy in ("opt-in", "per-block", "hinted")}
    assert stays == hosted | {("kmem", policy, "aarch64") for policy in ("opt-in", "per-block")}
    assert not any(cell.verdict == "stays" for cell in cells.values())
    assert not any(cell.is_seen for cell in later)
    scenario = parse_scenario(next(c.scenario for c in later if c.verdict == "stays"), "cell")
    assert predict(scenario).steps[-1].outcome.errno == "EPERM"
    page = matrix_page(list(cells.values()), later)
    assert "| kmem | aarch64 | opt-in | safe | stays |" in page.split("## What differs on 7.3")[1]
    assert cli.main(["claims", "--matrix", "--release", "7.3", "--policy", "opt-in"]) == 0
    shown = capsys.readouterr().out
    assert "(EPERM)" in shown
    row = next(line for line in shown.splitlines() if line.startswith("dimm       aarch64 "))
    assert row.split() == ["dimm", "aarch64", "stays"]


def test_the_matrix_takes_no_claim(capsys):
    assert cli.main(["claims", "C7", "--matrix"]) == 2
    assert "claims --matrix C7" in capsys.readouterr().err


def test_a_cell_is_marked_by_a_case_of_its_verdict(cells):
    for (driver, policy), case in SEEN.items():
        cell = cells[driver, policy, "x86_64"]
        for scenario in (
            case_scenario(driver, policy, "x86_64", case),
            lab_scenario(driver, policy),
        ):
            trace = predict(scenario)
            vetoed = any(event.kind == "veto" for step in trace.steps for event in step.events)
            refused = vetoed or not all(step.outcome for step in trace.steps)
            assert any(step.faults for step in trace.steps) is bool(cell.fault)
            assert refused is (cell.verdict != "safe")
        assert cell.is_seen
    page = matrix_page(list(cells.values()))
    row = next(line for line in page.splitlines() if line.startswith("| hyperv | x86_64 |"))
    assert row.count("†") == sum(driver == "hyperv" for driver, _ in SEEN)
    assert not any(cell.is_seen for key, cell in cells.items() if key[2] != "x86_64")


@pytest.mark.lab
@pytest.mark.parametrize(("driver", "policy"), SEEN)
def test_a_marked_cell_is_equal_on_a_real_kernel(driver, policy):
    release = "6.12+rfc-2018" if policy == "rfc-2018" else "6.12"
    skip_unless_built(release)
    scenario = lab_scenario(driver, policy)
    # Under Xen the lab cannot tell what is touched.
    comparison = compare_with_lab(scenario, release, lambda _: None, touched=driver != "xen")
    assert comparison.equal
    assert len({trace.steps[1].outcome.status for trace in comparison.traces}) == 1


def test_a_user_s_policy_has_a_column_and_its_scenarios_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(Path(__file__).parents[2])
    chosen = ["--policy", "examples.every_driver:EveryDriver"]
    folder = tmp_path / "cells"
    assert (
        cli.main(["claims", "--matrix", *chosen, "--policy", "existing", "--write", str(folder)])
        == 0
    )
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("hyperv"))
    assert row.split() == ["hyperv", "x86_64", "fault:online", "safe"]
    assert f"{folder}/DRIVER-POLICY-ARCH.toml --policy MODULE:CLASS runs a cell" in out
    cell = str(folder / "hyperv-every-driver-x86_64.toml")
    assert cli.main(["run", cell, *chosen, "--check"]) == 1
    assert "mhp_init_memmap_on_memory" in capsys.readouterr().out


def test_a_policy_goes_with_the_matrix_only(capsys):
    assert cli.main(["claims", "C13", "--policy", "existing"]) == 2
    assert "--policy goes with --matrix" in capsys.readouterr().err
