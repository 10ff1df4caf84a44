"""Definitions on real kernels: booted, grown and shrunk, against the answers about them.

A guest in the lab boots with QEMU's own words for the definition (:mod:`as_written`): machine type,
memory, nodes and memory devices. What it shows at boot and after each step is compared with what
the model that answers about the definition predicts: MemTotal, zones, memory blocks, refusals.
"""

import tomllib
from dataclasses import dataclass, field, replace
from pathlib import Path

from as_written import words_of

from altmap.lab.target import run_in_guest
from altmap.linux.observation import Observation
from altmap.model.machine import ModelMachine
from altmap.scenario import Scenario
from altmap.units import parse_size
from altmap.verify.both_sides import compare_with_trace
from altmap.vm.answers import started, way_answer
from altmap.vm.growth import growth_scenario
from altmap.vm.readers import read_definition

FILE = Path(__file__).with_name("in_the_lab.toml")
#: How far MemTotal at boot may be off: the kernel's image depends on its build.
MOST_OFF_KIB = 2048
#: SeaBIOS keeps a page more or less for its tables, by the number of slots and ports.
FIRMWARE_NR_PAGES = 1


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
    how : str
        Who wrote QEMU's words.
    boot_off_kib, off_kib : int
        Predicted less observed MemTotal: at boot, and in the last state.
    """

    name: str
    wrong: list[str] = field(default_factory=list)
    how: str = ""
    boot_off_kib: int = 0
    off_kib: int = 0


def answers_of(table):
    """Return the guest, and what is answered about the size that the table names.

    There is no answer if nothing can be added while the guest runs.
    """
    definition = read_definition(table["text"].strip().encode() + b"\n", table["name"])
    guest = started(definition, release=table.get("release"), cmdline=table.get("cmdline"))
    to = parse_size(table["to"])
    ways = [way for way in guest.ways() if way.driver != "balloon"]
    if not ways or to <= ways[0].start_bytes:
        return guest, None
    return guest, way_answer(guest, ways[0], [ways[0].start_bytes, to])


def judged(table, progress=lambda _: None):
    """Boot a definition's guest as it is written, grow and shrink it, and compare."""
    made = Judged(table["name"])
    guest, answer = answers_of(table)
    row = answer.rows[-1] if answer else None
    if row and (row.result == "ok") != table.get("reached", True):
        made.wrong.append(f"{table['to']}: {row.result}: {row.why}")
    words, made.how = words_of(table["text"], guest.definition)
    if answer is None or answer.way.missing:  # no step of a scenario could show it
        scenario = Scenario(name=table["name"], machine=guest.machine.machine)
    else:
        asked = answer if row.result == "ok" else _asked(guest, answer, parse_size(table["to"]))
        scenario = growth_scenario(guest, asked, as_written=True)
    observed, _ = run_in_guest(_as_added(guest, scenario), progress, written=words)
    model = ModelMachine.start(scenario.machine, pages=False)
    _check_state(made, "at boot", model.observe(), observed.steps[0].observation, MOST_OFF_KIB)
    made.boot_off_kib = made.off_kib
    for step, record in zip(scenario.steps, observed.steps[1:], strict=True):
        outcome = model.perform(step).outcome
        if bool(outcome) != bool(record.outcome):
            made.wrong.append(f"{record.name}: {outcome.text()}, observed {record.outcome.text()}")
        # Once booted, nothing is an estimate.
        _check_state(made, record.name, model.observe(), record.observation, 0)
    # From files, a virtio-mem device that was there at boot has no name.
    if all(device.driver == "dimm" for device in scenario.machine.devices):
        comparison = compare_with_trace(_as_added(guest, scenario), observed)
        made.wrong += [] if comparison.equal else ["the model differs from the kernel: see compare"]
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


def _check_state(made, when, predicted: Observation, seen: Observation, most_off_kib):
    """Compare MemTotal, zones and memory blocks; MemTotal by what is off already."""
    total = seen.meminfo["MemTotal"]
    off = predicted.meminfo["MemTotal"] - total
    if abs(off - made.off_kib) > most_off_kib:
        made.wrong.append(f"MemTotal {when}: off by {off} kB of {total}, {made.off_kib} before")
    made.off_kib = off
    if not _same_zones(_zones(predicted), _zones(seen)):
        made.wrong.append(f"zones {when}: {_zones(predicted)}, observed {_zones(seen)}")
    if _blocks(predicted) != _blocks(seen):
        made.wrong.append(f"memory blocks {when}: {_blocks(predicted)}, observed {_blocks(seen)}")


def _same_zones(predicted, seen):
    return predicted.keys() == seen.keys() and all(
        abs(pages - seen[zone]) <= FIRMWARE_NR_PAGES for zone, pages in predicted.items()
    )


def _zones(seen):
    """Return the present pages of each zone."""
    shown = {(zone.node, zone.name): zone.pages["present"] for zone in seen.zoneinfo}
    return {name: pages for name, pages in sorted(shown.items()) if pages}


def _blocks(seen):
    """Return the size of memory blocks, and runs of those that are online and offline."""
    runs = []
    for number, block in sorted(seen.memory.blocks.items()):
        if runs and runs[-1][1] == number and runs[-1][2] == block.state:
            runs[-1][1] = number + 1
        else:
            runs.append([number, number + 1, block.state])
    return seen.memory.block_size_bytes, runs
