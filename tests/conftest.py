"""Tests that need a real kernel or browser are skipped where there is none, or fail if demanded."""

import importlib.util
import os
import shutil

import pytest

QEMU = {
    "x86_64": ("qemu-system-x86_64", "qemu-system-x86"),
    "ppc64le": ("qemu-system-ppc64", "qemu-system-ppc"),
    "aarch64": ("qemu-system-aarch64", "qemu-system-arm"),
    "s390x": ("qemu-system-s390x", "qemu-system-s390x"),
}
PROGRAMS = {"setpriv": "util-linux", "apt-get": "apt", "dpkg-deb": "dpkg"}


BROWSER = {
    "playwright": "playwright (pip install altmap[dev])",
    "vl_convert": "vl-convert-python (pip install altmap[report])",
}


def absent(programs, modules):
    return [
        *(f"{p} (Debian: {d})" for p, d in programs.items() if shutil.which(p) is None),
        *(told for name, told in modules.items() if importlib.util.find_spec(name) is None),
    ]


def needs(item):
    """What a test needs and is missing; the argument of ``lab`` is the guest's architecture."""
    lab, browser = (item.get_closest_marker(name) for name in ("lab", "browser"))
    found = []
    if lab:
        programs = dict([QEMU[lab.args[0] if lab.args else "x86_64"]]) | PROGRAMS
        found += absent(programs, {"qemu": "qemu.qmp (pip install altmap[lab])"})
    if browser:
        found += absent({"chromium": "chromium"}, BROWSER)
    return ", ".join(found)


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("lab"):
            # A running kernel allocates as it likes: what differs has to differ twice.
            item.add_marker(pytest.mark.flaky(reruns=1))
        reason = needs(item)
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"missing: {reason}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    # A folder of tests has the marker's name, so keywords do not tell; properties pass to xdist.
    if any(item.get_closest_marker(marker) for marker in ("lab", "browser")):
        report.user_properties.append(("demanded", True))
    return report


def pytest_sessionfinish(session):
    """With ALTMAP_LAB=required, a test of kernel or browser that was skipped fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("ALTMAP_LAB") != "required":
        return
    reports = reporter.stats.get("skipped", [])
    skipped = [report for report in reports if ("demanded", True) in report.user_properties]
    if skipped:
        reporter.write_line(f"{len(skipped)} demanded tests were skipped, and ALTMAP_LAB=required")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
