"""Files of Debian's packages that tests take into the user's cache, instead of installing them."""

import os
import re
import subprocess
import tarfile
import tempfile
from pathlib import Path

import pytest

from altmap.lab.kernels import cache_folder

SELFTEST = "tools/testing/selftests/memory-hotplug/mem-on-off-test.sh"


def cached(name, make):
    """Return a file of the cache, made if need be; without the package the test is skipped."""
    path = cache_folder() / "programs" / name
    if not path.is_file():
        try:
            with tempfile.TemporaryDirectory() as folder:
                content = make(Path(folder))
        except (OSError, subprocess.CalledProcessError, TypeError, StopIteration) as error:
            pytest.skip(f"missing: Debian's package of {name} ({error})")
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.write_bytes(content)
        draft.chmod(0o755)
        draft.rename(path)
    return str(path)


def udevadm():
    """Return udevadm; installing its package would start a daemon."""
    return cached("udevadm", lambda folder: member(downloaded("udev", folder), "bin/udevadm"))


def selftest():
    """Return the kernel's selftest of memory hotplug."""
    return cached("mem-on-off-test.sh", from_kernel_source)


def downloaded(package, folder):
    subprocess.run(["apt-get", "download", package], cwd=folder, check=True, capture_output=True)
    (deb,) = folder.glob("*.deb")
    return deb


def member(deb, end, inner=None):
    """Return a file of a package, or of the archive in it whose name ends with *inner*."""
    command = ("dpkg-deb", "--fsys-tarfile", str(deb))
    with subprocess.Popen(command, stdout=subprocess.PIPE) as unpack:
        try:
            with tarfile.open(fileobj=unpack.stdout, mode="r|") as outer:
                if inner is None:
                    return outer.extractfile(next(m for m in outer if m.name.endswith(end))).read()
                packed = outer.extractfile(next(m for m in outer if m.name.endswith(inner)))
                with tarfile.open(fileobj=packed, mode="r|xz") as files:
                    found = next(m for m in files if m.name.endswith(end))
                    return files.extractfile(found).read()
        finally:
            unpack.kill()


def from_kernel_source(folder):
    done = subprocess.run(
        ["apt-cache", "depends", "linux-source"], capture_output=True, text=True, check=True
    )
    package = re.search(r"Depends: (linux-source-[\w.]+)", done.stdout)[1]
    return member(downloaded(package, folder), SELFTEST, ".tar.xz")
