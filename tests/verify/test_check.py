"""A kernel's behaviours, measured by what it shows on probes.

The real kernel is the model here, by another release's record: what is tested is the measuring.
"""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.errors import InputError, LabError
from altmap.model.machine import ModelMachine, predict
from altmap.model.releases import RELEASES, Release
from altmap.verify.check.behaviours import BEHAVIOURS, check_behaviour, others, value_on
from altmap.verify.check.measure import measure
from altmap.verify.check.probes import (
    case_probes,
    planned,
    read_probes,
    why_not_measured,
)
from altmap.verify.check.run import run_probes
from altmap.verify.check.text import against_text, check_json, check_text, record_text
from altmap.verify.conformance import read_cases

ROOT = Path(__file__).parents[2]
OLD, NEW = RELEASES["6.1"], RELEASES["6.12"]
#: Probes by name, each with the first architecture that has it.
PROBES = {
    each.name: (arch, each)
    for arch in ("s390x", "ppc64le", "aarch64", "x86_64")
    for each in read_probes(arch)
}


def plan(name, release="6.12"):
    arch, probe = PROBES[name]
    return planned(probe, arch, release)


def probed(name, record, arch=None):
    """Return a probe as a kernel with this record runs it, from its own start."""
    run = planned(PROBES[name][1], arch or PROBES[name][0], record.name)
    start = ModelMachine.start(run.scenario.machine, record=record).observe()
    return replace(run, trace=predict(run.scenario, start, record=record))


def verdicts(measurement):
    return {each.behaviour: each.verdict for each in measurement.behaviours}


def test_every_behaviour_of_the_records_is_one():
    others = {each.name for each in fields(Release)} - set(BEHAVIOURS)
    assert others == {
        *("name", "shape", "confirmed", "bounces_kmalloc", "boot_used_bytes", "sources"),
    }


def test_the_values_to_try_are_those_that_differ_on_the_architecture():
    scopes = [each.memmap_scope for each in others("x86_64", "memmap_scope", NEW)]
    assert scopes == ["none", "one_block"]
    (other,) = others("aarch64-16k", "virtio_mem", NEW)
    assert not value_on("aarch64-16k", "virtio_mem", other)
    assert value_on("aarch64", "virtio_mem", NEW)
    assert value_on("s390x", "section_size_bytes", RELEASES["7.3"]) == 128 << 20


def test_a_misspelt_behaviour_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'memmap_scope'"):
        check_behaviour("memap_scope")


#: Records that differ in what a probe measures, oldest first.
RECORDS = [RELEASES[name] for name in ("6.1", "6.12", "7.3")]


def runs_of(name):
    """Yield a probe as each record runs it, if it has what the probe needs."""
    for record in RECORDS:
        try:
            yield record, probed(name, record)
        except InputError:
            continue  # no such file or device on that kernel


@pytest.mark.parametrize("name", [name for name, (_, each) in PROBES.items() if not each.slow])
def test_a_probe_tells_the_behaviours_that_it_lists(name):
    arch, probe = PROBES[name]
    told = set()
    for record, run in runs_of(name):
        found = verdicts(measure(record, arch, [run], probe.measures))
        told |= {behaviour for behaviour, verdict in found.items() if verdict == "equal"}
        if told == set(probe.measures):
            break
    assert told == set(probe.measures)


def test_a_probe_measures_something_or_confirms_a_rule():
    for _, probe in PROBES.values():
        assert bool(probe.measures) != bool(probe.rule), probe.name
        assert probe.boot or probe.steps, probe.name


def test_what_no_probe_measures_has_a_reason():
    measured = {name for _, probe in PROBES.values() for name in probe.measures}
    for arch in ("x86_64", "aarch64", "aarch64-16k", "ppc64le", "s390x"):
        whys = why_not_measured(arch, slow=False)
        mine = {name for each in read_probes(arch, slow=False) for name in each.measures}
        assert set(BEHAVIOURS) - mine <= set(whys), arch
    assert not set(whys) - set(BEHAVIOURS)
    assert measured >= set(BEHAVIOURS) - set(whys)
    assert whys["dlpar_asks"] == "measured on ppc64le ppc64le-64k"
    assert "--slow" in why_not_measured("x86_64", slow=False)["hyperv_chunk"]


