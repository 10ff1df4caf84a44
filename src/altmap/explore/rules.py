"""The rules that a search tries to break. A rule of your own is a function with a decorator.

A rule about a *state* is given the machine, and the machine as it started. A rule about a *step* is
given what changed. Each returns why it is broken, or ``None``.

Effects: files, imports, terminal.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from altmap.errors import InputError
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
    """What one step did.

    Attributes
    ----------
    before, after : ModelMachine
        Not to be changed.
    step : Step
    record : StepRecord
        Outcome, events and faults.
    cells : frozenset of str
        The attributes that hold something else now: ``kernel.used``, ``zone 0 Normal.span``.
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
        ``(machine, start)`` to why it is broken, or ``None``.
    on_step : callable or None
        ``(change)`` to the same.
    """

    name: str
    text: str
    on_state: _OnState | None = None
    on_step: _OnStep | None = None


def state_rule(name: str, text: str) -> Callable[[_OnState], Rule]:
    """Make a rule about every state of a function ``(machine, start)``."""
    return lambda function: Rule(name, text, on_state=function)


def step_rule(name: str, text: str) -> Callable[[_OnStep], Rule]:
    """Make a rule about every step of a function ``(change)``."""
    return lambda function: Rule(name, text, on_step=function)


def rules_named(names: Sequence[str], more: Sequence[Rule] = ()) -> list[Rule]:
    """Return the rules of those names, all of them if none is named.

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
            raise InputError(f"rule {name!r}: there are two of that name")
    for name in names:
        if name not in known:
            raise InputError(f"rule {name!r}: need one of {', '.join(known)}")
    return [rule for rule in (*RULES, *more) if not names or rule.name in names]


def load_rules(path: Path) -> list[Rule]:
    """Run a Python file and return the rules that it makes.

    Raises
    ------
    InputError
        If it cannot be run, or makes none; the message names the file and the error.
    """
    spec = importlib.util.spec_from_file_location(f"altmap_rules_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise InputError(f"rules {path}: need a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses of its own look there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(f"rules {path}: {type(error).__name__}: {error}") from error
    made = [item for item in vars(module).values() if isinstance(item, Rule)]
    if not made:
        raise InputError(f"rules {path}: makes no rule; decorate with state_rule or step_rule")
    return made


# --- the kernel stays alive and right ------------------------------------------------------


@step_rule("backed", "no step touches a page frame that the platform does not back")
def _backed(change: Change) -> str | None:
    for fault in change.record.faults:
        if fault.what == UNBACKED:
            return f"{fault.function} {fault.access}s unbacked pfn {fault.pfn:#x}: {fault.kind}"
    return None


@step_rule("alive", "no step ends the kernel in another way")
def _alive(change: Change) -> str | None:
    for fault in change.record.faults:
        if fault.what != UNBACKED:
            return f"{fault.kind} in {fault.function}: {fault.what}, from pfn {fault.pfn:#x}"
    return None


@step_rule("sound", "no step leaves a page frame as something that it is not")
def _sound(change: Change) -> str | None:
    for event in change.record.events:
        if event.kind == "bug":
            return f"{event.function}: {event.text}"
    return None


@state_rule("withdrawn", "a page that was withdrawn for its errors never comes back")
def _withdrawn(machine: ModelMachine, start: ModelMachine) -> str | None:
    forgotten = machine.kernel.nr_unmarked_poison - start.kernel.nr_unmarked_poison
    return f"{forgotten} withdrawn pages are forgotten and in use again" if forgotten else None


# --- the memmap ----------------------------------------------------------------------------


@state_rule("memmap-kept", "the memmap of memory that exists lies in frames that are its own")
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
            return f"{len(lost)} frames of the memmap of {addition.pfns} belong to somebody else"
    return None


@state_rule("memmap-online", "the memmap of an online block does not lie in an offline block")
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
                            f"memory{block} is online, its memmap lies in memory{host}, "
                            "which is offline"
                        )
    return None


# --- the books -----------------------------------------------------------------------------


