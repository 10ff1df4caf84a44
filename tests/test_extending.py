"""A policy, a driver and a release that are added at run time work with everything there is."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import pytest

import altmap
from altmap.explore.rules import RULES as EXPLORATION_RULES
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model import machine as model
from altmap.model.arch import ARCHES
from altmap.model.drivers.driver import Driver, MemoryDevice
from altmap.model.kernel.accounting import POLICIES, make_policy
from altmap.model.kernel.add import add_memory_resource
from altmap.model.kernel.memmap import Memmap
from altmap.model.kernel.placements import PLACEMENTS
from altmap.model.kernel.remove import try_remove_memory
from altmap.model.machine import ModelMachine
from altmap.model.releases import RELEASES
from altmap.report.page import page
from altmap.scenario import DRIVER_KEYS, DriverKeys
from altmap.storage.export import export
from altmap.trace import Outcome
from altmap.trace.run import run_scenario

ROOT = Path(__file__).parents[1]
SCENARIOS = ("dimm-1GiB", "numa-node1", "held-pages", "virtio-mem-sub-blocks", "hyperv-balloon")


class LastPages:
    """The memmap of each memory block lies at the end of the block, for drivers that ask."""

    name = "last-pages"
    written_at_add = None

    def place(self, arch, release, request):
        block = request.block_nr_pages
        hosted = arch.memmap_nr_pages(block)
        if not request.asks:
            return Memmap(arch, request.pfns)
        return Memmap(arch, request.pfns, block, hosted, block - hosted)


class MemoryStick(Driver):
    """Memory behind all that was plugged before; it is removed when its blocks are offline."""

    def plug(self, plug):
        kernel, page = self.kernel, self.kernel.arch.page_size_bytes
        self.devices.check_new(plug.id)
        block = kernel.block_nr_pages
        start = -(-kernel.max_pfn // block) * block * page
        ends = [end for _, end in self.devices.addresses()]
        pfns = self.devices.pfns(max([start, *ends]), plug.size)
        device = self.devices.add(plug.id, MemoryDevice(plug.driver, pfns))
        outcome = add_memory_resource(kernel, pfns, plug.node or 0, asks=True)
        if outcome:
            device.addition = kernel.additions[-1]
        return outcome

    def unplug(self, id_):
        for addition in self.devices.additions(id_):
            outcome = try_remove_memory(self.kernel, addition)
            if not outcome:
                return outcome
        self.devices.remove(id_)
        return Outcome("ok")


@pytest.fixture(autouse=True)
def _extended(monkeypatch):
    """Add one record to each table that CONTRIBUTING.md names."""
    monkeypatch.chdir(ROOT)
    placement = LastPages()
    monkeypatch.setitem(PLACEMENTS, placement.name, placement)
    monkeypatch.setitem(POLICIES, placement.name, make_policy(placement, "", frozenset()))
    monkeypatch.setitem(DRIVER_KEYS, "memory-stick", DriverKeys())
    monkeypatch.setitem(model.DRIVERS, "memory-stick", {"memory-stick": MemoryStick})
    for name, arch in ARCHES.items():
        mechanisms = (*arch.mechanisms, "memory-stick")
        monkeypatch.setitem(ARCHES, name, replace(arch, mechanisms=mechanisms))
    newest = list(RELEASES.values())[-1]
    monkeypatch.setitem(RELEASES, "99.1", replace(newest, name="99.1", confirmed=False))


def machine(**fields):
    return altmap.Machine(
        **{"release": "99.1", "policy": "last-pages", "memmap_on_memory": "on"} | fields
    )


def stick(**fields):
    return altmap.Plug(**{"id": "s1", "driver": "memory-stick", "size": "256MiB"} | fields)


def scenarios():
    """Return a handful of scenarios, each with the new release and policy, one with the driver."""
    for name in SCENARIOS:
        loaded = altmap.load_scenario(ROOT / f"scenarios/{name}.toml")
        yield loaded.with_machine(
            release="99.1", policy="last-pages", auto_online_blocks="online_movable"
        )
    steps = [stick(), altmap.Offline(id="s1"), altmap.Unplug(id="s1"), stick()]
    online = machine(auto_online_blocks="online_movable")
    yield altmap.Scenario(name="memory-stick", machine=online, steps=steps)
    for arch in ("aarch64-64k", "ppc64le", "s390x"):
        there = machine(arch=arch, auto_online_blocks="online_movable", memory="2GiB")
        plug = stick(size="1GiB")
        yield altmap.Scenario(name=f"stick-{arch}", machine=there, steps=[plug, *steps[1:3]])


@pytest.mark.parametrize("index", range(len(SCENARIOS) + 4))
def test_additions_hold_the_rules_and_are_observed_exported_and_reported(index, tmp_path):
    scenario = list(scenarios())[index]
    trace = Checked.run(scenario)
    assert (trace.release, trace.policy) == ("99.1", "last-pages")
    statuses = {step.outcome.status for step in trace.steps}
    assert statuses <= {"ok", "refused"}
    export({"": trace}, tmp_path / "out")
    written = json.loads((tmp_path / "out/trace.json").read_text(encoding="utf-8"))
    assert written["steps"] == json.loads(json.dumps(trace.to_builtins()["steps"]))
    last = Sysroot.read(tmp_path / "out" / trace.folder_names()[-1])
    assert Observation.read(last).meminfo == trace.steps[-1].observation.meminfo
    assert altmap.compare(trace, trace).equal
    assert altmap.account(trace).levels[-1].name == "MemFree"
    assert "99.1" in page([trace], scenario.name, "0")


class Checked(ModelMachine):
    """A machine whose kernel is checked after every step by the rules about states."""

    @classmethod
    def run(cls, scenario):
        return run_scenario(scenario, cls.start(scenario.machine))

    def perform(self, step):
        record = super().perform(step)
        start = ModelMachine.start(machine())
        for rule in EXPLORATION_RULES:
            if rule.on_state is not None and rule.name != "returns":
                assert rule.on_state(self, start) is None, f"{rule.name} after {step}"
        seen = self.observe()
        shown = Observation.read(seen.render())
        assert (shown.meminfo, shown.zoneinfo, shown.memory) == (
            seen.meminfo,
            seen.zoneinfo,
            seen.memory,
        )
        return record


def test_the_driver_s_memory_arrives_with_the_policy_s_memmap_and_leaves():
    steps = [stick(), altmap.Offline(id="s1"), altmap.Unplug(id="s1")]
    scenario = altmap.Scenario(
        name="s", machine=machine(auto_online_blocks="online_movable"), steps=steps
    )
    start, plugged, offline, unplugged = altmap.predict(scenario).steps
    assert [step.outcome.status for step in (plugged, offline, unplugged)] == ["ok"] * 3
    placed = next(event for event in plugged.events if event.kind == "memmap-placed")
    block = 32768
    assert placed.pfns.hull().start % block == block - block * 64 // 4096
    gained = plugged.observation.meminfo["MemTotal"] - start.observation.meminfo["MemTotal"]
    assert gained == (256 << 10) - 2 * 512 * 4
    assert unplugged.observation.meminfo["MemTotal"] == start.observation.meminfo["MemTotal"]


def test_a_refusal_of_the_driver_is_an_outcome():
    scenario = altmap.Scenario(
        name="s",
        machine=machine(auto_online_blocks="online"),
        steps=[stick(), altmap.Unplug(id="s1")],
    )
    outcome = altmap.predict(scenario).steps[2].outcome
    assert (outcome.status, outcome.errno) == ("refused", errno.errorcode[errno.EBUSY])


def test_messages_name_what_was_added():
    with pytest.raises(altmap.InputError, match=r"need one of dimm, .*, memory-stick"):
        altmap.Plug(id="d", size="1GiB", driver="memorystick")
    with pytest.raises(altmap.InputError, match=r"need one of .*last-pages"):
        altmap.predict(altmap.Scenario(name="s", machine=altmap.Machine(policy="lastpages")))
    with pytest.raises(altmap.InputError, match="requested: only with the driver virtio-mem"):
        stick(requested=0)


def test_a_newer_release_takes_the_record_that_was_added():
    trace = altmap.predict(altmap.Scenario(name="s", machine=altmap.Machine(release="99.7")))
    assert trace.release == "99.1"
