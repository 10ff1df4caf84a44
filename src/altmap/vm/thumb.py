"""Published rules of thumb for growing guests, judged on the model for given parameters.

A rule says how far a guest may grow, by its boot memory or by its free memory. It is tried with
guests of many sizes; the smallest guest that the rule lets grow and the kernel does not is its
counterexample.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from altmap.units import format_size
from altmap.vm.answers import BootedGuest, started
from altmap.vm.definition import Definition
from altmap.vm.reach import GrowingGuest
from altmap.vm.ways import GrowthWay, growth_way

__all__ = ("THUMB_RULES", "RuleVerdict", "ThumbRule", "Trial", "judge")

_MIB, _GIB = 1 << 20, 1 << 30
_ROOM_BYTES = 8 << 40
#: Boot memory of the guests that are tried.
_BOOTS = tuple(128 * _MIB << doubling for doubling in range(8))
#: Memory blocks that a trial adds one by one at most.
_MOST_BY_BLOCK = 192
#: Far more than the rules let a guest grow to.
_MOST_FACTOR = 128


@dataclass(frozen=True, slots=True)
class ThumbRule:
    """A rule of thumb.

    Attributes
    ----------
    name : str
        Such as ``16x`` or ``1:64``.
    text : str
    factor : int
        Of boot memory to the size that is reached, or of free memory to what is added.
    of : str
        ``boot`` or ``free``.
    """

    name: str
    text: str
    factor: int
    of: str


THUMB_RULES = (
    ThumbRule("4x", "a guest can grow to 4 times its boot memory", 4, "boot"),
    ThumbRule("16x", "a guest can grow to 16 times its boot memory", 16, "boot"),
    ThumbRule("48x", "a guest can grow to 48 times its boot memory", 48, "boot"),
    ThumbRule("1:32", "32 times the free memory can be added at once", 32, "free"),
    ThumbRule("1:64", "64 times the free memory can be added at once", 64, "free"),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One guest that was tried.

    Attributes
    ----------
    boot_bytes, free_bytes : int
        Boot memory, and MemFree at boot.
    allowed_bytes : int
        The size that the rule allows.
    reached_bytes : int
        The largest size up to it that the kernel reaches.
    possible_bytes : int
        The largest single step and the boot memory, whatever the rule says; 0 if not measured.
    why : str
        Of the kernel's refusal.
    """

    boot_bytes: int
    free_bytes: int
    allowed_bytes: int
    reached_bytes: int
    possible_bytes: int
    why: str = ""

    @property
    def holds(self) -> bool:
        """Whether the kernel reaches what the rule allows."""
        return self.reached_bytes >= self.allowed_bytes


@dataclass(frozen=True, slots=True)
class RuleVerdict:
    """A rule with its trials, rising by boot memory."""

    rule: ThumbRule
    trials: tuple[Trial, ...]

    @property
    def counterexample(self) -> Trial | None:
        """The smallest guest for which the rule is wrong."""
        return next((each for each in self.trials if not each.holds), None)

    @property
    def holds_from_bytes(self) -> int | None:
        """The boot memory from which on the rule holds, ``None`` if it does not for the largest."""
        found = None
        for trial in reversed(self.trials):
            if not trial.holds:
                break
            found = trial.boot_bytes
        return found

    def text(self) -> str:
        """Return the verdict in one sentence."""
        wrong = self.counterexample
        if not self.trials:
            return "not tried: the guest's kernel does not take such memory"
        if wrong is None:
            spare = min(
                (each.possible_bytes / each.allowed_bytes for each in self.trials), default=0
            )
            more = f"; {spare:.1f} times as much is possible" if spare > 1.5 else ""
            return f"holds for {self._range()}{more}"
        again = self.holds_from_bytes
        later = (
            f"; holds from {format_size(again)} of boot memory on"
            if again is not None
            else "; does not hold for the largest either"
        )
        return (
            f"wrong: {format_size(wrong.boot_bytes)} of boot memory with "
            f"{wrong.free_bytes / _MIB:,.0f} MiB free: {format_size(wrong.allowed_bytes)} allowed, "
            f"{format_size(wrong.reached_bytes)} reached: {wrong.why}{later}"
        )

    def _range(self) -> str:
        first, last = self.trials[0].boot_bytes, self.trials[-1].boot_bytes
        return f"{format_size(first)} to {format_size(last)} of boot memory"


def judge(
    definition: Definition,
    driver: str,
    *,
    release: str | None = None,
    cmdline: str | None = None,
    config: str | None = None,
    rules: Sequence[ThumbRule] = THUMB_RULES,
) -> list[RuleVerdict]:
    """Return every rule with its verdict for one driver, kernel and machine.

    Parameters
    ----------
    definition : Definition
        Its architecture and machine count, not its sizes.
    driver : str
        One of :data:`altmap.vm.ways.WAY_NAMES`, but for the balloon.
    release, cmdline, config : str, optional
        As for :func:`altmap.vm.kernel.guest_kernel`.
    rules : sequence of ThumbRule
    """
    found: dict[str, list[Trial]] = {rule.name: [] for rule in rules}
    for boot_bytes in _BOOTS:
        bare = replace(
            definition,
            memory_bytes=boot_bytes,
            nodes=(),
            devices=(),
            # A guest that grows boots with room for devices, and has bounce buffers for it.
            max_memory_bytes=_ROOM_BYTES,
            growth=("hyperv",) if driver == "hyperv" else (),
            growth_bytes=None,
        )
        guest = started(bare, release=release, cmdline=cmdline, config=config)
        if driver in guest.kernel.missing:
            break
        possible = _possible_bytes(guest, driver)
        for rule in rules:
            trial = _trial(guest, driver, rule, possible)
            if trial is not None:
                found[rule.name].append(trial)
    return [RuleVerdict(rule, tuple(found[rule.name])) for rule in rules]


def _way(guest: BootedGuest, driver: str, most_bytes: int) -> GrowthWay:
    given = guest.definition, guest.kernel, guest.machine, guest.block_bytes
    way = growth_way(driver, *given, most_bytes)
    most = way.start_bytes + (most_bytes - way.start_bytes) // way.unit_bytes * way.unit_bytes
    return replace(way, limit_bytes=min(way.limit_bytes, most))


def _possible_bytes(guest: BootedGuest, driver: str) -> int:
    """Return the size after the largest single step, 0 where memory is added block by block."""
    boot = guest.machine.start_bytes
    growing = GrowingGuest(guest.booted, _way(guest, driver, _MOST_FACTOR * boot))
    return 0 if growing.by_block else boot + growing.largest_add((_MOST_FACTOR - 1) * boot)


def _trial(guest: BootedGuest, driver: str, rule: ThumbRule, possible: int) -> Trial | None:
    """Let a guest grow as far as a rule allows, ``None`` if that is too many blocks."""
    boot = guest.machine.start_bytes
    free = guest.booted.kernel.free_nr_pages() * guest.machine.arch.page_size_bytes
    wanted = rule.factor * free if rule.of == "free" else (rule.factor - 1) * boot
    way = _way(guest, driver, boot + wanted)
    added = way.limit_bytes - boot
    growing = GrowingGuest(guest.booted, way)
    if not added or (growing.by_block and added // guest.block_bytes > _MOST_BY_BLOCK):
        return None
    if rule.of == "free" and not growing.by_block:
        reached = boot + growing.largest_add(added)
        outcome = growing.try_add(added)
    else:
        outcome = growing.grow(boot + added)
        reached = growing.size_bytes
    return Trial(boot, free, boot + added, reached, possible, outcome.why)
