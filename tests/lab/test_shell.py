"""The channel's two ends on this machine: the guest's loop runs in a local shell."""

import os
import re
import socket
import subprocess
from importlib import resources

import pytest

from altmap.errors import LabError
from altmap.lab.shell import Shell


def died(hung_up):
    if hung_up:
        raise LabError("guest died")


@pytest.fixture
def shell():
    script = resources.files("altmap.lab").joinpath("init.sh").read_text()
    loop = re.search(r"^\($.*?^\)$", script, re.MULTILINE | re.DOTALL)[0]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        process = subprocess.Popen(["sh", "-c", loop], stdin=theirs, stdout=theirs, stderr=theirs)
        theirs.close()
        shell = Shell(ours, died)
        shell.wait_ready(30)
        yield shell
    process.wait(60)


def test_status_and_output_come_back(shell):
    result = shell.run("printf '%s' 'a  b\\n\\'; printf \"  c\nd\"; exit 3", 60)
    assert (result.status, result.text) == (3, "a  b\\n\\  c\nd")


def test_output_that_looks_like_an_answer_is_output(shell):
    assert shell.run("printf '0123456789abcdef 0\\nready\\n'", 60).output == (
        b"0123456789abcdef 0\nready\n"
    )


def test_large_output_arrives_whole_within_the_limit(shell):
    assert shell.run("head -c 20000000 /dev/zero", 60).output == bytes(20_000_000)


def test_late_answer_of_a_command_is_not_the_next_ones(shell, tmp_path):
    os.mkfifo(gate := tmp_path / "gate")
    with pytest.raises(LabError, match=r"not done within 0\.1 s"):
        shell.run(f"read line <{gate}; echo late", 0.1)
    gate.write_text("go on\n")  # returns once the command reads
    assert shell.run("echo next", 60).output == b"next\n"


def test_death_is_reported_by_the_check():
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        with pytest.raises(LabError, match="guest died"):
            Shell(ours, died).run("echo", 60)
