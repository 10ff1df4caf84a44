"""The rules that a search tries to break. A rule is a function with a decorator.

A rule about a *state* gets the machine, and the machine at its start. A rule about a *step* gets
the change. Each returns why it is broken, or ``None``.

Effects: files, imports, terminal.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from altmap.errors import InputError, UserCodeError, one_of, raised_by
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnSet
from altmap.scenario import Plug, Step, Unplug
from altmap.trace import UNBACKED, StepRecord

__all__ = (
    "RULES",
    "Change",
    "Rule",
    "load_rules",
    "rules_named",
    "state_rule",
    "step_rule",
)


@dataclass(frozen=True, slots=True)
class Change:
    """The change that one step made.

    Attributes
    ----------
    before, after : ModelMachine
        Not to be changed.
    step : Step
    record : StepRecord
        Outcome, events and faults.
    cells : frozenset of str
        The attributes whose contents differ now: ``kernel.used``, ``zone 0 Normal.span``.
    """

    before: ModelMachine
    after: ModelMachine
    step: Step
    record: StepRecord
    cells: frozenset[str]


_OnState = Callable[[ModelMachine, ModelMachine], str | None]
_OnStep = Callable[[Change], str | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """A named predicate.

    Attributes
    ----------
    name : str
    text : str
        What must hold, in one sentence.
    on_state : callable or None
        ``(machine, start)``; returns why it is broken, or ``None``.
    on_step : callable or None
        ``(change)``; returns the same.
    """

    name: str
    text: str
    on_state: _OnState | None = None
    on_step: _OnStep | None = None


def state_rule(name: str, text: str) -> Callable[[_OnState], Rule]:
    """Make a rule about every state from a function ``(machine, start)``."""
    return lambda function: Rule(name, text, on_state=function)


def step_rule(name: str, text: str) -> Callable[[_OnStep], Rule]:
    """Make a rule about every step from a function ``(change)``."""
    return lambda function: Rule(name, text, on_step=function)


def rules_named(names: Sequence[str], more: Sequence[Rule] = ()) -> list[Rule]:
    """Return the rules with the given names, all rules without names.

    Parameters
    ----------
    names : sequence of str
    more : sequence of Rule
        Rules besides the built-in ones.

    Raises
    ------
    InputError
        If a name is unknown, or two rules have one name.
    """
    known = [rule.name for rule in (*RULES, *more)]
    for name in known:
        if known.count(name) > 1:
            raise InputError(f"rule {name!r}: two rules have this name")
    for name in names:
        if name not in known:
            raise InputError(f"rule {name!r}: {one_of(name, known)}")
    return [rule for rule in (*RULES, *more) if not names or rule.name in names]


def load_rules(path: Path) -> list[Rule]:
    """Run a Python file and return the rules that it makes.

    Raises
    ------
    InputError
        If it cannot be run, or makes no rule; the message names the file and the error.
    """
    spec = importlib.util.spec_from_file_location(f"altmap_rules_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"rules {path}: need a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses in the file need it
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"rules {path}: {raised_by(error)}") from error
    made = [_guarded(item) for item in vars(module).values() if isinstance(item, Rule)]
    if not made:
        raise InputError(f"rules {path}: makes no rule; decorate with state_rule or step_rule")
    return made


def _guarded(rule: Rule) -> Rule:
    """Return a user's rule, whose mistakes are errors that name its file and line."""

    def guard(function: Callable[..., str | None]) -> Callable[..., str | None]:
        def guarded(*arguments: Any) -> str | None:
            try:
                return function(*arguments)
            except Exception as error:
                raise UserCodeError(f"rule {rule.name}: {raised_by(error)}") from error

        return guarded

    on_state, on_step = rule.on_state, rule.on_step
    return replace(
        rule,
        on_state=None if on_state is None else guard(on_state),
        on_step=None if on_step is None else guard(on_step),
    )


# --- no crash, no wrong state --------------------------------------------------------------


@step_rule("backed", "no step touches a page frame that the platform does not back")
def _backed(change: Change) -> str | None:
    for fault in change.record.faults:
        if fault.what == UNBACKED:
            return f"{fault.function} {fault.access}s unbacked pfn {fault.pfn:#x}: {fault.kind}"
    return None


@step_rule("alive", "no step crashes the kernel for another reason")
def _alive(change: Change) -> str | None:
    for fault in change.record.faults:
        if fault.what != UNBACKED:
            return f"{fault.kind} in {fault.function}: {fault.what}, from pfn {fault.pfn:#x}"
    return None


@step_rule("sound", "no step leaves a page frame in a wrong state")
def _sound(change: Change) -> str | None:
    for event in change.record.events:
        if event.kind == "bug":
            return f"{event.function}: {event.text}"
    return None


@state_rule("withdrawn", "an HWPoison page is never used again")
def _withdrawn(machine: ModelMachine, start: ModelMachine) -> str | None:
    unmarked = machine.kernel.nr_unmarked_poison - start.kernel.nr_unmarked_poison
    return f"{unmarked} HWPoison pages lost their mark and are in use again" if unmarked else None


# --- the memmap ----------------------------------------------------------------------------


@state_rule("memmap-kept", "the frames of a memmap are not used for anything else")
def _memmap_kept(machine: ModelMachine, _start: ModelMachine) -> str | None:
    kernel = machine.kernel
    for addition in kernel.additions:
        memmap = addition.memmap
        if memmap.self_hosted:
            lost = PfnSet.of(memmap.hosted()) - kernel.self_hosted
        elif memmap.host is not None:
            lost = addition.host_pages - kernel.self_hosted
        else:
            lost = addition.host_pages - kernel.used
        if lost:
            return f"{len(lost)} frames of the memmap of {addition.pfns} are not reserved for it"
    return None


