"""The claims of 2018: verdicts and numbers, and that each verdict could have been another."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from altmap.cli import main as cli
from altmap.errors import InputError
from altmap.model.machine import predict
from altmap.scenario import load_scenario
from altmap.studies import claims
from altmap.studies.claims.claim import Claim, ClaimCase, Experiment, Finding, Measured
from altmap.studies.claims.lab_cases import REAL
from altmap.studies.claims.measure import used_kb
from altmap.studies.claims.text import claims_builtins, claims_text

ROOT = Path(__file__).parents[2]
FOLDER = Path(claims.__file__).with_name("scenarios")
IDS = [f"C{n}" for n in range(1, 25)]


def load(name, settings):
    return load_scenario(FOLDER / f"{name}.toml", settings)


def judged(ids, *settings):
    chosen = claims.claims_named(claims.CLAIMS, ids)
    return {f.claim.id: f for f in claims.judge(chosen, load, settings)}


@pytest.fixture(scope="module")
def findings():
    return judged([])


def values(finding):
    return {item.case.label: item.value for item in finding.measured}


# --- verdicts ----------------------------------------------------------------------------------

HOLDS = "C2 C3 C4 C6 C7 C8 C9 C10 C11 C14 C15 C16 C17 C21 C22"

#: What the discussion and the merged code came to, written down apart from the data.
VERDICTS = dict.fromkeys(HOLDS.split(), "holds") | {
    "C1": "holds only when the policy is existing or the policy is total-and-allocated",
    "C5": "holds only when the policy is rfc-2018",
    "C12": "holds only when the memmap is in existing memory or opt-in runs without "
    "CONFIG_DEBUG_VM",
    "C13": "holds only when one section is added at a time or each block of one section holds "
    "its own memmap",
    "C18": "refuted",
    "C19": "holds only when the first half comes first",
    "C20": "holds only when the platform answers such reads or the dump leaves offline pages out",
    "C23": "not testable here",
    "C24": "not testable here",
}


def test_every_claim_of_the_discussion_is_there_in_order():
    assert [claim.id for claim in claims.CLAIMS] == IDS
    assert set(VERDICTS) == set(IDS)


@pytest.mark.parametrize("id_", IDS)
def test_verdict(id_, findings):
    assert findings[id_].verdict == VERDICTS[id_]
    assert findings[id_].as_expected


# --- numbers -----------------------------------------------------------------------------------

KIB_OF_GIB = 1024 * 1024

#: By claim: labels to numbers, from sizes alone: 64 bytes for each page.
NUMBERS = {
    "C1": {
        "existing: MemTotal gains": 1024 * 1024,
        "total-and-allocated: MemTotal gains": 1024 * 1024,
        "opt-in: MemTotal gains": 1008 * 1024,
        "rfc-2018: MemTotal gains": 1008 * 1024,
    },
    "C2": {"opt-in: MemTotal gains": 1032192, "rfc-2018: MemTotal gains": 1032192},
    "C3": {
        "opt-in: nr_memmap_pages gains at add": 262144 // 64,
        "existing: nr_memmap_pages gains at add": 262144 // 64,
        "opt-in: left after removal": 0,
    },
    "C4": {"opt-in: MemTotal gains": 66060288, "existing: MemTotal gains": 67108864},
    "C5": {"opt-in: callers that keep it out": 1},
    "C6": {
        "x86_64: memmap in the range": 8 * 512,
        "aarch64-64k: memmap in the range": 2 * 8,
        "s390x: memmap in the range": 0,
    },
    "C7": {"rfc-2018: least that is safe": 2048, "opt-in: least that is safe": 4},
    "C8": {"rfc-2018, blocks of 2GiB: least that is safe": 32 * 1024},
    "C9": {"no flag (rfc-2018): Hyper-V backs 1 MiB": "fault at online"},
    "C10": {"existing: MemTotal gains": 65536, "existing: fake-offline": 16384},
    "C11": {
        "rfc-2018, first half backed: touched before online": 8,
        "opt-in, first half backed: touched before online": 0,
        "opt-in, second half backed": "no fault",
    },
    "C12": {
        "opt-in: touched before online": 0,
        "opt-in, CONFIG_DEBUG_VM: touched before online": 512,
        "rfc-2018: touched before online": 8,
        "rfc-2018, CONFIG_DEBUG_VM: touched before online": 512,
    },
    "C13": {
        "rfc-2018, 1 section: touched": 512,
        "rfc-2018, 1 section: left alone": 32768 - 512,
        "rfc-2018, 2 sections: touched": 1024,
        "rfc-2018, 8 sections: touched": 4096,
        "rfc-2018, 1 section: of these at add": 8,
    },
    # Backed from the start with 2 MiB or more: 3 of 12. The middle of a section never serves.
    "C14": {"rfc-2018: runs that fault": 9, "rfc-2018: runs that the rule judges wrongly": 0},
    "C15": {
        "rfc-2018: memmap of the block": 8192,
        "rfc-2018": "fault at online",
        "rfc-2018, CONFIG_DEBUG_VM": "fault at add",
        "opt-in": "no fault",
    },
    "C16": {
        "s390x, block of 256 MiB: memmap": 1024 * 4,
        "aarch64-64k, block of 512 MiB: memmap": 8 * 64,
        "ppc64le-64k, block of 256 MiB: memmap": 4 * 64,
    },
    "C17": {
        "existing, 128MiB there: usable pages per memmap page": 64,
        "existing, 64MiB there: usable pages per memmap page": 32,
        "existing, 32MiB there: usable pages per memmap page": 16,
    },
    "C18": {"existing, second half: can be used": 65536, "rfc-2018, second half": "fault at add"},
    "C19": {
        "first half, then second: brought online": 16384,
        "first half, then second: MemTotal gains": 131072,
        "first half, then second: memmap": 512,
    },
    "C20": {
        "a dump of all pages, reads allowed": "ok",
        "a dump of all pages, reads fault": "fault",
        "rfc-2018 writes it, reads allowed": "fault at add",
    },
    # Of 32 adds, those with 2 MiB or 64 MiB from the start are safe: 2 of 8 in each setting.
    "C21": {"opt-in: Hyper-V adds of 4 KiB to 64 MiB that fault": 0, "rfc-2018: the same adds": 24},
    # The one is DLPAR: the memmap of an LMB lies in the one that is online before it is added.
    "C22": {"rfc-2018: callers concerned": 3, "opt-in, parameter off (default)": 1},
    "C23": {
        "rfc-2018, DIMMs of 512 MiB to 60 GiB that fault": 0,
        "rfc-2018, Hyper-V and half a section that fault": 1,
    },
}


@pytest.mark.parametrize("id_", NUMBERS)
def test_numbers(id_, findings):
    measured = values(findings[id_])
    assert {label: measured[label] for label in NUMBERS[id_]} == NUMBERS[id_]


def test_memfree_hardly_depends_on_the_policy(findings):
    # One page: the direct map, taken from boot memory or from the new memory's first zone.
    assert values(findings["C1"])["MemFree, furthest apart between the four"] <= 4


# --- a claim that cannot fail is worthless -----------------------------------------------------

#: A setting put over every experiment of a claim, and the verdict that it must then come to.
OTHERWISE = {
    "C1": ("policy=opt-in", "refuted"),
    "C2": ("policy=existing", "refuted"),
    "C3": ("release=6.8", "refuted"),  # the counter came with 6.11
    "C4": ("policy=existing", "refuted"),
    "C5": ("policy=opt-in", "refuted"),
    "C6": ("policy=existing", "holds only when the architecture is s390x"),
    "C7": ("policy=opt-in", "refuted"),
    "C8": ("policy=opt-in", "refuted"),
    "C9": ("policy=rfc-2018", "refuted"),
    "C10": ("policy=rfc-2018", "refuted"),
    "C11": ("policy=opt-in", "refuted"),
    "C12": ("policy=rfc-2018", "refuted"),
    "C13": ("policy=existing", "refuted"),
    "C14": ("policy=existing", "refuted"),
    "C15": ("policy=opt-in", "refuted"),
    "C17": ("policy=rfc-2018", "refuted"),
    "C18": ("policy=rfc-2018", "holds"),
    "C19": ("policy=rfc-2018", "refuted"),
    "C20": ("policy=opt-in", "refuted"),
    "C21": ("policy=rfc-2018", "refuted"),
    "C22": ("policy=existing", "refuted"),
}


@pytest.mark.parametrize("id_", OTHERWISE)
def test_the_verdict_follows_the_policy(id_):
    setting, verdict = OTHERWISE[id_]
    finding = judged([id_], setting)[id_]
    assert finding.verdict == verdict
    assert not finding.as_expected


def test_sizes_by_architecture_are_not_one_size():
    finding = judged(["C16"], "arch=x86_64")["C16"]
    assert finding.verdict == (
        "holds only when the architecture is x86_64 or the architecture is aarch64"
    )


def test_whatever_is_judged_is_put_to_the_test():
    testable = {id_ for id_, verdict in VERDICTS.items() if verdict != "not testable here"}
    assert testable == {*OTHERWISE, "C16"}


def test_writes_at_add_move_the_fault():
    measured = values(judged(["C15"], "debug_vm=true")["C15"])
    assert measured["rfc-2018"] == "fault at add"


# --- how cases come to a verdict ---------------------------------------------------------------


def finding_of(*cases):
    """Return a finding of ``(value, claimed, when)``."""
    made = [
        Measured(ClaimCase("", (), len, "", claimed, when), value) for value, claimed, when in cases
    ]
    return Finding(Claim("C1", "author", "", "", (), "", ""), tuple(made))


@pytest.mark.parametrize(
    ("cases", "verdict"),
    [
        ([], "not testable here"),
        ([(1, None, "a")], "not testable here"),
        ([(1, 1, ""), (2, None, "")], "holds"),
        ([(1, 2, "")], "refuted"),
        ([(1, 1, ""), (1, 2, "")], "refuted"),
        ([(1, 1, "a"), (1, 2, "b")], "holds only when a"),
        ([(1, 1, "a"), (1, 2, "b"), (3, 3, "c")], "holds only when a or c"),
        ([(1, 1, "a"), (1, 2, "a"), (3, 3, "c")], "holds only when c"),
        ([(1, 1, "a"), (1, 2, "a")], "refuted"),
        ([(1, 1, "a"), (1, 2, "b"), (1, 2, "")], "refuted"),
        ([(5, range(5), "")], "refuted"),
        ([(4, range(5), "")], "holds"),
        (
            [("no such counter", range(5), "")],
            "refuted",
        ),
    ],
)
def test_cases_of_one_condition_stand_or_fall_together(cases, verdict):
    assert finding_of(*cases).verdict == verdict


# --- scenarios ---------------------------------------------------------------------------------

EXPERIMENTS = {e for claim in claims.CLAIMS for case in claim.cases for e in case.experiments}


def test_every_scenario_is_used_and_described():
    used = {e.scenario for e in EXPERIMENTS} | {case.experiment.scenario for case in REAL}
    assert used == {path.stem for path in FOLDER.iterdir()}
    for path in FOLDER.iterdir():
        assert load_scenario(path).description, path.name


def test_every_experiment_names_its_policy():
    assert all(any(s.startswith("policy=") for s in e.settings) for e in EXPERIMENTS)


@pytest.mark.parametrize(
    "claim", [c for c in claims.CLAIMS if c.experiment], ids=lambda claim: claim.id
)
def test_the_run_that_a_claim_shows_can_be_run(claim, capsys):
    shown = claim.experiment
    assert shown == Experiment(shown.scenario, shown.settings)
    settings = [word for setting in shown.settings for word in ("--set", setting)]
    assert cli.main(["run", str(FOLDER / f"{shown.scenario}.toml"), *settings]) == 0
    assert capsys.readouterr().out


# --- the command -------------------------------------------------------------------------------


def test_the_text_but_commands_fits_80_columns_and_names_every_claim(findings):
    text = claims_text(list(findings.values()))
    assert max(len(line) for line in text.splitlines() if "Run: " not in line) <= 80
    assert text.isprintable() or set(re.findall(r"[^ -~]", text)) <= {"\n"}
    assert "1048576 kB  existing: MemTotal gains, 1 GiB\n" in text
    assert re.findall(r"^(C\d+) ", text, re.MULTILINE) == IDS
    assert "24 claims: 15 hold, 6 hold only when ..., 1 refuted" in text


def test_the_command_prints_the_claims_that_are_named(capsys):
    assert cli.main(["claims", "c13", "C7"]) == 0
    out = capsys.readouterr().out
    assert re.findall(r"^(C\d+) ", out, re.MULTILINE) == ["C7", "C13"]
    assert "2 claims: 1 hold, 1 hold only when ..., 0 refuted," in out


def test_an_unknown_claim_is_refused(capsys):
    assert cli.main(["claims", "C25"]) == 2
    assert "claim 'C25': need one of C1 to C24" in capsys.readouterr().err


def test_a_verdict_that_is_not_the_known_one_ends_with_1(capsys, monkeypatch):
    from dataclasses import replace

    wrong = tuple(replace(claim, expected="refuted") for claim in claims.CLAIMS)
    monkeypatch.setattr(claims, "CLAIMS", wrong)
    assert cli.main(["claims", "C7"]) == 1
    out = " ".join(capsys.readouterr().out.split())
    assert "NOT as known: refuted" in out
    assert "Verdicts that differ from those known: C7." in out


def test_json_says_the_same(capsys, findings):
    assert cli.main(["claims", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made == json.loads(json.dumps(claims_builtins(list(findings.values()))))
    assert (made["schema"], made["version"]) == ("altmap-claims", 1)
    assert {each["id"]: each["verdict"] for each in made["claims"]} == VERDICTS
    assert all((each["run"] is None) == (each["measured"] == []) for each in made["claims"])


def test_scenarios_are_written_and_run_as_shown(tmp_path, capsys):
    folder = tmp_path / "mine"
    assert cli.main(["claims", "C18", "--write", str(folder)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"altmap run {folder}/hyperv-second-half.toml --set policy=existing" in shown
    assert {p.name for p in folder.iterdir()} == {p.name for p in FOLDER.iterdir()}
    assert cli.main(["claims", "--write", str(folder)]) == 2
    assert "need a new or empty folder" in capsys.readouterr().err


def test_ids_are_checked_before_anything_runs():
    with pytest.raises(InputError, match="C0"):
        claims.claims_named(claims.CLAIMS, ["C1", "C0"])


def test_the_page_is_as_generated(generate):
    shown = (ROOT / "docs/claims.md").read_text(encoding="utf-8")
    assert shown == generate.page_of_claims(), "run python docs/generate.py"


def test_pages_on_per_cpu_lists_are_free():
    trace = predict(load("dimm-1GiB", []))
    before = used_kb([trace])
    start = trace.steps[0].observation
    zone = max(start.zoneinfo, key=lambda each: each.pages["managed"])
    waiting = replace(zone, pagesets=({"cpu": 0, "count": zone.nr_on_cpu_lists + 2000},))
    zones = tuple(waiting if each is zone else each for each in start.zoneinfo)
    # They go to the buddy allocator when zones are set up anew.
    meminfo = start.meminfo | {"MemFree": start.meminfo["MemFree"] - 2000 * 4}
    trace.steps[0] = replace(
        trace.steps[0], observation=replace(start, zoneinfo=zones, meminfo=meminfo)
    )
    assert used_kb([trace]) == before
