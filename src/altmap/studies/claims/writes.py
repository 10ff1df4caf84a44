"""Claims about what is written where, and when (C7, C8, C11 to C16)."""

from __future__ import annotations

from itertools import product

from altmap.studies.claims.claim import HOLDS, Claim, ClaimCase, Experiment
from altmap.studies.claims.measure import (
    fault_at,
    hosted_pages,
    least_safe_kib,
    memmap_kib_per_block,
    most_touched_in_a_block,
    nr_faults,
    nr_misjudged,
    touched_pages,
    untouched_pages,
)

__all__ = ("CLAIMS",)

_RFC = "policy=rfc-2018"
_KIB = 1024


def _backed_sweep(block: str, most_kib: int, *settings: str) -> tuple[Experiment, ...]:
    """Return Hyper-V adds that back 4 KiB, 8 KiB, ... at the start of a block, and nearly 2 MiB."""
    powers = [4 << n for n in range(20) if 4 << n <= most_kib]
    return (
        Experiment("hyperv-first-half", (*settings, f"block_size={block}")),
        *(
            Experiment("hyperv-first-half", (*settings, f"block_size={block}"), (f"size={kib}KiB",))
            for kib in sorted({*powers, 2 * _KIB - 4})
        ),
    )


def _section_sweep(*settings: str) -> tuple[Experiment, ...]:
    """Return Hyper-V adds of several sizes, at the start and in the middle of a section."""
    return tuple(
        Experiment("hyperv-first-half", settings, (f"size={size}", f"address={address}"))
        for size, address in product(
            ("4KiB", "1MiB", "2044KiB", "2MiB", "32MiB", "64MiB"), ("0x100000000", "0x104000000")
        )
    )


def _touched(policy: str, size: str, claimed: int, when: str, nr: str) -> ClaimCase:
    return ClaimCase(
        f"{policy}, {nr}: touched",
        (Experiment("dimm-one-section", (f"policy={policy}",), (f"size={size}",)),),
        touched_pages(),
        "pages",
        claimed=claimed,
        when=when,
    )


_BLOCKS = (
    ("128MiB", 128 * _KIB),
    ("256MiB", 256 * _KIB),
    ("512MiB", 512 * _KIB),
    ("1GiB", 1024 * _KIB),
    ("2GiB", 2048 * _KIB),
)
_ONE_SECTION = "one section is added at a time"

