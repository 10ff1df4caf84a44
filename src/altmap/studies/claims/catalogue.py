"""All claims, in the order of the discussion."""

from altmap.studies.claims import choice, counters, history, hyperv, writes
from altmap.studies.claims.claim import Claim

__all__ = ("CLAIMS",)

CLAIMS: tuple[Claim, ...] = tuple(
    sorted(
        (*counters.CLAIMS, *choice.CLAIMS, *writes.CLAIMS, *hyperv.CLAIMS, *history.CLAIMS),
        key=lambda claim: int(claim.id[1:]),
    )
)
