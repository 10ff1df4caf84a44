"""The kernel's own selftest of memory hotplug runs on the model as a whole, unchanged.

``tools/testing/selftests/memory-hotplug/mem-on-off-test.sh`` is taken from Debian's package of the
kernel's source, into the user's cache.
"""

import re
import shutil
from collections import Counter
from pathlib import Path

import debian
import pytest
from live_machines import MACHINES

from altmap.live.mounting import mounted

pytestmark = [
    pytest.mark.mount,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("bc") is None, reason="missing: bc (Debian: bc)"),
]
CAPTURED = Path(__file__).parents[1] / "recordings/files/linux-6.12-dimm.tar.xz"


@pytest.fixture(scope="module")
def selftest():
    return debian.selftest()


def writes(machine):
    """Return how often each file was written to with each answer."""
    found = Counter()
    for line in machine.log:
        match = re.match(r"write (\S+) '.*': (\w+)", line)
        if match:
            found[match[1].rpartition("/memory/")[2].rpartition("/")[2], match[2]] += 1
    return found


@pytest.mark.parametrize("name", [name for name in MACHINES if name != "64TiB"] + ["captured"])
def test_the_selftest_passes_as_a_whole(name, selftest):
    source = CAPTURED if name == "captured" else MACHINES[name]
    with mounted(source) as machine:
        done = machine.run("bash", selftest, "-r", "25", timeout=300)
        counts = writes(machine)
        left = machine.run("lsmem", "--bytes", "--summary=only").stdout
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skip" not in done.stderr.lower()
    assert "Test with memory notifier error injection" in done.stdout
    # Both directions were refused as the injected error says, and memory was onlined again.
    assert counts["error", "ok"] == 5
    assert counts["state", "ENOMEM"] >= 1
    assert re.search(r"Total offline memory: +0\b", left), left


def test_another_errno_is_injected_as_well(selftest):
    with mounted(MACHINES["pc-1GiB"]) as machine:
        done = machine.run("bash", selftest, "-r", "100", "-e", "-16", timeout=300)
        counts = writes(machine)
    assert counts["state", "ENOMEM"] == 0
    assert counts["state", "EBUSY"] >= 8  # each of the offline blocks, which -r 100 leaves
    # Boot memory that the kernel keeps is why 100 % cannot be offlined: the test says so.
    assert done.returncode == 1
    assert "unable to offline some memory blocks" in done.stdout