@pytest.mark.slow
def test_a_kernel_with_another_behaviour_is_found_out():
    runs = [probed(name, OLD) for name in ("movable-watermark", "poison", "padded", "one-block")]
    found = measure(NEW, "x86_64", runs, BEHAVIOURS)
    assert found.record.lowmem_includes_movable is OLD.lowmem_includes_movable is True
    assert verdicts(found)["keeps_poison_offline"] == "different"
    assert verdicts(found)["memmap_force"] == "different"
    assert verdicts(found)["nopage_flags"] == "equal"
    assert verdicts(found)["standby_added"] == "not measured"
    assert not found.different


def test_a_behaviour_that_no_record_has_is_unclear():
    run = probed("poison", NEW)
    run.trace.steps[-1].observation.meminfo["MemTotal"] += 4
    found = measure(NEW, "x86_64", [run], ["keeps_poison_offline"])
    assert verdicts(found) == {"keeps_poison_offline": "unclear"}
    assert found.different == {"poison": 1}
    assert found.record == NEW


def test_what_could_not_run_measures_nothing():
    run = replace(plan("poison"), why="QEMU is missing")
    found = measure(NEW, "x86_64", [run], ["keeps_poison_offline"])
    assert verdicts(found) == {"keeps_poison_offline": "not measured"}
    assert "keeps_poison_offline: poison: QEMU is missing" in check_text(found)
    assert found.failed == {"poison": "QEMU is missing"}


def test_what_cannot_be_told_of_one_behaviour_is_125(monkeypatch):
    observe, _ = guest()

    def strange(scenario, *_, **__):
        trace, sysroots = observe(scenario)
        trace.steps[-1].observation.meminfo["MemTotal"] += 4
        return trace, sysroots

    monkeypatch.setattr("altmap.lab.target.run_in_guest", strange)
    assert main(["check", "6.12", "--only", "keeps_poison_offline"]) == 125


@pytest.mark.slow
def test_two_kernels_are_compared_by_what_is_known_of_both():
    names = ("poison", "padded")
    new, old = (
        measure(NEW, "x86_64", [probed(n, record) for n in names], BEHAVIOURS, kernel=record.name)
        for record in (NEW, OLD)
    )
    text = against_text(new, old)
    assert "keeps_poison_offline: True in 6.12, False in 6.1  (poison)" in text
    assert "memmap_force: True in 6.12, False in 6.1  (padded)" in text
    assert "keeps_poison_offline=False,  # differs" in record_text(old)


def test_what_differs_by_the_records_alone_is_listed_beside_what_was_measured():
    behaviours = ["keeps_poison_offline", "memmap_force", "shows_arch"]
    new, old = (
        measure(record, "x86_64", [probed("poison", record)], behaviours, kernel=record.name)
        for record in (NEW, OLD)
    )
    text = against_text(new, old)
    assert text.splitlines()[0] == "6.12 against 6.1 (x86_64): 1 of 1 behaviours differ"
    assert text.splitlines()[-2] == "differ by their records, not measured: 1"
    assert text.splitlines()[-1].startswith("  memmap_force: ")


def test_a_value_that_would_show_the_same_is_no_difference():
    names = ("boot", "two-blocks")
    new, old = (
        measure(r, "x86_64", [probed(n, r) for n in names], ["memmap_scope"], kernel=r.name)
        for r in (NEW, OLD)
    )
    assert [each.value for each in (*new.behaviours, *old.behaviours)] == ["per_block", "one_block"]
    assert old.behaviours[0].alike == ["per_block"]
    text = against_text(new, old)
    assert "0 of 0 behaviours differ" in text
    assert "memmap_scope: either value would show the same on one" in text


# --- running ---------------------------------------------------------------------------------


def guest(record=NEW):
    ran = []

    def observe(scenario):
        ran.append(scenario.name)
        start = ModelMachine.start(scenario.machine).observe()
        return predict(scenario, start, record=record), []

    return observe, ran


def test_a_probe_that_the_lab_cannot_run_says_why():
    def observe(_):
        raise LabError("QEMU is missing", "console")

    (run,) = run_probes([plan("poison")], observe)
    assert (run.trace, run.why) == (None, "QEMU is missing")


