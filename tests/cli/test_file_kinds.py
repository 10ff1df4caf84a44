"""A file of another kind is called by its name, with the command that reads it."""

import tarfile

import pytest

from altmap.cli.file_kinds import FILE_KINDS
from altmap.cli.main import command_line, main
from altmap.host.plan import encode_plan
from altmap.host.planner import plan_free
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import ModelMachine
from altmap.scenario import Machine

LIBVIRT = """<?xml version='1.0'?>
<domain type='kvm'><name>a</name><memory unit='KiB'>1048576</memory></domain>
"""
VMX = '.encoding = "UTF-8"\nconfig.version = "8"\nmemSize = "4096"\n'
DMESG = "[    0.000000] Linux version 6.12.0 (a@b)\n[    0.01] x86/fpu: x\n"
JOURNAL = "Nov 28 10:00:00 host kernel: Linux version 6.12.0 (a@b)\n"
LSMEM = """RANGE                                 SIZE  STATE REMOVABLE BLOCK
0x0000000000000000-0x000000003fffffff   1G online       yes   0-7

Memory block size:       128M
"""
LSMEM_JSON = '{\n   "memory": [\n      {"range": "0x0", "size": "1G"}]}\n'
DAXCTL = '[\n  {\n    "chardev":"dax0.0",\n    "size":4294967296\n  }\n]\n'
MEMINFO = "MemTotal:        1000 kB\nMemFree:          900 kB\n"
QEMU = "exec qemu-system-x86_64 -m 1G,slots=2,maxmem=4G\n"
GRID = '[requests]\nadded = ["1GiB"]\n'
SCENARIO = '[machine]\nmemory = "1GiB"\n'
CASES = '[[case]]\nscenarios = ["a"]\n'
EXPLORATION = "[operations]\nplug = 1\n"
ON_MACHINE = "altmap snapshot, on the machine itself"

#: What a file holds, what it is called, and what reads it.
OTHERS = {
    "libvirt": (LIBVIRT, "a domain XML of libvirt", "altmap vm {}"),
    "vmx": (VMX, "a .vmx file of VMware", "altmap vm {}"),
    "qemu": (QEMU, "a command line of QEMU", "altmap vm {}"),
    "dmesg": (DMESG, "a kernel's log", "altmap explain --log {}"),
    "journal": (JOURNAL, "a kernel's log", "altmap explain --log {}"),
    "lsmem": (LSMEM, "what lsmem prints", ON_MACHINE),
    "lsmem -J": (LSMEM_JSON, "JSON of lsmem", ON_MACHINE),
    "daxctl": (DAXCTL, "JSON of daxctl", ON_MACHINE),
    "meminfo": (MEMINFO, "a file of /proc", "a sysroot is the folder"),
    "grid": (GRID, "a grid", "altmap sweep {}"),
    "cases": (CASES, "cases of conform", "altmap conform {}"),
    "exploration": (EXPLORATION, "an exploration", "altmap explore {}"),
}


def refusal(capsys, *words):
    assert main([*map(str, words)]) == (1 if words[0] == "plan" else 2)
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("command", ["run", "account", "ls -s", "plan grow 4GiB --from"])
def test_a_file_of_another_kind_is_called_by_its_name(tmp_path, capsys, name, command):
    text, called, line = OTHERS[name]
    path = tmp_path / "file"
    path.write_text(text)
    err = refusal(capsys, *command.split(), path)
    assert f"; it is {called}: {line.format(path)}" in err


@pytest.mark.parametrize("name", sorted(set(OTHERS) - {"dmesg", "journal"}))
def test_what_is_no_log_is_not_called_a_log_without_messages(tmp_path, capsys, name):
    text, called, _ = OTHERS[name]
    path = tmp_path / "file"
    path.write_text(text)
    err = refusal(capsys, "explain", "--log", path)
    assert f"need a kernel's log; it is {called}: " in err
    assert err.count("it is") == 1


def test_a_log_of_another_matter_has_no_message(tmp_path, capsys):
    (tmp_path / "log").write_text(DMESG)
    assert main(["explain", "--log", str(tmp_path / "log")]) == 0
    assert "no message about memory hotplug" in capsys.readouterr().out


def test_archives_folders_plans_and_scenarios_are_called_by_their_names(tmp_path, capsys):
    sysroot = ModelMachine.start(Machine()).observe().render()
    sysroot.write(tmp_path / "folder")
    with tarfile.open(tmp_path / "packed.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "folder", "")
    for name, called in (("packed.tar.gz", "an archive"), ("folder", "a folder")):
        err = refusal(capsys, "run", tmp_path / name)
        assert f"; it is {called}: altmap report {tmp_path / name}, or altmap run" in err
    plan = tmp_path / "plan.json"
    plan.write_text(encode_plan(plan_free(Sysroot.read(tmp_path / "folder"), [1])))
    assert f"it is a plan of altmap: altmap apply {plan}" in refusal(capsys, "report", plan)
    scenario = tmp_path / "s.toml"
    scenario.write_text(SCENARIO)
    assert f"it is a scenario: altmap run {scenario}" in refusal(capsys, "ls", "-s", scenario)


def test_a_mistake_inside_a_file_of_the_right_kind_is_only_that(tmp_path, capsys):
    path = tmp_path / "s.toml"
    path.write_text('[machine]\nmemroy = "1GiB"\n')
    assert "it is" not in refusal(capsys, "run", path)
    assert "it is" not in refusal(capsys, "run", tmp_path / "missing.toml")


def test_only_the_file_that_a_message_names_is_called_by_its_kind(capsys):
    assert refusal(capsys, "apply", "/no/such.json").count("it is") == 0  # --root is /
    assert refusal(capsys, "ls", "-s", "/no/such.tar").count("it is") == 0


def test_a_file_that_is_not_there_is_answered_with_the_nearest(tmp_path, capsys):
    (tmp_path / "dimm-1GiB.toml").write_text(SCENARIO)
    for wrong in ("dimm-1GB.toml", "dimm-1gib.toml"):
        err = refusal(capsys, "run", tmp_path / wrong)
        assert err.rstrip().endswith(f"; did you mean '{tmp_path}/dimm-1GiB.toml'?")
    assert "did you mean" not in refusal(capsys, "run", tmp_path / "another")
    assert "did you mean" not in refusal(capsys, "run", tmp_path / "no/dimm-1GiB.toml")


def test_the_lines_to_type_are_commands():
    for kind in FILE_KINDS:
        if kind.line.startswith("altmap ") and kind.readers:
            assert kind.line.split()[1] == kind.readers[0]
            assert command_line().parse_args(kind.line.split()[1:]).verb.name == kind.readers[0]
