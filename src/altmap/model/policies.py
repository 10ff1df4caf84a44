"""Policies as values: a built-in one by its name, a user's class, or a placement object.

Nothing is registered: a policy is passed to the machine that uses it. A module is imported only
where its name is given here, never because a scenario file names it.

Effects: files, imports, terminal.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from altmap.errors import AltmapError, InputError, UserCodeError, one_of, raised_by
from altmap.model.arch import Arch
from altmap.model.kernel.accounting import ACCOUNTINGS, POLICIES, Policy, make_policy, policy_named
from altmap.model.kernel.memmap import AddRequest, Memmap, Placement
from altmap.model.kernel.placements import PLACEMENTS
from altmap.model.releases import Release
from altmap.trace import Outcome

__all__ = ("UserPlacement", "is_built_in", "load_policy", "policy_of")

_MEMBERS = ("name", "written_at_add", "place")


@dataclass(slots=True)
class UserPlacement:
    """A user's placement, whose mistakes are errors that name its file and line.

    Attributes
    ----------
    name, written_at_add
        The placement's.
    placement : Placement
    label : str
        What the user called it.
    """

    name: str
    written_at_add: str | None
    placement: Placement
    label: str

    def place(self, arch: Arch, release: Release, request: AddRequest) -> Memmap | Outcome:
        """Return the placement's answer.

        Raises
        ------
        UserCodeError
            If the placement raises an exception, or returns something else.
        """
        try:
            placed: object = self.placement.place(arch, release, request)
        except AltmapError:
            raise
        except Exception as error:
            raise UserCodeError(f"policy {self.label}: {raised_by(error)}") from error
        if isinstance(placed, Memmap | Outcome):
            return placed
        raise UserCodeError(
            f"policy {self.label}: place returned {placed!r}, need a Memmap, or "
            "Outcome.refused(...) for an add that fails"
        )


def is_built_in(name: str) -> bool:
    """Tell whether a policy's name is one that a scenario may have, not ``MODULE:CLASS``."""
    before, colon, _ = name.partition(":")
    return not colon or before in PLACEMENTS


def policy_of(given: str | Placement | Policy) -> Policy:
    """Return the policy for a name, a placement or a policy.

    Parameters
    ----------
    given : str, Placement or Policy
        A name as for :func:`load_policy`; an object with the members of
        :class:`~altmap.model.kernel.memmap.Placement`, whose attribute ``accounting``, if it has
        one, says how memmap pages are counted (default: as the merged code does).

    Raises
    ------
    InputError
        If there is no such policy, or the object is no placement.
    """
    if isinstance(given, Policy):
        return given
    if isinstance(given, str):
        return load_policy(given)
    return _policy_with(given, "", repr(given))


def load_policy(name: str) -> Policy:
    """Return a policy by name, or the one whose placement ``MODULE:CLASS`` names.

    The class is called without arguments; ``+ACCOUNTING`` behind its name chooses how memmap pages
    are counted. While the module is imported, the current folder is searched too, behind all
    libraries: a file in it takes the place of none.

    Raises
    ------
    InputError
        If there is no such policy, or the class cannot be imported or is no placement.
    """
    module_name, colon, rest = name.partition(":")
    if is_built_in(name):
        if name not in POLICIES and not colon and "+" not in name:
            raise InputError(f"policy {name!r}: {one_of(name, POLICIES, ', or MODULE:CLASS')}")
        return policy_named(name)
    class_name, plus, accounting = rest.partition("+")
    if plus and accounting not in ACCOUNTINGS:
        raise InputError(
            f"policy {name!r}: accounting {accounting!r}, {one_of(accounting, ACCOUNTINGS)}"
        )
    return _policy_with(_made(name, module_name, class_name), accounting, repr(name))


def _policy_with(placement: Placement, accounting: str, label: str) -> Policy:
    if isinstance(placement, UserPlacement):
        placement = placement.placement
    missing = [member for member in _MEMBERS if not hasattr(placement, member)]
    if missing:
        kind = type(placement).__name__
        raise InputError(f"policy {label}: {kind} has no {' and no '.join(missing)}")
    built_in = PLACEMENTS.get(placement.name)
    if placement.name in POLICIES and type(placement) is not type(built_in):
        raise InputError(f"policy {label}: its name {placement.name!r} is a built-in policy's")
    made = make_policy(placement, accounting, frozenset())
    if built_in is not None:
        return made
    guarded = UserPlacement(placement.name, placement.written_at_add, placement, label)
    return replace(made, placement=guarded)


def _made(name: str, module_name: str, class_name: str) -> Placement:
    try:
        with _current_folder_searched():
            module = importlib.import_module(module_name)
    except Exception as error:
        raise InputError(f"policy {name!r}: {raised_by(error)}") from error
    if not hasattr(module, class_name):
        here = [each for each in vars(module).values() if isinstance(each, type)]
        classes = [each.__name__ for each in here if each.__module__ == module.__name__]
        rule = one_of(class_name, classes)
        raise InputError(f"policy {name!r}: {module_name} has no {class_name!r}, {rule}")
    try:
        made: Placement = getattr(module, class_name)()
    except Exception as error:
        raise InputError(f"policy {name!r}: {raised_by(error)}") from error
    return made


@contextmanager
def _current_folder_searched() -> Iterator[None]:
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        yield
    finally:
        del sys.path[len(sys.path) - 1 - sys.path[::-1].index(here)]
