"""Tests that boot a real kernel are skipped where none can be had, or fail if one is demanded."""

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


def missing(family):
    programs = dict([QEMU[family]]) | PROGRAMS
    found = [f"{p} (Debian: {d})" for p, d in programs.items() if shutil.which(p) is None]
    if importlib.util.find_spec("qemu") is None:
        found.append("qemu.qmp (pip install altmap[lab])")
    return found


def pytest_collection_modifyitems(items):
    """The marker's argument is the architecture of the guest, x86_64 if it has none."""
    reasons = {family: ", ".join(missing(family)) for family in QEMU}
    for item in items:
        marker = item.get_closest_marker("lab")
        if marker:
            # A running kernel allocates as it likes: what differs has to differ twice.
            item.add_marker(pytest.mark.flaky(reruns=1))
        reason = marker and reasons[marker.args[0] if marker.args else "x86_64"]
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"missing: {reason}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    report = yield
    # A folder of tests has the marker's name, so keywords do not tell; properties pass to xdist.
    if item.get_closest_marker("lab"):
        report.user_properties.append(("lab", True))
    return report


def pytest_sessionfinish(session):
    """With ALTMAP_LAB=required, a lab test that was skipped fails the run."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or os.environ.get("ALTMAP_LAB") != "required":
        return
    reports = reporter.stats.get("skipped", [])
    skipped = [report for report in reports if ("lab", True) in report.user_properties]
    if skipped:
        reporter.write_line(f"{len(skipped)} lab tests were skipped, and ALTMAP_LAB=required")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