@state_rule("memmap-online", "the memmap of an online block is not in an offline block")
def _memmap_online(machine: ModelMachine, _start: ModelMachine) -> str | None:
    kernel = machine.kernel
    for addition in kernel.additions:
        if not addition.memmap.self_hosted:
            continue
        for block in kernel.block_ids(addition.pfns):
            if block not in kernel.online_blocks:
                continue
            for frames in addition.memmap.frames_of(kernel.block_pfns(block)).ranges():
                for host in kernel.block_ids(frames):
                    if host not in kernel.online_blocks:
                        return (
                            f"memory{block} is online, its memmap is in memory{host}, "
                            "which is offline"
                        )
    return None


# --- accounting invariants -----------------------------------------------------------------


@state_rule(
    "books",
    "accounting invariants: present pages are the frames of online blocks, managed pages those "
    "freed to the buddy allocator",
)
def _accounting(machine: ModelMachine, _start: ModelMachine) -> str | None:
    kernel = machine.kernel
    for zone in kernel.zones.values():
        nr_online, nr_present = len(zone.present), kernel.nr_present(zone)
        if nr_present != nr_online:
            return f"zone {zone.name}: {nr_online} pages are online, present is {nr_present}"
        freed = len(kernel.managed(zone)) + zone.managed_offset
        if kernel.nr_managed(zone) != freed:
            return (
                f"zone {zone.name}: {freed} pages were freed to the buddy allocator, "
                f"managed is {kernel.nr_managed(zone)}"
            )
        if kernel.nr_free(zone) < 0:
            return f"zone {zone.name}: {kernel.nr_free(zone)} free pages"
    return None


@state_rule("counter", "nr_memmap_pages counts the pages of all memmaps")
def _counter(machine: ModelMachine, start: ModelMachine) -> str | None:
    drift = machine.kernel.memmap_drift_nr_pages - start.kernel.memmap_drift_nr_pages
    return f"nr_memmap_pages is wrong by {drift} pages" if drift else None


@state_rule("paid", "MemTotal never exceeds what the platform backs")
def _paid(machine: ModelMachine, _start: ModelMachine) -> str | None:
    total, backed = machine.kernel.total_ram_nr_pages(), len(machine.backing.backed)
    return f"MemTotal is {total} pages, the platform backs {backed}" if total > backed else None


# --- add and remove ------------------------------------------------------------------------


@step_rule("added", "memory that is plugged in whole memory blocks is added")
def _added(change: Change) -> str | None:
    step, kernel, outcome = change.step, change.before.kernel, change.record.outcome
    if not isinstance(step, Plug) or outcome or change.record.faults:
        return None
    if kernel.failures.block_devices or kernel.failures.allocation:
        return None  # an injected failure
    size = kernel.block_nr_pages * kernel.arch.page_size_bytes
    if step.size % size or (step.address or 0) % size:
        return None
    return f"{outcome.function} refuses with {outcome.errno}: {outcome.why}"


@step_rule("removable", "a device without online memory can be removed")
def _removable(change: Change) -> str | None:
    step, kernel, outcome = change.step, change.before.kernel, change.record.outcome
    if not isinstance(step, Unplug) or outcome or change.record.faults:
        return None
    if kernel.notifier.going_offline or not kernel.tunables.acpi_memory_hotplug:
        return None  # a refusal that the exploration injects
    device = change.before.devices.get(step.id)
    if any(kernel.nr_online(pfns) for pfns in device.ranges if pfns):
        return None
    return f"{outcome.function} refuses with {outcome.errno}: {outcome.why}"


@step_rule("unchanged", "a refused step leaves the kernel unchanged")
def _unchanged(change: Change) -> str | None:
    if change.record.outcome or change.record.faults:
        return None
    changed = sorted(name for name in change.cells if _is_of_kernel(name))
    return f"refused, but {', '.join(changed)} changed" if changed else None


#: A step consumes injected failures; the callback of a probed driver stays.
_NOT_OF_KERNEL = (
    "kernel.failures.block_devices",
    "kernel.failures.allocation",
    "kernel.online_page_callback",
)


def _is_of_kernel(cell: str) -> bool:
    return cell.startswith(("kernel.", "zone ")) and cell not in _NOT_OF_KERNEL


@state_rule("returns", "when no added memory is left, MemTotal and MemFree are as at the start")
def _returns(machine: ModelMachine, start: ModelMachine) -> str | None:
    kernel, first = machine.kernel, start.kernel
    if machine.devices.by_id or kernel.files or kernel.kernel_allocations or kernel.huge_files:
        return None
    if kernel.additions or kernel.poisoned or kernel.added_blocks != first.added_blocks:
        return None
    if kernel.online_blocks != first.online_blocks or any(p.pages for p in kernel.pools()):
        return None
    for name, now, then in (
        ("MemTotal", kernel.total_ram_nr_pages(), first.total_ram_nr_pages()),
        ("MemFree", kernel.free_nr_pages(), first.free_nr_pages()),
    ):
        if now != then:
            return f"{name} is {now - then:+} pages"
    return None


#: Every built-in rule, in the order in which they are listed.
RULES: tuple[Rule, ...] = (
    _backed,
    _alive,
    _sound,
    _withdrawn,
    _memmap_kept,
    _memmap_online,
    _accounting,
    _counter,
    _paid,
    _added,
    _removable,
    _unchanged,
    _returns,
)
