"""How tests are set up: on a fresh clone, with what is missing, and under one profile."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROGRAMS = {
    "id": "echo 0",
    "apt-get": """
D=${0%/*}
echo "$*" >>"$D/../calls"
case $1 in
update) exit 100 ;;
install) for package; do :; done
    grep -qx "$package" "$D/../installable" || { echo "E: held broken packages" >&2; exit 100; }
    echo "#!/bin/sh" >"$D/$package"; chmod +x "$D/$package" ;;
esac""",
}


@pytest.fixture
def install(tmp_path):
    """Run .ci/install where apt-get can install some packages; each holds a program of its name."""
    (tmp_path / "bin").mkdir()
    for name, script in PROGRAMS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    for name in ("sh", "grep", "chmod"):
        (tmp_path / "bin" / name).symlink_to(shutil.which(name))

    def run(*programs, installable=()):
        (tmp_path / "installable").write_text("".join(f"{name}\n" for name in installable))
        (tmp_path / "calls").write_text("")
        words = [str(ROOT / ".ci/install"), *(f"{name}:{name}" for name in programs)]
        done = subprocess.run(
            ["sh", *words], env={"PATH": f"{tmp_path}/bin"}, capture_output=True, text=True
        )
        assert (done.returncode, done.stdout) == (0, "")
        return done.stderr, (tmp_path / "calls").read_text().splitlines()

    return run


def test_a_package_that_apt_refuses_keeps_no_other_from_being_installed(install):
    told, calls = install("qemu-a", "qemu-b", "qemu-c", installable=["qemu-a", "qemu-c"])
    assert told.splitlines()[-1].startswith("missing: qemu-b (Debian: apt install qemu-b)")
    assert "qemu-a" not in told
    assert "qemu-c" not in told
    assert [call.split()[-1] for call in calls if call.startswith("install")] == [
        *("qemu-a", "qemu-b", "qemu-b", "qemu-c")
    ]


def test_after_a_refusal_the_lists_are_fetched_past_caches_once_more(install):
    _, calls = install("qemu-b")
    assert [call.split()[0] for call in calls] == ["update", "install", "update", "install"]
    assert "No-Cache" not in calls[0]
    assert "No-Cache=true" in calls[2]


def test_nothing_is_fetched_when_every_program_is_there(install):
    assert install("sh", "grep") == ("", [])


@pytest.mark.slow
@pytest.mark.parametrize(("demand", "status"), [("required", 1), ("", 0)])
def test_a_lab_test_that_is_skipped_fails_the_run_only_if_demanded(tmp_path, demand, status):
    test = "tests/lab/test_kernels.py::test_unknown_release_is_one_error"
    env = os.environ | {"ALTMAP_LAB": demand, "PATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", test, "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == status, done.stdout
    assert ("1 demanded tests were skipped" in done.stdout) == bool(status)


def test_a_kernel_that_is_not_built_is_not_demanded(tmp_path):
    """Building one fetches 150 MB: its results are replayed from recordings instead."""
    (tmp_path / "qemu-system-x86_64").symlink_to("/bin/true")
    for name in ("setpriv", "apt-get", "dpkg-deb"):
        (tmp_path / name).symlink_to("/bin/true")
    test = "tests/verify/test_lab_design.py"
    env = os.environ | {"ALTMAP_LAB": "required", "PATH": str(tmp_path)}
    env["XDG_CACHE_HOME"] = str(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", test, "-n", "0", "-p", "no:cacheprovider"],
        cwd=ROOT,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    assert "demanded" not in done.stdout
    assert " skipped" in done.stdout


def test_parameters_have_one_order_in_every_process():
    """A set has another order in each process, and processes have to collect the same tests."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\.parametrize\(\s*[^\[{]*?, (set\(|\{)", text), path


def test_properties_leave_time_and_number_of_examples_to_the_profile():
    """A number of a test's own is a fraction of the profile's."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"[(\s]deadline=", text), path
        for number in re.findall(r"[(\s]max_examples=([^,)]*)", text):
            assert number.startswith("settings.default.max_examples"), path
