"""Definitions on real kernels: booted, grown and shrunk, against the answers about them.

A guest in the lab has the machine that the definition's answers are computed from: its machine
type, memory, nodes, DIMMs at boot and the kernel's parameters; a virtio-mem device is plugged right
after the boot. What the guest shows is compared with the answers, and every step with the model.
"""

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path

from altmap.lab.target import run_in_guest
from altmap.linux.observation import Observation
from altmap.model.machine import ModelMachine
from altmap.units import parse_size
from altmap.verify.both_sides import compare_with_trace
from altmap.vm.answers import boot_state, started, way_answer
from altmap.vm.growth import growth_scenario
from altmap.vm.readers import read_definition

FILE = Path(__file__).with_name("in_the_lab.toml")
#: How far MemTotal at boot may be off: what the kernel reserves depends on its build.
MOST_OFF = 0.01


def guests(*, quick=False):
    """Return the guests of the file, as tables."""
    found = tomllib.loads(FILE.read_text(encoding="utf-8"))["guest"]
    return [each for each in found if each.get("quick") or not quick]


@dataclass
class Judged:
    """A definition on a real kernel.

    Attributes
    ----------
    name : str
    wrong : list of str
        What differs.
    boot_off_kib : int
        Predicted less observed MemTotal at boot.
    """

    name: str
    wrong: list[str] = field(default_factory=list)
    boot_off_kib: int = 0


def answers_of(table):
    """Return the guest, and what is answered about the size that the table names."""
    definition = read_definition(table["text"].strip().encode() + b"\n", table["name"])
    guest = started(definition, release=table.get("release"), cmdline=table.get("cmdline"))
    way = guest.ways()[0]
    to = parse_size(table["to"])
    sizes = [way.start_bytes, to] if to > way.start_bytes else [way.start_bytes]
    return guest, way_answer(guest, way, sizes)


def judged(table, progress=lambda _: None):
    """Boot a definition's guest, grow and shrink it, and compare."""
    made = Judged(table["name"])
    guest, answer = answers_of(table)
    row = answer.rows[-1]
    if (row.result == "ok") != table.get("reached", True):
        made.wrong.append(f"{table['to']}: {row.result}: {row.why}")
    if answer.way.missing:
        return made  # no step of a scenario could show it
    if row.result != "ok":
        answer = _asked(guest, answer, parse_size(table["to"]))
    scenario = growth_scenario(guest, answer)
    observed, _ = run_in_guest(scenario, progress)
    comparison = compare_with_trace(_as_added(guest, scenario), observed)
    made.wrong += [] if comparison.equal else ["the model differs from the kernel: see compare"]
    _check_boot(made, guest, observed.steps[0].observation)
    nr_up = sum(step.action.get("do") != "unplug" for step in observed.steps[1:])
    if answer.way.driver == "virtio-mem":
        nr_up = 1 + len(answer.way.devices)
    grown = observed.steps[nr_up]
    if row.result == "ok":
        _check_grown(made, guest, row, grown)
    elif grown.outcome:
        made.wrong.append("the kernel does what is answered to be refused")
    return made


def _as_added(guest, scenario):
    """Return the scenario without the DIMMs that the kernel refuses at boot."""
    block = guest.block_bytes
    kept = [each for each in scenario.machine.devices if not each.size % block]
    return scenario.with_machine(devices=tuple(kept))


def _asked(guest, answer, size_bytes):
    """Return an answer whose scenario asks for a size that is not reached."""
    start = answer.way.start_bytes
    asked = replace(answer.rows[-1], result="ok", adds_bytes=(size_bytes - start,))
    return replace(answer, rows=(*answer.rows[:-1], asked))


def _check_boot(made, guest, seen):
    state = boot_state(replace(guest, booted=_booted(guest)))
    total = seen.meminfo["MemTotal"]
    made.boot_off_kib = state.mem_total_bytes // 1024 - total
    if abs(made.boot_off_kib) > MOST_OFF * total:
        made.wrong.append(
            f"MemTotal at boot: {state.mem_total_bytes >> 10} kB, observed {total} kB"
        )
    if seen.memory.block_size_bytes != state.block_bytes:
        made.wrong.append(f"block size {state.block_bytes}: {seen.memory.block_size_bytes}")
    if set(seen.memory.blocks) != set(_booted(guest).observe().memory.blocks):
        made.wrong.append("memory blocks at boot")
    shown = {(zone.node, zone.name) for zone in seen.zoneinfo if zone.pages["present"]}
    if shown != {(zone.node, zone.name) for zone in state.zones}:
        made.wrong.append(f"zones at boot: {sorted(shown)}")


def _booted(guest):
    """Return the guest without virtio-mem devices, which the lab plugs after the boot."""
    machine = guest.machine.machine
    dimms = tuple(each for each in machine.devices if each.driver != "virtio-mem")
    return ModelMachine.start(machine.replace(devices=dimms), pages=False)


def _check_grown(made, guest, row, step):
    seen: Observation = step.observation
    if not step.outcome:
        made.wrong.append(f"{step.name}: {step.outcome.why}")
    off = seen.meminfo["MemTotal"] + made.boot_off_kib - row.mem_total_bytes // 1024
    if off:
        made.wrong.append(f"MemTotal after growing: off by {off} kB")
    page = guest.machine.arch.page_size_bytes
    movable = sum(z.pages["present"] for z in seen.zoneinfo if z.name == "Movable") * page
    if movable != row.movable_bytes:
        made.wrong.append(f"ZONE_MOVABLE: {row.movable_bytes}, observed {movable}")
