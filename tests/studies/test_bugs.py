"""Known bugs: each shows where it is and nowhere else, and the command says so."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from altmap.cli import main as cli
from altmap.model.kernel.defects import DEFECTS
from altmap.model.machine import predict
from altmap.model.releases import RELEASES
from altmap.scenario import load_scenario
from altmap.studies import bugs
from altmap.studies.bugs.text import bugs_builtins, bugs_text

FOLDER = Path(bugs.__file__).with_name("scenarios")
IDS = [*(f"B{n}" for n in range(1, 30)), *(f"D{n}" for n in range(1, 9)), "F1"]
SHOWN = {
    *("B2", "B3", "B4", "B7", "B8", "B13", "B16", "B17", "B18", "B21", "B22", "B23", "B28", "B29"),
    *("D1", "D3", "D4", "D6", "F1"),
}


def load(name, settings):
    return load_scenario(FOLDER / f"{name}.toml", settings)


@pytest.fixture(scope="module")
def found():
    return {shown.bug.id: shown for shown in bugs.find(bugs.BUGS, load)}


def test_every_bug_is_there_in_order():
    assert [bug.id for bug in bugs.BUGS] == IDS
    assert set(DEFECTS) <= set(IDS)


@pytest.mark.parametrize("id_", IDS)
def test_a_bug_is_shown_or_there_is_a_reason(id_, found):
    shown = found[id_]
    assert shown.reproduced is (True if id_ in SHOWN else None)
    assert bool(shown.bug.reason) is (id_ not in SHOWN)


@pytest.mark.parametrize("id_", sorted(SHOWN))
def test_what_is_measured_differs_between_where_the_bug_is_and_is_not(id_, found):
    values = [
        {(item.case.unit, item.value) for item in items}
        for items in (found[id_].affected, found[id_].sound)
    ]
    assert values[0]
    assert values[0].isdisjoint(values[1])


#: From sizes alone. D3: chunks of 1024 pages fit 31 times behind 512 of 32768 pages. D4: seven
#: sections' memmap of 2048 kB is lost of 126 MiB. D6: nothing is kept back.
NUMBERS = {
    "D3": (31 * 1024, 0),
    "D4": (129024 - 7 * 2048, 129024),
    "D6": (1 << 20, (1 << 20) * 63 // 64),
    "B2": (64 * 256, 0),
    "B8": (512, 0),
    "B13": (-512, 0),
}


@pytest.mark.parametrize("id_", NUMBERS)
def test_numbers(id_, found):
    shown = found[id_]
    assert (shown.affected[0].value, shown.sound[0].value) == NUMBERS[id_]


def test_releases_that_have_a_bug_are_records_of_their_own(found):
    for shown in found.values():
        for item in (*shown.affected, *shown.sound):
            for word in item.case.experiments[0].settings:
                key, _, value = word.partition("=")
                assert key != "release" or value in RELEASES


def test_poison_saves_the_pages_that_old_marks_would_cost():
    lost = [
        predict(load("smaller-again", (f"debug_vm={word}",))).steps[-1].observation.meminfo
        for word in ("false", "true")
    ]
    assert lost[1]["MemTotal"] - lost[0]["MemTotal"] == 7 * 2048


def changed(scenario, **fields):
    """Return the scenario with other fields of its first step."""
    return scenario.with_steps([scenario.steps[0].replace(**fields), *scenario.steps[1:]])


@pytest.mark.parametrize("debug_vm", ["true", "false"])
def test_chunks_behind_the_memmap_of_an_even_number_of_sections_are_aligned(debug_vm):
    scenario = load("one-section", (f"debug_vm={debug_vm}",))
    scenario = changed(scenario, size=2 * scenario.steps[0].size)
    trace = predict(scenario)
    assert [step.outcome.status for step in trace.steps] == ["ok", "ok", "ok"]
    assert not any(event.kind == "bug" for step in trace.steps for event in step.events)


def test_one_section_leaves_forwards_without_harm():
    scenario = load("two-sections-leave", ())
    scenario = changed(scenario, size=scenario.steps[0].size // 2)
    assert predict(scenario).steps[-1].outcome


def test_below_16_tib_every_memmap_is_found():
    scenario = load("at-16TiB", ())
    scenario = changed(scenario, address=scenario.steps[0].address - (1 << 30))
    trace = predict(scenario)
    # The section that ends at 16 TiB has no memmap page: those lie in the first one.
    assert not any(event.kind == "bug" for step in trace.steps for event in step.events)


# --- the command -------------------------------------------------------------------------------


def test_every_scenario_is_used_and_described():
    cases = [case for bug in bugs.BUGS for case in (*bug.affected, *bug.sound)]
    used = {run.scenario for case in cases for run in case.experiments}
    assert used == {path.stem for path in FOLDER.iterdir()}
    assert all(load_scenario(path).description for path in FOLDER.iterdir())


def test_the_text_but_commands_fits_80_columns_and_names_every_bug(found):
    text = bugs_text(list(found.values()))
    assert max(len(line) for line in text.splitlines() if "Run: " not in line) <= 80
    assert re.findall(r"^([BDF]\d+) ", text, re.MULTILINE) == IDS
    assert f"{len(IDS)} bugs: {len(SHOWN)} shown" in text


def test_the_command_prints_the_bugs_that_are_named_and_their_run(capsys, tmp_path):
    folder = tmp_path / "bugs"
    assert cli.main(["bugs", "b8", "D4", "--write", str(folder)]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^([BDF]\d+) ", out, re.MULTILINE) == ["B8", "D4"]
    assert {path.name for path in folder.iterdir()} == {path.name for path in FOLDER.iterdir()}
    command = f"altmap run {folder}/add-fails.toml --set release=6.8"
    assert command.replace(" ", "") in re.sub(r"\s+", "", out)
    assert cli.main(command.split()[1:]) == 0
    assert "frames of removed memory" in capsys.readouterr().out


def test_json_says_the_same(capsys, found):
    assert cli.main(["bugs", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == json.loads(
        json.dumps(bugs_builtins(list(found.values())))
    )


def test_a_bug_that_does_not_show_ends_with_1(capsys, monkeypatch):
    bug = next(bug for bug in bugs.BUGS if bug.id == "B8")
    wrong = replace(bug, sound=(replace(bug.affected[0], claimed=0),))
    monkeypatch.setattr(bugs, "BUGS", (wrong,))
    assert cli.main(["bugs"]) == 1
    assert "NOT shown" in capsys.readouterr().out


def test_an_unknown_bug_is_refused(capsys):
    assert cli.main(["bugs", "B99"]) == 2
    assert "bug 'B99': need one of B1, " in capsys.readouterr().err
