"""Policies of a user's own: a class in a module, named on the command line.

Effects: files, imports, terminal.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from altmap.errors import InputError
from altmap.model.kernel.accounting import ACCOUNTINGS, POLICIES, Policy, make_policy, policy_named
from altmap.model.kernel.placements import PLACEMENTS

__all__ = ("load_policy",)


def load_policy(name: str) -> Policy:
    """Return a policy by name, or the one that ``module:Class`` makes, and register it.

    The module is looked for in the current folder too. The class is called without arguments and
    must be a :class:`~altmap.model.kernel.memmap.Placement`; its attribute ``accounting``,
    if it has one, says how memmap pages are counted (default: as the merged code does), and
    ``+ACCOUNTING`` behind the name says otherwise.

    Raises
    ------
    InputError
        If the module or class cannot be had, or is no placement.
    """
    module_name, colon, rest = name.partition(":")
    if not colon or module_name in PLACEMENTS:
        try:
            return policy_named(name)
        except InputError as error:
            if not colon and "+" not in name:
                raise InputError(f"{error}, or MODULE:CLASS") from error
            raise
    class_name, plus, accounting = rest.partition("+")
    if plus and accounting not in ACCOUNTINGS:
        raise InputError(
            f"policy {name!r}: accounting {accounting!r}, need one of {', '.join(ACCOUNTINGS)}"
        )
    placement = _made(name, module_name, class_name)
    missing = [what for what in ("name", "written_at_add", "place") if not hasattr(placement, what)]
    if missing:
        raise InputError(f"policy {name!r}: {class_name} has no {' and no '.join(missing)}")
    policy = make_policy(placement, accounting, frozenset())
    if POLICIES.get(policy.name) not in (None, *_OURS):
        raise InputError(f"policy {name!r}: its name {placement.name!r} is taken")
    POLICIES[policy.name] = policy
    _OURS.append(policy)
    return policy


#: Policies that were loaded; loading one again replaces it.
_OURS: list[Policy] = []


def _made(name: str, module_name: str, class_name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module_name), class_name)()
    except Exception as error:
        raise InputError(f"policy {name!r}: {type(error).__name__}: {error}") from error
