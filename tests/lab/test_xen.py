import pytest

from altmap.lab import fetch_xen


@pytest.mark.lab
def test_xen_is_fetched_once_and_then_taken_from_the_cache(tmp_path, monkeypatch):
    xen = fetch_xen(tmp_path)
    # QEMU starts it by multiboot, from an ELF file.
    assert xen.image.read_bytes()[:4] == b"\x7fELF"
    assert list(xen.versions) == ["xen-hypervisor-4.17-amd64"]
    assert sorted(p.name for p in (tmp_path / "kernels/xen").iterdir()) == ["packages.json", "xen"]
    monkeypatch.setenv("PATH", "/nonexistent")
    assert fetch_xen(tmp_path) == xen
