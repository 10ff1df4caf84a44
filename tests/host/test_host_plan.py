"""Plans: what they predict, what they warn of, and that their files are checked."""

import json
from pathlib import Path

import msgspec
import pytest

from altmap.cli import main
from altmap.errors import InputError
from altmap.host.onliners import onliners_of
from altmap.host.plan import decode_plan, encode_plan, is_plan_path
from altmap.host.planner import PlugWish, plan_add, plan_free, plan_grow, plan_remove
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.machine import predict
from altmap.scenario import Machine, Online, Plug, Scenario, Size

RECORDINGS = Path(__file__).parents[1] / "recordings" / "files"
DIMM = RECORDINGS / "linux-6.12-dimm.tar.xz"
GIB, MIB = 1 << 30, 1 << 20
STATE = "sys/devices/system/memory/memory{}/state"


def machine(name="6.12-dimm", **files):
    sysroot = Sysroot.read(RECORDINGS / f"linux-{name}.tar.xz")
    sysroot.files |= {path: raw.encode() for path, raw in files.items()}
    return sysroot


def with_word(sysroot, word):
    sysroot.files["sys/devices/system/memory/auto_online_blocks"] = f"{word}\n".encode()
    return sysroot


def titles(plan):
    return [(step.by, step.value) for step in plan.steps]


def test_each_step_shows_what_a_run_of_the_same_steps_shows():
    sysroot = machine()
    plan = plan_add(sysroot, PlugWish(256 * MIB, to="online_movable"))
    steps = [
        Plug(id="d", size=Size(256 * MIB)),
        Online(blocks=36, to="online_movable"),
        Online(blocks=37, to="online_movable"),
    ]
    trace = predict(Scenario(name="s", machine=Machine(), steps=steps), Observation.read(sysroot))
    assert titles(plan) == [
        ("platform", None),
        ("kernel", "online_movable"),
        ("kernel", "online_movable"),
    ]
    for planned, ran in zip(plan.steps, trace.steps[1:], strict=True):
        assert planned.prediction.mem_total_kib == ran.observation.meminfo["MemTotal"]
    assert plan.steps[1].prediction.mem_total_gain_kib == 129024
    assert plan.steps[2].path == STATE.format(37)
    assert plan.obstacle is None


def test_a_word_of_the_kernel_that_is_in_the_way_is_changed_and_put_back():
    plan = plan_add(with_word(machine(), "online"), PlugWish(256 * MIB, to="online_movable"))
    assert titles(plan) == [
        ("kernel", "online_movable"),
        ("platform", None),
        ("kernel", "online"),
    ]
    (blocks,) = plan.steps[1].prediction.blocks
    assert (blocks.first, blocks.last, blocks.zone) == (36, 37, "Movable")
    same = plan_add(with_word(machine(), "online_movable"), PlugWish(256 * MIB))
    assert titles(same) == [("platform", None)]


def test_growing_uses_what_is_offline_first():
    assert plan_grow(machine(), 1280 * MIB, PlugWish(0)).steps == []
    within = plan_grow(machine(), 1400 * MIB, PlugWish(0))
    assert [step.path for step in within.steps] == [STATE.format(34)]
    beyond = plan_grow(machine(), 2 * GIB, PlugWish(0))
    assert [step.path for step in beyond.steps[:2]] == [STATE.format(34), STATE.format(35)]
    assert beyond.steps[2].title.startswith("plug 512 MiB")


def test_freeing_names_the_cause_before_the_attempt():
    plan = plan_free(machine(), [32, 33, 1])
    assert [step.path for step in plan.steps] == [STATE.format(32), STATE.format(33)]
    assert plan.steps[0].undo == "online_movable"
    obstacle = plan.obstacle
    assert obstacle is plan.steps[1]
    assert (obstacle.prediction.errno, obstacle.certainty) == ("EBUSY", "certain")
    assert any("memory33: slab" in risk.what for risk in plan.risks)
    assert [step.prediction.errno for step in plan_free(machine(), [0]).steps] == ["EINVAL"]
    assert [step.prediction.errno for step in plan_free(machine(), [7]).steps] == ["EINVAL"]
    assert plan_free(machine(), [34]).steps == []


