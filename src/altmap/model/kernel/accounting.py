"""Memmap policies: where a memmap goes, and how its pages show in the counters."""

from __future__ import annotations

from dataclasses import dataclass

from altmap.errors import InputError, one_of
from altmap.model.kernel.defects import DEFECTS
from altmap.model.kernel.memmap import Placement
from altmap.model.kernel.placements import PLACEMENTS

__all__ = (
    "ACCOUNTINGS",
    "DEFAULT_POLICY",
    "POLICIES",
    "Accounting",
    "Policy",
    "chosen_policy",
    "make_policy",
    "policy_named",
)

_WITH_DEFECTS = "rfc-2018"


@dataclass(frozen=True, slots=True)
class Accounting:
    """Where the memmap pages of an online block are counted.

    Attributes
    ----------
    present : bool
        In the zone's present pages.
    total : bool
        In MemTotal, as allocated memory.
    meminfo_line : bool
        A line ``PageMetadata`` of /proc/meminfo has the memmap of added memory, wherever it lies.
    """

    present: bool
    total: bool
    meminfo_line: bool = False


#: Every accounting by name. ``merged`` is ``mm/memory_hotplug.c: adjust_present_page_count``;
#: ``hidden`` is what the patches of 2018 do, since their ``online_pages`` skips memmap pages;
#: ``total`` is the wish of the discussion that what was paid for is seen; ``meminfo`` its offer of
#: a counter, with the name that the patches of 2023 and 2024 gave it before they went to vmstat.
ACCOUNTINGS: dict[str, Accounting] = {
    "merged": Accounting(present=True, total=False),
    "hidden": Accounting(present=False, total=False),
    "total": Accounting(present=True, total=True),
    "meminfo": Accounting(present=True, total=False, meminfo_line=True),
}


@dataclass(frozen=True, slots=True)
class Policy:
    """A memmap policy.

    Attributes
    ----------
    name : str
    placement : Placement
        Where the memmap goes.
    accounting : Accounting
        How it is counted.
    defects : frozenset of str
        Ids of :data:`~altmap.model.kernel.defects.DEFECTS` that are switched on.
    """

    name: str
    placement: Placement
    accounting: Accounting
    defects: frozenset[str] = frozenset()


def make_policy(placement: Placement, accounting: str, defects: frozenset[str]) -> Policy:
    """Return a policy of its parts; an accounting of ``""`` is the placement's own."""
    usual = "hidden" if placement.name == _WITH_DEFECTS else "merged"
    switches = f":{','.join(sorted(defects))}" if defects else ""
    counted = f"+{accounting}" if accounting not in ("", usual) else ""
    own = getattr(placement, "accounting", ACCOUNTINGS[usual])
    return Policy(
        f"{placement.name}{switches}{counted}",
        placement,
        ACCOUNTINGS[accounting] if accounting else own,
        defects,
    )


#: The policy of a machine that names none: what Linux does.
DEFAULT_POLICY = "opt-in"
#: Policies that have a name of their own. Others are made of parts, see :func:`policy_named`.
POLICIES: dict[str, Policy] = {
    **{name: make_policy(placement, "", frozenset()) for name, placement in PLACEMENTS.items()},
    "total-and-allocated": Policy(
        "total-and-allocated", PLACEMENTS["opt-in"], ACCOUNTINGS["total"]
    ),
}


def policy_named(name: str) -> Policy:
    """Return a policy by its name, or by its parts: ``PLACEMENT[:DEFECTS][+ACCOUNTING]``.

    Raises
    ------
    InputError
        If there is none; the message lists those there are.
    """
    if name in POLICIES:
        return POLICIES[name]
    rest, plus, accounting = name.partition("+")
    base, colon, switches = rest.partition(":")
    if base not in POLICIES or (base not in PLACEMENTS and (plus or colon)):
        in_python = "; a class in Python is given by --policy" * bool(colon)
        raise InputError(f"policy {name!r}: {one_of(name, POLICIES)}{in_python}")
    if plus and accounting not in ACCOUNTINGS:
        raise InputError(
            f"policy {name!r}: accounting {accounting!r}, {one_of(accounting, ACCOUNTINGS)}"
        )
    defects = _defects(name, base, switches.split(",")) if colon else frozenset()
    return make_policy(PLACEMENTS[base], accounting, defects)


def chosen_policy(policy: Policy | None, name: str | None) -> Policy:
    """Return the policy if there is one, else the built-in one of a name; ``None`` is the default.

    Raises
    ------
    InputError
        If no built-in policy has the name.
    """
    if policy is not None:
        return policy
    return policy_named(DEFAULT_POLICY if name is None else name)


def _defects(name: str, base: str, ids: list[str]) -> frozenset[str]:
    if base != _WITH_DEFECTS:
        raise InputError(f"policy {name!r}: only {_WITH_DEFECTS} has defects to switch on")
    for id_ in ids:
        known = [defect.id for defect in DEFECTS.values() if defect.shows]
        if id_ not in DEFECTS:
            raise InputError(f"policy {name!r}: defect {id_!r}, {one_of(id_, known)}")
        if not DEFECTS[id_].shows:
            raise InputError(
                f"policy {name!r}: no model can hold {id_}: {DEFECTS[id_].reason}; need one of "
                f"{', '.join(known)}"
            )
    return frozenset(ids)
