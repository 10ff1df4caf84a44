"""What holds a machine's files is for its owner only, as some of them are shown to root alone."""

import os
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.linux.sysroot import Sysroot
from altmap.storage.files import private_files, write_file

ROOT = Path(__file__).parents[2]
DIMM = ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz"
SCENARIO = ROOT / "scenarios/dimm-1GiB.toml"


@pytest.fixture(autouse=True)
def umask():
    before = os.umask(0o022)
    yield
    assert os.umask(before) == 0o022


def modes(path):
    paths = [path, *path.rglob("*")] if path.is_dir() else [path]
    return {each.lstat().st_mode & 0o777 for each in paths if not each.is_symlink()}


@pytest.mark.parametrize("ending", ["tar", "tar.gz", "tar.xz"])
def test_a_snapshot_is_private(tmp_path, ending):
    target = tmp_path / f"s.{ending}"
    assert main(["snapshot", str(DIMM), "-o", str(target)]) == 0
    assert modes(target) == {0o600}
    assert Sysroot.read(target)


def test_an_export_that_starts_from_a_machine_is_private(tmp_path):
    words = ["run", str(SCENARIO), "--export"]
    assert main([*words, str(tmp_path / "model")]) == 0
    assert modes(tmp_path / "model") == {0o755, 0o644}
    assert main([*words, str(tmp_path / "host"), "--from", str(DIMM)]) == 0
    assert modes(tmp_path / "host") == {0o700, 0o600}


@pytest.mark.parametrize("ending", ["txt", "json", "svg"])
def test_a_report_of_a_machine_is_private(tmp_path, ending):
    for source, mode in ((SCENARIO, 0o644), (DIMM, 0o600)):
        target = tmp_path / f"{source.stem}.{ending}"
        assert main(["report", str(source), "-o", str(target)]) == 0
        assert modes(target) == {mode}


def test_a_file_that_is_replaced_keeps_its_permissions(tmp_path):
    path = tmp_path / "x"
    path.write_text("")
    path.chmod(0o640)
    with private_files():
        write_file(path, "new")
    assert modes(path) == {0o640}
