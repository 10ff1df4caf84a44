"""Guests are shared by the tests of a module: a boot takes seconds."""

import importlib.util
import shutil

import pytest

from altmap.lab import Guest, fetch

PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}


def missing() -> list[str]:
    found = [f"{p} (Debian: {d})" for p, d in PROGRAMS.items() if shutil.which(p) is None]
    if importlib.util.find_spec("qemu") is None:
        found.append("qemu.qmp (pip install altmap[lab])")
    return found


def pytest_collection_modifyitems(items):
    reason = ", ".join(missing())
    for item in items:
        if reason and item.get_closest_marker("lab"):
            item.add_marker(pytest.mark.skip(reason=f"missing: {reason}"))


@pytest.fixture(scope="module", params=["6.1", "6.12"])
def kernel(request):
    return fetch(request.param)


@pytest.fixture(scope="module")
def guest(kernel):
    """A guest that does not online by itself, with the memmap in added memory."""
    cmdline = "memory_hotplug.memmap_on_memory=1 memhp_default_state=offline"
    with Guest(kernel, cmdline=cmdline) as guest:
        yield guest
