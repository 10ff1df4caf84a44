"""Tests that need a real kernel or browser are skipped where there is none, or fail if demanded."""

import importlib.util
import os
import shutil

import pytest

PROGRAMS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "setpriv": "util-linux",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}


#: Marker to the programs and Python modules that its tests need, and where they come from.
NEEDS = {
    "lab": (PROGRAMS, {"qemu": "qemu.qmp (pip install altmap[lab])"}),
    "browser": (
        {"chromium": "chromium"},
        {
            "playwright": "playwright (pip install altmap[dev])",
            "vl_convert": "vl-convert-python (pip install altmap[report])",
        },
    ),
}


def missing(marker):
    programs, modules = NEEDS[marker]
    return [
        *(f"{p} (Debian: {d})" for p, d in programs.items() if shutil.which(p) is None),
        *(told for name, told in modules.items() if importlib.util.find_spec(name) is None),
    ]


def pytest_collection_modifyitems(items):
    reasons = {marker: ", ".join(missing(marker)) for marker in NEEDS}
    for item in items:
        if item.get_closest_marker("lab"):
            # A running kernel allocates as it likes: what differs has to differ twice.
            item.add_marker(pytest.mark.flaky(reruns=1))
        for marker, reason in reasons.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"missing: {reason}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    # A folder of tests has the marker's name, so keywords do not tell; properties pass to xdist.
    if any(item.get_closest_marker(marker) for marker in NEEDS):
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
