"""What a kernel says about itself when something is wrong: findings without any comparison."""

from __future__ import annotations

import re
from collections.abc import Iterable

from altmap.verify.hunt.coverage import without_numbers

__all__ = ("complaints_of",)

#: Kind of complaint, and how its first line reads (kernel/panic.c, lib/bug.c, mm/page_alloc.c:
#: bad_page, kernel/locking/lockdep.c, kernel/hung_task.c, lib/ubsan.c, mm/kasan/report.c,
#: lib/refcount.c, mm/kmemleak.c, arch/*/mm/fault.c).
_COMPLAINTS = (
    ("WARN", re.compile(r"WARNING: (CPU|at |.* at )")),
    ("BUG", re.compile(r"\bBUG: |kernel BUG at|Bad page (state|map)|Bad rss-counter")),
    ("oops", re.compile(r"Oops: |Internal error: |general protection fault|"
                        r"Unable to handle kernel")),
    ("lockdep", re.compile(r"possible (circular locking|recursive locking|irq lock inversion)|"
                           r"inconsistent lock state|suspicious RCU usage|held lock freed")),
    ("hung task", re.compile(r"INFO: task .* blocked for more than")),
    ("undefined behaviour", re.compile(r"UBSAN: ")),
    ("reference count", re.compile(r"refcount_t: ")),
    ("leak", re.compile(r"kmemleak: .* new suspected memory leaks")),
    ("panic", re.compile(r"Kernel panic - not syncing")),
)  # fmt: skip
#: Lines that a slow host causes; they say nothing about the guest's kernel.
_OF_A_SLOW_HOST = re.compile(r"soft lockup|rcu_\w+ (detected|self-detected) stall|clocksource")


def complaints_of(log: Iterable[str]) -> tuple[str, ...]:
    """Return the complaints in a kernel's log, each as ``KIND: LINE`` without its numbers."""
    found = []
    for line in log:
        if _OF_A_SLOW_HOST.search(line):
            continue
        kind = next((kind for kind, first in _COMPLAINTS if first.search(line)), None)
        if kind is not None:
            found.append(f"{kind}: {without_numbers(line)}")
    return tuple(dict.fromkeys(found))
