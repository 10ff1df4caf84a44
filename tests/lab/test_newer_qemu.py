"""A newer QEMU from the backports, where it cannot be had: one line, and nothing is left behind."""

import platform

import pytest

from altmap.errors import LabError
from altmap.lab.arches import guest_arch
from altmap.lab.newer_qemu import newer_qemu


@pytest.mark.parametrize("facts", [{"ID": "fedora"}, {"ID": "debian"}, None])
def test_it_is_refused_where_there_is_no_debian_release(monkeypatch, tmp_path, facts):
    def release():
        if facts is None:
            raise OSError
        return facts

    monkeypatch.setattr(platform, "freedesktop_os_release", release)
    with pytest.raises(LabError) as raised:
        newer_qemu(guest_arch("x86_64"), "QEMU 7.2.22", tmp_path)
    assert str(raised.value) == (
        "CXL memory needs QEMU 8.1 or newer, not QEMU 7.2.22: it is taken from Debian's archive, "
        "and this machine is not Debian"
    )
    assert list(tmp_path.iterdir()) == []
