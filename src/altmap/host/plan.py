"""A plan: steps, what each will do, what may go wrong; as values and as JSON."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import msgspec

from altmap.errors import InputError, one_of
from altmap.storage.json_files import decode_json

__all__ = (
    "Assumptions",
    "BlockRange",
    "PassedOver",
    "Plan",
    "PlanStep",
    "Prediction",
    "Risk",
    "Work",
    "decode_plan",
    "encode_plan",
    "is_plan_path",
)

Certainty = Literal["certain", "likely", "unknown"]
_VERSION = 1
#: 4 PiB in the smallest blocks, of 16 MiB (ppc64).
_MOST_BLOCK = (1 << 28) - 1
#: Blocks that are there, in all lists of a plan: each is looked at.
_MOST_BLOCKS = 1 << 21
_STATES = ("online", "offline", "going-offline", "absent")
_ZONES = ("DMA", "DMA32", "Normal", "HighMem", "Movable", "Device", "none")
_PARAMETER = re.compile(r"[A-Za-z0-9_]{1,64}")
_PATH = re.compile(
    r"sys/devices/system/memory/(?:memory(?:0|[1-9][0-9]{0,8})/state|auto_online_blocks)"
)

_BlockId = Annotated[int, msgspec.Meta(ge=0, le=_MOST_BLOCK)]


class BlockRange(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Consecutive memory blocks in one state; *zone* is ``None`` while they are offline."""

    first: _BlockId
    last: _BlockId
    state: str
    zone: str | None = None


