"""Plans are made by performing each step on the model, which starts from the machine's files.

Plans that add memory are in :mod:`altmap.host.planner_add`, those that choose blocks in
:mod:`altmap.host.planner_any`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, cast

from altmap.errors import InputError, one_of
from altmap.host.blockers import Blocker, Blocks
from altmap.host.explain import CERTAINTIES, worst
from altmap.host.mechanisms import WAYS, way_of_device
from altmap.host.plan import (
    Assumptions,
    BlockRange,
    Certainty,
    PassedOver,
    Plan,
    PlanStep,
    Prediction,
    Risk,
    Work,
)
from altmap.host.platforms import DefinedPlatform
from altmap.host.risks import (
    kdump_risks,
    oom_risk,
    ratio_risks,
    removal_risks,
)
from altmap.linux.node import no_such_block
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.adopt.rules import given_of
from altmap.model.machine import ModelMachine
from altmap.scenario import (
    AutoOnline,
    Machine,
    Offline,
    Online,
    OnlineType,
    Plug,
    Resize,
    SetTunables,
    Size,
    Step,
    Unplug,
)
from altmap.trace import Outcome, StepRecord
from altmap.units import format_size

__all__ = (
    "AS_SHOWN",
    "Planner",
    "assumptions_of",
    "plan_free",
    "plan_remove",
    "plan_resize",
)

#: A machine of which nothing is said but what its files show.
AS_SHOWN = Machine()
_MEMORY = "sys/devices/system/memory"
_MOVABLE = "Movable"
_MOST_STEPS = 1 << 16
_ACTIONS: dict[type[Plug | Resize | Unplug], Literal["plug", "resize", "remove"]] = {
    Plug: "plug",
    Resize: "resize",
    Unplug: "remove",
}
_4_GIB = 4 << 30


@dataclass(slots=True)
class Planner:
    """Collects steps; knows the model's machine and the files that it started from.

    *platform* is what a definition says of the machine's hypervisor, ``None`` without one.
    """

    sysroot: Sysroot
    goal: str
    given: Machine
    platform: DefinedPlatform | None = None
    seen: Observation = field(init=False)
    machine: ModelMachine = field(init=False)
    blocks: Blocks = field(init=False)
    steps: list[PlanStep] = field(default_factory=list)
    risks: list[Risk] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    passed_over: list[PassedOver] = field(default_factory=list)
    knows_address: bool = True
    _done: list[Step] = field(default_factory=list)
    stuck_nr_pages: int = 0
    _work: Work | None = None
    _first: ModelMachine = field(init=False)
    _managed: int = 0
    _mem_total_kib: int = 0

    def __post_init__(self) -> None:
        self.seen = Observation.read(self.sysroot, given_of(self.given))
        self.seen.require("plan", "meminfo", "memory")
        self.machine = ModelMachine.start(self.given, self.seen, pages=False)
        self._first = self.machine.copy()
        self.blocks = Blocks(self.seen)
        self._managed = self._managed_nr_pages(self.machine)
        self._mem_total_kib = (self.seen.meminfo or {}).get("MemTotal", 0)
        self.notes += self.machine.notes
        release = self.machine.kernel.release
        if not release.confirmed:
            self.notes.append(f"the record of {release.name} was never compared with a real kernel")

    # --- the model -------------------------------------------------------------------------

    @property
    def obstacle(self) -> bool:
        """Whether the latest step is predicted to be refused."""
        made = self.steps[-1].prediction if self.steps else None
        return made is not None and made.status != "ok"

    @property
    def block_bytes(self) -> int:
        """The size of a memory block."""
        assert self.seen.memory is not None
        return self.seen.memory.block_size_bytes

    def _restarted(self) -> ModelMachine:
        machine = self._first.copy()
        self.repeat_on(machine)
        return machine

    def repeat_on(self, machine: ModelMachine) -> None:
        """Perform the steps so far on another machine."""
        for step in self._done:
            machine.perform(step)

    def plugged_ids(self) -> list[str]:
        """Return the ids of what the steps so far have plugged."""
        return [step.id for step in self._done if isinstance(step, Plug)]

    def _managed_nr_pages(self, machine: ModelMachine) -> int:
        return sum(machine.kernel.nr_managed(zone) for zone in machine.kernel.zones.values())

    def perform(self, step: Step) -> Outcome:
        """Perform a step on the model, and keep it for later restarts."""
        record = self.machine.perform(step)
        outcome = record.outcome
        self._work = self._work_of(record) if isinstance(step, Offline | Unplug | Resize) else None
        stuck = outcome.pfns if outcome.kind == "movable" else None
        self.stuck_nr_pages = 0 if stuck is None else len(stuck)
        self._done.append(step)
        if len(self._done) > _MOST_STEPS:
            raise InputError(f"plan: needs more than {_MOST_STEPS} steps")
        return outcome

    def _work_of(self, record: StepRecord) -> Work | None:
        """Return what moved and what made room for it; ``None`` if no block was to go offline."""
        if not any(event.text.startswith("MEM_GOING_OFFLINE") for event in record.events):
            return None
        page = self.machine.kernel.arch.page_size_bytes
        size = dict.fromkeys(("migrated", "dropped", "swapped"), 0)
        for event in record.events:
            if event.kind in size and event.pfns is not None:
                size[event.kind] += len(event.pfns) * page
        return Work(*size.values())

    def mark(self) -> tuple[int, int]:
        """Return where the plan stands, for :meth:`take_back`."""
        return len(self.steps), len(self._done)

    def take_back(self, mark: tuple[int, int]) -> None:
        """Take the steps since a mark back; the machine is as it was then."""
        nr_steps, nr_done = mark
        undone = self.steps[nr_steps:]
        del self.steps[nr_steps:]
        del self._done[nr_done:]
        made = [step.prediction for step in undone if step.prediction is not None]
        if any(each.status == "ok" or each.work is not None for each in made):
            self.machine = self._restarted()
        last = next((each.prediction for each in reversed(self.steps) if each.prediction), None)
        start = (self.seen.meminfo or {}).get("MemTotal", 0)
        self._mem_total_kib = start if last is None else last.mem_total_kib

    def prediction(self, outcome: Outcome, ids: Sequence[int]) -> Prediction:
        """Return an outcome with what the machine shows after it."""
        kernel = self.machine.kernel
        assert self.seen.meminfo is not None
        page = kernel.arch.page_size_bytes
        gained = (self._managed_nr_pages(self.machine) - self._managed) * page // 1024
        total = self.seen.meminfo.get("MemTotal", 0) + gained
        before, self._mem_total_kib = self._mem_total_kib, total
        free = kernel.free_nr_pages() * page // 1024
        return Prediction(
            outcome.status,
            outcome.errno,
            outcome.function,
            "; ".join(filter(None, (outcome.why, outcome.doubt))),
            total,
            total - before,
            free,
            _ranges((nr, *self.block_state(nr)) for nr in ids),
            self._work,
        )

    def block_state(self, nr: int) -> tuple[str, str | None]:
        """Return a block's state after the steps so far, and its zone if it is in one."""
        kernel = self.machine.kernel
        if nr not in kernel.added_blocks:
            return "absent", None
        if nr not in kernel.online_blocks:
            return "offline", None
        zones = kernel.zones_of(kernel.block_pfns(nr))
        return "online", zones[0].name if len(zones) == 1 else None

    # --- steps -----------------------------------------------------------------------------

    def write_state(self, nr: int, word: str) -> bool:
        """Plan one write to a block's state; false if it is predicted to be refused."""
        _, zone = self.block_state(nr)
        undo = "offline"
        step: Step
        if word == "offline":
            undo = "online_movable" if zone == _MOVABLE else "online_kernel"
            step = Offline(blocks=nr)
        else:
            step = Online(blocks=nr, to=cast("OnlineType", word))
        found = self._blockers(nr) if word == "offline" else []
        never = _never_goes(found)
        outcome = self.perform(step) if never is None else self._refusal(nr, never)
        self.steps.append(
            PlanStep(
                action="offline" if word == "offline" else "online",
                by="kernel",
                title=f"{word} memory{nr}",
                path=f"{_MEMORY}/memory{nr}/state",
                value=word,
                undo=undo,
                prediction=self.prediction(outcome, [nr]),
                certainty=self._certainty_of_write(nr, word, outcome, found),
            )
        )
        return bool(outcome)

    def _blockers(self, nr: int) -> list[Blocker]:
        """Return what the files say against taking a block offline; they have none of new ones."""
        known = self.seen.memory is not None and nr in self.seen.memory.blocks
        return self.blocks.blockers(nr) if known else []

    def _refusal(self, nr: int, blocker: Blocker) -> Outcome:
        self._work = None
        self._done.append(Offline(blocks=nr))
        return Outcome.refused(blocker.errno, blocker.function, f"memory{nr}: {blocker.what}")

    def _certainty_of_write(
        self, nr: int, word: str, outcome: Outcome, blockers: Sequence[Blocker]
    ) -> Certainty:
        if word != "offline":
            return "certain"
        known = self.seen.memory is not None and nr in self.seen.memory.blocks
        if _never_goes(blockers) is not None:
            return "certain"
        if not self.blocks.sees_pages or not known:
            return "unknown"
        deciding = worst(blockers)
        if outcome:
            return "likely" if deciding is None else "unknown"
        seen = cast("Certainty", deciding.certainty) if deciding is not None else "likely"
        return max(seen, outcome.certainty, key=CERTAINTIES.index)

    def set_default(self, word: str) -> None:
        """Plan a write to ``auto_online_blocks``, if it says something else now."""
        assert self.seen.memory is not None
        before = self.machine.kernel.tunables.auto_online_blocks
        if before == word:
            return
        outcome = self.perform(SetTunables(auto_online_blocks=cast("AutoOnline", word)))
        self.steps.append(
            PlanStep(
                action="set",
                by="kernel",
                title=f"set auto_online_blocks to {word}",
                path=f"{_MEMORY}/auto_online_blocks",
                value=word,
                undo=before,
                prediction=self.prediction(outcome, []),
                certainty="certain",
            )
        )

    def _added_bytes(self) -> int:
        """Return what the steps so far have plugged."""
        plugs = [step for step in self._done if isinstance(step, Plug)]
        return sum(int(step.size if step.requested is None else step.requested) for step in plugs)

    def ask(
        self, step: Plug | Resize | Unplug, title: str, who: str, blocks: Sequence[int] = ()
    ) -> list[int]:
        """Plan a step of the platform; return the blocks that it brings, none if refused.

        What it predicts is told of these, and of *blocks*.
        """
        if self.platform is not None:
            who = self.platform.command(step, self._added_bytes())
        before = self.machine.kernel.added_blocks.copy()
        outcome = self.perform(step)
        new = list(self.machine.kernel.added_blocks - before)
        where = f" at {new[0] * self.block_bytes:#x}" if new and isinstance(step, Plug) else ""
        if where and not self.knows_address:
            where += ", a guess: only the platform knows the address"
        self.steps.append(
            PlanStep(
                action=_ACTIONS[type(step)],
                by="platform",
                title=title + where,
                who=who,
                prediction=self.prediction(outcome, new or blocks),
                certainty="likely",
            )
        )
        return new if outcome else []

    def set_balloon(self, platform: DefinedPlatform, size_bytes: int) -> None:
        """Plan that the hypervisor's balloon leaves the guest that much.

        Raises
        ------
        InputError
            If that is more than the guest has without it.
        """
        now, most = platform.balloon_bytes, platform.balloon_most_bytes
        if size_bytes > most:
            raise InputError(
                f"resize balloon to {format_size(size_bytes)}: need at most {format_size(most)}, "
                "which the guest has without its balloon"
            )
        if size_bytes == now:
            return
        self.steps.append(
            PlanStep(
                action="resize",
                by="platform",
                title=f"balloon: leaves {format_size(now)} → {format_size(size_bytes)}",
                who=platform.command(Resize(id="balloon", size=Size(size_bytes)), 0),
            )
        )
        self.notes.append("MemTotal is that without the balloon, whose pages are not modelled")

    def address_above(self) -> int:
        """Return where memory is added if nothing is known: the first block above all and 4 GiB."""
        assert self.seen.memory is not None
        end = (max(self.seen.memory.blocks, default=-1) + 1) * self.block_bytes
        return max(end, _4_GIB)

    def result(self) -> Plan:
        """Return the plan, with the risks of all of it."""
        self.risks += self._ratio_risks()
        crash = self.sysroot.text(f"{_MEMORY}/crash_hotplug")
        nr_blocks = sum(
            last.last - last.first + 1
            for step in self.steps
            if step.prediction is not None
            for last in step.prediction.blocks
        )
        self.risks += kdump_risks(self.seen, crash, nr_blocks)
        return Plan(
            goal=self.goal,
            assumes=assumptions_of(self.seen),
            steps=self.steps,
            risks=self.risks,
            notes=[*self.seen.problems.values(), *self.notes],
            passed_over=self.passed_over,
        )

    def room_risks(self, nr: int) -> Iterator[Risk]:
        """Yield what happens to processes while the latest step waits for room for its pages."""
        made = self.steps[-1].prediction
        if made is not None and made.errno == "EINTR" and self.stuck_nr_pages:
            page = self.machine.kernel.arch.page_size_bytes
            missing = self.stuck_nr_pages * page
            owners = self.blocks.moving_owners(nr) if self.blocks.sees_pages else ()
            yield oom_risk(missing, [owner.cgroup for owner in owners])

    def _ratio_risks(self) -> Iterator[Risk]:
        movable = kernel = 0
        for zone in self.machine.kernel.zones.values():
            if zone.name == _MOVABLE:
                movable += len(zone.present)
            else:
                kernel += len(zone.present)
        page = self.machine.kernel.arch.page_size_bytes
        if self.steps:
            yield from ratio_risks(self.seen, movable * page, kernel * page)


