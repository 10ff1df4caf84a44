"""Claims about who decides where a memmap goes (C5, C6, C9, C21, C22)."""

from __future__ import annotations

from itertools import product

from altmap.studies.claims.claim import HOLDS, Claim, ClaimCase, Experiment
from altmap.studies.claims.measure import (
    fault_at,
    hosted_pages,
    nr_changed_callers,
    nr_faults,
    nr_unmoved_callers,
)

__all__ = ("CLAIMS",)


def _callers(*settings: str) -> tuple[Experiment, ...]:
    """Return one add by each caller that is modelled: ACPI, Hyper-V, ppc64 DLPAR."""
    return (
        Experiment("any-architecture", settings),
        Experiment("hyperv-first-half", settings),
        Experiment("any-architecture", ("arch=ppc64le", *settings)),
    )


def _hyperv_sweep(policy: str) -> tuple[Experiment, ...]:
    """Return Hyper-V adds of any size at either half of a section, with and without poison."""
    return tuple(
        Experiment(
            "hyperv-first-half",
            (f"policy={policy}", f"memmap_on_memory={mode}", f"debug_vm={debug_vm}"),
            (f"size={size}", f"address={address}"),
        )
        for mode, debug_vm, size, address in product(
            ("on", "force"),
            ("false", "true"),
            ("4KiB", "1MiB", "2MiB", "64MiB"),
            ("0x100000000", "0x104000000"),
        )
    )


_ARCHES = (
    ("x86_64", 4096),
    ("aarch64", 4096),
    ("aarch64-16k", 256),
    ("aarch64-64k", 16),
    ("ppc64le", 4096),
    ("ppc64le-64k", 16),
    ("s390x", 0),
)

CLAIMS = (
    Claim(
        id="C5",
        who="reviewer",
        statement="A driver has no say in where the memmap of its memory goes.",
        question="Of three callers (ACPI, Hyper-V, ppc64 DLPAR), how many can keep the memmap out "
        "of what they add while the others do not?",
        cases=tuple(
            ClaimCase(
                f"{policy}: callers that keep it out",
                _callers(f"policy={policy}"),
                nr_unmoved_callers,
                "of 3",
                claimed=0,
                when=f"the policy is {policy}",
            )
            for policy in ("rfc-2018", "opt-in")
        ),
        expected="holds only when the policy is rfc-2018",
        settled="5.13: MHP_MEMMAP_ON_MEMORY, a flag of each call",
        note="Xen and virtio-mem are no part of the experiment.",
    ),
    Claim(
        id="C6",
        who="author",
        statement="The architecture decides: x86_64, arm64 and powerpc always do it, s390 does "
        "not.",
        question="How many pages of 1 GiB hold its memmap, by architecture?",
        cases=tuple(
            ClaimCase(
                f"{arch}: memmap in the range",
                (Experiment("any-architecture", ("policy=rfc-2018", f"arch={arch}")),),
                hosted_pages,
                "pages",
                claimed=nr_pages,
                when=f"the architecture is {arch}",
            )
            for arch, nr_pages in _ARCHES
        ),
        expected=HOLDS,
        settled="5.13 x86 and arm64, 6.6 powerpc, s390 in 6.8 or 6.9: the architecture only "
        "allows it; caller and parameter must ask",
    ),
    Claim(
        id="C9",
        who="author",
        statement="A flag handed down with each add can keep a driver out of it.",
        question="Can Hyper-V add 1 MiB without a fault, while a DIMM still holds its own memmap?",
        cases=(
            ClaimCase(
                "flag (opt-in): Hyper-V backs 1 MiB",
                (Experiment("hyperv-first-half", ("policy=opt-in",), ("size=1MiB",)),),
                fault_at,
                "",
                claimed="no fault",
            ),
            ClaimCase(
                "flag (opt-in): memmap in a DIMM of 1 GiB",
                (Experiment("dimm-1GiB", ("policy=opt-in",)),),
                hosted_pages,
                "pages",
                claimed=4096,
            ),
            ClaimCase(
                "no flag (rfc-2018): Hyper-V backs 1 MiB",
                (Experiment("hyperv-first-half", ("policy=rfc-2018",), ("size=1MiB",)),),
                fault_at,
                "",
            ),
        ),
        expected=HOLDS,
        settled="5.13: the other way round, a driver that passes MHP_MEMMAP_ON_MEMORY opts in",
        note="A flag to opt out, which a driver could forget, is not modelled; rfc-2018 shows "
        "what would then happen.",
    ),
    Claim(
        id="C21",
        who="reviewer",
        statement="Let drivers keep the old behaviour until they can promise a memmap that may be "
        "read and written at add.",
        question="Can a driver that does not ask fault, whatever part of a section is backed?",
        cases=(
            ClaimCase(
                "opt-in: Hyper-V adds of 4 KiB to 64 MiB that fault",
                _hyperv_sweep("opt-in"),
                nr_faults,
                "of 32",
                claimed=0,
            ),
            ClaimCase(
                "rfc-2018: the same adds",
                _hyperv_sweep("rfc-2018"),
                nr_faults,
                "of 32",
            ),
        ),
        expected=HOLDS,
        settled="5.13: merged so; Hyper-V, Xen and virtio-mem still do not ask (6.12)",
        note="Xen and virtio-mem are no part of the experiment.",
    ),
    Claim(
        id="C22",
        who="reviewer",
        statement="It is a major change of the add_memory() interface: every caller is concerned.",
        question="Of three callers (ACPI, Hyper-V, ppc64 DLPAR), how many find part of what they "
        "add taken, although they asked for nothing?",
        cases=(
            ClaimCase(
                "rfc-2018: callers concerned",
                _callers("policy=rfc-2018"),
                nr_changed_callers,
                "of 3",
                claimed=3,
            ),
            ClaimCase(
                "opt-in, parameter on: callers that ask",
                _callers("policy=opt-in"),
                nr_changed_callers,
                "of 3",
            ),
            ClaimCase(
                "opt-in, parameter off (default)",
                _callers("policy=opt-in", "memmap_on_memory=off"),
                nr_changed_callers,
                "of 3",
            ),
        ),
        expected=HOLDS,
        settled="5.13: nothing changes for a call without the flag, which travels in mhp_t",
        note="Xen, virtio-mem, dax/kmem and the probe file are no part of the experiment. The one "
        "with the parameter off is DLPAR, which onlines each LMB before it adds the next: since "
        "6.10 memory that went online last is used first, and so for the next LMB's memmap.",
    ),
)