def test_removing_a_device_ends_with_the_platform():
    sysroot = machine("7.3-dimm")
    blocked = plan_remove(sysroot, "PNP0C80:00")
    assert blocked.obstacle is not None
    # Without the block in Normal it goes.
    base = "sys/devices/system/memory/memory33"
    sysroot.files[f"{base}/state"] = b"offline\n"
    sysroot.files[f"{base}/valid_zones"] = b"Normal Movable\n"
    plan = plan_remove(sysroot, "PNP0C80:00")
    assert titles(plan) == [("kernel", "offline"), ("platform", None)]
    assert plan.steps[-1].prediction.blocks[0].state == "absent"
    with pytest.raises(InputError, match="no such device"):
        plan_remove(sysroot, "PNP0C80:01")


def test_a_memmap_that_does_not_fit_comes_with_the_largest_first_step():
    sysroot = machine("6.12-start")
    sysroot.files["sys/module/memory_hotplug/parameters/memmap_on_memory"] = b"N\n"
    size = 128 * GIB
    plan = plan_add(with_word(sysroot, "offline"), PlugWish(size, to="online_kernel"))
    (risk,) = [risk for risk in plan.risks if "does not fit" in risk.what][:1]
    assert risk.certainty == "certain"
    assert "as the first step" in risk.what
    first = plan.steps[0]
    assert first.by == "platform"
    assert first.prediction.status == "ok"
    blocks = sum(part.last - part.first + 1 for part in first.prediction.blocks)
    # Half of what is there is left; twice as much, and a little, does not fit.
    for nr_blocks, fine in ((blocks, True), (2 * blocks + 4, False)):
        steps = [Plug(id="d", size=Size(nr_blocks * 128 * MIB))]
        scenario = Scenario(name="s", machine=Machine(), steps=steps)
        outcome = predict(scenario, Observation.read(sysroot), pages=False).steps[1].outcome
        assert bool(outcome) is fine
    # With each block's memmap in itself it fits at once.
    sysroot.files["sys/module/memory_hotplug/parameters/memmap_on_memory"] = b"Y\n"
    whole = plan_add(sysroot, PlugWish(4 * GIB, to="online_movable"))
    assert not [risk for risk in whole.risks if "does not fit" in risk.what]
    assert any("4 gigantic pages of 1 GiB are lost" in risk.what for risk in whole.risks)
    assert any(risk.what.startswith("MOVABLE:KERNEL becomes 4.") for risk in whole.risks)


def test_a_dimm_that_is_no_multiple_of_a_block_is_refused_in_advance():
    plan = plan_add(machine(), PlugWish(200 * MIB))
    assert (plan.obstacle.prediction.errno, plan.obstacle.prediction.function) == (
        "EINVAL",
        "check_hotplug_memory_range",
    )


RULE = 'SUBSYSTEM=="memory", ACTION=="add", ATTR{state}=="offline", ATTR{state}="online"\n'


def test_rules_of_udev_that_online_are_found_and_masked_ones_are_not():
    found = machine(**{"usr/lib/udev/rules.d/40-redhat.rules": RULE})
    (rule,) = onliners_of(with_word(found, "offline"), Observation.read(found))
    assert (rule.name, rule.word) == ("usr/lib/udev/rules.d/40-redhat.rules", "online")
    program = 'SUBSYSTEM=="memory", RUN+="/usr/sbin/online-memory %k"\n'
    found.files["etc/udev/rules.d/80-hotplug-mem.rules"] = program.encode()
    assert [each.word for each in onliners_of(found, Observation.read(found))] == ["online", "?"]
    for mask in ("etc/udev/rules.d/40-redhat.rules", "run/udev/rules.d/40-redhat.rules"):
        found.files[mask] = b""
        assert [each.word for each in onliners_of(found, Observation.read(found))] == ["?"]
        del found.files[mask]
    found.files["usr/lib/udev/rules.d/40-redhat.rules"] = b"# " + RULE.encode()
    assert [each.word for each in onliners_of(found, Observation.read(found))] == ["?"]


def test_competing_onliners_are_a_risk():
    path = "usr/lib/udev/rules.d/40-redhat.rules"
    alone = plan_add(with_word(machine(**{path: RULE}), "offline"), PlugWish(128 * MIB))
    assert ("likely", path) in [(r.certainty, r.what.split()[0]) for r in alone.risks]
    other = machine(**{path: RULE.replace('="online"', '="online_kernel"')})
    conflict = plan_add(with_word(other, "offline"), PlugWish(128 * MIB, to="online_movable"))
    assert any("whoever is first decides the zone" in risk.what for risk in conflict.risks)
    both = plan_add(with_word(machine(**{path: RULE}), "online"), PlugWish(128 * MIB))
    assert any("after the kernel has onlined them" in risk.what for risk in both.risks)
    none = plan_add(with_word(machine(), "online"), PlugWish(128 * MIB))
    assert none.risks == []