def _ranges(blocks: Iterator[tuple[int, str, str | None]]) -> list[BlockRange]:
    made: list[BlockRange] = []
    for nr, state, zone in blocks:
        last = made[-1] if made else None
        if last and (last.last + 1, last.state, last.zone) == (nr, state, zone):
            made[-1] = BlockRange(last.first, nr, state, zone)
        else:
            made.append(BlockRange(nr, nr, state, zone))
    return made


def assumptions_of(seen: Observation) -> Assumptions:
    """Return what a plan rests on, and what must still be so when it is applied."""
    assert seen.memory is not None
    return Assumptions(
        release=seen.release or "",
        block_size_bytes=seen.memory.block_size_bytes,
        mem_total_kib=(seen.meminfo or {}).get("MemTotal", 0),
        auto_online_blocks=seen.memory.auto_online_blocks,
        parameters=dict(sorted(seen.parameters.items())),
        blocks=_ranges(
            (nr, block.state, block.valid_zones[0] if shown and block.valid_zones else None)
            for nr, block in seen.memory.blocks.items()
            for shown in (block.state != "offline",)
        ),
    )


# --- the goals -----------------------------------------------------------------------------


def plan_free(sysroot: Sysroot, ids: Sequence[int], given: Machine = AS_SHOWN) -> Plan:
    """Return the plan that takes blocks offline, up to the first that would refuse."""
    named = "memory" + ", memory".join(map(str, ids)) if len(ids) <= 4 else f"{len(ids)} blocks"
    planner = Planner(sysroot, f"free {named}", given)
    assert planner.seen.memory is not None
    for nr in ids:
        if nr not in planner.seen.memory.blocks:
            raise no_such_block("plan free: ", nr, planner.seen.memory.blocks)
    _offline(planner, ids)
    return planner.result()


