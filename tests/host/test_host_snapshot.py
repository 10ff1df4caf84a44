"""`altmap snapshot` keeps what a prediction needs, and with --anonymous nothing that names."""

import json
import tarfile
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.errors import InputError
from altmap.host.anonymous import anonymous
from altmap.host.missing import gaps
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import predict
from altmap.scenario import load_scenario

RECORDINGS = Path(__file__).parents[1] / "recordings" / "files"
DIMM = RECORDINGS / "linux-6.12-dimm.tar.xz"
SECRETS = {
    "proc/version": b"Linux version 6.12.95-acme3-amd64 (root@build.acme) (gcc 12) #1 SMP\n",
    "proc/sys/kernel/osrelease": b"6.12.95-acme3-amd64\n",
    "proc/cmdline": (
        b"root=UUID=0a1b-acme ip=10.0.0.7 memory_hotplug.memmap_on_memory=1 movable_node\n"
    ),
    "sys/devices/virtual/dmi/id/sys_vendor": b"acme\n",
    "etc/udev/rules.d/40-acme-memory.rules": (
        b"# by acme\n"
        b'SUBSYSTEM=="memory", ACTION=="add", \\\n ATTR{state}="online"\n'
        b'SUBSYSTEM=="net", NAME="acme0"\n'
    ),
    "etc/udev/rules.d/80-hotplug-mem.rules": b"",
    "usr/lib/udev/rules.d/80-hotplug-mem.rules": b'SUBSYSTEM=="memory", ATTR{state}="online"\n',
}


@pytest.fixture
def machine():
    sysroot = Sysroot.read(DIMM)
    sysroot.files |= SECRETS
    return sysroot


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".txz"])
def test_a_snapshot_is_read_back_as_it_was(machine, tmp_path, ending):
    target = tmp_path / f"s{ending}"
    machine.pack(target)
    again = Sysroot.read(target)
    assert (again.files, again.links) == (machine.files, machine.links)
    assert [path.name for path in tmp_path.iterdir()] == [target.name]
    first = target.read_bytes()
    target.unlink()
    machine.pack(target)
    assert target.read_bytes() == first


def test_a_packed_snapshot_is_plain_tar(machine, tmp_path):
    machine.pack(tmp_path / "s.tar")
    with tarfile.open(tmp_path / "s.tar") as tar:
        members = {member.name: member for member in tar.getmembers()}
    assert members.keys() == {*machine.files, *machine.links}
    assert members["proc/version"].mode == 0o644


@pytest.mark.parametrize("name", ["s.zip", "s.tar.zst", "s"])
def test_an_unknown_ending_is_refused(machine, tmp_path, name):
    with pytest.raises(InputError, match="need a name that ends in"):
        machine.pack(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_not_replaced(machine, tmp_path):
    target = tmp_path / "s.tar"
    target.write_text("precious")
    with pytest.raises(InputError, match="is there already"):
        machine.pack(target)
    assert target.read_text() == "precious"


def test_the_command_writes_what_it_read_and_names_what_is_missing(tmp_path, capsys):
    source = tmp_path / "root"
    whole = Sysroot.read(DIMM)
    del whole.files["proc/kpageflags.runs"]
    whole.write(source)
    assert main(["snapshot", str(source), "-o", str(tmp_path / "s.tar.gz"), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["schema"], made["version"]) == ("altmap-snapshot", 1)
    assert made["missing"] == ["proc/kpageflags is missing"]
    assert made["nr_files"] == len(Sysroot.read(tmp_path / "s.tar.gz").files)


def test_what_only_root_may_see_is_said_so():
    hidden = b"00000000-00000000 : System RAM\n00000000-00000000 : Reserved\n"
    sysroot = Sysroot({"proc/iomem": hidden}, {}, ("proc/kpageflags",))
    lines = list(gaps(sysroot, Observation.read(sysroot)))
    assert "proc/kpageflags could not be read: only root may" in lines
    assert "proc/iomem shows no addresses: only root sees them" in lines
    assert "proc/kpageflags is missing" not in lines


def test_an_anonymous_snapshot_names_nobody(machine, tmp_path):
    hidden = anonymous(machine)
    hidden.pack(tmp_path / "s.tar")
    raw = (tmp_path / "s.tar").read_bytes()
    for word in (b"acme", b"UUID", b"10.0.0.7", b"gcc", b"root@", b"root="):
        assert word not in raw
    assert hidden.text("proc/version") == "Linux version 6.12.95-x86_64\n"
    assert hidden.text("proc/cmdline") == "memory_hotplug.memmap_on_memory=1 movable_node\n"


def test_an_anonymous_snapshot_keeps_the_rules_about_memory(machine):
    files = anonymous(machine).files
    rules = {path: raw for path, raw in files.items() if "/rules.d/" in path}
    # The administrator's mask still masks the distribution's file of that name.
    assert rules["etc/udev/rules.d/80-hotplug-mem.rules"] == b""
    assert b'ATTR{state}="online"' in rules["usr/lib/udev/rules.d/80-hotplug-mem.rules"]
    (own,) = (raw for path, raw in rules.items() if path.startswith("etc/udev/rules.d/40-"))
    assert own.startswith(b'SUBSYSTEM=="memory", ACTION=="add",')
    assert own.count(b"\n") == 1


def test_an_anonymous_snapshot_predicts_the_same(machine, tmp_path):
    scenario_file = tmp_path / "s.toml"
    scenario_file.write_text(
        '[[steps]]\ndo = "plug"\nid = "d"\nsize = "1GiB"\n'
        '[[steps]]\ndo = "online"\nblocks = 34\nto = "online_movable"\n'
        '[[steps]]\ndo = "offline"\nblocks = [32, 33]\n'
    )
    traces = [
        predict(load_scenario(scenario_file), Observation.read(each))
        for each in (machine, anonymous(machine))
    ]
    assert traces[0].to_builtins() == traces[1].to_builtins()
    for one, other in zip(traces[0].steps, traces[1].steps, strict=True):
        assert one.observation.zoneinfo == other.observation.zoneinfo
        assert one.observation.memory == other.observation.memory


def test_masks_and_merged_folders_are_read(tmp_path):
    root = tmp_path / "root"
    Sysroot.read(DIMM).write(root)
    (root / "usr/lib/udev/rules.d").mkdir(parents=True)
    (root / "usr/lib/udev/rules.d/80-hotplug-mem.rules").write_text("x\n")
    (root / "usr/lib/udev/rules.d/99-other.rules").write_text("x\n")
    (root / "lib").symlink_to("usr/lib")
    (root / "etc/udev/rules.d").mkdir(parents=True)
    (root / "etc/udev/rules.d/80-hotplug-mem.rules").symlink_to("/dev/null")
    (root / "etc/udev/rules.d/81-mem-elsewhere.rules").symlink_to("/etc/passwd")
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        tar.add(root, "host")
    for source in (root, tmp_path / "root.tar"):
        files = Sysroot.read(source).files
        rules = {path: raw for path, raw in files.items() if path.endswith(".rules")}
        assert rules == {
            "etc/udev/rules.d/80-hotplug-mem.rules": b"",
            "usr/lib/udev/rules.d/80-hotplug-mem.rules": b"x\n",
        }


@pytest.mark.slow
def test_account_without_a_source_is_about_this_host(capsys):
    if not Path("/sys/devices/system/memory/block_size_bytes").exists():
        pytest.skip("missing: memory blocks on this machine")
    assert main(["account"]) == 0
    assert capsys.readouterr().out.startswith("this host\n")
