"""Plans for whichever blocks can go: least work first, as ``chmem -d SIZE`` and DLPAR by count."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from altmap.errors import InputError
from altmap.host.blockers import Blocker
from altmap.host.devices import BlockDevice
from altmap.host.explain import CERTAINTIES, worst
from altmap.host.mechanisms import Way, way_of_device
from altmap.host.plan import Certainty, PassedOver, Plan, PlanStep, Risk
from altmap.host.planner import AS_SHOWN, Planner
from altmap.host.platforms import DefinedPlatform
from altmap.linux.sysroot import Sysroot
from altmap.scenario import Machine, Resize, Size
from altmap.units import format_size

__all__ = ("plan_free_any", "plan_remove_any")

_OPEN = len(CERTAINTIES)  # nothing visible blocks it


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Blocks that go together: one, or those of a device.

    Attributes
    ----------
    name : str
    blocks : tuple of int
        Those that are online.
    size_bytes : int
        What is gained.
    device : BlockDevice or None
    blocker : (int, Blocker) or None
        The block and the blocker that decide, if one is seen.
    nr_moving : int or None
        Pages that would have to move, ``None`` if no file shows them.
    """

    name: str
    blocks: tuple[int, ...]
    size_bytes: int
    device: BlockDevice | None
    blocker: tuple[int, Blocker] | None
    nr_moving: int | None

    @property
    def order(self) -> tuple[int, int, int]:
        """Those that nothing blocks first, then least work, then the highest address."""
        seen = self.blocker[1].certainty if self.blocker else None
        doubt = 0 if seen is None else _OPEN - CERTAINTIES.index(seen)
        return doubt, self.nr_moving or 0, -max(self.blocks, default=0)


def plan_free_any(sysroot: Sysroot, nr_blocks: int, given: Machine = AS_SHOWN) -> Plan:
    """Return the plan that takes a number of online blocks offline, whichever can go.

    Raises
    ------
    InputError
        If the number is not positive, or none can go.
    """
    if nr_blocks < 1:
        raise InputError(f"plan free --any {nr_blocks}: need at least 1 block")
    planner = Planner(sysroot, f"free any {nr_blocks} block{'s' * (nr_blocks > 1)}", given)
    chosen = _Chooser(planner, nr_blocks * planner.block_bytes)
    assert planner.seen.memory is not None
    ids = [nr for nr in planner.seen.memory.blocks if planner.block_state(nr)[0] == "online"]
    chosen.choose([_candidate(planner, f"memory{nr}", [nr], None) for nr in ids])
    return chosen.result(f"plan free --any {nr_blocks}")


def plan_remove_any(
    sysroot: Sysroot,
    size_bytes: int,
    given: Machine = AS_SHOWN,
    platform: DefinedPlatform | None = None,
) -> Plan:
    """Return the plan that removes as much memory, from whichever devices can go.

    A device goes as a whole; one of virtio-mem is made smaller. Where no device has a name (s390x,
    DLPAR), blocks are taken offline, and the platform is asked for them. Never more than asked for
    is removed.

    Raises
    ------
    InputError
        If the size is no multiple of a memory block, or nothing can go.
    """
    planner = Planner(sysroot, f"remove any {format_size(size_bytes)}", given, platform)
    if not size_bytes or size_bytes % planner.block_bytes:
        raise InputError(
            f"plan remove --any {format_size(size_bytes)}: need a multiple of the memory block, "
            f"{format_size(planner.block_bytes)}"
        )
    chosen = _Chooser(planner, size_bytes)
    chosen.choose(list(_removable(planner)))
    return chosen.result(f"plan remove --any {format_size(size_bytes)}")


def _removable(planner: Planner) -> Iterator[_Candidate]:
    """Yield the devices; of machines that remove blocks themselves, these."""
    for device in planner.blocks.devices:
        yield _candidate(planner, device.name, device.blocks, device)
    mechanisms = planner.machine.kernel.arch.mechanisms
    if "dlpar" in mechanisms or "standby" in mechanisms:
        assert planner.seen.memory is not None
        for nr in planner.seen.memory.blocks:
            if planner.blocks.device(nr) is None and planner.block_state(nr)[0] == "online":
                yield _candidate(planner, f"memory{nr}", [nr], None)


def _candidate(
    planner: Planner, name: str, ids: Sequence[int], device: BlockDevice | None
) -> _Candidate:
    blocks = planner.blocks
    online = tuple(nr for nr in ids if planner.block_state(nr)[0] == "online")
    found = {nr: each for nr in online if (each := worst(blocks.blockers(nr))) is not None}
    deciding = worst(found.values())
    at = next((nr for nr, each in found.items() if each is deciding), None)
    moving = sum(map(blocks.nr_moving, online)) if blocks.sees_pages else None
    size = device.ram_bytes if device is not None else len(ids) * planner.block_bytes
    why = None if at is None or deciding is None else (at, deciding)
    return _Candidate(name, online, size, device, why, moving)


