"""Plans: what they predict, what they warn of, and that their files are checked."""

import json
import re
import tarfile
from pathlib import Path

import msgspec
import pytest

from altmap.cli.main import main
from altmap.cli.plan import DRIVERS as SHOWN_DRIVERS
from altmap.errors import InputError
from altmap.host.mechanisms import WAYS
from altmap.host.onliners import onliners_of
from altmap.host.plan import Risk, decode_plan, encode_plan, is_plan_path
from altmap.host.planner import Planner, plan_free, plan_remove, plan_resize
from altmap.host.planner_add import PlugWish, _Adder, plan_add, plan_grow
from altmap.host.text.plan import plan_text
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import DRIVERS, ModelMachine, predict
from altmap.scenario import Machine, Online, Plug, Scenario, SetTunables, Size

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
    (risk,) = [risk for risk in plan.risks if "does not fit" in risk.what]
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
    assert plan.obstacle is None
    # With each block's memmap in itself it fits at once.
    sysroot.files["sys/module/memory_hotplug/parameters/memmap_on_memory"] = b"Y\n"
    whole = plan_add(sysroot, PlugWish(4 * GIB, to="online_movable"))
    assert not [risk for risk in whole.risks if "does not fit" in risk.what]
    assert any("4 gigantic pages of 1 GiB are lost" in risk.what for risk in whole.risks)
    assert any(risk.what.startswith("MOVABLE:KERNEL becomes 4.") for risk in whole.risks)


@pytest.mark.parametrize("driver", ["dimm", "virtio-mem"])
def test_where_movable_memory_does_not_fit_the_plan_names_the_least_kernel_part(driver):
    start = ModelMachine.start(Machine(memory=Size(256 * MIB), auto_online_blocks="offline"))
    sysroot = start.observe().render()
    size = 24 * GIB
    plan = plan_add(sysroot, PlugWish(size, driver, to="online_movable"))
    assert [step.action for step in plan.steps if step.by == "platform"] == ["plug"]
    assert plan.obstacle.prediction.errno == "ENOMEM"
    (risk,) = [risk for risk in plan.risks if "does not fit" in risk.what]
    # 64 bytes for each page of 4 KiB.
    assert "it needs 384 MiB of kernel zones" in risk.what
    blocks = int(re.search(r"add ([0-9]+) MiB of it first", risk.cure)[1]) // 128
    for nr_blocks, fits in ((blocks, True), (blocks - 1, False)):
        part = nr_blocks * 128 * MIB
        first = plan_add(sysroot, PlugWish(part, driver, to="online_kernel"))
        assert first.obstacle is None
        steps = [
            SetTunables(auto_online_blocks="online_kernel"),
            Plug(id="a", size=Size(part), driver=driver, requested=requested(driver, part)),
            SetTunables(auto_online_blocks="online_movable"),
            Plug(
                id="b",
                size=Size(size - part),
                driver=driver,
                requested=requested(driver, size - part),
            ),
        ]
        scenario = Scenario(name="s", machine=Machine(), steps=steps)
        ran = predict(scenario, Observation.read(sysroot), pages=False)
        assert [bool(step.outcome) for step in ran.steps[1:]] == [True, True, True, fits]
    # virtio-mem never hosts its memmap itself.
    assert ("memmap_on_memory=1" in risk.cure) is (driver == "dimm")


def requested(driver, size):
    return Size(size) if driver == "virtio-mem" else None


def test_virtio_mem_in_pieces_is_one_device():
    sysroot = with_word(machine("6.12-start"), "online_kernel")
    sysroot.files["sys/module/memory_hotplug/parameters/memmap_on_memory"] = b"N\n"
    planner = Planner(sysroot, "grow", Machine())
    for node in (None, 0):
        parts = _Adder(planner, WAYS["virtio-mem"], PlugWish(2 * GIB, node=node), "online")
        mark = planner.mark()
        assert parts._plug(512 * MIB)
        assert parts._plug(1536 * MIB)
        assert [step.action for step in planner.steps] == ["plug", "resize"]
        assert "plug 2 GiB (virtio-mem virtio-mem1), 512 MiB requested" in (planner.steps[0].title)
        planner.take_back(mark)


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
    assert any("the first to write decides the zone" in risk.what for risk in conflict.risks)
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


