"""Drivers against memmap policies: which pairs are safe, and what the simplest fault is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from msgspec.structs import replace

from altmap.model.arch import arch_named
from altmap.model.kernel.accounting import POLICIES, Policy, policy_named
from altmap.model.kernel.placements import PLACEMENTS
from altmap.model.machine import predict
from altmap.scenario import Scenario, parse_scenario, scenario_toml
from altmap.studies.claims.partial import PARTIAL, Partial, Steps
from altmap.trace import StepRecord, Trace

__all__ = (
    "SEEN",
    "Cell",
    "case_scenario",
    "lab_scenario",
    "matrix",
    "matrix_builtins",
    "matrix_page",
    "matrix_text",
    "scenario_files",
)

_RELEASE = "6.12"
#: What every machine of the matrix is, beside its release and what a driver needs.
_MACHINE = {
    "memory": "4GiB",
    "memmap_on_memory": "on",
    "auto_online_blocks": "online_movable",
}


#: Cells of x86_64 that a real kernel showed too, and the number of the driver's case: QEMU backs
#: whole 2 MiB. ``tests/studies/test_matrix.py`` runs each of them in the lab, as ``lab_scenario``
#: has it.
SEEN: dict[tuple[str, str], int] = {
    (driver, policy): case
    for driver, case, policies in (
        ("dimm", 0, ("opt-in", "rfc-2018", "existing", "per-block")),
        ("hyperv", 1, ("opt-in", "rfc-2018", "existing", "per-block")),
        ("probe", 0, ("opt-in", "rfc-2018", "existing", "per-block")),
        ("virtio-mem", 0, ("opt-in", "existing", "per-block")),
        ("xen", 0, ("opt-in", "existing", "per-block")),
    )
    for policy in policies
}
_SEEN_ARCH = "x86_64"
#: Columns before the verdicts: driver and architecture.
_LABELS = 11 + 12
_MARK = "†"
_STAYS = "it goes online, and the kernel vetoes to take it offline again (EPERM)"


@dataclass(frozen=True, slots=True)
class Cell:
    """One driver with one policy on one architecture.

    Attributes
    ----------
    driver, policy, arch : str
    case : str
        What was done: the simplest case that faults, or of a safe cell the first.
    verdict : str
        ``safe``, the step that ends in a fault (``add``, ``online`` or the step's verb),
        ``refused``: the memory does not arrive, or does not go online; or ``stays``: the kernel's
        own notifier lets it go offline never again.
    release : str
    fault : str
        The fault in one line, empty if it is safe.
    scenario : str
        The case as a scenario's TOML.
    """

    driver: str
    policy: str
    arch: str
    case: str
    verdict: str
    release: str
    fault: str
    scenario: str

    @property
    def name(self) -> str:
        """The name of its scenario's file."""
        return f"{self.driver}-{self.policy}-{self.arch}.toml"

    @property
    def is_seen(self) -> bool:
        """Whether a real kernel showed the same."""
        return (
            (self.arch, self.release) == (_SEEN_ARCH, _RELEASE)
            and self.verdict != "stays"
            and (self.driver, self.policy) in SEEN
        )


_BUILT_IN = tuple(POLICIES[name] for name in PLACEMENTS)


def matrix(
    drivers: Mapping[str, Partial] = PARTIAL,
    policies: Sequence[Policy] = (),
    release: str = _RELEASE,
) -> list[Cell]:
    """Return every cell: drivers, then policies, then architectures; each is run on the model.

    Without policies, those built in.
    """
    return [
        _cell(partial, policy, arch, release)
        for partial in drivers.values()
        for policy in policies or _BUILT_IN
        for arch in partial.arches
    ]


def _cell(partial: Partial, policy: Policy, arch_name: str, release: str) -> Cell:
    arch = arch_named(arch_name)
    found: list[Cell] = []
    for case, steps in partial.cases:
        made = Steps(steps(arch, _block_bytes(arch_name)))
        text = _toml(partial, policy, arch_name, case, made, release)
        verdict, fault = _judge(predict(_read(text), policy=policy, pages=False))
        if verdict == "safe" and made[0]["do"] == "plug":  # a balloon's memory is no device's
            again = [*made, {"do": "offline", "id": made[0]["id"]}]
            with_offline = _toml(partial, policy, arch_name, case, again, release)
            if _stays(predict(_read(with_offline), policy=policy, pages=False)):
                verdict, text = "stays", with_offline
        cell = Cell(partial.driver, policy.name, arch_name, case, verdict, release, fault, text)
        if fault:
            return cell
        found.append(cell)
    return found[0]


def _stays(trace: Trace) -> bool:
    """Tell whether the kernel's notifier vetoed to offline, whatever the pages are used for."""
    return trace.steps[-1].outcome.errno == "EPERM"


def case_scenario(driver: str, policy: str, arch: str, case: int) -> Scenario:
    """Return the scenario of one of a driver's cases, counted from 0."""
    partial = PARTIAL[driver]
    name, steps = partial.cases[case]
    made = steps(arch_named(arch), _block_bytes(arch))
    return _read(_toml(partial, policy_named(policy), arch, name, Steps(made), _RELEASE))


def lab_scenario(driver: str, policy: str) -> Scenario:
    """Return the scenario of a marked cell for a real kernel of x86_64.

    Its blocks have 128 MiB, and a memmap in existing memory is what ``memmap_on_memory=off`` gives.
    """
    scenario = case_scenario(driver, policy, _SEEN_ARCH, SEEN[driver, policy])
    machine = replace(scenario.machine, block_size=None)
    if policy == "existing":
        machine = replace(machine, memmap_on_memory="off")
    return replace(scenario, machine=machine)


def _block_bytes(arch_name: str) -> int:
    """Return the block size of the matrix's machines, which is the architecture's smallest."""
    arch = arch_named(arch_name)
    return arch.board.lmb_size_bytes or arch.section_size_bytes


def _read(text: str) -> Scenario:
    return parse_scenario(text, "matrix")


def _judge(trace: Trace) -> tuple[str, str]:
    for step in trace.steps:
        if step.faults:
            return _moment(step), _fault(step)
    vetoed = any(event.kind == "veto" for step in trace.steps for event in step.events)
    refused = vetoed or not all(step.outcome for step in trace.steps)
    return ("refused" if refused else "safe"), ""


def _moment(step: StepRecord) -> str:
    """Return when the fault came: before the blocks were there, or later."""
    added = any(event.kind == "added" for event in step.events)
    verb = str(step.action["do"])
    return ("online" if added else "add") if verb == "plug" else verb


def _fault(step: StepRecord) -> str:
    fault = step.faults[0]
    return (
        f"{fault.access} of pfn {fault.pfn:#x} by {fault.function}, "
        f"{len(fault.pfns)} frames not backed"
    )


# --- scenarios -------------------------------------------------------------------------------


def scenario_files(cells: Sequence[Cell]) -> dict[str, str]:
    """Return the scenario of every cell: file name to TOML."""
    return {cell.name: cell.scenario for cell in cells}


def _toml(
    partial: Partial, policy: Policy, arch: str, case: str, steps: Steps, release: str
) -> str:
    # A scenario cannot name a user's policy: the command line does.
    is_built_in = PLACEMENTS.get(policy.placement.name) is policy.placement
    named = {"policy": policy.name} if is_built_in else {}
    machine = {"arch": arch, **named, "release": release, **_MACHINE, **(partial.machine or {})}
    title = f"{partial.driver}, {policy.name}, {arch}: {case}"
    return scenario_toml({"description": title, "machine": machine, "steps": steps})


# --- as text ---------------------------------------------------------------------------------


def matrix_text(
    cells: Sequence[Cell], folder: str = "DIR", options: str = "", width: int = 100
) -> str:
    """Return tables of verdicts within a width, and each fault below; *options* run a cell."""
    policies = list(dict.fromkeys(cell.policy for cell in cells))
    column = max(max(len(_shown(cell)) for cell in cells), *map(len, policies)) + 1
    at_once = max(1, (width + 1 - _LABELS) // column)
    rows = []
    for first in range(0, len(policies), at_once):
        part = policies[first : first + at_once]
        rows += [""] * bool(first) + [_columns("", "", part, column)]
        for driver, arch in dict.fromkeys((cell.driver, cell.arch) for cell in cells):
            verdicts = {
                cell.policy: _shown(cell)
                for cell in cells
                if (cell.driver, cell.arch) == (driver, arch)
            }
            rows.append(_columns(driver, arch, [verdicts[name] for name in part], column))
    faults = [
        f"{cell.driver}, {cell.policy}, {cell.arch}: {cell.case}\n  {cell.fault}"
        for cell in cells
        if cell.fault
    ]
    meaning = "fault:STEP  the kernel crashes in that step"
    below = [meaning, "", "Simplest faults:", *faults] if faults else ["No cell ends in a fault."]
    if any(cell.verdict == "stays" for cell in cells):
        below.insert(0, f"stays  {_STAYS}")
    shown = "\n".join([*rows, "", *below])
    return f"{shown}\n\naltmap run {folder}/DRIVER-POLICY-ARCH.toml{options} runs a cell.\n"


def _shown(cell: Cell) -> str:
    """Return the verdict: of a fault, that it is one, and at which step."""
    return f"fault:{cell.verdict}" if cell.fault else cell.verdict


def _columns(driver: str, arch: str, cells: Sequence[str], width: int) -> str:
    return f"{driver:11}{arch:12}{''.join(f'{cell:{width}}' for cell in cells)}".rstrip()


def matrix_builtins(cells: Sequence[Cell]) -> dict[str, Any]:
    """Return the cells as JSON's types."""
    made = [
        {
            "driver": cell.driver,
            "policy": cell.policy,
            "arch": cell.arch,
            "verdict": cell.verdict,
            "case": cell.case,
            "fault": cell.fault,
            "seen": cell.is_seen,
            "scenario": cell.name,
        }
        for cell in cells
    ]
    return {"schema": "altmap-matrix", "version": 1, "cells": made}


_HEAD = """\
# Drivers against policies

Each driver brings memory that is backed only in part, as far as it can; each policy places the
memmap. *safe* means that none of the driver's cases ends in a fault. **✖ add** and **✖ online**
mean that the kernel crashes, and in which step of the simplest case; *refused* means that the
memory does not arrive or does not go online; *stays*, that the kernel vetoes to take it offline
again (EPERM).
`altmap claims --matrix` runs every cell anew; this page is what it finds, written by `python
docs/generate.py`. `--write DIR` gives the scenario behind every cell; `--release 7.3` is another
kernel.

The machines run 6.12 with memmap_on_memory on and blocks as small as the architecture has them. A
row is a driver's record in `src/altmap/studies/claims/partial.py`.

A dagger (†) marks a cell that a real kernel showed too: one of the driver's cases with that verdict
was compared with it and is equal, with blocks of 128 MiB; touched frames too, but under Xen. For
`rfc-2018` it is the kernel with the design of 2018, for `existing` a stock kernel with
memmap_on_memory off, for `per-block` one on which a module sets the flag at every add
([lab.md](lab.md)).
"""


def _page_verdict(cell: Cell) -> str:
    """Return a verdict; one that is a fault is marked, so that it cannot be read as safe."""
    shown = f"**✖ {cell.verdict}**" if cell.fault else cell.verdict
    return f"{shown} {_MARK}" if cell.is_seen else shown


def matrix_page(cells: Sequence[Cell], others: Sequence[Cell] = ()) -> str:
    """Return the text of ``docs/matrix.md``: cells, and which of another release's differ."""
    policies = list(dict.fromkeys(cell.policy for cell in cells))
    lines = [_HEAD, f"| driver | architecture | {' | '.join(policies)} |"]
    lines.append("|---" * (2 + len(policies)) + "|")
    for driver, arch in dict.fromkeys((cell.driver, cell.arch) for cell in cells):
        row = [cell for cell in cells if (cell.driver, cell.arch) == (driver, arch)]
        verdicts = [_page_verdict(cell) for cell in row]
        lines.append(f"| {driver} | {arch} | {' | '.join(verdicts)} |")
    lines += [
        "",
        "## The simplest faults",
        "",
        "| cell | what was backed | fault |",
        "|---|---|---|",
    ]
    lines += [
        f"| {cell.driver}, {cell.policy}, {cell.arch} | {cell.case} | {cell.fault} |"
        for cell in cells
        if cell.fault
    ]
    known = {(cell.driver, cell.policy, cell.arch): cell for cell in cells}
    changed = [
        f"| {new.driver} | {new.arch} | {new.policy} | {old.verdict} | {_page_verdict(new)} |"
        for new in others
        if new.verdict != (old := known[new.driver, new.policy, new.arch]).verdict
    ]
    if changed:
        release = others[0].release
        lines += [
            "",
            f"## What differs on {release}",
            "",
            f"| driver | architecture | policy | {cells[0].release} | {release} |",
            "|---|---|---|---|---|",
            *changed,
            "",
            "[Bugs](bugs.md#b21) has the veto of arm64, which real kernels showed.",
        ]
    return re.sub(r"[ \t]+\n", "\n", "\n".join(lines)) + "\n"
