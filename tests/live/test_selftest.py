"""The kernel's own selftest of memory hotplug runs on the model as a whole, unchanged.

``tools/testing/selftests/memory-hotplug/mem-on-off-test.sh`` is taken from Debian's package of the
kernel's source, into the user's cache.
"""

import re
import shutil
import subprocess
import tarfile
from collections import Counter
from pathlib import Path

import pytest
from live_machines import MACHINES

from altmap.lab.kernels import cache_folder
from altmap.live.mounting import mounted

pytestmark = [
    pytest.mark.mount,
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("bc") is None, reason="missing: bc (Debian: bc)"),
]
SCRIPT = "tools/testing/selftests/memory-hotplug/mem-on-off-test.sh"
CAPTURED = Path(__file__).parents[1] / "recordings/files/linux-6.12-dimm.tar.xz"


def source_package():
    """Return the package that Debian's linux-source depends on."""
    done = subprocess.run(
        ["apt-cache", "depends", "linux-source"], capture_output=True, text=True, check=True
    )
    return re.search(r"Depends: (linux-source-[\w.]+)", done.stdout)[1]


def extracted(package, folder):
    """Write the script of a package to a folder; nothing else of it is kept."""
    subprocess.run(["apt-get", "download", package], cwd=folder, check=True, capture_output=True)
    (deb,) = folder.glob(f"{package}_*.deb")
    command = ("dpkg-deb", "--fsys-tarfile", str(deb))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as unpack:
        with tarfile.open(fileobj=unpack.stdout, mode="r|") as outer:
            packed = next(m for m in outer if m.name.endswith(".tar.xz"))
            with tarfile.open(fileobj=outer.extractfile(packed), mode="r|xz") as inner:
                member = next(m for m in inner if m.name.endswith(SCRIPT))
                content = inner.extractfile(member).read()
        unpack.kill()
    return content


@pytest.fixture(scope="session")
def selftest(tmp_path_factory):
    path = cache_folder() / "selftests" / Path(SCRIPT).name
    if not path.is_file():
        try:
            content = extracted(source_package(), tmp_path_factory.mktemp("source"))
        except (OSError, subprocess.CalledProcessError, TypeError) as error:
            pytest.skip(f"missing: Debian's linux-source ({error})")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return str(path)


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