# --- by every driver ---


def other(path):
    return Sysroot.read(RECORDINGS.parent / path)


def test_every_driver_of_a_scenario_can_be_planned_and_the_command_line_knows_all():
    assert set(DRIVERS) <= set(WAYS)
    assert sorted(SHOWN_DRIVERS) == sorted(WAYS)


VIRTIO = "virtio-mem/linux-6.12-virtio-mem-after.tar.xz"


def test_virtio_mem_grows_the_device_that_has_room_and_plugs_one_else():
    plan = plan_add(other(VIRTIO), PlugWish(128 * MIB, "virtio-mem"))
    (step,) = plan.steps
    assert step.title == "128 MiB more of virtio0: 188 MiB requested"
    assert "requested-size" in step.who
    assert step.prediction.mem_total_gain_kib == 128 << 10
    # The kernel onlines by itself while the driver grows, and is as before afterwards.
    fresh = plan_add(machine(), PlugWish(256 * MIB, "virtio-mem", to="online_movable"))
    assert titles(fresh) == [
        ("kernel", "online_movable"),
        ("platform", None),
        ("kernel", "offline"),
    ]
    assert fresh.steps[1].prediction.blocks[0].zone == "Movable"


def test_virtio_mem_is_removed_by_a_request_for_nothing():
    (step,) = plan_remove(other(VIRTIO), "virtio0").steps
    assert (step.by, step.prediction.blocks[0].state) == ("platform", "absent")


@pytest.mark.parametrize(("size", "gain"), [(64 * MIB, 4 << 10), (32 * MIB, -(28 << 10))])
def test_virtio_mem_is_resized(size, gain):
    (step,) = plan_resize(other(VIRTIO), "virtio0", size).steps
    assert step.prediction.mem_total_gain_kib == gain
    assert plan_resize(other(VIRTIO), "virtio0", 60 * MIB).steps == []


def test_virtio_mem_takes_memory_although_memmap_on_memory_is_on():
    plan = plan_add(with_word(machine(), "online"), PlugWish(256 * MIB, "virtio-mem"))
    assert any("(virtio-mem) does not ask" in risk.what for risk in plan.risks)
    dimm = plan_add(with_word(machine(), "online"), PlugWish(256 * MIB))
    assert not any("does not ask" in risk.what for risk in dimm.risks)


def test_a_xen_domain_grows_by_its_balloon_without_being_told():
    (step,) = plan_add(other("xen/linux-6.12-xen-start.tar.xz"), PlugWish(200 * MIB)).steps
    assert step.title == "200 MiB more of balloon: 712 MiB requested"
    (back,) = plan_resize(other("xen/linux-6.12-xen-grown.tar.xz"), "balloon", 400 * MIB).steps
    assert back.prediction.mem_total_gain_kib < 0
    with pytest.raises(InputError, match="no Xen domain"):
        plan_add(machine(), PlugWish(128 * MIB, "xen"))


def test_the_probe_file_takes_each_block_by_itself():
    plan = plan_add(machine(), PlugWish(256 * MIB, "probe", address=8 * GIB))
    assert titles(plan) == [("platform", None), ("kernel", "online")] * 2
    assert [step.prediction.blocks[0].first for step in plan.steps] == [64, 64, 65, 65]
    with pytest.raises(InputError, match="needs --address"):
        plan_add(machine(), PlugWish(256 * MIB, "probe"))


def test_a_dax_device_comes_by_kmem():
    plan = plan_add(machine(), PlugWish(256 * MIB, "kmem"))
    assert "daxctl" in plan.steps[0].who
    assert titles(plan) == [("platform", None), ("kernel", "online"), ("kernel", "online")]


def test_standby_memory_is_refused_elsewhere():
    with pytest.raises(InputError, match="on s390x only"):
        plan_add(machine(), PlugWish(256 * MIB, "standby"))


