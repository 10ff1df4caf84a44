"""What real kernels can show of the claims: the numbers, and the command that compares them."""

import json
import re
from pathlib import Path

import pytest

from altmap.cli import main as cli
from altmap.model.machine import predict
from altmap.scenario import load_scenario
from altmap.studies import claims
from altmap.studies.claims.claim import Experiment
from altmap.studies.claims.lab_cases import (
    REAL,
    Agreement,
    agreements_builtins,
    agreements_text,
    cases_of,
)

FOLDER = Path(claims.__file__).with_name("scenarios")

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
    ("C12", "off", "first block, written before online"): 0,
    ("C12", "on", "first block, written before online"): 0,
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
    scenario = load_scenario(FOLDER / f"{case.experiment.scenario}.toml", case.experiment.settings)
    assert case.measure([predict(scenario)]) == number


def test_a_real_case_names_no_policy_and_a_known_claim():
    assert all("policy" not in word for case in REAL for word in case.experiment.settings)
    assert {case.claim for case in REAL} == {"C1", "C2", "C3", "C4", "C5", "C12", "C13", "C15"}


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
        (["C7", "--on", "lab"], "claims C7: nothing of it"),
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
        assert load_scenario(FOLDER / f"{experiment.scenario}.toml", experiment.settings).steps


# --- with one ----------------------------------------------------------------------------------


@pytest.mark.lab
def test_every_number_of_a_real_kernel_is_the_model_s(capsys):
    assert cli.main(["claims", "--on", "lab", "--release", "6.12", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    seen = {(n["claim"], n["label"]): n["observed"] for n in made["numbers"]}
    assert len(seen) == len(cases_of([], slow=False))
    on = "1 GiB, memmap_on_memory on: "
    assert seen["C1", on + "MemTotal gains"] == 1008 * 1024
    assert seen["C12", on + "first block, written before online"] == 0
    assert seen["C13", on + "first block's memmap pages that are written"] == 512
    assert all(re.fullmatch(r"C\d+", claim) for claim, _ in seen)
