"""Two traces side by side: what was predicted and what was observed, file by file after each step.

The fields are data (:mod:`~altmap.compare.fields`): a field is exact, or may differ by a tolerance
that is derived and stated.
"""

from altmap.compare.fields import FIELDS, ComparedFile, Field
from altmap.compare.traces import compare, compare_layout
from altmap.compare.verdict import Comparison, Difference, FileVerdict, Verdict

__all__ = (
    "FIELDS",
    "ComparedFile",
    "Comparison",
    "Difference",
    "Field",
    "FileVerdict",
    "Verdict",
    "compare",
    "compare_layout",
)