def test_an_architecture_may_have_debian_s_name(monkeypatch, capsys):
    observe, ran = guest(RELEASES["7.3"])
    monkeypatch.setattr("altmap.lab.target.run_in_guest", lambda each, *_, **__: observe(each))
    assert main(["check", "7.3", "--arch", "arm64", "--only", "rejects_leaf_split"]) == 0
    assert ran == ["probe-arm64-self-hosted"]
    assert "7.3 (aarch64), beside the record of 7.3: 1 of 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "record", "code"),
    [
        (["--only", "keeps_poison_offline"], NEW, 0),
        (["--only", "keeps_poison_offline"], OLD, 1),
        (["--only", "standby_added"], NEW, 125),
        (["--only", "nonsense"], NEW, 2),
        (["-j", "0"], NEW, 2),
    ],
)
def test_the_exit_code_is_what_git_bisect_run_takes(monkeypatch, options, record, code):
    observe, _ = guest(record)
    monkeypatch.setattr("altmap.lab.target.run_in_guest", lambda each, *_, **__: observe(each))
    assert main(["check", "6.12", *options]) == code


def test_the_result_is_also_json(monkeypatch, capsys):
    observe, ran = guest()
    monkeypatch.setattr("altmap.lab.target.run_in_guest", lambda each, *_, **__: observe(each))
    assert main(["check", "6.12", "--only", "keeps_poison_offline", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["behaviours"]
    assert row == {
        "behaviour": "keeps_poison_offline",
        "verdict": "equal",
        "record": True,
        "value": True,
        "probe": "poison",
        "alike": [],
        "why": "",
    }
    assert ran == ["probe-poison"]  # only what tells it has run


def test_a_difference_by_chance_is_measured_again(monkeypatch, capsys):
    observe, ran = guest()

    def by_chance(scenario):
        trace, sysroots = observe(scenario)
        if len(ran) == 1:
            trace.steps[-1].observation.meminfo["MemTotal"] += 4
        return trace, sysroots

    monkeypatch.setattr("altmap.lab.target.run_in_guest", lambda each, *_, **__: by_chance(each))
    assert main(["check", "6.12", "--only", "keeps_poison_offline"]) == 0
    assert ran == ["probe-poison"] * 2
    assert "1 of 1 behaviours measured" in capsys.readouterr().out


def test_a_check_resumes_with_what_was_kept(tmp_path):
    def observe(scenario):
        ran.append(scenario.name)
        start = ModelMachine.start(scenario.machine).observe()
        trace = predict(scenario, start)
        return trace, [step.observation.render() for step in trace.steps]

    ran = []
    for kept in (False, True):
        (run,) = run_probes([plan("misaligned")], observe, keep=tmp_path)
        assert run.kept is kept
    assert ran == ["probe-misaligned"]
    (run,) = run_probes([plan("misaligned")], observe, keep=tmp_path, again=True)
    assert len(ran) == 2


def test_what_was_kept_of_another_scenario_is_not_used(tmp_path):
    def observe(scenario):
        start = ModelMachine.start(scenario.machine).observe()
        trace = predict(scenario, start)
        return trace, [step.observation.render() for step in trace.steps]

    run_probes([plan("misaligned")], observe, keep=tmp_path)
    changed = replace(plan("misaligned"), scenario=plan("words").scenario)
    (run,) = run_probes([changed], observe, keep=tmp_path)
    assert not run.kept


# --- what a boot shows -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("probe", "behaviour", "arch"),
    [
        ("boot", "shows_arch", "x86_64"),
        ("boot", "debian_default_online", "x86_64"),
        ("xen", "xen_extra_memory", "x86_64"),
        ("xen", "xen_keeps_ibft", "x86_64"),
        ("s390x-boot", "section_size_bytes", "s390x"),
    ],
)
def test_what_a_boot_shows_is_compared_with_a_synthetic_one(probe, behaviour, arch):
    (other, *_) = others(arch, behaviour, NEW)
    run = probed(probe, other)
    found = measure(NEW, arch, [replace(run, scenario=plan(probe).scenario)], [behaviour])
    assert verdicts(found) == {behaviour: "different"}
    assert found.record == replace(NEW, **{behaviour: getattr(other, behaviour)})


# --- values ------------------------------------------------------------------------------------


def test_one_behaviour_is_told_where_another_has_changed_as_well():
    """A bisection asks each kernel for one behaviour, by the record of the first."""
    for release, verdict in (("6.18", "equal"), ("7.3", "different")):
        record = RELEASES[release]
        run = probed("arm64-self-hosted", record)
        found = measure(NEW, "aarch64", [run], ["rejects_leaf_split"])
        assert verdicts(found) == {"rejects_leaf_split": verdict}
        assert found.record.nopage_flags == record.nopage_flags != NEW.nopage_flags


def test_values_that_would_show_the_same_are_named():
    run = probed("huge-pages-of-added-memory", OLD)
    found = measure(OLD, "x86_64", [run], ["hvo_kept_nr_pages"])
    (each,) = found.behaviours
    assert (each.verdict, each.value, each.alike) == ("equal", 1, [2])
    assert "2 would show the same" in check_text(found)


def test_flags_are_shown_by_their_names():
    found = measure(OLD, "x86_64", [probed("one-block", OLD)], ["memmap_page_flags"])
    assert "memmap_page_flags = RESERVED OWNER_PRIVATE  (one-block" in check_text(found)


def test_a_record_of_what_was_measured_marks_what_was_not():
    found = measure(
        NEW, "x86_64", [probed("poison", NEW)], ["keeps_poison_offline", "self_hosting"]
    )
    lines = record_text(found).splitlines()
    assert "    keeps_poison_offline=True," in lines
    assert f"    # self_hosting={NEW.self_hosting!r},  # not measured" in lines
    flags = measure(OLD, "x86_64", [probed("one-block", OLD)], ["memmap_page_flags"])
    (line,) = [line for line in record_text(flags).splitlines() if "memmap_page_flags" in line]
    assert line == "    memmap_page_flags=PageFlag.RESERVED | PageFlag.OWNER_PRIVATE,"


def test_a_behaviour_of_other_architectures_says_where_it_is_measured():
    whys = why_not_measured("s390x", slow=False)
    found = measure(NEW, "s390x", [], ["dlpar_asks", "rejects_leaf_split"], whys)
    assert [each.why for each in found.behaviours] == [
        "measured on ppc64le ppc64le-64k",
        "each record says the same of s390x",
    ]


def test_a_rule_that_holds_is_confirmed_and_one_that_does_not_differs():
    run = probed("words", NEW)
    found = measure(NEW, "x86_64", [run], ["self_hosting"])
    assert found.confirmed == {"words": run.rule}
    run.trace.steps[-1].observation.meminfo["MemTotal"] += 4
    found = measure(NEW, "x86_64", [run], ["self_hosting"])
    assert (found.confirmed, found.different) == ({}, {"words": 1})
    assert "words: 1 field differs" in check_text(found)


def test_conformance_scenarios_of_the_kernel_are_probes_too():
    cases = read_cases(ROOT / "tests/conformance.toml")
    found = {
        each.name: each for each in case_probes(cases, ROOT / "scenarios", "x86_64", "7.3", "7.3")
    }
    assert "dimm-1GiB" in found
    assert found["dimm-1GiB"].scenario.machine.release == "7.3"
    assert "ppc64-dlpar" not in found
    assert "numa-node0" not in found  # not for this release


def test_a_check_runs_conformance_scenarios_too(monkeypatch, tmp_path, capsys):
    observe, ran = guest()
    monkeypatch.setattr("altmap.lab.target.run_in_guest", lambda each, *_, **__: observe(each))
    cases = tmp_path / "cases.toml"
    cases.write_text('[[case]]\nscenarios = ["dimm-1GiB"]\nreleases = ["6.12"]\n')
    options = ["--cases", str(cases), "--scenarios", str(ROOT / "scenarios")]
    assert main(["check", "6.12", "--only", "keeps_poison_offline", *options]) == 0
    assert ran == ["probe-poison", "dimm-1GiB"]
    assert "rules confirmed: 1\n  dimm-1GiB: " in capsys.readouterr().out


# --- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--arch", "arm"], "architecture 'arm'"),
        (["--against", "6.1", "--record"], "--record"),
        (["--modules", "somewhere"], "--modules"),
        (["--only", "memap_scope"], "did you mean 'memmap_scope'"),
    ],
)
def test_what_does_not_go_together_is_refused_before_a_guest_boots(capsys, options, text):
    assert main(["check", "6.12", *options]) == 2
    assert text in capsys.readouterr().err


