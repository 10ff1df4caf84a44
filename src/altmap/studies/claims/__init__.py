"""The claims of the discussion of 2018, each with an experiment, a number and a verdict.

:data:`CLAIMS` is the data, :func:`judge` runs it on the model,
and :mod:`altmap.studies.claims.text`
shows what came out. A verdict is computed from what the traces say, never stated.
"""

from altmap.studies.claims.catalogue import CLAIMS
from altmap.studies.claims.claim import (
    Claim,
    ClaimCase,
    Experiment,
    Finding,
    Measured,
    claims_named,
    judge,
)

__all__ = (
    "CLAIMS",
    "Claim",
    "ClaimCase",
    "Experiment",
    "Finding",
    "Measured",
    "claims_named",
    "judge",
)
