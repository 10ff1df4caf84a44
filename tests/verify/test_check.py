"""A kernel's behaviours, measured by what it shows on probes.

The real kernel is the model here, by another release's record: what is tested is the measuring.
"""

import json
from dataclasses import fields, replace

import pytest

from altmap.cli.main import main
from altmap.errors import InputError, LabError
from altmap.model.machine import ModelMachine, predict
from altmap.model.releases import RELEASES, Release
from altmap.verify.check.behaviours import BEHAVIOURS, check_behaviour, others, value_on
from altmap.verify.check.measure import Probed, measure
from altmap.verify.check.probes import probe_scenario, read_probes
from altmap.verify.check.run import run_probes
from altmap.verify.check.text import against_text, check_text, record_text

OLD, NEW = RELEASES["6.1"], RELEASES["6.12"]
PROBES = {each.name: each for arch in ("x86_64", "aarch64", "ppc64le", "s390x")
          for each in read_probes(arch)}  # fmt: skip


def probed(name, record):
    """Return a probe as a kernel with this record runs it, from its own start."""
    scenario = probe_scenario(PROBES[name], record.name)
    start = ModelMachine.start(scenario.machine).observe()
    return Probed(name, scenario, predict(scenario, start, record=record))


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
    (other,) = others("aarch64", "virtio_mem", NEW)
    assert not value_on("aarch64", "virtio_mem", other)
    assert value_on("aarch64", "virtio_mem", NEW)
    assert value_on("s390x", "section_size_bytes", RELEASES["7.3"]) == 128 << 20


def test_a_misspelt_behaviour_is_refused_with_the_nearest():
    with pytest.raises(InputError, match="did you mean 'memmap_scope'"):
        check_behaviour("memap_scope")


@pytest.mark.parametrize("name", PROBES)
def test_a_probe_tells_the_behaviours_that_it_lists(name):
    probe = PROBES[name]
    told = set()
    for record in (OLD, NEW, RELEASES["7.3"]):
        try:
            run = probed(name, record)
        except InputError:
            continue  # no such file or device on that kernel
        told |= {
            behaviour
            for behaviour, verdict in verdicts(
                measure(record, probe.arch, [run], probe.measures)
            ).items()
            if verdict == "equal"
        }
    assert told == set(probe.measures)


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
    run = replace(probed("poison", NEW), trace=None, why="QEMU is missing")
    found = measure(NEW, "x86_64", [run], ["keeps_poison_offline"])
    assert verdicts(found) == {"keeps_poison_offline": "not measured"}
    assert "poison: QEMU is missing" in check_text("6.12", NEW, found)


@pytest.mark.slow
def test_two_kernels_are_compared_by_what_is_known_of_both():
    names = ("poison", "padded")
    new, old = (
        measure(NEW, "x86_64", [probed(n, record) for n in names], BEHAVIOURS)
        for record in (NEW, OLD)
    )
    text = against_text(("6.12", "6.1"), new, old)
    assert "keeps_poison_offline: True in 6.12, False in 6.1  (poison)" in text
    assert "memmap_force: True in 6.12, False in 6.1  (padded)" in text
    assert "keeps_poison_offline=False,  # differs" in record_text("6.1", NEW, old)


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

    (run,) = run_probes([PROBES["poison"]], "6.12", observe)
    assert (run.trace, run.why) == (None, "QEMU is missing")


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
    }
    assert ran == ["probe-poison"]  # only what tells it has run
