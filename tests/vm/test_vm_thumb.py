"""Rules of thumb: a counterexample is one on the model, and no smaller guest is."""

import pytest
from definitions import GIB, MIB, qemu

from altmap.model.machine import ModelMachine
from altmap.scenario import Machine, Plug, Size
from altmap.vm.thumb import THUMB_RULES, judge

MOVABLE = "memhp_default_state=online_movable"


@pytest.fixture(scope="module")
def verdicts():
    return {each.rule.name: each for each in judge(qemu(), "dimm", cmdline=MOVABLE)}


def test_every_rule_is_judged(verdicts):
    assert list(verdicts) == [rule.name for rule in THUMB_RULES]


def test_a_counterexample_is_refused_by_the_kernel_and_the_largest_step_is_not(verdicts):
    wrong = verdicts["16x"].counterexample
    machine = ModelMachine.start(
        Machine(memory=Size(wrong.boot_bytes), platform="q35", auto_online_blocks="online_movable")
    )
    assert wrong.allowed_bytes == 16 * wrong.boot_bytes
    whole = Plug(id="d", size=Size(wrong.allowed_bytes - wrong.boot_bytes))
    assert machine.copy().perform(whole).outcome.errno == "ENOMEM"
    most = wrong.possible_bytes - wrong.boot_bytes
    assert machine.copy().perform(Plug(id="d", size=Size(most))).outcome
    assert not machine.copy().perform(Plug(id="d", size=Size(most + 128 * MIB))).outcome


def test_a_counterexample_is_the_smallest_that_was_tried(verdicts):
    for verdict in verdicts.values():
        wrong = verdict.counterexample
        smaller = [t for t in verdict.trials if wrong and t.boot_bytes < wrong.boot_bytes]
        assert all(trial.holds for trial in smaller)
        assert [t.boot_bytes for t in verdict.trials] == sorted(
            t.boot_bytes for t in verdict.trials
        )


def test_64_times_the_free_memory_never_fits_as_zones_keep_their_reserves(verdicts):
    """The memmap alone is a 64th, with pages of 4 KiB."""
    assert all(not trial.holds for trial in verdicts["1:64"].trials)
    assert verdicts["1:64"].holds_from_bytes is None
    assert all(trial.holds for trial in verdicts["1:32"].trials)
    assert verdicts["48x"].holds_from_bytes == GIB


def test_a_self_hosted_memmap_makes_every_rule_too_careful():
    found = judge(qemu(), "dimm", cmdline="memory_hotplug.memmap_on_memory=1")
    assert all(each.counterexample is None for each in found)
    assert found[0].trials[0].boot_bytes == 128 * MIB
    assert "times as much is possible" in found[0].text()


def test_hv_balloon_is_tried_as_far_as_blocks_allow():
    found = judge(qemu(), "hyperv")
    assert all(each.trials and each.counterexample is None for each in found)
    assert {trial.allowed_bytes // trial.boot_bytes for trial in found[0].trials} == {4}


def test_a_driver_that_the_kernel_lacks_is_not_tried():
    (first, *_) = judge(qemu(arch="aarch64", machine="virt"), "dimm")
    assert first.trials == ()
    assert first.text().startswith("not tried")
