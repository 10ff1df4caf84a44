"""A command in a namespace of the machine: started only where every bind is what it should be."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest
from live_machines import PC

import altmap
from altmap.errors import InputError
from altmap.live.mounting import mounted
from altmap.live.namespace import run_in_machine
from altmap.scenario import Plug, scenario_tables, scenario_toml

pytestmark = pytest.mark.mount


@pytest.fixture
def pc(tmp_path):
    (tmp_path / "pc.toml").write_text(scenario_toml(scenario_tables(PC)))
    return str(tmp_path / "pc.toml")


def shell(*words):
    return subprocess.run(
        [sys.executable, "-m", "altmap", "shell", *words], capture_output=True, text=True
    )


def test_output_and_exit_code_are_the_commands_own(pc):
    done = shell(pc, "--", "sh", "-c", "cat /sys/devices/system/memory/memory32/state; exit 64")
    assert (done.stdout, done.stderr, done.returncode) == ("offline\n", "", 64)


def test_options_may_stand_before_the_command_and_in_it(pc):
    done = shell(pc, "--set", "auto_online_blocks=online", "--", "lsmem", "--summary=only")
    assert "Total offline memory:      0B" in done.stdout


@pytest.mark.slow
def test_a_command_that_is_missing_or_killed_ends_as_in_a_shell(pc):
    assert shell(pc, "--", "/no/such/command").returncode == 127
    assert shell(pc, "--", "sh", "-c", "kill -9 $$").returncode == 137


@pytest.mark.slow
def test_a_dash_stands_for_the_machine_of_the_shell(pc):
    done = shell(pc, "--", sys.executable, "-m", "altmap", "ctl", "-", "show")
    assert done.stdout.startswith("pc-1GiB: Linux 6.12 on x86_64\n"), done.stderr


def test_the_hosts_own_files_stay_as_they_are():
    places = ("/sys", "/sys/devices/system", "/proc/meminfo", "/proc/sys")
    before = [Path(place).stat() for place in places]
    with mounted(PC) as machine:
        machine.run("chmem", "-e", "1G")
        assert [Path(place).stat().st_dev for place in places] == [s.st_dev for s in before]
    assert [Path(place).stat().st_ino for place in places] == [s.st_ino for s in before]
    assert not Path("/sys/altmap").exists()


def python_for_everybody():
    """Return an interpreter of this version that every user can start."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (sys.executable, f"/usr/bin/{version}", f"/usr/local/bin/{version}"):
        real = Path(path).resolve()
        if real.exists() and all(each.stat().st_mode & 0o001 for each in (real, *real.parents)):
            return path
    pytest.skip("no Python of this version that every user can start")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv of util-linux")
def test_without_root_a_user_namespace_shows_the_machine():
    dax = Plug(id="c", driver="kmem", size="256MiB", address="0x200000000")
    with_dax = PC.replace(steps=(*PC.steps, dax))
    program = "import os, sys; from altmap.cli.main import main; assert os.geteuid() == 65534; "
    program += "sys.exit(main(['shell', 'PC.toml', '--', 'sh', '-c', sys.argv[1]]))"
    path = os.pathsep.join([str(Path(altmap.__file__).parents[1]), sysconfig.get_path("purelib")])
    script = (
        "cat /sys/devices/system/memory/memory32/state; id -u; lsmem --summary=only;"
        "echo online > /sys/devices/system/memory/memory32/state;"
        "cat /sys/devices/system/memory/memory32/state;"
        "stat -c %Hr:%Lr /dev/dax0.0; echo > /dev/null;"
        "echo 1 > /proc/sys/vm/compact_memory || echo refused; umount /sys || echo stays"
    )
    with tempfile.TemporaryDirectory(prefix="altmap-nobody-") as folder:
        os.chown(folder, 65534, 65534)
        Path(folder, "PC.toml").write_text(scenario_toml(scenario_tables(with_dax)))
        # /dev/fuse is everybody's on most hosts; elsewhere one that is, in a namespace of the test.
        device = 'mknod -m 666 fuse c 10 229 && mount --bind fuse /dev/fuse && exec "$@"'
        done = subprocess.run(
            [
                *("unshare", "--mount", "--", "sh", "-c", device, "sh"),
                *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
                *(python_for_everybody(), "-c", program, script),
            ],
            capture_output=True,
            text=True,
            cwd=folder,
            env={"PATH": os.environ["PATH"], "TMPDIR": folder, "PYTHONPATH": path},
        )
    lines = done.stdout.splitlines()
    assert lines[:2] == ["offline", "0"], done.stderr
    assert lines[-4:] == ["online", "251:0", "refused", "stays"], done.stdout


def incomplete(tmp_path, what):
    """Make what looks like a mounted machine and is not quite one."""
    root = tmp_path / "root"
    for folder in ("sys", "proc", "altmap"):
        (root / folder).mkdir(parents=True)
    (root / "altmap/token").write_text("a token\n")
    (root / "altmap/absent").write_text("")
    (root / "sys/altmap").write_text("a token\n")
    if what == "no sys":
        (root / "sys/altmap").unlink()
        (root / "sys").rmdir()
    if what == "another sys":
        (root / "sys/altmap").write_text("another token\n")
    if what == "no marker":
        (root / "sys/altmap").unlink()
    if what == "no token":
        (root / "altmap/token").unlink()
    if what == "no absent file":
        (root / "altmap/absent").unlink()
    return root


@pytest.mark.parametrize(
    "what", ["no sys", "another sys", "no marker", "no token", "no absent file"]
)
def test_a_command_is_not_started_where_a_bind_is_not_the_machines(tmp_path, what):
    root = incomplete(tmp_path, what)
    with pytest.raises(InputError, match="the command did not run"):
        run_in_machine(root, ["touch", str(tmp_path / "it ran")], capture=True)
    assert not (tmp_path / "it ran").exists()


def test_a_complete_one_is_entered(tmp_path):
    """So that each refusal above is for what is missing."""
    root = incomplete(tmp_path, "nothing")
    done = run_in_machine(root, ["cat", "/sys/altmap", "/proc/meminfo"], capture=True)
    assert (done.stdout, done.returncode) == ("a token\n", 0)


def test_without_a_namespace_the_command_is_not_started(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match="unshare is missing"):
        run_in_machine(tmp_path, ["true"])
    (tmp_path / "unshare").write_text("#!/bin/sh\necho no namespaces here >&2\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    with pytest.raises(InputError, match="no namespaces here; the command did not run"):
        run_in_machine(tmp_path, ["true"], capture=True)
