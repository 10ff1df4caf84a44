"""Guests of other architectures: what is theirs alone; ``conformance.toml`` names the rest."""

from pathlib import Path

import pytest
from msgspec.structs import replace

from altmap.errors import InputError, LabError
from altmap.lab import CommandResult, Guest, Hardware, fetch, guest_arch, veto
from altmap.lab.hardware import hardware_of
from altmap.lab.process import qemu_version
from altmap.lab.target import run_in_guest
from altmap.scenario import Machine, Node, Plug, Scenario, Size, Veto, load_scenario

SCENARIOS = Path(__file__).parents[2] / "scenarios"


@pytest.mark.lab("ppc64le")
def test_dlpar_fails_half_way_and_undoes_it_on_a_real_kernel():
    whole = load_scenario(SCENARIOS / "ppc64-refused-unplug.toml")
    scenario = replace(whole, steps=whole.steps[:-1])
    trace, _ = run_in_guest(scenario, lambda _: None)
    assert [step.outcome.status for step in trace.steps] == ["ok"] * 5 + ["refused"]
    before, after = trace.steps[-2].observation, trace.steps[-1].observation
    assert after.memory == before.memory
    # The first block left, and was added and onlined again.
    assert any("adding any removed LMBs" in event.text for event in trace.steps[-1].events)


@pytest.mark.lab("s390x")
def test_a_guest_of_another_byte_order_shows_the_same_flags():
    """``od`` prints words as the guest's CPU has them: page 0 is in use, none is out of range."""
    with Guest(fetch("6.12", arch="s390x"), Hardware(arch="s390x")) as guest:
        first = guest.run("od -A n -t x8 -N 8 /proc/kpageflags").text
        assert guest.run("uname -m").text.strip() == "s390x"
    assert 0 < int(first.replace(" ", ""), 16) < 1 << 48


@pytest.mark.parametrize(
    ("arch", "why"),
    [("aarch64", "ACPI_HOTPLUG_MEMORY"), ("s390x", "no pc-dimm device")],
)
def test_a_dimm_where_none_can_be_is_refused_before_any_boot(arch, why):
    steps = [Plug(id="d1", size=Size(256 << 20))]
    scenario = Scenario(name="d", machine=Machine(arch=arch), steps=steps)
    with pytest.raises(InputError, match=f"'d1': no DIMM on {arch}: .*{why}"):
        run_in_guest(scenario, pytest.fail)


@pytest.mark.parametrize(
    ("machine", "words"),
    [
        (Machine(arch="riscv64"), ["'riscv64'", "no guest", "ppc64le-64k"]),
        (Machine(arch="x86_64-la57"), ["'x86_64-la57'", "no guest"]),
        (Machine(arch="s390x", platform="pseries"), ["'pseries'", "s390x has s390-ccw"]),
        (Machine(mmu="hash"), ["machine.mmu", "'hash'"]),
    ],
)
def test_a_machine_that_no_guest_can_be_is_refused_by_name(machine, words):
    with pytest.raises(InputError) as caught:
        hardware_of(machine)
    assert all(word in str(caught.value) for word in words)


VM = Plug(id="vm0", driver="virtio-mem", size=Size(1 << 30))


def test_a_node_that_an_arm64_guest_cannot_have_is_refused_before_any_boot():
    nodes = [Node(memory=Size(1 << 30)), Node(memory=Size(1 << 30))]
    scenario = Scenario(name="v", machine=Machine(arch="aarch64", nodes=nodes), steps=[VM])
    with pytest.raises(InputError, match="virtio-mem with 2 nodes: without ACPI"):
        run_in_guest(scenario, pytest.fail)


@pytest.mark.lab("s390x")
def test_a_qemu_without_the_device_is_one_line_before_any_boot(tmp_path, monkeypatch):
    """Whatever QEMU is installed: one that lists no devices stands in."""
    program = tmp_path / "qemu-system-s390x"
    program.write_text("#!/bin/sh\necho 'QEMU emulator version 7.2.0'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    scenario = Scenario(name="v", machine=Machine(arch="s390x"), steps=[VM])
    with pytest.raises(LabError, match=r"version 7\.2\.0 has no virtio-mem-ccw for s390x"):
        run_in_guest(scenario, pytest.fail)


def test_a_qemu_in_another_folder_reports_its_own_version(tmp_path, monkeypatch):
    """A version that is cached is not that of a program elsewhere."""
    for version in ("7.2.0", "10.0.0"):
        folder = tmp_path / version
        folder.mkdir()
        program = folder / guest_arch("s390x").program
        program.write_text(f"#!/bin/sh\necho 'QEMU emulator version {version}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        assert qemu_version(guest_arch("s390x")) == f"QEMU emulator version {version}"


def test_a_veto_that_no_module_has_is_refused_before_any_boot():
    scenario = Scenario(name="v", machine=Machine(), steps=[Veto(on="prepare_online")])
    with pytest.raises(InputError, match=r"veto prepare_online: .*going_online and going_offline"):
        run_in_guest(scenario, pytest.fail)


class Armed:
    """A guest that is only written to."""

    def __init__(self, monkeypatch):
        self.errors = {}
        monkeypatch.setattr(veto, "load_module", lambda *_: None)
        monkeypatch.setattr(veto, "write_file", self.write)

    def run(self, command):
        return CommandResult(0, b"")

    def write(self, guest, path, word):
        self.errors[path.split("/")[-2]] = int(word)
        return 0


def test_a_veto_of_some_blocks_holds_only_around_them(monkeypatch):
    guest = Armed(monkeypatch)
    vetoes = veto.Vetoes(guest)
    vetoes.set(Veto(on="going_online", errno="ENOMEM"))
    vetoes.set(Veto(on="going_offline", errno="EBUSY", blocks="33-34"))
    seen = {}
    for block in (32, 33, 35):
        with vetoes.around(block):
            seen[block] = dict(guest.errors)
    assert {block: errors["MEM_GOING_OFFLINE"] for block, errors in seen.items()} == {
        32: 0, 33: -16, 35: 0
    }  # fmt: skip
    assert guest.errors == {"MEM_GOING_ONLINE": -12, "MEM_GOING_OFFLINE": 0}
    with pytest.raises(InputError, match="unplug-d: a veto holds for some blocks only"):
        vetoes.check_no_partial("unplug-d")
    vetoes.set(Veto(on="going_offline", errno="none"))
    vetoes.check_no_partial("unplug-d")
