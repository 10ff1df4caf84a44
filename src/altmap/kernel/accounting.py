"""How self-hosted memmap pages show in the counters: the other half of a memmap policy."""

from __future__ import annotations

from dataclasses import dataclass

from altmap.errors import InputError
from altmap.kernel.memmap import ExistingMemory, OptIn, Placement, WholeRange

__all__ = ("POLICIES", "Accounting", "Policy", "policy_named")


@dataclass(frozen=True, slots=True)
class Accounting:
    """Where the memmap pages of an online block are counted.

    Attributes
    ----------
    present : bool
        In the zone's present pages.
    total : bool
        In MemTotal, as allocated memory.
    """

    present: bool
    total: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """A memmap policy: where the memmap goes, and how it is counted."""

    name: str
    placement: Placement
    accounting: Accounting


_MERGED = Accounting(present=True, total=False)

#: Every built-in policy by name. ``rfc-2018`` counts memmap pages nowhere, since its
#: ``online_pages`` skips them; the merged code adds them to present
#: (``mm/memory_hotplug.c: adjust_present_page_count``); ``total-and-allocated`` is the wish of the
#: discussion that what was paid for is seen.
POLICIES: dict[str, Policy] = {
    policy.name: policy
    for policy in (
        Policy("opt-in", OptIn(), _MERGED),
        Policy("rfc-2018", WholeRange(), Accounting(present=False, total=False)),
        Policy("existing", ExistingMemory(), _MERGED),
        Policy("total-and-allocated", OptIn(), Accounting(present=True, total=True)),
    )
}


def policy_named(name: str) -> Policy:
    """Return the built-in policy of that name.

    Raises
    ------
    InputError
        If there is none; the message lists those there are.
    """
    if name not in POLICIES:
        raise InputError(f"policy {name!r}: need one of {', '.join(POLICIES)}")
    return POLICIES[name]