CLAIMS = (
    Claim(
        id="C7",
        who="reviewer",
        statement="Hyper-V and Xen break if memory can arrive in units below 2 MiB.",
        question="How much must the host back at the start of a 128 MiB block, so that no add and "
        "no online faults?",
        cases=(
            ClaimCase(
                "rfc-2018: least that is safe",
                _backed_sweep("128MiB", 128 * _KIB, _RFC),
                least_safe_kib,
                "KiB",
                claimed=2048,
            ),
            ClaimCase(
                "opt-in: least that is safe",
                _backed_sweep("128MiB", 128 * _KIB, "policy=opt-in"),
                least_safe_kib,
                "KiB",
            ),
        ),
        expected=HOLDS,
        settled="no release: Hyper-V and Xen never ask for it (6.12)",
        note="Xen, which backs nothing before online, is no part of the experiment.",
    ),
    Claim(
        id="C8",
        who="reviewer",
        statement="They break as well if memory blocks are bigger.",
        question="Does what the host must back grow with the block, as 1/64 of it?",
        cases=tuple(
            ClaimCase(
                f"rfc-2018, blocks of {block}: least that is safe",
                _backed_sweep(block, kib, _RFC),
                least_safe_kib,
                "KiB",
                claimed=kib // 64,
                when=f"blocks have {block}",
            )
            for block, kib in _BLOCKS
        ),
        expected=HOLDS,
        settled="6.8 (6b8f0798b85a): a memmap for each block, 1/64 of it; Hyper-V and Xen never "
        "ask",
        note="Xen is no part of the experiment.",
    ),
    Claim(
        id="C11",
        who="reviewer",
        statement="A driver names its usable pages when they go online; the memmap is accessed "
        "before that, and the machine crashes.",
        question="Is the new memory touched before the step that calls the driver's online "
        "callback?",
        cases=(
            ClaimCase(
                "rfc-2018, first half backed: touched before online",
                (Experiment("hyperv-first-half", (_RFC,)),),
                touched_pages(before_online=True),
                "pages",
                claimed=range(1, 32768),
            ),
            ClaimCase(
                "rfc-2018, second half backed",
                (Experiment("hyperv-second-half", (_RFC,)),),
                fault_at,
                "",
                claimed="fault at add",
            ),
            ClaimCase(
                "opt-in, first half backed: touched before online",
                (Experiment("hyperv-first-half", ("policy=opt-in",)),),
                touched_pages(before_online=True),
                "pages",
            ),
            ClaimCase(
                "opt-in, second half backed",
                (Experiment("hyperv-second-half", ("policy=opt-in",)),),
                fault_at,
                "",
            ),
        ),
        expected=HOLDS,
        settled="5.13: callers promise it with the flag; s390 had notifiers to make memory "
        "accessible first, until 6.18",
    ),
    Claim(
        id="C12",
        who="reviewer",
        statement="Memory that is not online is neither read nor written.",
        question="How many pages of a new DIMM are touched before it is onlined?",
        cases=tuple(
            ClaimCase(
                f"{policy}{', CONFIG_DEBUG_VM' if debug_vm else ''}: touched before online",
                (
                    Experiment(
                        "dimm-one-section",
                        (f"policy={policy}", *(("debug_vm=true",) if debug_vm else ())),
                    ),
                ),
                touched_pages(before_online=True),
                "pages",
                claimed=0,
                when=when,
            )
            for policy, debug_vm, when in (
                ("existing", False, "the memmap is in existing memory"),
                ("existing", True, "the memmap is in existing memory"),
                ("opt-in", False, "opt-in runs without CONFIG_DEBUG_VM"),
                ("opt-in", True, "opt-in runs with CONFIG_DEBUG_VM"),
                ("rfc-2018", False, "rfc-2018 runs without CONFIG_DEBUG_VM"),
                ("rfc-2018", True, "rfc-2018 runs with CONFIG_DEBUG_VM"),
            )
        ),
        expected="holds only when the memmap is in existing memory or opt-in runs without "
        "CONFIG_DEBUG_VM",
        settled="5.13: still so for callers without the flag",
    ),
    Claim(
        id="C13",
        who="author",
        statement="Only the first 2 MiB of an added section are written; the other 126 MiB are "
        "not.",
        question="Which pages does the kernel itself touch, for one section and for several?",
        cases=(
            _touched("rfc-2018", "128MiB", 512, _ONE_SECTION, "1 section"),
            ClaimCase(
                "rfc-2018, 1 section: left alone",
                (Experiment("dimm-one-section", (_RFC,)),),
                untouched_pages,
                "pages",
                claimed=126 << 8,
                when=_ONE_SECTION,
            ),
            _touched("rfc-2018", "256MiB", 512, "two sections are added at once", "2 sections"),
            _touched("rfc-2018", "1GiB", 512, "eight sections are added at once", "8 sections"),
            ClaimCase(
                "opt-in, 8 blocks: most touched in one",
                (Experiment("dimm-one-section", ("policy=opt-in",), ("size=1GiB",)),),
                most_touched_in_a_block,
                "pages",
                claimed=512,
                when="each block of one section holds its own memmap",
            ),
            ClaimCase(
                "rfc-2018, 1 section: of these at add",
                (Experiment("dimm-one-section", (_RFC,)),),
                touched_pages(before_online=True),
                "pages",
            ),
        ),
        expected=f"holds only when {_ONE_SECTION} or each block of one section holds its own "
        "memmap",
        settled="5.13: one block per add; 6.8 (6b8f0798b85a): a memmap for each block",
    ),
    Claim(
        id="C14",
        who="reviewer",
        statement="Then this must become a rule, which every user of it has to obey: the frames "
        "of the memmap are backed.",
        question="Is the rule enough, and needed? Over backed parts of any size and place, does a "
        "fault come exactly where it is broken?",
        cases=(
            ClaimCase(
                "rfc-2018: runs that the rule judges wrongly",
                _section_sweep(_RFC),
                nr_misjudged,
                "of 12",
                claimed=0,
            ),
            ClaimCase(
                "rfc-2018: runs that fault",
                _section_sweep(_RFC),
                nr_faults,
                "of 12",
                claimed=9,
            ),
        ),
        expected=HOLDS,
        settled="5.13: the meaning of MHP_MEMMAP_ON_MEMORY",
    ),
    Claim(
        id="C15",
        who="reviewer",
        statement="With memory blocks of 2 GiB a promise of 2 MiB is void.",
        question="Hyper-V backs 16 MiB of a 2 GiB block: how large is its memmap, and when does "
        "the fault come?",
        cases=(
            ClaimCase(
                "rfc-2018: memmap of the block",
                (Experiment("hyperv-big-block", (_RFC,)),),
                hosted_pages,
                "pages",
                claimed=8192,
            ),
            ClaimCase(
                "rfc-2018",
                (Experiment("hyperv-big-block", (_RFC,)),),
                fault_at,
                "",
                claimed="fault at online",
            ),
            ClaimCase(
                "rfc-2018, CONFIG_DEBUG_VM",
                (Experiment("hyperv-big-block", (_RFC, "debug_vm=true")),),
                fault_at,
                "",
                claimed="fault at add",
            ),
            ClaimCase(
                "opt-in",
                (Experiment("hyperv-big-block", ("policy=opt-in",)),),
                fault_at,
                "",
            ),
        ),
        expected=HOLDS,
        settled="6.10 (8852ebf1948d): Hyper-V can add to such guests at all; it does not ask",
    ),
    Claim(
        id="C16",
        who="reviewer",
        statement="Other architectures need other sizes, s390x 4 MiB for its 256 MiB.",
        question="How much memmap does one memory block need, by architecture?",
        cases=tuple(
            ClaimCase(
                f"{arch}, block of {block}: memmap",
                (Experiment("any-architecture", ("policy=existing", f"arch={arch}")),),
                memmap_kib_per_block,
                "KiB",
                claimed=kib,
                when=f"the architecture is {arch}",
            )
            for arch, block, kib in (
                ("s390x", "256 MiB", 4096),
                ("x86_64", "128 MiB", 2048),
                ("aarch64", "128 MiB", 2048),
                ("aarch64-16k", "128 MiB", 512),
                ("aarch64-64k", "512 MiB", 512),
                ("ppc64le", "256 MiB", 4096),
                ("ppc64le-64k", "256 MiB", 256),
            )
        ),
        expected=HOLDS,
        settled="s390 came in 6.8 or 6.9",
    ),
)
