"""A plan: steps, what each will do, what may go wrong; as values and as JSON."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from altmap.errors import InputError

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


class BlockRange(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """Consecutive memory blocks in one state; *zone* is ``None`` while they are offline."""

    first: int
    last: int
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
    try:
        head: Any = msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise InputError(f"plan {name}: not JSON: {error}") from error
    if isinstance(head, dict) and head.get("schema") == "altmap-plan":
        version = head.get("version")
        if version != _VERSION:
            raise InputError(f"plan {name}: version {version!r}: need {_VERSION}")
    try:
        plan = msgspec.convert(head, Plan)
    except msgspec.ValidationError as error:
        raise InputError(f"plan {name}: {error}") from error
    for step in plan.steps:
        _check_step(name, step)
    return plan


def _check_step(name: str, step: PlanStep) -> None:
    """Let a plan name no file but those that plans are made of: it may come from anywhere."""
    if step.by == "platform":
        return
    words = {"online", "online_kernel", "online_movable", "offline"}
    if step.path is None or not is_plan_path(step.path):
        raise InputError(f"plan {name}: path {step.path!r}: need a memory block's state")
    for word in (step.value, step.undo):
        if word not in words:
            raise InputError(f"plan {name}: {word!r}: need one of {', '.join(sorted(words))}")


def is_plan_path(path: str) -> bool:
    """Tell whether a plan may write to a file: a block's ``state``, or ``auto_online_blocks``."""
    root = "sys/devices/system/memory/"
    if not path.startswith(root):
        return False
    name = path.removeprefix(root)
    number = name.removeprefix("memory").removesuffix("/state")
    block = name == f"memory{number}/state" and number.isascii() and number.isdecimal()
    return block or name == "auto_online_blocks"
