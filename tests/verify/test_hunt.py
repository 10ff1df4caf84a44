"""The search: what is drawn, judged, repeated, made smaller and kept.

The real kernel is the model here, with a defect that a test gives it: what is tested is the search.
"""

import random
import re
import sys
from functools import partial
from types import SimpleNamespace

import msgspec
import pytest

from altmap.cli.hunt import KINDS
from altmap.cli.main import main
from altmap.compare import compare
from altmap.errors import InputError, LabError
from altmap.lab.hardware import hardware_of
from altmap.lab.requirements import check_steps
from altmap.model.machine import predict
from altmap.scenario import Offline, Plug, Scenario, parse_scenario
from altmap.trace import Event
from altmap.verify.hunt.branches import all_branches, with_branches
from altmap.verify.hunt.complaints import complaints_of
from altmap.verify.hunt.coverage import Coverage, features_of, without_numbers
from altmap.verify.hunt.draw import draw_scenario
from altmap.verify.hunt.drawing import Drawing
from altmap.verify.hunt.finding import finding_text
from altmap.verify.hunt.hunter import Hunt, hunt
from altmap.verify.hunt.judge import judge
from altmap.verify.hunt.shrink import shrink
from altmap.verify.hunt.situations import SITUATIONS
from altmap.verify.hunt.space import FAMILIES, family_of
from altmap.verify.hunt.steps import STEPS
from altmap.verify.hunt.store import HuntStore

PC = family_of("pc")


def kernel(defect=lambda scenario, trace: None):
    """Return what runs a scenario on both sides, where the real kernel has a defect."""

    def run(scenario):
        predicted, observed = predict(scenario, pages=False), predict(scenario, pages=False)
        defect(scenario, observed)
        comparison = compare(predicted, observed)
        comparison.traces = predicted, observed
        comparison.sysroots = [SimpleNamespace(files={}, links={})] * len(observed.steps)
        return comparison

    return run


def leak(_, trace):
    """Have every offlining lose a page for ever."""
    lost = 0
    for step in trace.steps[1:]:
        lost += step.action["do"] == "offline" and step.outcome.status == "ok"
        step.observation.meminfo["MemTotal"] -= 4 * lost


def plan(count, **changes):
    return Hunt(**({"family": PC, "release": "6.12", "seed": 3, "seconds": 600.0} | changes),
                most_scenarios=count)  # fmt: skip


def hunted(folder, count, run, **changes):
    told = []
    return hunt(plan(count, **changes), HuntStore(folder), run, told.append), told


# --- drawing ---------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_what_is_drawn_can_be_asked_of_the_model_and_of_the_lab(family):
    drawn, _ = draw_scenario(family, family.releases[0], 5, 0, Coverage())
    assert drawn.steps
    assert all(record.outcome.ends for record in predict(drawn, pages=False).steps)
    if family.name != "xen":  # its hardware is read from the hypervisor's files
        check_steps(drawn, hardware_of(drawn.machine))


def test_the_same_seed_and_number_draw_the_same_scenario():
    one, two, other = (draw_scenario(PC, "6.12", 5, n, Coverage())[0] for n in (1, 1, 2))
    assert one == two != other


def test_of_the_candidates_the_one_that_reaches_most_news_is_taken():
    first, reached = draw_scenario(PC, "6.12", 5, 3, Coverage())
    known = Coverage()
    for _ in range(1000):
        known.add(reached, ())
    second, others = draw_scenario(PC, "6.12", 5, 3, known)
    assert second != first
    assert known.novelty(others) > known.novelty(reached)


def test_features_know_requests_refusals_and_messages_but_no_numbers():
    scenario = parse_scenario(
        "[machine]\nmemory='1GiB'\n[[steps]]\ndo='offline'\nblocks=3\n[[steps]]\ndo='offline'\nblocks=4",
        "two",
    )
    trace = predict(scenario, pages=False)
    trace.steps[1].events[:] = [Event("kernel-log", "[   12.5] Offlined Pages 32768 of 0x18000")]
    assert "log Offlined Pages # of #" in features_of(trace)
    assert not any(any(map(str.isdigit, each)) for each in features_of(trace) if "log" in each)
    assert without_numbers("at 0x1f00 in 12 pages") == "at # in # pages"


def test_a_feature_counts_less_the_more_often_it_was_reached():
    reached = Coverage()
    assert reached.novelty(("a", "b")) == 2
    assert reached.add(("a",), ("x",)) == 2
    assert reached.novelty(("a", "b")) == 1.5
    assert reached.add(("a",), ("x",)) == 0