class Work(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What the kernel does with the pages of blocks that go offline.

    Attributes
    ----------
    moved_bytes : int
        Pages that migrate.
    dropped_bytes, swapped_bytes : int
        Page cache that is dropped and pages that are swapped out, to make room for them.
    """

    moved_bytes: int = 0
    dropped_bytes: int = 0
    swapped_bytes: int = 0

    def __add__(self, other: Work) -> Work:
        return Work(
            self.moved_bytes + other.moved_bytes,
            self.dropped_bytes + other.dropped_bytes,
            self.swapped_bytes + other.swapped_bytes,
        )


class PassedOver(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A block or device that could have been chosen and was not.

    Attributes
    ----------
    name : str
        ``memory33``, ``memory33-40``, or a device.
    why : str
    certainty : str
    """

    name: str
    why: str
    certainty: Certainty


class Prediction(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What a step will end in, and what the machine shows after it.

    *work* is ``None`` where no block goes offline.
    """

    status: str
    errno: str | None
    function: str | None
    why: str
    mem_total_kib: int
    mem_total_gain_kib: int
    mem_free_kib: int
    blocks: list[BlockRange]
    work: Work | None = None


class PlanStep(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """One step.

    Attributes
    ----------
    action : str
        ``online`` or ``offline`` memory blocks, ``set`` what new blocks are onlined by; ``plug``,
        ``resize`` or ``remove`` a device.
    by : str
        ``kernel``: a word written to a file of this machine; ``platform``: something that the
        hypervisor or firmware is asked for, which no file of the machine can do.
    title : str
    who : str
        Of a platform step: who does it, and how.
    path, value, undo : str or None
        Of a kernel step: the file below ``/``, the word, and the word that undoes it.
    prediction : Prediction or None
        ``None`` if the model cannot say.
    certainty : str
    """

    action: Literal["online", "offline", "set", "plug", "resize", "remove"]
    by: Literal["kernel", "platform"]
    title: str
    who: str = ""
    path: str | None = None
    value: str | None = None
    undo: str | None = None
    prediction: Prediction | None = None
    certainty: Certainty = "unknown"


class Risk(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """What may go wrong, or is lost."""

    certainty: Certainty
    what: str
    cure: str = ""


class Assumptions(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """The machine as the plan found it."""

    release: str
    block_size_bytes: int
    mem_total_kib: int
    auto_online_blocks: str | None
    parameters: dict[str, str]
    blocks: list[BlockRange]


class Plan(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """Steps towards a goal.

    Attributes
    ----------
    goal : str
    assumes : Assumptions
    steps : list of PlanStep
        Up to the first that is predicted to fail.
    risks : list of Risk
    notes : list of str
    passed_over : list of PassedOver
        What a plan for whichever blocks can go has not chosen.
    """

    schema: Literal["altmap-plan"] = "altmap-plan"
    version: int = _VERSION
    goal: str
    assumes: Assumptions
    steps: list[PlanStep]
    risks: list[Risk] = []
    notes: list[str] = []
    passed_over: list[PassedOver] = []

    @property
    def work(self) -> Work | None:
        """The work of all steps, ``None`` if no block goes offline."""
        done = [step.prediction.work for step in self.steps if step.prediction is not None]
        parts = [work for work in done if work is not None]
        return sum(parts, Work()) if parts else None

    @property
    def obstacle(self) -> PlanStep | None:
        """The step that is predicted to fail, ``None`` if there is none."""
        for step in self.steps:
            if step.prediction is not None and step.prediction.status != "ok":
                return step
        return None


def encode_plan(plan: Plan) -> str:
    """Return the plan as JSON text."""
    return msgspec.json.format(msgspec.json.encode(plan), indent=2).decode() + "\n"


def decode_plan(raw: bytes, name: str) -> Plan:
    """Return the plan that a file holds.

    Raises
    ------
    InputError
        Naming the file, the place in it and the rule, if it is no plan or of another version.
    """
    head: _PlanHead = decode_json(raw, _PlanHead, f"plan {name}")
    if head.schema == "altmap-plan" and head.version != _VERSION:
        raise InputError(f"plan {name}: version {head.version!r}: need {_VERSION}")
    plan: Plan = decode_json(raw, Plan, f"plan {name}")
    try:
        _check_assumptions(plan.assumes)
        for nr, step in enumerate(plan.steps, start=1):
            _check_step(nr, step)
        _check_blocks(plan)
    except InputError as error:
        raise InputError(f"plan {name}: {error}") from error
    return plan


class _PlanHead(msgspec.Struct):
    schema: Any = None
    version: Any = None


# --- what a plan may say: it may come from anywhere -----------------------------------------


def _check_assumptions(assumed: Assumptions) -> None:
    for name in assumed.parameters:
        if not _PARAMETER.fullmatch(name):
            raise InputError(f"assumes.parameters {name!r}: need letters, digits and '_'")


def _check_step(nr: int, step: PlanStep) -> None:
    """Let a plan name no file but those that plans are made of."""
    if step.by == "platform":
        for name in ("path", "value", "undo"):
            if getattr(step, name) is not None:
                raise InputError(f"step {nr}: is the platform's: need no {name}")
        return
    words = {"online", "online_kernel", "online_movable", "offline"}
    if step.path is None or not is_plan_path(step.path):
        raise InputError(f"step {nr}: path {step.path!r}: need a memory block's state")
    for word in (step.value, step.undo):
        if word not in words:
            raise InputError(f"step {nr}: {word!r}: {one_of(word, sorted(words))}")


def _check_blocks(plan: Plan) -> None:
    predictions = [step.prediction for step in plan.steps if step.prediction is not None]
    parts = [plan.assumes.blocks, *(made.blocks for made in predictions)]
    nr_blocks = 0
    for part in (part for blocks in parts for part in blocks):
        if part.last < part.first:
            raise InputError(f"blocks {part.first} to {part.last}: need the first one first")
        if part.state not in _STATES:
            raise InputError(f"state {part.state!r}: {one_of(part.state, _STATES)}")
        if part.zone is not None and part.zone not in _ZONES:
            raise InputError(f"zone {part.zone!r}: {one_of(part.zone, _ZONES)}")
        if part.state != "absent":
            nr_blocks += part.last - part.first + 1
    if nr_blocks > _MOST_BLOCKS:
        raise InputError(f"{nr_blocks} blocks: need at most {_MOST_BLOCKS} in all that are there")


def is_plan_path(path: str) -> bool:
    """Tell whether a plan may write to a file: a block's ``state``, or ``auto_online_blocks``."""
    return bool(_PATH.fullmatch(path))