def plan_remove(
    sysroot: Sysroot,
    name: str,
    given: Machine = AS_SHOWN,
    platform: DefinedPlatform | None = None,
) -> Plan:
    """Return the plan that takes a device's blocks offline, and has the platform remove it.

    Raises
    ------
    InputError
        If no file names the device.
    """
    planner = Planner(sysroot, f"remove {name}", given, platform)
    devices = {device.name: device for device in planner.blocks.devices}
    if name not in devices:
        known = one_of(name, devices) if devices else "no file names one"
        raise InputError(f"plan remove: device {name!r}: no such device, {known}")
    device = devices[name]
    way = way_of_device(device.driver)
    if (way is None or way.offlines_first) and not _offline(planner, device.blocks):
        if way is not None and way.removes is not None:
            certainty = planner.steps[-1].certainty
            planner.risks += removal_risks(planner.machine, name, way.removes(name), certainty)
        return planner.result()
    title = f"take {name} back ({format_size(device.ram_bytes)} of {device.driver})"
    if way is None or way.removes is None:
        planner.notes.append(f"the removal itself is {device.driver}'s: no prediction")
        planner.steps.append(PlanStep(action="remove", by="platform", title=title))
    else:
        planner.ask(way.removes(name), title, way.removed_by, device.blocks)
    return planner.result()


