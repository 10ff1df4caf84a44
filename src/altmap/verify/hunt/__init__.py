"""Differential search: scenarios drawn by chance, on the model and on real kernels.

A difference is repeated, made smaller, and kept as a finding with all that is needed to repeat it.
"""

__all__ = ()
