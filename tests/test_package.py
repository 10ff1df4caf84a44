"""The wheel: every file of the package in it, one version, and commands that run from it alone."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from altmap import __version__
from altmap.storage.locks import locked

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
MISSING = [name for name in ("build", "setuptools") if importlib.util.find_spec(name) is None]
SCENARIO = ROOT / "scenarios/dimm-1GiB.toml"


def package_files():
    """Return every file of the package, as it is named in a wheel."""
    found = (path.relative_to(SOURCE) for path in (SOURCE / "altmap").rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built once for all workers from a copy; nothing is fetched."""
    if MISSING:
        pytest.skip(f"missing: {', '.join(MISSING)}")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "wheel"
    folder.mkdir(exist_ok=True)
    with locked(folder / "lock"):
        if not (folder / "dist").exists():
            build(folder)
    (made,) = (folder / "dist").iterdir()
    return made


def build(folder):
    for name in ("pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"):
        shutil.copy(ROOT / name, folder / name)
    shutil.copytree(
        SOURCE, folder / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
    )
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.fixture(scope="module")
def unpacked(wheel, tmp_path_factory):
    folder = tmp_path_factory.mktemp("unpacked")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package_and_no_other(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == package_files()
    for ending in (".toml", ".sh", ".css", ".js", ".json", "/py.typed"):
        assert any(name.endswith(ending) for name in names), ending


def test_the_version_is_written_once_and_the_wheel_has_it(wheel, unpacked):
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert wheel.name == f"altmap-{__version__}-py3-none-any.whl"
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    assert re.search(r"^Version: (.*)$", metadata.read_text(), re.MULTILINE)[1] == __version__
    texts = [path.read_text() for path in SOURCE.rglob("*.py")]
    assert sum(f'"{__version__}"' in text for text in texts) == 1


def test_the_wheel_installs_the_command_and_the_plugin_for_pytest(unpacked):
    (entries,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert entries.read_text().split() == [
        "[console_scripts]",
        "altmap",
        "=",
        "altmap.cli.main:main",
        *("[pytest11]", "altmap", "=", "altmap.live.plugin"),
    ]


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("-V", f"altmap {__version__}\n"),
        (f"run {SCENARIO} --summary --check", "dimm-1GiB  opt-in  ok\n"),
        ("explore --list", "explorations:\n"),
        ("bugs B8", "B8 "),
        pytest.param(f"report {SCENARIO} -o page.html", "", marks=pytest.mark.slow),
    ],
)
def test_commands_run_from_the_wheel_alone(unpacked, tmp_path, line, shown):
    if line.startswith("report"):
        pytest.importorskip("vl_convert", reason="missing: vl-convert (altmap[report])")
    done = subprocess.run(
        [sys.executable, "-m", "altmap", *line.split()],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(shown)


def test_every_tool_that_set_up_installs_is_pinned():
    pinned = {
        re.split("==", line)[0].lower().replace("_", "-")
        for line in (ROOT / "constraints.txt").read_text().splitlines()
        if "==" in line
    }
    extras = PROJECT["project"]["optional-dependencies"].values()
    wanted = [*PROJECT["project"]["dependencies"], *(name for extra in extras for name in extra)]
    names = {re.match(r"[\w.-]+", item)[0].lower().replace("_", "-") for item in wanted}
    assert names <= pinned
