import os
import subprocess
import threading

import pytest

from altmap.errors import LabError
from altmap.lab import fetch, fetch_xen
from altmap.lab.kernels import cache_folder


def test_release_needs_two_numbers(tmp_path):
    with pytest.raises(LabError, match=r"'6': need major\.minor"):
        fetch("6", tmp_path)


def test_missing_apt_is_one_error_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(LabError, match="apt-config is missing"):
        fetch("6.12", tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]


def test_cache_folder_follows_the_xdg_variable_if_absolute(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "altmap"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder().is_absolute()


@pytest.mark.lab
def test_fetch_from_an_empty_cache_then_without_apt(tmp_path, monkeypatch):
    got = []
    threads = [
        threading.Thread(target=lambda: got.append(fetch("6.12", tmp_path))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got[0] == got[1]
    # Source: Documentation/arch/x86/boot.rst, header magic at 0x202.
    assert got[0].vmlinuz.read_bytes()[0x202:0x206] == b"HdrS"
    assert got[0].busybox.read_bytes()[:4] == b"\x7fELF"
    assert any(name.startswith("linux-image-6.12.") for name in got[0].versions)
    assert sorted(p.name for p in (tmp_path / "kernels").iterdir()) == ["6.12", "lock"]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert fetch("6.12", tmp_path) == got[0]


@pytest.mark.lab
def test_unknown_release_is_one_error(tmp_path):
    with pytest.raises(LabError, match=r"kernel release '1\.99': no such image"):
        fetch("1.99", tmp_path)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["kernels", "lock"]


@pytest.fixture
def small_disk(tmp_path):
    if os.geteuid():
        pytest.skip("mounting a small disk needs root")
    mount = ["mount", "-t", "tmpfs", "-o", "size=60m", "none", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mount of a tmpfs is not allowed here")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


@pytest.mark.lab
def test_full_disk_is_one_error_and_leaves_nothing(small_disk):
    with pytest.raises(LabError, match="no space left"):
        fetch("6.12", small_disk)
    assert sorted(p.name for p in small_disk.rglob("*")) == ["kernels", "lock"]


@pytest.mark.lab
def test_no_network_is_one_error(tmp_path, monkeypatch):
    # A port on which nothing listens.
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(LabError, match=r"apt-get failed: .*127\.0\.0\.1"):
        fetch("6.12", tmp_path)


@pytest.mark.lab
def test_xen_is_fetched_once_and_then_taken_from_the_cache(tmp_path, monkeypatch):
    xen = fetch_xen(tmp_path)
    # QEMU starts it by multiboot, from an ELF file.
    assert xen.image.read_bytes()[:4] == b"\x7fELF"
    assert list(xen.versions) == ["xen-hypervisor-4.17-amd64"]
    names = sorted(path.name for path in (tmp_path / "kernels/xen").iterdir())
    assert names == ["packages.json", "sha256sums", "xen"]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert fetch_xen(tmp_path) == xen
