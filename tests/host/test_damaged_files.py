"""Each file of a machine damaged in turn: no command ends that can do without it."""

import re
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.linux.sysroot import Sysroot

DIMM = Path(__file__).parents[1] / "recordings/files/linux-6.12-dimm.tar.xz"
MEMORY = "sys/devices/system/memory"
WHOLE = Sysroot.read(DIMM)
SCENARIO = '[[steps]]\ndo = "offline"\nblocks = 32\n'
#: What each command cannot do without; whatever else is damaged, it ends as ever.
NEEDS = {
    "ls": (f"{MEMORY}/block_size_bytes",),
    "ls-all": (f"{MEMORY}/block_size_bytes",),
    "account": (f"{MEMORY}/block_size_bytes", "proc/zoneinfo", "proc/meminfo"),
    "explain": (f"{MEMORY}/block_size_bytes",),
    "export": (f"{MEMORY}/block_size_bytes",),
    "report": (),
    "snapshot": (),
    "plan": (f"{MEMORY}/block_size_bytes", "proc/zoneinfo", "proc/meminfo", "proc/iomem"),
    "run": (f"{MEMORY}/block_size_bytes", "proc/zoneinfo", "proc/iomem"),
}
COMMANDS = {
    "ls": lambda source, out: ["ls", "-s", source],
    "ls-all": lambda source, out: ["ls", "-s", source, "--output-all"],
    "account": lambda source, out: ["account", source],
    "explain": lambda source, out: ["explain", "33", source],
    "export": lambda source, out: ["export", "--prometheus", source],
    "report": lambda source, out: ["report", source],
    "snapshot": lambda source, out: ["snapshot", source, "-o", out / "s.tar"],
    "plan": lambda source, out: ["plan", "free", "32", "--from", source],
    "run": lambda source, out: ["run", out / "s.toml", "--from", source],
}
ENDS = dict.fromkeys(COMMANDS, 0)
#: Files of one memory block stand for those of all.
PATHS = sorted(
    path
    for path in WHOLE.files
    if not re.search(r"/memory(?!1/|32/)[0-9]+/", path) and not path.startswith(("etc/", "usr/"))
)


def odd_line(raw):
    """Return a file with a line in the middle that no kernel prints."""
    lines = raw.split(b"\n")
    return b"\n".join([*lines[: len(lines) // 2], b"odd", *lines[len(lines) // 2 :]])


DAMAGE = {
    "replaced": lambda raw: b"\xff\xfe\x00odd\n" * 20,
    "empty": lambda raw: b"",
    "a line": odd_line,
    "cut": lambda raw: raw[: len(raw) * 2 // 3],
}


def ended(capsys, tmp_path, command, sysroot):
    out = tmp_path / "out"
    out.mkdir()
    (out / "s.toml").write_text(SCENARIO)
    sysroot.pack(tmp_path / "in.tar")
    status = main([str(word) for word in COMMANDS[command](tmp_path / "in.tar", out)])
    said, err = capsys.readouterr()
    assert "internal error" not in err
    return status, said, err


def kept(command, path):
    """Tell whether a command needs a file: predictions also need a release, and the block."""
    return path in (*NEEDS[command], "proc/version", f"{MEMORY}/memory32/state")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("damage", DAMAGE)
def test_files_that_a_command_can_do_without_do_not_end_it(tmp_path, capsys, command, damage):
    files = {
        path: DAMAGE[damage](raw) if path in PATHS and not kept(command, path) else raw
        for path, raw in WHOLE.files.items()
    }
    status, said, err = ended(capsys, tmp_path, command, Sysroot(files, dict(WHOLE.links)))
    assert status == ENDS[command], (said, err)


@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_a_command_can_do_without_may_be_missing(tmp_path, capsys, command):
    files = {
        path: raw
        for path, raw in WHOLE.files.items()
        if path not in PATHS or kept(command, path) or path.endswith("/state")
    }
    status, said, err = ended(capsys, tmp_path, command, Sysroot(files, dict(WHOLE.links)))
    assert status == ENDS[command], (said, err)


@pytest.mark.parametrize("command", [command for command in COMMANDS if NEEDS[command]])
@pytest.mark.parametrize("damage", ["replaced", "empty"])
def test_a_file_that_a_command_needs_ends_it_in_one_line(tmp_path, capsys, command, damage):
    for number, path in enumerate(NEEDS[command]):
        folder = tmp_path / str(number)
        folder.mkdir()
        files = {**WHOLE.files, path: DAMAGE[damage](WHOLE.files[path])}
        status, _, err = ended(capsys, folder, command, Sysroot(files, dict(WHOLE.links)))
        assert status != ENDS[command] or command == "plan"
        assert (status, err.count("\n")) == (1 if command == "plan" else 2, 1)
        assert path.rpartition("/")[0] in err


@pytest.mark.parametrize("damage", ["a line", "cut"])
def test_each_damaged_file_alone_ends_no_prediction_that_can_do_without_it(
    tmp_path, capsys, damage
):
    for number, path in enumerate(PATHS):
        folder = tmp_path / str(number)
        folder.mkdir()
        files = {**WHOLE.files, path: DAMAGE[damage](WHOLE.files[path])}
        status, said, err = ended(capsys, folder, "run", Sysroot(files, dict(WHOLE.links)))
        if status:
            assert path in NEEDS["run"], (path, said, err)
            assert damage != "a line" or path.endswith("block_size_bytes"), (path, err)


@pytest.mark.parametrize("command", COMMANDS)
def test_what_is_damaged_is_said_once(tmp_path, capsys, command):
    files = {**WHOLE.files, "proc/vmstat": odd_line(WHOLE.files["proc/vmstat"])}
    _, said, err = ended(capsys, tmp_path, command, Sysroot(files, dict(WHOLE.links)))
    assert " ".join((said + err).split()).count("'odd': need 'name number'") == 1