def test_branches_of_the_rules_are_reached_and_a_debugger_keeps_its_place():
    scenario = parse_scenario("[[steps]]\ndo='plug'\nid='d'\nsize='128MiB'", "one")
    trace, ran = with_branches(partial(predict, scenario, pages=False))
    assert trace.steps[1].outcome
    assert ran < set(all_branches())
    assert any(name.startswith("branch drivers/acpi.py ") for name in ran)
    assert not any("virtio_mem" in name for name in ran)
    traced = sys.gettrace()
    sys.settrace(lambda *_: None)
    try:
        assert with_branches(lambda: 1) == (1, frozenset())
    finally:
        sys.settrace(traced)


def test_every_step_and_situation_is_drawn_by_some_kind():
    for family in FAMILIES:
        assert set(family.steps) <= {*STEPS, *SITUATIONS}
    used = {name for family in FAMILIES for name in family.steps}
    assert used == {*STEPS, *SITUATIONS}


# --- judging ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ("WARNING: CPU: 0 PID: 71 at mm/memory_hotplug.c:1187 online_pages+0x1a/0x2b", "WARN"),
        ("BUG: Bad page state in process sh  pfn:140000", "BUG"),
        ("kernel BUG at mm/page_alloc.c:1301!", "BUG"),
        ("Oops: general protection fault, probably for non-canonical address", "oops"),
        ("Unable to handle kernel paging request at virtual address fffffc00", "oops"),
        ("WARNING: possible circular locking dependency detected", "lockdep"),
        ("INFO: task sh:71 blocked for more than 120 seconds.", "hung task"),
        ("Kernel panic - not syncing: Fatal exception", "panic"),
        ("refcount_t: underflow; use-after-free.", "reference count"),
        ("watchdog: BUG: soft lockup - CPU#0 stuck for 22s!", None),
        ("rcu: INFO: rcu_preempt detected stalls on CPUs/tasks", None),
        ("Offlined Pages 32768", None),
        ("memory offlining [mem 0x1-0x2] failed due to failure to isolate range", None),
    ],
)
def test_complaints_of_a_kernel_are_findings_and_a_slow_host_is_none(line, kind):
    assert [each.split(":")[0] for each in complaints_of([f"[  1.25] {line}"])] == (
        [kind] if kind else []
    )


def test_only_the_first_step_that_differs_is_judged():
    scenario = Scenario(
        name="two", machine={"memory": "1GiB"}, steps=[Offline(blocks=3), Offline(blocks=4)]
    )
    comparison = kernel(leak)(scenario)
    found = judge(comparison, comparison.traces[1])
    assert found.reason
    assert all(each.startswith("offline proc/meminfo") for each in found.reason)
    assert all(line.startswith("01-") for line in found.lines)


def test_a_prediction_that_holds_shows_nothing():
    comparison = kernel()(Scenario(name="one", steps=[Offline(blocks=3)]))
    assert judge(comparison, comparison.traces[1]).reason == ()


# --- making smaller --------------------------------------------------------------------------


def test_a_scenario_shrinks_to_what_it_takes_to_show_the_same():
    steps = [Plug(id=f"d{n}", size="512MiB") for n in range(4)] + [Offline(blocks=3)]
    scenario = Scenario(name="s", machine={"memory": "1GiB", "cpus": 2}, steps=steps)

    def shows(each):
        return any(step == Offline(blocks=3) for step in each.steps) and any(
            getattr(step, "id", "") == "d2" for step in each.steps
        )

    smallest, tried = shrink(scenario, shows)
    assert [type(step).__name__ for step in smallest.steps] == ["Plug", "Offline"]
    assert smallest.steps[0].id == "d2"
    assert smallest.steps[0].size == 128 << 20
    assert smallest.machine.cpus is None
    assert smallest.machine.memory == 1 << 30
    assert tried <= 60
    assert shrink(scenario, shows, most_tries=1)[1] == 1


def test_what_cannot_be_run_does_not_show_the_same():
    scenario = Scenario(name="s", steps=[Offline(blocks=3), Offline(blocks=4)])

    def shows(each):
        if len(each.steps) < 2:
            raise InputError("no")
        return True

    assert len(shrink(scenario, shows)[0].steps) == 2