def test_a_kernel_that_cannot_run_is_125(tmp_path, monkeypatch, capsys):
    def fails(*_, **__):
        raise LabError("the guest does not boot", "console")

    monkeypatch.setattr("altmap.lab.target.run_in_guest", fails)
    assert main(["check", "6.12", "--only", "keeps_poison_offline"]) == 125
    assert "poison: the guest does not boot" in capsys.readouterr().out
    image = tmp_path / "bzImage"
    image.write_bytes(b"no kernel")
    assert main(["check", str(image), "--modules", str(tmp_path / "none")]) == 125
    assert "no such folder" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    keep = str(tmp_path / "file" / "keep")
    assert main(["check", "6.12", "--only", "keeps_poison_offline", "--keep", keep]) == 2
    assert "Not a directory" in capsys.readouterr().err


def test_json_of_a_check_names_kernel_and_record():
    found = measure(NEW, "x86_64", [probed("poison", NEW)], ["keeps_poison_offline"], kernel="6.12")
    head = check_json(found)
    assert (head["kernel"], head["arch"], head["record"]) == ("6.12", "x86_64", "6.12")


# --- bisecting -----------------------------------------------------------------------------------

_WITHOUT_GUESTS = """
import sys
from pathlib import Path
import altmap.lab.target as lab
from altmap.cli.main import main
from altmap.model.machine import ModelMachine, predict

def run_in_guest(scenario, *_, **__):
    start = ModelMachine.start(scenario.machine).observe()
    return predict(scenario, start), []

lab.run_in_guest = run_in_guest
kernel = Path("kernel").read_text().strip()
sys.exit(main(["check", kernel, "--from", "6.1", "--only", "keeps_poison_offline"]))
"""