@state_rule("books", "present pages are the frames of online blocks, managed ones the buddy's")
def _books(machine: ModelMachine, _start: ModelMachine) -> str | None:
    kernel = machine.kernel
    for zone in kernel.zones.values():
        there, shown = len(zone.present), kernel.nr_present(zone)
        if shown != there:
            return f"zone {zone.name}: {there} pages are online, present says {shown}"
        given = len(kernel.managed(zone)) + zone.managed_offset
        if kernel.nr_managed(zone) != given:
            return (
                f"zone {zone.name}: the buddy was given {given} pages, "
                f"managed says {kernel.nr_managed(zone)}"
            )
        if kernel.nr_free(zone) < 0:
            return f"zone {zone.name}: {kernel.nr_free(zone)} free pages"
    return None


@state_rule("counter", "nr_memmap_pages is the memmap that exists")
def _counter(machine: ModelMachine, start: ModelMachine) -> str | None:
    drift = machine.kernel.memmap_drift_nr_pages - start.kernel.memmap_drift_nr_pages
    return f"nr_memmap_pages is wrong by {drift} pages" if drift else None


@state_rule("paid", "MemTotal never exceeds what the platform backs")
def _paid(machine: ModelMachine, _start: ModelMachine) -> str | None:
    total, backed = machine.kernel.total_ram_nr_pages(), len(machine.backing.backed)
    return f"MemTotal is {total} pages, the platform backs {backed}" if total > backed else None


# --- what can be done, and undone ----------------------------------------------------------


@step_rule("added", "what arrives in whole memory blocks is added")
def _added(change: Change) -> str | None:
    step, kernel, outcome = change.step, change.before.kernel, change.record.outcome
    if not isinstance(step, Plug) or outcome or change.record.faults:
        return None
    if kernel.failures.block_devices or kernel.failures.allocation:
        return None  # a failure that was asked for
    size = kernel.block_nr_pages * kernel.arch.page_size_bytes
    if step.size % size or (step.address or 0) % size:
        return None
    return f"{outcome.function} refuses with {outcome.errno}: {outcome.why}"


@step_rule("removable", "a device of which nothing is online can be taken away")
def _removable(change: Change) -> str | None:
    step, kernel, outcome = change.step, change.before.kernel, change.record.outcome
    if not isinstance(step, Unplug) or outcome or change.record.faults:
        return None
    if kernel.notifier.going_offline or not kernel.tunables.acpi_memory_hotplug:
        return None  # a refusal that was asked for
    device = change.before.devices.get(step.id)
    if any(kernel.nr_online(pfns) for pfns in device.ranges if pfns):
        return None
    return f"{outcome.function} refuses with {outcome.errno}: {outcome.why}"


@step_rule("unchanged", "a step that is refused leaves the kernel as it was")
def _unchanged(change: Change) -> str | None:
    if change.record.outcome or change.record.faults:
        return None
    changed = sorted(name for name in change.cells if _is_kernels(name))
    return f"refused, and yet {', '.join(changed)} changed" if changed else None


#: Injected failures are used up by a step; the callback of a driver that was probed stays.
_NOT_KERNELS = (
    "kernel.failures.block_devices",
    "kernel.failures.allocation",
    "kernel.online_page_callback",
)


def _is_kernels(cell: str) -> bool:
    return cell.startswith(("kernel.", "zone ")) and cell not in _NOT_KERNELS


@state_rule("returns", "once all that was added is gone, memory is what it was")
def _returns(machine: ModelMachine, start: ModelMachine) -> str | None:
    kernel, first = machine.kernel, start.kernel
    if machine.devices.by_id or kernel.files or kernel.kernel_allocations or kernel.huge_files:
        return None
    if kernel.additions or kernel.poisoned or kernel.added_blocks != first.added_blocks:
        return None
    if kernel.online_blocks != first.online_blocks or any(p.pages for p in kernel.pools()):
        return None
    for word, now, then in (
        ("MemTotal", kernel.total_ram_nr_pages(), first.total_ram_nr_pages()),
        ("MemFree", kernel.free_nr_pages(), first.free_nr_pages()),
    ):
        if now != then:
            return f"{word} is {now - then:+} pages"
    return None


#: Every built-in rule, in the order in which they are told.
RULES: tuple[Rule, ...] = (
    _backed,
    _alive,
    _sound,
    _withdrawn,
    _memmap_kept,
    _memmap_online,
    _books,
    _counter,
    _paid,
    _added,
    _removable,
    _unchanged,
    _returns,
)
