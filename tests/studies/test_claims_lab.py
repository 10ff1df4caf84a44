"""What real kernels can show of the claims: the numbers, and the command that compares them."""

import json
import re
from pathlib import Path

import pytest

from altmap import lab
from altmap.cli import main as cli
from altmap.errors import LabError
from altmap.lab.designs import DESIGNS
from altmap.lab.hardware import hardware_of
from altmap.lab.kernel_build import built_folder
from altmap.lab.kernels import cache_folder
from altmap.model.machine import predict
from altmap.scenario import load_scenario
from altmap.studies import claims
from altmap.studies.claims import lab_cases
from altmap.studies.claims.claim import Experiment, scenario_of
from altmap.studies.claims.lab_cases import (
    REAL,
    Agreement,
    agreements_builtins,
    agreements_text,
    cases_of,
)

FOLDER = Path(claims.__file__).with_name("scenarios")
DOCS = Path(__file__).parents[2] / "docs"


def load(name, settings):
    return load_scenario(FOLDER / f"{name}.toml", settings)


# --- without a lab -----------------------------------------------------------------------------

#: What 1 GiB, or 2 GiB in one block, must come to: 64 bytes for each of its pages.
NUMBERS = {
    ("C1", "off", "MemTotal gains"): 1024 * 1024,
    ("C1", "on", "MemTotal gains"): 1008 * 1024,
    ("C2", "off", "present, but not managed"): 0,
    ("C2", "on", "present, but not managed"): 4096,
    ("C3", "on", "nr_memmap_pages gains at add"): 4096,
    ("C3", "on", "nr_memmap_pages left after removal"): 0,
    ("C4", "on", "missing of what was requested"): 16384,
    ("C5", "off", "pages of the DIMM that hold its memmap"): 0,
    ("C5", "on", "pages of the DIMM that hold its memmap"): 4096,
    ("C7", "", "stock, the first 2 MiB are not backed"): "no fault",
    ("C7", "", "design of 2018, the first 2 MiB are backed"): "no fault",
    ("C7", "", "design of 2018, the first 2 MiB are not backed"): "fault at add",
    ("C10", "", "stock, first half backed: MemTotal gains"): 64 * 1024,
    ("C10", "", "stock, first half backed: fake-offline"): 16384,
    ("C10", "", "design of 2018, first half backed: MemTotal gains"): 62 * 1024,
    ("C11", "", "stock, first half backed: touched before its pages go online"): 0,
    # The struct pages of 512 pages.
    ("C11", "", "design of 2018, first half backed: touched before its pages go online"): 8,
    ("C12", "off", "touched before online"): 0,
    ("C12", "on", "touched before online"): 0,
    ("C12", "", "design of 2018, one section: touched before online"): 8,
    ("C13", "", "one section: its memmap pages that are written"): 512,
    ("C13", "", "two sections at once: memmap pages written in the first"): 1024,
    ("C17", "", "stock, 128MiB backed: memmap"): 512,
    ("C17", "", "stock, 32MiB backed: memmap"): 512,
    ("C18", "", "stock, second half backed: MemTotal gains"): 64 * 1024,
    ("C18", "", "design of 2018, second half backed"): "fault at add",
    ("C19", "", "stock, first half, then second: MemTotal gains"): 128 * 1024,
    ("C19", "", "stock, second half, then first: MemTotal gains"): 64 * 1024,
    ("C19", "", "stock, second half, then first: fake-offline in the end"): 16384,
    ("C13", "on", "most memmap pages in a block"): 512,
    ("C13", "on", "first block's memmap pages that are written"): 512,
    ("C15", "", "memmap pages in it"): 8192,
}


@pytest.mark.parametrize(
    ("claim", "mode", "what", "number"), [(*key, number) for key, number in NUMBERS.items()]
)
def test_the_model_says_what_sizes_say(claim, mode, what, number):
    mode = f"memmap_on_memory {mode}: " if mode else ""
    (case,) = [
        case for case in REAL if case.claim == claim and case.label.endswith(f"{mode}{what}")
    ]
    scenario = scenario_of(case.experiment, load)
    assert case.measure([predict(scenario)]) == number


