"""Claims about balloon drivers that use part of what they add (C10, C17 to C20)."""

from __future__ import annotations

from altmap.studies.claims.claim import HOLDS, REFUTED, Claim, ClaimCase, Experiment
from altmap.studies.claims.measure import (
    brought_online_pages,
    fake_offline_pages,
    fault_at,
    gained_kb,
    memmap_pages,
    outcome_of,
    usable_per_memmap_page,
)

__all__ = ("CLAIMS",)

_OLD = "policy=existing"


def _first(size: str, *settings: str) -> tuple[Experiment, ...]:
    plug = () if size == "64MiB" else (f"size={size}",)
    return (Experiment("hyperv-first-half", (_OLD, *settings), plug),)


CLAIMS = (
    Claim(
        id="C10",
        who="reviewer",
        statement="Xen and Hyper-V add memory in units of Linux, such as 128 MiB, and use part of "
        "it, such as 64 MiB.",
        question="The host gives 64 MiB: how much does Hyper-V's driver let the kernel use, and "
        "how much does it keep fake-offline?",
        cases=(
            ClaimCase(
                "existing: MemTotal gains", _first("64MiB"), gained_kb("MemTotal"), "kB", 64 << 10
            ),
            ClaimCase(
                "existing: fake-offline", _first("64MiB"), fake_offline_pages, "pages", 64 << 8
            ),
            ClaimCase(
                "rfc-2018: MemTotal gains",
                (Experiment("hyperv-first-half", ("policy=rfc-2018",)),),
                gained_kb("MemTotal"),
                "kB",
            ),
        ),
        expected=HOLDS,
        settled="unchanged (6.12); virtio-mem has joined them since",
        note="Judged for Hyper-V; Xen domains and virtio-mem do the same (see the matrix).",
    ),
    Claim(
        id="C17",
        who="author",
        statement="An add of 128 MiB needs the memmap of 128 MiB, even when 64 or 32 MiB of it "
        "are there.",
        question="How many pages hold the memmap, and how many usable pages share its cost?",
        cases=tuple(
            case
            for size, ratio in (("64MiB", 32), ("128MiB", 64), ("32MiB", 16))
            for case in (
                ClaimCase(
                    f"existing, {size} there: memmap", _first(size), memmap_pages, "pages", 512
                ),
                ClaimCase(
                    f"existing, {size} there: usable pages per memmap page",
                    _first(size),
                    usable_per_memmap_page,
                    "pages",
                    ratio,
                ),
            )
        ),
        expected=HOLDS,
        settled="unchanged (6.12)",
    ),
    Claim(
        id="C18",
        who="reviewer",
        statement="The 64 MiB that Hyper-V gives must be the first of the section (the reviewer "
        "did not know).",
        question="The host gives the second half: does the driver take it, and can it be used?",
        cases=(
            ClaimCase(
                "existing, second half: can be used",
                (Experiment("hyperv-second-half", (_OLD,)),),
                gained_kb("MemTotal"),
                "kB",
                claimed=0,
            ),
            ClaimCase(
                "existing, 4.20, second half: can be used",
                (Experiment("hyperv-second-half", (_OLD, "release=4.20")),),
                gained_kb("MemTotal"),
                "kB",
                claimed=0,
            ),
            ClaimCase(
                "rfc-2018, second half",
                (Experiment("hyperv-second-half", ("policy=rfc-2018",)),),
                fault_at,
                "",
            ),
        ),
        expected=REFUTED,
        settled="no release: hv_balloon rounds the region down and starts where the host does, "
        "unless the host names a region (6.12)",
        note="What hosts do is not known here, only what the driver takes.",
    ),
    Claim(
        id="C19",
        who="reviewer",
        statement="The rest of a section stays fake-offline, and goes online when the host gives "
        "another 64 MiB.",
        question="Are 64 MiB kept fake-offline and brought online later, the memmap paid for once? "
        "In either order of the halves?",
        cases=(
            ClaimCase(
                "first half, then second: fake-offline",
                (Experiment("hyperv-halves-in-order", (_OLD,)),),
                fake_offline_pages,
                "pages",
                claimed=64 << 8,
                when="the first half comes first",
            ),
            ClaimCase(
                "first half, then second: brought online",
                (Experiment("hyperv-halves-in-order", (_OLD,)),),
                brought_online_pages,
                "pages",
                claimed=64 << 8,
                when="the first half comes first",
            ),
            ClaimCase(
                "first half, then second: MemTotal gains",
                (Experiment("hyperv-halves-in-order", (_OLD,)),),
                gained_kb("MemTotal"),
                "kB",
                claimed=128 << 10,
                when="the first half comes first",
            ),
            ClaimCase(
                "first half, then second: memmap",
                (Experiment("hyperv-halves-in-order", (_OLD,)),),
                memmap_pages,
                "pages",
                claimed=512,
                when="the first half comes first",
            ),
            ClaimCase(
                "second half, then first: brought online",
                (Experiment("hyperv-halves-reversed", (_OLD,)),),
                brought_online_pages,
                "pages",
                claimed=64 << 8,
                when="the second half comes first",
            ),
        ),
        expected="holds only when the first half comes first",
        settled="unchanged (6.12): handle_pg_range brings nothing online at a region's start",
        note="Whether a host ever gives the halves in the other order is not known here.",
    ),
    Claim(
        id="C20",
        who="reviewer",
        statement="The half that is not backed must not be written, but may be read, for a dump.",
        question="What becomes of a write to it, and of a dump that reads it?",
        cases=(
            ClaimCase(
                "a dump of all pages, reads allowed",
                (Experiment("hyperv-dump", (_OLD, "unbacked_reads=allowed")),),
                outcome_of("dump-everything"),
                "",
                claimed="ok",
                when="the platform answers such reads",
            ),
            ClaimCase(
                "a dump of all pages, reads fault",
                (Experiment("hyperv-dump", (_OLD,)),),
                outcome_of("dump-everything"),
                "",
                claimed="ok",
                when="the platform answers no such reads",
            ),
            ClaimCase(
                "a dump without offline pages, reads fault",
                (Experiment("hyperv-dump", (_OLD,)),),
                outcome_of("dump-without-offline"),
                "",
                claimed="ok",
                when="the dump leaves offline pages out",
            ),
            ClaimCase(
                "rfc-2018 writes it, reads allowed",
                (Experiment("hyperv-second-half", ("policy=rfc-2018", "unbacked_reads=allowed")),),
                fault_at,
                "",
                claimed="fault at add",
            ),
        ),
        expected="holds only when the platform answers such reads or the dump leaves offline "
        "pages out",
        settled="5.1 and makedumpfile 1.6.6: a dump can leave out pages that are logically offline",
        note="Whether a host answers reads is a setting here, not a finding.",
    ),
)