@pytest.mark.parametrize(
    ("name", "titled", "words"),
    [
        ("ppc64le-6.12-dlpar", "plug 512 MiB (dimm dimm1)", [None]),
        ("s390x-6.12-boot-memory", "plug 512 MiB (standby standby1)", [None, "online", "online"]),
    ],
)
def test_other_architectures_have_their_usual_way(tmp_path, name, titled, words):
    with tarfile.open(RECORDINGS.parent / f"traces/{name}.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    plan = plan_add(Sysroot.read(tmp_path / "00-start"), PlugWish(512 * MIB))
    assert plan.steps[0].title.startswith(titled)
    assert [step.value for step in plan.steps] == words


def test_a_memmap_that_takes_much_of_what_is_free_is_a_risk():
    sysroot = machine("6.12-start")
    sysroot.files["sys/module/memory_hotplug/parameters/memmap_on_memory"] = b"N\n"
    plan = plan_add(with_word(sysroot, "offline"), PlugWish(20 * GIB))
    assert any(risk.what.startswith("the memmap takes 320 MiB") for risk in plan.risks)
    small = plan_add(with_word(sysroot, "offline"), PlugWish(1 * GIB))
    assert not any(risk.what.startswith("the memmap takes") for risk in small.risks)


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


# --- the text ------------------------------------------------------------------------------


def shown(plan):
    return plan_text(plan, 200)


def test_a_plan_begins_with_one_line_that_sums_it_up():
    plan = plan_add(with_word(machine(), "offline"), PlugWish(512 * MIB, to="online_movable"))
    before, after = plan.assumes.mem_total_kib, plan.steps[-1].prediction.mem_total_kib
    line = f"MemTotal {before / (1 << 20):.1f} → {after / (1 << 20):.1f} GiB"
    assert shown(plan).splitlines()[0] == f"Plan: 1 to plug, 4 to online; {line}"
    blocked = shown(plan_free(machine(), [32, 33])).splitlines()[0]
    assert blocked.startswith("Plan: 1 to offline; step 2 is refused (EBUSY); MemTotal ")
    assert shown(plan_free(machine(), [34])).startswith("Plan: nothing to do; MemTotal ")


def test_equal_steps_are_one_entry_and_unequal_ones_are_not():
    plan = plan_add(with_word(machine(), "offline"), PlugWish(512 * MIB, to="online_movable"))
    assert "\n[2-5] online_movable memory36-39\n" in shown(plan)
    assert "memory36-39 (4 blocks) online in zone Movable" in shown(plan)
    # One block that ends in another zone, or otherwise, is an entry of its own.
    made = encode_plan(plan)
    for old, new in (('"zone": "Movable"', '"zone": "Normal"'), ('"ok"', '"refused"')):
        steps = made.partition('"online_movable memory37"')
        other = decode_plan((steps[0] + steps[1] + steps[2].replace(old, new, 1)).encode(), "p")
        entries = [line for line in shown(other).splitlines() if line.startswith("[")]
        assert [line.split("]")[0] for line in entries[1:]] == ["[2", "[3", "[4-5"]


def test_a_risk_that_several_steps_have_is_told_once():
    plan = plan_free(machine(), [34])
    twice = msgspec.structs.replace(plan, risks=[Risk("likely", "it rains", "an umbrella")] * 2)
    assert shown(twice).count("it rains") == shown(twice).count("umbrella") == 1


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
    made = main(["plan", *arguments, "--from", str(DIMM)])
    assert made == (1 if code == 1 else 0)
    capsys.readouterr()
    assert main(["plan", *arguments, "--detailed-exitcode", "--from", str(DIMM)]) == code
    out, err = capsys.readouterr()
    assert (err.count("\n"), bool(out)) == ((1, False) if code == 1 else (0, True))


def test_a_wrong_word_exits_with_1_too(capsys):
    with pytest.raises(SystemExit) as left:
        main(["plan", "add", "1GiB", "--to", "nowhere"])
    assert left.value.code == 1
    assert "'nowhere': need one of online" in capsys.readouterr().err


def test_the_plan_is_written_once(tmp_path, capsys):
    target = tmp_path / "plan.json"
    arguments = ["plan", "free", "32", "--from", str(DIMM), "-o", str(target), "--json"]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert printed == target.read_text()
    assert json.loads(printed)["schema"] == "altmap-plan"
    assert main(arguments) == 1
    assert "plan.json: cannot be written: File exists" in capsys.readouterr().err


def test_offline_and_online_words_are_taken_back_into_the_same_zone():
    plan = plan_free(machine("6.1-two-nodes"), [40])
    assert [(step.value, step.undo) for step in plan.steps] == [("offline", "online_kernel")]
