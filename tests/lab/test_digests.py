"""A cache that is not as it was filled is found before anything in it is used."""

import json
import shutil

import pytest

from altmap.errors import LabError
from altmap.lab import kernels, process, snapshot
from altmap.lab.digests import damage_of, seal
from altmap.lab.kernels import fetch
from altmap.storage.locks import locked

FILES = {"vmlinuz": b"k" * 9000, "busybox": b"b" * 100, "modules.deb": b"m"}


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """Return the cache after a first fetch, and the list that notes each download."""
    downloads = []

    def unpack(release, guest, archive, new):
        downloads.append(release)
        for name, raw in FILES.items():
            (new / name).write_bytes(raw)
        return {"linux-image-6.12": "1", "busybox-static": "2"}

    class Offline:
        def __init__(self, *_):
            pass

        def update(self):
            pass

    monkeypatch.setattr(kernels, "_kernel", unpack)
    monkeypatch.setattr(kernels, "Archive", Offline)
    fetch("6.12", tmp_path)
    return tmp_path, downloads


def contents(cache):
    return {path.name: path.read_bytes() for path in (cache / "kernels/6.12").iterdir()}


def test_a_cache_as_it_was_filled_is_used(filled, caplog):
    cache, downloads = filled
    assert fetch("6.12", cache).versions == {"linux-image-6.12": "1", "busybox-static": "2"}
    assert (downloads, caplog.messages) == (["6.12"], [])
    assert set(contents(cache)) == {*FILES, "packages.json", "sha256sums"}


def test_digests_are_those_of_sha256sum(filled):
    """sha256sum(1) of coreutils checks them."""
    import subprocess

    folder = filled[0] / "kernels/6.12"
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", "sha256sums"], cwd=folder, check=True
    )


@pytest.mark.parametrize("name", [*FILES, "packages.json", "sha256sums"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[: len(raw) // 2],
        lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]),
        lambda raw: b"another kernel",
        None,
    ],
    ids=["emptied", "cut", "a bit", "another", "removed"],
)
def test_what_is_damaged_is_fetched_anew_and_said_in_one_line(filled, name, damage, caplog):
    cache, downloads = filled
    before = contents(cache)
    path = cache / "kernels/6.12" / name
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(before[name]))
    assert fetch("6.12", cache).versions["busybox-static"] == "2"
    assert downloads == ["6.12", "6.12"]
    assert contents(cache) == before
    (line,) = caplog.messages
    assert line.startswith(f"altmap: {cache}/kernels/6.12: ")
    assert line.endswith(": it is fetched anew")


def test_what_is_damaged_and_cannot_be_fetched_is_not_used(filled, monkeypatch):
    cache, _ = filled
    (cache / "kernels/6.12/vmlinuz").write_bytes(b"")

    def offline(*_):
        raise LabError("no network")

    monkeypatch.setattr(kernels, "_kernel", offline)
    for _ in range(2):
        with pytest.raises(LabError, match="no network"):
            fetch("6.12", cache)


def test_files_are_on_disk_before_the_folder_has_its_name(tmp_path, monkeypatch):
    import os

    synced = []
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (synced.append(os.fstat(fd).st_ino), real(fd))[1])
    (tmp_path / "a").write_text("a")
    seal(tmp_path)
    assert {(tmp_path / "a").stat().st_ino, tmp_path.stat().st_ino} <= set(synced)
    assert damage_of(tmp_path) is None


@pytest.mark.parametrize("text", ["x", "../../etc/passwd", "0" * 64 + "  ../x", "0" * 64])
def test_a_file_of_digests_that_is_none_is_damage(tmp_path, text):
    (tmp_path / "sha256sums").write_text(text)
    assert damage_of(tmp_path) is not None


def test_a_list_of_packages_of_another_shape_is_one_line(filled):
    cache, _ = filled
    folder = cache / "kernels/6.12"
    (folder / "packages.json").write_text(json.dumps(["x"]))
    seal(folder)
    with pytest.raises(Exception, match=r"packages\.json: Expected `object`, got `array`"):
        fetch("6.12", cache)


def test_what_a_killed_run_left_of_a_snapshot_is_removed_by_the_next(tmp_path):
    for name in ("dead.new", "alive.new", "other"):
        (tmp_path / name).mkdir()
    with locked(tmp_path / "alive.lock"):
        snapshot._remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {"alive.new", "other"}


@pytest.mark.lab
def test_qemu_filters_its_system_calls():
    program = shutil.which("qemu-system-x86_64")
    assert process.sandbox_of(program)[:1] == ("-sandbox",)


@pytest.mark.parametrize("program", ["false", "/nonexistent/qemu"])
def test_a_qemu_that_cannot_filter_its_system_calls_runs_without(program):
    assert process.sandbox_of(program) == ()
