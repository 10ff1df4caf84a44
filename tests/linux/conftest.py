from pathlib import Path

import pytest

from altmap.linux.sysroot import Sysroot

RECORDINGS = Path(__file__).parents[1] / "recordings" / "files"
ARCHIVES = sorted(RECORDINGS.glob("*.tar.xz"))
NAMES = [path.name.removesuffix(".tar.xz") for path in ARCHIVES]


@pytest.fixture(params=ARCHIVES, ids=NAMES)
def recorded(request):
    """Each recorded sysroot, as read by us."""
    return Sysroot.read(request.param)


@pytest.fixture
def recording():
    """Return the function that reads one recorded sysroot by its name."""
    return lambda name: Sysroot.read(RECORDINGS / f"{name}.tar.xz")