def plan_resize(
    sysroot: Sysroot,
    name: str,
    size_bytes: int,
    given: Machine = AS_SHOWN,
    platform: DefinedPlatform | None = None,
) -> Plan:
    """Return the plan that has the platform ask a device, or the balloon, for another size.

    Raises
    ------
    InputError
        If there is no such device, or it keeps its size.
    """
    planner = Planner(sysroot, f"resize {name} to {format_size(size_bytes)}", given, platform)
    if name == "balloon" and platform is not None and platform.balloon_most_bytes:
        planner.set_balloon(platform, size_bytes)
        return planner.result()
    now, _ = planner.machine.device_sizes(name)
    if now == size_bytes:
        return planner.result()
    devices = {device.name: device for device in planner.blocks.devices}
    device = devices.get(name)
    way = WAYS["xen"] if device is None else way_of_device(device.driver)
    title = f"{name}: {format_size(now)} → {format_size(size_bytes)} requested"
    step, who = Resize(id=name, size=Size(size_bytes)), "" if way is None else way.by
    planner.ask(step, title, who, () if device is None else device.blocks)
    return planner.result()


def _never_goes(blockers: Sequence[Blocker]) -> Blocker | None:
    """Return why no state of a block's pages lets it go offline, ``None`` if one may.

    The kernel refuses such a block with EINVAL, whatever the model makes of its pages.
    """
    return next((b for b in blockers if b.certainty == "certain" and b.errno == "EINVAL"), None)


def _offline(planner: Planner, ids: Sequence[int]) -> bool:
    """Plan to take blocks offline; name the reason if one would refuse."""
    for nr in ids:
        if planner.block_state(nr)[0] != "online":
            continue
        if not planner.write_state(nr, "offline"):
            for blocker in planner.blocks.blockers(nr):
                what = f"memory{nr}: {blocker.name}: {blocker.what}"
                certainty = cast("Certainty", blocker.certainty)
                planner.risks.append(Risk(certainty, what, blocker.cure))
            planner.risks += planner.room_risks(nr)
            return False
    return True
