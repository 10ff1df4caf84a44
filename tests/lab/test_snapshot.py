import os
import shutil
import threading
from contextlib import nullcontext
from types import SimpleNamespace

import pytest

from altmap.errors import LabError
from altmap.lab import fetch, snapshot
from altmap.lab.qemu import Hardware
from altmap.lab.snapshot import booted


@pytest.mark.parametrize(("free", "most"), [(24 << 30, 96), ((24 << 30) - 1, 16)])
def test_the_least_recently_used_snapshots_go_first(tmp_path, monkeypatch, free, most):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))
    for age in range(100):
        folder = tmp_path / f"s{age:03}"
        folder.mkdir()
        (folder / "state").touch()
        folder.with_suffix(".lock").touch()
        os.utime(folder, (1000 - age, 1000 - age))
    snapshot._drop_oldest(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == [
        f"s{age:03}" for age in range(most - 1)
    ]
    assert len(list(tmp_path.glob("*.lock"))) == most - 1


@pytest.mark.parametrize("reason", ["large guest", "full disk"])
def test_a_guest_that_cannot_be_kept_boots_each_time(reason, tmp_path, monkeypatch):
    made = []
    monkeypatch.setattr(snapshot, "Guest", lambda *a, **k: made.append(k) or nullcontext())
    monkeypatch.setattr(snapshot, "remembered_accelerator", lambda family: "tcg")
    if reason == "full disk":
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1))
    hardware = Hardware(memory_bytes=(64 if reason == "large guest" else 1) << 30)
    with booted(None, hardware, "", tmp_path):
        assert made == [{"plugin": None}]
    assert not list(tmp_path.iterdir())


@pytest.mark.lab
class TestOnOneKernel:
    """Every test finds the snapshot that the first one made."""

    @pytest.fixture(scope="class")
    @classmethod
    def cache(cls, tmp_path_factory):
        return tmp_path_factory.mktemp("cache")

    @pytest.fixture(scope="class")
    @classmethod
    def kernel(cls):
        return fetch("6.12")

    def test_two_runs_at_once_make_one_snapshot_and_do_not_see_each_other(self, kernel, cache):
        seen = []

        def use(name):
            with booted(kernel, Hardware(), "", cache) as guest:
                seen.append(guest.run(f"ls /tmp; echo {name} >/tmp/{name}; ls /tmp").text)

        threads = [threading.Thread(target=use, args=(name,)) for name in "ab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(seen) == ["a\n", "b\n"]
        assert len(list(cache.glob("snapshots/*/state"))) == 1

    def test_a_copy_does_not_boot(self, kernel, cache, monkeypatch):
        monkeypatch.setattr(snapshot, "_make", lambda *_: pytest.fail("made again"))
        with booted(kernel, Hardware(), "", cache) as guest:
            assert float(guest.run("cat /proc/uptime").text.split()[0]) < 60

    def test_another_command_line_is_another_snapshot(self, kernel, cache):
        with booted(kernel, Hardware(), "memory_hotplug.memmap_on_memory=1", cache) as guest:
            assert "memmap_on_memory=1" in guest.run("cat /proc/cmdline").text
        assert len(list(cache.glob("snapshots/*/state"))) == 2

    def test_a_damaged_snapshot_is_made_again(self, kernel, cache):
        for state in cache.glob("snapshots/*/state"):
            state.write_bytes(b"rubbish" * 1000)
        with booted(kernel, Hardware(), "", cache) as guest:
            assert guest.run("echo up").text == "up\n"

    def test_a_guest_that_does_not_boot_leaves_no_snapshot(self, kernel, cache):
        before = sorted(cache.rglob("*"))
        with pytest.raises(LabError, match="panic"), booted(kernel, Hardware(), "rdinit=/x", cache):
            pass
        assert [
            p for p in sorted(cache.rglob("*")) if p not in before and p.suffix != ".lock"
        ] == []
