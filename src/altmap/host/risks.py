"""What a plan loses or risks besides refusals: gigantic pages, ratios, other controllers."""

from __future__ import annotations

from collections.abc import Iterator

from altmap.host.onliners import Onliner
from altmap.host.plan import Certainty, Risk
from altmap.linux.observation import Observation
from altmap.model.machine import ModelMachine
from altmap.scenario import Step
from altmap.units import format_size

__all__ = ("kdump_risks", "onliner_risks", "oom_risk", "ratio_risks", "removal_risks")

_DEFAULT_RATIO = 301
_MOST_CGROUPS = 3


def onliner_risks(onliners: list[Onliner], word: str) -> Iterator[Risk]:
    """Yield what others do to blocks that a plan adds and onlines by *word*.

    The kernel's own word is part of the prediction; a later writer finds the block online,
    or, if the kernel leaves it offline, may be the first.
    """
    kernel = [each for each in onliners if each.name.endswith("auto_online_blocks")]
    for other in onliners:
        if other in kernel:
            continue
        if kernel:
            yield Risk(
                "unknown",
                f"{other.name} also writes {other.word!r} to new blocks, after the kernel has "
                f"onlined them by {kernel[0].word!r}",
                "leave it to one of them",
            )
        elif other.word in (word, "online"):
            yield Risk(
                "likely",
                f"{other.name} writes {other.word!r} to new blocks, perhaps before this plan does",
                "mask the rule while the plan runs, or leave onlining to it",
            )
        else:
            yield Risk(
                "likely",
                f"{other.name} writes {other.word!r} to new blocks, and the plan wants {word!r}: "
                "the first to write decides the zone",
                "mask the rule while the plan runs",
            )


def oom_risk(missing_bytes: int, cgroups: list[str]) -> Risk:
    """Return what may be killed while offlining waits for room.

    Migration itself never calls the OOM killer (``__GFP_RETRY_MAYFAIL``), but leaves other
    allocations nothing; theirs do. It ends the process with most memory and swap that
    ``oom_score_adj`` does not spare (``mm/oom_kill.c: oom_badness``).
    """
    named = ", ".join(cgroups[:_MOST_CGROUPS])
    among = f"; the block's pages are charged to {named}" if named else ""
    return Risk(
        "likely",
        f"{format_size(missing_bytes)} find no room: meanwhile free memory is down at the "
        "watermarks, and the OOM killer may end processes, first those with most memory and "
        f"swap{among}",
        "free memory or add swap before; interrupt the write (altmap apply --limit does)",
    )


def removal_risks(
    machine: ModelMachine, name: str, step: Step, certainty: Certainty
) -> Iterator[Risk]:
    """Yield that a device whose blocks do not go offline must not be asked back by the platform.

    The machine is used up: the step is performed on it. *certainty* is that of the refusal.
    """
    outcome = machine.perform(step).outcome
    if not outcome.ends:
        yield Risk(
            certainty,
            f"asked back by the platform now, the removal of {name} does not end, and cannot be "
            f"interrupted: {outcome.why}; writes to state, plug and unplug then wait until "
            "memory is free or the machine restarts",
            "take its blocks offline first: that can be interrupted",
        )


def ratio_risks(seen: Observation, movable_bytes: int, kernel_bytes: int) -> Iterator[Risk]:
    """Yield a risk if kernel zones become small beside ZONE_MOVABLE."""
    text = seen.parameters.get("auto_movable_ratio", "")
    limit = int(text) if text.isascii() and text.isdecimal() and len(text) < 11 else _DEFAULT_RATIO
    ratio = movable_bytes * 100 // max(1, kernel_bytes)
    if ratio > limit:
        yield Risk(
            "likely",
            f"MOVABLE:KERNEL becomes {ratio / 100:.1f}:1 ({format_size(movable_bytes)} to "
            f"{format_size(kernel_bytes)}), above {limit / 100:.1f}:1: the kernel can run out of "
            "memory while movable memory is free",
            "online part of it with online_kernel",
        )


def kdump_risks(seen: Observation, crash_hotplug: str | None, nr_blocks: int) -> Iterator[Risk]:
    """Yield what the uevents of many blocks do to kdump and to udev."""
    reserved = "crashkernel=" in (seen.cmdline or "")
    if reserved and (crash_hotplug or "").strip() != "1" and nr_blocks:
        yield Risk(
            "likely",
            f"memory is reserved for kdump and crash_hotplug is not 1: each of {nr_blocks} events "
            "reloads the crash kernel",
            "stop the kdump service until the plan is done",
        )
    if nr_blocks >= 10_000:
        yield Risk(
            "likely",
            f"{nr_blocks} memory uevents keep udev busy for minutes",
            "add it in steps, with pauses between them",
        )
