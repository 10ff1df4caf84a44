"""Guests are shared by the tests of a module: a boot takes seconds."""

import pytest

from altmap.lab import fetch
from altmap.lab.qemu import Hardware
from altmap.lab.snapshot import booted


@pytest.fixture(scope="module", params=["6.1", "6.12"])
def kernel(request):
    return fetch(request.param)


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest that does not online by itself, with the memmap in added memory."""
    cmdline = "memory_hotplug.memmap_on_memory=1 memhp_default_state=offline"
    with booted(kernel, Hardware(arch=kernel.arch), cmdline) as guest:
        yield guest