# --- the hunt --------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_defect_is_found_repeated_made_smaller_and_kept(tmp_path):
    result, told = hunted(tmp_path, 12, kernel(leak))
    (finding, *_) = HuntStore(tmp_path).findings()
    assert finding.certain
    assert finding.key in result.new
    assert "offline proc/meminfo MemTotal" in finding.reason
    smallest = parse_scenario(finding.scenario, "smallest")
    assert len(smallest.steps) <= 2
    assert smallest.steps[-1].__struct_config__.tag == "offline"
    assert (tmp_path / "findings" / finding.key / "recording.tar.xz").is_file()
    assert any(finding.key in line for line in told)
    assert {row.verdict for row in result.rows} <= {"equal", "finding"}


@pytest.mark.slow
def test_a_difference_that_is_certain_is_not_examined_again(tmp_path):
    ran = []
    both = kernel(leak)

    def counted(scenario):
        ran.append(scenario.name)
        return both(scenario)

    first, _ = hunted(tmp_path, 12, counted)
    (found, *_) = [row for row in first.rows if row.key]
    assert ran.count(found.name) > 2
    ran.clear()
    result, _ = hunted(tmp_path, 12, counted)
    again = [row for row in result.rows if row.key == found.key]
    assert again
    assert all(row.verdict == "finding" and ran.count(row.name) == 1 for row in again)


@pytest.mark.slow
def test_a_difference_that_not_each_run_shows_is_chance(tmp_path):
    first = {}

    def sometimes(scenario, trace):
        if first.setdefault(scenario.name, True):
            first[scenario.name] = False
            leak(scenario, trace)

    result, _ = hunted(tmp_path, 12, kernel(sometimes))
    verdicts = {row.verdict for row in result.rows}
    assert "chance" in verdicts
    assert "finding" not in verdicts
    assert not any(each.certain for each in HuntStore(tmp_path).findings())


@pytest.mark.slow
def test_a_hunt_goes_on_where_the_last_one_with_its_seed_ended(tmp_path):
    hunted(tmp_path, 2, kernel())
    result, _ = hunted(tmp_path, 2, kernel())
    assert [row.name for row in result.rows] == [f"hunt-pc-6.12-3-{n}" for n in (2, 3)]
    other, _ = hunted(tmp_path, 1, kernel(), seed=4)
    assert [row.name for row in other.rows] == ["hunt-pc-6.12-4-0"]
    assert len(list(HuntStore(tmp_path).runs())) == 5


@pytest.mark.slow
def test_a_line_that_a_kill_cut_off_is_run_again(tmp_path):
    hunted(tmp_path, 2, kernel())
    file = tmp_path / "runs/pc-6.12-3.jsonl"
    file.write_bytes(file.read_bytes()[:-20])
    result, _ = hunted(tmp_path, 1, kernel())
    assert [row.name for row in result.rows] == ["hunt-pc-6.12-3-1"]
    assert len(list(HuntStore(tmp_path).runs())) == 2


def test_two_hunts_with_one_seed_exclude_each_other(tmp_path):
    with HuntStore(tmp_path).open_runs("pc-6.12-3"), pytest.raises(InputError, match="--seed"):
        hunted(tmp_path, 1, kernel())


def test_a_guest_that_fails_is_counted_and_one_that_its_kernel_ends_is_a_finding(tmp_path):
    def fails(_):
        raise LabError("the guest does not answer")

    def panics(_):
        raise LabError("the guest ended", "[ 1.5] Kernel panic - not syncing: Fatal exception")

    def cannot(_):
        raise InputError("dump: no lab reads one")

    ways = (("failed", fails), ("finding", panics), ("cannot", cannot))
    for seed, (verdict, run) in enumerate(ways):
        result, _ = hunted(tmp_path, 1, run, seed=seed)
        assert [row.verdict for row in result.rows] == [verdict]
        assert parse_scenario(result.rows[0].scenario, "drawn").name == result.rows[0].name
    (finding,) = HuntStore(tmp_path).findings()
    assert finding.reason == ("panic: Kernel panic - not syncing: Fatal exception",)
    mail = finding_text(finding, "hunt")
    assert mail.startswith("Subject: memory hotplug: kernel ended: panic: ")
    assert "scenario.toml" in mail
    assert "recording" not in mail  # there is none


def test_no_scenario_starts_after_the_time_is_over(tmp_path):
    assert hunted(tmp_path, None, kernel(), seconds=0.0)[0].rows == []


