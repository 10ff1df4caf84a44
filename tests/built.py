"""Kernels that a test does not build: its results are kept as recordings."""

import pytest

from altmap.lab.designs import design_of
from altmap.lab.kernel_build import built_folder
from altmap.lab.kernels import cache_folder


class KernelNotBuiltError(pytest.skip.Exception):
    """A skip that ALTMAP_LAB=required allows: building such a kernel fetches 150 MB."""

    demanded = False


def skip_unless_built(release):
    """Skip a test whose kernel carries a design and is not in the cache."""
    design = design_of(release)
    if design is not None and built_folder(design, cache_folder()) is None:
        raise KernelNotBuiltError(
            f"{release} is not in the cache: altmap lab build {design.name} builds it"
        )