@pytest.mark.skipif(shutil.which("git") is None, reason="git is missing")
def test_git_bisect_run_finds_the_first_kernel_that_differs(tmp_path):
    def git(*words):
        done = subprocess.run(
            ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words],
            cwd=tmp_path, env=os.environ, capture_output=True, text=True, check=True,
        )  # fmt: skip
        return done.stdout

    script = tmp_path / "without_guests.py"
    script.write_text(_WITHOUT_GUESTS)
    git("init", "-q")
    releases = ("5.10", "5.15", "6.1", "6.6", "6.8", "6.12", "7.3")
    for release in releases:
        (tmp_path / "kernel").write_text(release)
        git("add", "kernel")
        git("commit", "-qm", f"Linux {release}")
    git("bisect", "start", "HEAD", f"HEAD~{len(releases) - 1}")
    said = git("bisect", "run", sys.executable, str(script))
    assert "is the first bad commit" in said or "is the first 'bad' commit" in said
    assert "Linux 6.6" in git("show", "-s", "--format=%s", "refs/bisect/bad")


@pytest.mark.lab
def test_a_real_kernel_is_told_from_another_release():
    assert main(["check", "7.3", "--from", "6.12", "--only", "has_movable_gigantic"]) == 1
    assert main(["check", "6.12", "--only", "has_movable_gigantic"]) == 0


# --- what was measured, as the pages show it -----------------------------------------------------

CHECKS = sorted((ROOT / "docs/checks").glob("*.json"))


@pytest.mark.parametrize("path", CHECKS, ids=lambda path: path.stem)
def test_no_record_differs_from_what_was_measured(path):
    check = json.loads(path.read_text())
    record = RELEASES[check["record"]]
    for each in check["behaviours"]:
        assert each["verdict"] != "different", each
        if each["verdict"] == "equal":
            value = value_on(check["arch"], each["behaviour"], record)
            shown = json.loads(json.dumps(value, default=str))
            assert shown in (each["value"], *each["alike"]), each
