"""Statements about the series itself, which no experiment can judge (C23, C24)."""

from __future__ import annotations

from altmap.studies.claims.claim import NOT_TESTABLE, Claim, ClaimCase, Experiment
from altmap.studies.claims.measure import nr_faults

__all__ = ("CLAIMS",)

_RFC = ("policy=rfc-2018",)

CLAIMS = (
    Claim(
        id="C23",
        who="author",
        statement="It was tested with QEMU, simulating large machines; a test on Xen is planned.",
        question="Who tested what is history. Could those tests have shown the faults?",
        cases=(
            ClaimCase(
                "rfc-2018, DIMMs of 512 MiB to 60 GiB that fault",
                tuple(
                    Experiment("dimm-64GiB", _RFC, (f"size={size}",))
                    for size in ("512MiB", "2GiB", "9GiB", "60GiB")
                ),
                nr_faults,
                "of 4",
            ),
            ClaimCase(
                "rfc-2018, Hyper-V and half a section that fault",
                (Experiment("hyperv-first-half", _RFC), Experiment("hyperv-second-half", _RFC)),
                nr_faults,
                "of 2",
            ),
        ),
        expected=NOT_TESTABLE,
        settled="no release: the series was never tested on Xen or Hyper-V",
        note="Xen is no part of the experiment.",
    ),
    Claim(
        id="C24",
        who="author",
        statement="A second version, for the remarks of another reviewer, is coming.",
        question="An announcement; there is nothing to measure.",
        cases=(),
        expected=NOT_TESTABLE,
        settled="a second RFC came in January 2019",
    ),
)