def test_a_real_case_has_a_policy_that_its_kernel_follows_and_a_known_claim():
    for case in REAL:
        machine = load(case.experiment.scenario, case.experiment.settings).machine
        assert machine.policy in (None, "opt-in") or case.needs_design
        assert case.needs_design is (machine.release == "6.12+rfc-2018")
        hardware_of(machine)
    assert {case.claim for case in REAL} == {
        *("C1", "C2", "C3", "C4", "C5", "C7", "C10", "C11", "C12", "C13", "C15", "C16", "C17"),
        *("C18", "C19"),
    }


def test_cases_whose_kernel_is_not_built_are_left_out_and_named(monkeypatch, capsys):
    chosen = []
    monkeypatch.setattr(lab_cases, "agreements", lambda cases, *_: chosen.extend(cases) or [])
    monkeypatch.setattr(lab, "kernel_of", refuse)
    assert cli.main(["claims", "C7", "--on", "lab"]) == 0
    assert [case.label for case in chosen] == ["stock, the first 2 MiB are not backed"]
    assert "left out: 2 numbers: not built" in capsys.readouterr().err


def refuse(*_):
    raise LabError("not built")


def test_slow_cases_run_only_when_asked_for():
    assert [case.claim for case in cases_of(["c15"], slow=True)] == ["C15"]
    assert not cases_of(["C15"], slow=False)
    assert len(cases_of([], slow=True)) == len(REAL)


def test_agreement_is_exact_or_within_the_tolerance():
    exact, loose = (next(c for c in REAL if bool(c.tolerance) is has) for has in (False, True))
    assert Agreement(exact, 5, 5).agrees
    assert not Agreement(exact, 5, 6).agrees
    assert Agreement(loose, 0, loose.tolerance).agrees
    assert not Agreement(loose, 0, loose.tolerance + 1).agrees
    assert Agreement(exact, "no such counter", "no such counter").agrees
    text = agreements_text([Agreement(exact, 5, 6), Agreement(loose, 0, 1)])
    assert "(model: 6)" in text
    assert "2 numbers of a real kernel: 1 as the model says, 1 not." in text
    made = agreements_builtins([Agreement(exact, 5, 6)], "6.12")
    assert (made["release"], made["numbers"][0]["agrees"]) == ("6.12", False)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["C8", "--on", "lab"], "claims C8: nothing of it"),
        (["C15", "--on", "lab"], "claims C15: nothing of it"),
        (["C1", "--slow"], "--on lab"),
        (["C1", "--release", "6.1"], "--on lab"),
        (["--matrix", "--on", "lab"], "no lab has"),
        (["C99", "--on", "lab"], "claim 'C99'"),
    ],
)
def test_what_no_lab_can_show_is_refused(argv, words, capsys):
    assert cli.main(["claims", *argv]) == 2
    captured = capsys.readouterr()
    assert words in captured.err
    assert captured.err.count("\n") == 1


def test_every_experiment_on_real_kernels_loads():
    for experiment in {case.experiment for case in REAL}:
        assert isinstance(experiment, Experiment)
        assert scenario_of(experiment, load).steps


def test_the_page_has_every_number_that_the_lab_measured():
    numbers = json.loads((DOCS / "claims-on-kernels.json").read_text(encoding="utf-8"))["numbers"]
    assert {(n["claim"], n["label"]) for n in numbers} == {
        (case.claim, case.label) for case in REAL if case.claim != "C15"
    }
    page = (DOCS / "claims.md").read_text(encoding="utf-8")
    for number in numbers:
        assert f"| {number['label']} | " in page
        assert number["agrees"]


# --- with one ----------------------------------------------------------------------------------


@pytest.mark.lab
def test_every_number_of_a_real_kernel_is_the_model_s(capsys):
    assert cli.main(["claims", "--on", "lab", "--release", "6.12", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    seen = {(n["claim"], n["label"]): n["observed"] for n in made["numbers"]}
    expected = cases_of([], slow=False)
    if built_folder(DESIGNS["rfc-2018"], cache_folder()) is None:
        expected = [case for case in expected if not case.needs_design]
    assert len(seen) == len(expected)
    on = "1 GiB, memmap_on_memory on: "
    assert seen["C1", on + "MemTotal gains"] == 1008 * 1024
    assert seen["C12", on + "touched before online"] == 0
    assert seen["C13", on + "first block's memmap pages that are written"] == 512
    assert all(re.fullmatch(r"C\d+", claim) for claim, _ in seen)