# --- the command -----------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command_lists_shows_and_reports(tmp_path, capsys):
    hunted(tmp_path, 12, kernel(leak))
    (finding, *_) = HuntStore(tmp_path).findings()
    assert main(["hunt", str(tmp_path), "--list"]) == 0
    assert finding.key in capsys.readouterr().out
    assert main(["hunt", str(tmp_path), "--show", finding.key[:4]]) == 0
    mail = capsys.readouterr().out
    assert mail.startswith("Subject: memory hotplug: ")
    assert f"altmap compare {tmp_path}/findings/{finding.key}/scenario.toml" in mail
    assert 'do = "offline"' in mail
    assert "predicted" in mail
    assert "observed" in mail
    assert main(["hunt", str(tmp_path), "--report"]) == 0
    report = capsys.readouterr().out
    assert "12 scenarios" in report
    assert re.search(r"^[1-9]\d* of \d+ branches of the model's rules reached:$", report, re.M)
    assert "     0  branch kernel/" in report


def test_the_command_names_every_kind():
    assert tuple(family.name for family in FAMILIES) == KINDS


def test_the_command_draws_without_running(capsys, tmp_path):
    assert main(["hunt", str(tmp_path), "--draw", "--kind", "hyperv"]) == 0
    assert parse_scenario(capsys.readouterr().out, "drawn").steps
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (
            ["--kind", "vax"],
            "kind 'vax': need one of pc, hyperv, xen, arm64, arm64-16k, kmem, ",
        ),
        (["--release", "2.6"], "release '2.6': of pc, need one of 6.12, 7.3, 6.1"),
        (["--time", "soon"], "--time 'soon': need a number with s, m or h, such as 20m"),
        (["-j", "0"], "-j 0: need 1 to 64 guests"),
        (["--count", "0"], "--count 0: need 1 or more"),
        (["--seed", "-1"], "--seed -1: need 0 or more"),
        (["--show", "no"], "finding 'no': need the key of one finding, which are: none"),
    ],
)
def test_mistakes_are_named_before_anything_runs(options, error, tmp_path, capsys):
    assert main(["hunt", str(tmp_path), *options]) == 2
    assert error in capsys.readouterr().err


def test_rows_are_lines_of_json(tmp_path):
    hunted(tmp_path, 1, kernel())
    (line,) = (tmp_path / "runs/pc-6.12-3.jsonl").read_bytes().splitlines()
    row = msgspec.json.decode(line)
    assert row["verdict"] == "equal"
    assert row["model"]
    assert row["nr_steps"]


# --- what the lab cannot do is not drawn ---------------------------------------------------------


def drawing(kind, release="6.12"):
    family = family_of(kind)
    machine = {"arch": family.arch, "release": release, "platform": family.platforms[0]}
    machine |= {"memory": "1024MiB", "auto_online_blocks": "online_kernel"}
    return Drawing(random.Random(1), family, machine, (), "drawn")


def test_pages_of_the_kernel_are_freed_in_the_order_of_the_lab():
    drawn = drawing("pc")
    for name in ("f0", "f1"):
        drawn.add({"do": "fill", "id": name, "kind": "kernel", "size": "16MiB"})
    drawn.add({"do": "fill", "id": "f2", "size": "4MiB"})
    for name in ("f1", "f2", "f0", "f1"):
        drawn.add({"do": "free", "id": name})
    assert [step["id"] for step in drawn.steps if step["do"] == "free"] == ["f2", "f0", "f1"]


@pytest.mark.parametrize(("kind", "times"), [("ppc64le", 1), ("pc", 2)])
def test_a_device_whose_guest_did_not_let_go_is_not_asked_again_where_qemu_refuses(kind, times):
    drawn = drawing(kind)
    drawn.add({"do": "plug", "id": "d", "size": "512MiB"})
    drawn.add({"do": "veto", "on": "going_offline", "errno": "EBUSY"})
    for _ in range(2):
        drawn.add({"do": "unplug", "id": "d"})
    assert sum(step["do"] == "unplug" for step in drawn.steps) == times


def test_a_veto_names_blocks_of_a_device_that_is_there():
    named = 0
    for number in range(60):
        drawn = drawing("pc")
        drawn.chance = random.Random(number)
        drawn.add({"do": "plug", "id": "d", "size": "512MiB"})
        for step in SITUATIONS["veto_that_ends"](drawn):
            if step["do"] == "veto" and "blocks" in step:
                first, last = map(int, step["blocks"].split("-"))
                blocks = drawn.model.kernel.block_ids(drawn.devices()["d"].pfns)
                assert blocks[0] <= first <= last <= blocks[-1]
                assert 1 <= step["times"] <= 2 * (last - first + 1)
                named += 1
            drawn.add(step)
    assert named > 10
