"""Claims about counters: where a memmap inside the added memory shows (C1 to C4)."""

from __future__ import annotations

from altmap.studies.claims.claim import HOLDS, Claim, ClaimCase, Experiment
from altmap.studies.claims.measure import counter_at, gained_kb, spread_of_free_kb, used_kb

__all__ = ("CLAIMS",)

_GIB_KB = 1 << 20
_MEMMAP_KB = _GIB_KB // 64
#: What a GiB may use besides its memmap: page tables, and the new zone's first allocation.
_OTHER_KB = 16


def _dimm(policy: str, scenario: str = "dimm-1GiB") -> Experiment:
    return Experiment(scenario, (f"policy={policy}",))


_POLICIES = ("existing", "total-and-allocated", "rfc-2018", "opt-in")

CLAIMS = (
    Claim(
        id="C1",
        who="reviewer",
        statement="The memmap should count in MemTotal and show as allocated, as it always did.",
        question="Under which policy does 1 GiB give 1 GiB of MemTotal, its memmap in use?",
        cases=(
            *(
                ClaimCase(
                    f"{policy}: MemTotal gains",
                    (_dimm(policy),),
                    gained_kb("MemTotal"),
                    "kB",
                    claimed=_GIB_KB,
                    when=f"the policy is {policy}",
                )
                for policy in _POLICIES
            ),
            *(
                ClaimCase(
                    f"{policy}: in use",
                    (_dimm(policy),),
                    used_kb,
                    "kB",
                    claimed=range(_MEMMAP_KB, _MEMMAP_KB + _OTHER_KB + 1),
                    when=f"the policy is {policy}",
                )
                for policy in _POLICIES
            ),
            ClaimCase(
                "MemFree, furthest apart between the four",
                tuple(_dimm(policy) for policy in _POLICIES),
                spread_of_free_kb,
                "kB",
            ),
        ),
        expected="holds only when the policy is existing or the policy is total-and-allocated",
        settled="5.13 (a08a2ae34613): not adopted; memmap pages are present, not managed",
    ),
    Claim(
        id="C2",
        who="author",
        statement="A memmap inside the range is neither total nor allocated memory: the system "
        "cannot use it.",
        question="Do MemTotal and used memory both leave the memmap of 1 GiB out?",
        cases=tuple(
            case
            for policy in ("rfc-2018", "opt-in")
            for case in (
                ClaimCase(
                    f"{policy}: MemTotal gains",
                    (_dimm(policy),),
                    gained_kb("MemTotal"),
                    "kB",
                    claimed=_GIB_KB - _MEMMAP_KB,
                    when=f"the policy is {policy}",
                ),
                ClaimCase(
                    f"{policy}: in use",
                    (_dimm(policy),),
                    used_kb,
                    "kB",
                    claimed=range(_OTHER_KB + 1),
                    when=f"the policy is {policy}",
                ),
            )
        ),
        expected=HOLDS,
        settled="5.13 (a08a2ae34613): merged so",
    ),
    Claim(
        id="C3",
        who="author",
        statement="A counter can say how much memory is memmap.",
        question="Does nr_memmap_pages equal the memmap of 1 GiB, wherever that lies, and return "
        "to its start when the memory leaves?",
        cases=(
            *(
                ClaimCase(
                    f"{policy}: nr_memmap_pages gains at add",
                    (_dimm(policy, "dimm-round-trip"),),
                    counter_at(1),
                    "pages",
                    claimed=4096,
                )
                for policy in ("existing", "rfc-2018", "opt-in")
            ),
            *(
                ClaimCase(
                    f"{policy}: left after removal",
                    (_dimm(policy, "dimm-round-trip"),),
                    counter_at(-1),
                    "pages",
                    claimed=0,
                )
                for policy in ("existing", "opt-in")
            ),
        ),
        expected=HOLDS,
        settled="6.11 (15995a352474, 9d8573111024): nr_memmap_pages in /proc/vmstat; no line in "
        "/proc/meminfo",
    ),
    Claim(
        id="C4",
        who="reviewer",
        statement="Hiding the memmap is a change that users see: who pays for 64 GiB sees less.",
        question="What does MemTotal gain from 64 GiB, before the change and with it?",
        cases=(
            *(
                ClaimCase(
                    f"{policy}: MemTotal gains",
                    (_dimm(policy, "dimm-64GiB"),),
                    gained_kb("MemTotal"),
                    "kB",
                    claimed=63 * _GIB_KB,
                )
                for policy in ("rfc-2018", "opt-in")
            ),
            *(
                ClaimCase(
                    f"{policy}: MemTotal gains",
                    (_dimm(policy, "dimm-64GiB"),),
                    gained_kb("MemTotal"),
                    "kB",
                    claimed=64 * _GIB_KB,
                )
                for policy in ("existing", "total-and-allocated")
            ),
        ),
        expected=HOLDS,
        settled="5.13: accepted as a change; the parameter memmap_on_memory is off by default",
    ),
)
