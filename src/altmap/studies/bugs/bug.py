"""A bug as data, and what its experiments come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from altmap.errors import InputError, one_of
from altmap.studies.claims.claim import ClaimCase, Load, Measured, run_cases

__all__ = ("Bug", "Shown", "bugs_named", "find")


@dataclass(frozen=True, slots=True)
class Bug:
    """One known bug.

    Attributes
    ----------
    id : str
        ``B1`` to ``B27`` in Linux, ``D1`` to ``D8`` and ``F1`` in the patches of 2018 and 2017.
    subject : str
        What is wrong.
    since, fixed : str
        The first release with it, and what repaired it.
    trigger : str
        What has to be done.
    affected, sound : tuple of ClaimCase
        The same experiment where the bug is and where it is not; ``claimed`` is what must come out.
    sources : tuple of str
        What the kernels of the lab have, read in their sources.
    reason : str
        Why no model here can show it; then there are no cases.
    """

    id: str
    subject: str
    since: str
    fixed: str
    trigger: str
    affected: tuple[ClaimCase, ...] = ()
    sound: tuple[ClaimCase, ...] = ()
    sources: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """A bug with what was measured."""

    bug: Bug
    affected: tuple[Measured, ...]
    sound: tuple[Measured, ...]

    @property
    def reproduced(self) -> bool | None:
        """Whether it shows where it is and nowhere else; ``None`` if no model can hold it."""
        if not self.affected:
            return None
        return all(item.agrees for item in (*self.affected, *self.sound))

    @property
    def verdict(self) -> str:
        """``shown``, ``NOT shown`` or ``cannot be shown``."""
        words = {None: "cannot be shown", True: "shown", False: "NOT shown"}
        return words[self.reproduced]


def bugs_named(bugs: Sequence[Bug], ids: Sequence[str]) -> list[Bug]:
    """Return the bugs of those ids in the catalogue's order; all if none is named.

    Raises
    ------
    InputError
        If an id is unknown.
    """
    known = [bug.id for bug in bugs]
    for id_ in ids:
        if id_.upper() not in known:
            raise InputError(f"bug {id_!r}: {one_of(id_, known)}")
    wanted = {id_.upper() for id_ in ids}
    return [bug for bug in bugs if not wanted or bug.id in wanted]


def find(bugs: Sequence[Bug], load: Load) -> list[Shown]:
    """Run the bugs' experiments on the model and return what they come to."""
    measured = iter(run_cases([case for bug in bugs for case in (*bug.affected, *bug.sound)], load))
    return [
        Shown(
            bug,
            tuple(next(measured) for _ in bug.affected),
            tuple(next(measured) for _ in bug.sound),
        )
        for bug in bugs
    ]