class _Chooser:
    """Plans candidates in order, and keeps the reason for each that is passed over."""

    def __init__(self, planner: Planner, wanted_bytes: int) -> None:
        self._planner = planner
        self._wanted_bytes = self._left_bytes = wanted_bytes
        self._passed: list[tuple[_Candidate, str, Certainty]] = []
        self._no_room: _Candidate | None = None

    def choose(self, candidates: list[_Candidate]) -> None:
        """Plan the candidates that go, until there are enough."""
        for candidate in sorted(candidates, key=lambda each: each.order):
            if self._left_bytes <= 0:
                return
            self._try(candidate)

    def _try(self, candidate: _Candidate) -> None:
        way = None if candidate.device is None else way_of_device(candidate.device.driver)
        if way is not None and not way.offlines_first and candidate.device is not None:
            self._shrink(candidate, candidate.device, way)
            return
        if candidate.size_bytes > self._left_bytes:
            self._pass(candidate, f"larger than the {format_size(self._left_bytes)} that are left")
            return
        if candidate.blocker is not None and candidate.blocker[1].certainty == "certain":
            nr, blocker = candidate.blocker
            at = f"memory{nr}: " if candidate.device is not None else ""
            self._pass(candidate, f"{at}{blocker.name}: {blocker.what}")
            return
        before = self._no_room
        if before is not None and (candidate.nr_moving or 0) >= (before.nr_moving or 0):
            self._pass(candidate, f"no less has to move than of {before.name}", "likely")
            return
        mark = self._planner.mark()
        if all(self._planner.write_state(nr, "offline") for nr in candidate.blocks):
            if candidate.device is not None:
                self._ask_back(candidate, candidate.device, way)
            self._left_bytes -= candidate.size_bytes
            return
        self._take_back(candidate, mark)

    def _take_back(self, candidate: _Candidate, mark: tuple[int, int]) -> None:
        step = self._planner.steps[-1]
        made = step.prediction
        assert made is not None  # its refusal is what ended the candidate
        if self._planner.stuck_nr_pages:
            self._no_room = candidate
        why = f"{made.errno} by {made.function}: {made.why}"
        self._planner.take_back(mark)
        self._pass(candidate, why, step.certainty)

    def _ask_back(self, candidate: _Candidate, device: BlockDevice, way: Way | None) -> None:
        planner = self._planner
        title = f"take {device.name} back ({format_size(candidate.size_bytes)} of {device.driver})"
        if way is None or way.removes is None:
            planner.steps.append(PlanStep(action="remove", by="platform", title=title))
            planner.notes.append(f"the removal itself is {device.driver}'s: no prediction")
        else:
            planner.ask(way.removes(device.name), title, way.removed_by, device.blocks)

    def _shrink(self, candidate: _Candidate, device: BlockDevice, way: Way) -> None:
        """Have the platform request less of a device that shrinks without going."""
        planner = self._planner
        now, _ = planner.machine.device_sizes(device.name)
        wanted = max(0, now - self._left_bytes)
        mark = planner.mark()
        title = f"{device.name}: {format_size(now)} → {format_size(wanted)} requested"
        planner.ask(Resize(id=device.name, size=Size(wanted)), title, way.by, device.blocks)
        made = planner.steps[-1].prediction
        if made is not None and made.status != "ok":
            why, certainty = made.why, planner.steps[-1].certainty
            planner.take_back(mark)
            self._pass(candidate, why, certainty)
            return
        self._left_bytes -= now - wanted

    def _pass(self, candidate: _Candidate, why: str, certainty: Certainty = "certain") -> None:
        self._passed.append((candidate, why, certainty))

    def result(self, command: str) -> Plan:
        """Return the plan.

        Raises
        ------
        InputError
            If nothing can go.
        """
        planner = self._planner
        if not planner.steps and not self._passed:
            raise InputError(
                f"{command}: no device is plugged that could be removed; plan free --any takes "
                "blocks offline"
            )
        if not planner.steps:
            first = f": {self._passed[0][0].name}: {self._passed[0][1]}" if self._passed else ""
            raise InputError(f"{command}: none of {len(self._passed)} can go{first}")
        if self._left_bytes > 0:
            done = format_size(self._wanted_bytes - self._left_bytes)
            planner.risks.append(
                Risk(
                    "likely",
                    f"only {done} of {format_size(self._wanted_bytes)} can go",
                    "the reasons are given for each that was passed over",
                )
            )
        planner.passed_over += _joined(self._passed)
        return planner.result()


def _joined(passed: Sequence[tuple[_Candidate, str, Certainty]]) -> Iterator[PassedOver]:
    """Yield what was passed over by address, consecutive blocks with one reason together."""
    order = sorted(passed, key=lambda each: (min(each[0].blocks, default=0), each[0].name))
    run: list[tuple[_Candidate, str, Certainty]] = []
    for each in order:
        if run and not _follows(run[-1], each):
            yield _named(run)
            run = []
        run.append(each)
    if run:
        yield _named(run)


def _follows(
    one: tuple[_Candidate, str, Certainty], other: tuple[_Candidate, str, Certainty]
) -> bool:
    single = one[0].device is None and other[0].device is None
    return single and one[0].blocks[0] + 1 == other[0].blocks[0] and one[1:] == other[1:]


def _named(run: list[tuple[_Candidate, str, Certainty]]) -> PassedOver:
    first, why, certainty = run[0]
    last = run[-1][0].blocks[0] if run[-1][0].blocks else 0
    return PassedOver(first.name if len(run) == 1 else f"{first.name}-{last}", why, certainty)
