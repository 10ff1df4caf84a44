"""How all tests run: examples of Hypothesis, and what needs a real kernel or browser.

A test whose kernel or browser is missing is skipped, or fails if it is demanded (ALTMAP_LAB).
"""

import importlib.util
import os
import shutil
import signal
import sys
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# One profile for every property: a busy machine is no defect, so neither time limits nor the
# check for slow generation. HYPOTHESIS_PROFILE=thorough or --hypothesis-profile=thorough draws
# more; a test states a number of its own only as a fraction of the profile's.
for _name, _nr_examples in {"fast": 25, "thorough": 300}.items():
    settings.register_profile(
        _name,
        max_examples=_nr_examples,
        deadline=None,
        derandomize=False,
        print_blob=True,
        suppress_health_check=[HealthCheck.too_slow],
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))

os.environ.pop("COLUMNS", None)  # xdist sets it for its workers

# A shell starts background jobs with SIGINT ignored, and processes of tests inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

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


#: What a mounted machine needs, and the programs of the tests of one.
MOUNT = {
    "fusermount3": "fuse3",
    "unshare": "util-linux",
    "lsmem": "util-linux",
    "chmem": "util-linux",
}


@cache
def has_program(name):
    return shutil.which(name) is not None


@cache
def has_module(name):
    return importlib.util.find_spec(name) is not None


def absent(programs, modules):
    return [
        *(f"{p} (Debian: {d})" for p, d in programs.items() if not has_program(p)),
        *(told for name, told in modules.items() if not has_module(name)),
    ]


def needs(item):
    """What a test needs and is missing; the argument of ``lab`` is the guest's architecture."""
    lab, browser = (item.get_closest_marker(name) for name in ("lab", "browser"))
    found = []
    if item.get_closest_marker("mount"):
        found += absent(MOUNT, {"mfusepy": "mfusepy (pip install altmap[mount])"})
    if lab:
        programs = dict([QEMU[lab.args[0] if lab.args else "x86_64"]]) | PROGRAMS
        found += absent(programs, {"qemu": "qemu.qmp (pip install altmap[lab])"})
    if browser:
        found += absent({"chromium": "chromium"}, BROWSER)
    return ", ".join(found)


@pytest.hookimpl(trylast=True)  # of the selected tests only
def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("lab") and not item.get_closest_marker("flaky"):
            # A running kernel allocates as it likes: what differs has to differ twice.
            item.add_marker(pytest.mark.flaky(reruns=1))
        reason = needs(item)
        if reason:
            item.add_marker(pytest.mark.skip(reason=f"missing: {reason}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    report = yield
    if call.excinfo is not None and not getattr(call.excinfo.value, "demanded", True):
        return report
    # A folder of tests has the marker's name, so keywords do not tell; properties pass to xdist.
    if any(item.get_closest_marker(marker) for marker in ("lab", "browser", "mount")):
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


@pytest.fixture(scope="session")
def generate():
    """The script that makes pages of the docs."""
    docs = Path(__file__).parents[1] / "docs"
    spec = importlib.util.spec_from_file_location("generate", docs / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(docs))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return module
