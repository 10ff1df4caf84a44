"""Somebody at a guest's shell, and what guests there are."""

import io
import json
import os
import socket
import subprocess
import threading

import pytest

from altmap.cli import main as cli
from altmap.errors import LabError
from altmap.lab.arches import GUESTS
from altmap.lab.inventory import inventory
from altmap.lab.shell import Shell


class Echo(threading.Thread):
    """The guest's end: greets in pieces that look like the end, then answers one line."""

    def __init__(self, channel):
        super().__init__(daemon=True)
        self.channel = channel
        self.start()

    def run(self):
        lines = self.channel.makefile("rb")
        token = lines.readline().split()[0]
        self.channel.sendall(token + b"\n" + b"prompt " + token[:9])
        said = lines.readline().strip()
        self.channel.sendall(b"heard " + said + b"\n" + token + b" 7\n")


def test_a_conversation_shows_all_but_its_end_and_returns_the_status():
    ours, theirs = socket.socketpair()
    keyboard, keys = os.pipe()
    shown, screen = os.pipe()
    Echo(theirs)
    os.write(keys, b"hello\n")
    assert Shell(ours, lambda _: None).converse("sh", keyboard, screen) == 7
    text = os.read(shown, 4096)
    assert text.startswith(b"prompt ")
    assert text.endswith(b"heard hello\n")
    for end in (keyboard, keys, shown, screen):
        os.close(end)
    ours.close()
    theirs.close()


@pytest.fixture
def cache(tmp_path):
    for name in ("kernels/6.12", "kernels/s390x/6.17", "kernels/s390x/new"):
        (tmp_path / name).mkdir(parents=True)
    for name, package in (("6.12", "linux-image-x"), ("s390x/6.17", "linux-image-z")):
        listed = tmp_path / "kernels" / name / "packages.json"
        listed.write_text(json.dumps({package: "1-2", "busybox-static": "3"}))
    return tmp_path


def test_guests_are_listed_with_what_is_cached(cache):
    kernels = {(each.arch, each.release): each.kernel for each in inventory(["6.12"], cache)}
    assert {arch for arch, _ in kernels} == set(GUESTS)
    assert {at: kernel for at, kernel in kernels.items() if kernel} == {
        ("x86_64", "6.12"): "linux-image-x 1-2",
        ("s390x", "6.17"): "linux-image-z 1-2",
    }


def test_guests_are_listed_with_what_is_missing(cache, monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")
    missing = {each.arch: each.missing for each in inventory(["6.12"], cache)}
    assert missing["ppc64le"][0] == "qemu-system-ppc64: apt install qemu-system-ppc"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--modules", "m"], "--modules m: only with --kernel"),
        (["--cpus", "0"], "--cpus 0: need 1 to 255"),
        (["--arch", "vax"], "architecture 'vax': no guest has it"),
        (["--kernel", "/nonexistent"], "kernel /nonexistent: No such file"),
    ],
)
def test_a_guest_that_cannot_be_is_refused_in_one_line(capsys, arguments, message):
    assert cli.main(["lab", "boot", *arguments]) == cli.FAILED
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.lab("s390x")
def test_a_script_runs_in_a_guest_and_its_status_is_ours(capfdbinary, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("cd /tmp\npwd\nuname -m\nexit 3\n"))
    assert cli.main(["lab", "shell", "--arch", "s390x"]) == 3
    assert capfdbinary.readouterr().out == b"/tmp\ns390x\n"


@pytest.mark.lab
def test_a_kernel_of_one_s_own_boots_with_its_modules(tmp_path, capfdbinary):
    from altmap.lab import fetch

    (tmp_path / "lib/modules/1.2").mkdir(parents=True)
    (tmp_path / "lib/modules/1.2/modules.dep").write_text("")
    own = ["--kernel", str(fetch("6.12").vmlinuz), "--modules", str(tmp_path)]
    assert cli.main(["lab", "exec", *own, "--", "ls", "/lib/modules"]) == cli.EQUAL
    assert capfdbinary.readouterr().out == b"1.2\n"


def test_a_kernel_with_missing_modules_is_one_error(tmp_path):
    from altmap.lab import own_kernel

    with pytest.raises(LabError, match=r"modules .*: no such folder"):
        own_kernel(tmp_path / "vmlinux", tmp_path / "nothing")


@pytest.mark.lab
def test_a_kernel_of_one_s_own_is_compared_as_what_it_is(tmp_path, capsys):
    """Debian's 6.1 with its modules in a folder, for a scenario that is silent about releases."""
    from altmap.lab import fetch

    kernel = fetch("6.1")
    unpack = ["dpkg-deb", "-x", str(kernel.modules_deb), str(tmp_path)]
    subprocess.run(unpack, check=True)
    image, modules = next(tmp_path.glob("boot/vmlinuz-6.1*")), next(tmp_path.glob("lib/modules"))
    scenario = tmp_path / "veto.toml"
    scenario.write_text(
        '[[steps]]\ndo = "veto"\non = "going_offline"\n'
        '[[steps]]\ndo = "plug"\nid = "d"\nsize = "128MiB"\n'
    )
    own = ["--kernel", str(image), "--modules", str(modules)]
    assert cli.main(["compare", str(scenario), *own]) == cli.EQUAL
    assert "model 6.1 against lab 6.1" in capsys.readouterr().out


def test_modules_or_a_recording_without_use_for_a_kernel_are_one_error(capsys):
    assert cli.main(["compare", "x.toml", "--modules", "m"]) == cli.FAILED
    assert cli.main(["compare", "--kernel", "k"]) == cli.FAILED
    assert capsys.readouterr().err.count("altmap: ") == 2