def test_kdump_without_crash_hotplug_is_a_risk():
    cmdline = {"proc/cmdline": "crashkernel=256M quiet\n"}
    hotplug = {"sys/devices/system/memory/crash_hotplug": "1\n"}
    warned = plan_add(machine(**cmdline), PlugWish(128 * MIB))
    quiet = plan_add(machine(**cmdline, **hotplug), PlugWish(128 * MIB))
    assert any("kdump" in risk.what for risk in warned.risks)
    assert not any("kdump" in risk.what for risk in quiet.risks)


# --- files ---------------------------------------------------------------------------------


def test_a_plan_survives_its_file():
    plan = plan_free(machine(), [32, 33])
    assert decode_plan(encode_plan(plan).encode(), "p") == plan


@pytest.mark.parametrize(
    "path",
    [
        "etc/passwd",
        "sys/devices/system/memory/memory1/../memory2/state",
        "sys/devices/system/memory/memory/state",
        "sys/devices/system/memory/memory\u0661/state",
        "sys/devices/system/memory/probe",
        "/sys/devices/system/memory/memory1/state",
    ],
)
def test_a_plan_writes_to_memory_blocks_only(path):
    plan = plan_free(machine(), [32])
    raw = msgspec.json.decode(encode_plan(plan))
    raw["steps"][0]["path"] = path
    assert not is_plan_path(path)
    with pytest.raises(InputError, match="need a memory block's state"):
        decode_plan(msgspec.json.encode(raw), "p")


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        (lambda raw: raw.update(version=2), "version 2: need 1"),
        (lambda raw: raw.update(schema="x"), "Invalid enum value"),
        (lambda raw: raw["steps"][0].update(value="poweroff"), "need one of"),
        (lambda raw: raw["steps"][0].update(undo=None), "need one of"),
        (lambda raw: raw.pop("assumes"), "missing required field"),
        (lambda raw: raw.update(extra=1), "unknown field"),
    ],
)
def test_a_plan_that_is_none_is_refused(change, rule):
    raw = msgspec.json.decode(encode_plan(plan_free(machine(), [32])))
    change(raw)
    with pytest.raises(InputError, match=rule):
        decode_plan(msgspec.json.encode(raw), "p")


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b"[" * 100_000, b"{}", b'"altmap-plan"'])
def test_a_file_that_is_no_plan_is_refused(raw):
    with pytest.raises(InputError, match=r"^plan p: "):
        decode_plan(raw, "p")


# --- the command ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["grow", "1GiB"], 0),
        (["free", "34-35"], 0),
        (["free", "memory32"], 2),
        (["add", "256MiB"], 2),
        (["remove", "PNP0C80:00"], 2),
        (["free", "99"], 1),
        (["add", "5"], 1),
        (["add", "0MiB"], 1),
        (["add", "1GiB", "--driver", "hyperv"], 1),
        (["add", "1GiB", "--node", "7"], 1),
        (["remove", "x"], 1),
    ],
)
def test_the_exit_code_tells_whether_there_is_something_to_do(capsys, arguments, code):
    assert main(["plan", *arguments, "--from", str(DIMM)]) == code
    out, err = capsys.readouterr()
    assert (err.count("\n"), bool(out)) == ((1, False) if code == 1 else (0, True))


def test_a_wrong_word_exits_with_1_too(capsys):
    with pytest.raises(SystemExit) as left:
        main(["plan", "add", "1GiB", "--to", "nowhere"])
    assert left.value.code == 1
    assert "invalid choice" in capsys.readouterr().err


def test_the_plan_is_written_once(tmp_path, capsys):
    target = tmp_path / "plan.json"
    arguments = ["plan", "free", "32", "--from", str(DIMM), "-o", str(target), "--json"]
    assert main(arguments) == 2
    printed = capsys.readouterr().out
    assert printed == target.read_text()
    assert json.loads(printed)["schema"] == "altmap-plan"
    assert main(arguments) == 1
    assert "plan.json: cannot be written: File exists" in capsys.readouterr().err


def test_offline_and_online_words_are_taken_back_into_the_same_zone():
    plan = plan_free(machine("6.1-two-nodes"), [40])
    assert [(step.value, step.undo) for step in plan.steps] == [("offline", "online_kernel")]
