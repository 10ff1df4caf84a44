"""`altmap ls` says what util-linux' lsmem says, and what no lsmem can."""

import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from altmap.cli.main import main
from altmap.errors import InputError
from altmap.host.text.blocks import human_size
from altmap.linux import memory
from altmap.linux.blockfolder import read_blocks
from altmap.linux.reading import Reader
from altmap.linux.sysroot import Sysroot

LSMEM = shutil.which("lsmem")
RECORDINGS = Path(__file__).parents[1] / "recordings" / "files"
NAMES = sorted(path.name.removesuffix(".tar.xz") for path in RECORDINGS.glob("*.tar.xz"))
SEVEN = "RANGE,SIZE,STATE,REMOVABLE,BLOCK,NODE,ZONES"
OPTIONS = [
    "",
    "-a",
    "-b",
    "-n",
    "-r",
    "-P",
    "-P -b",
    "-r -n",
    f"-o {SEVEN}",
    "-o +ZONES,NODE",
    "-o SIZE,STATE",
    "-o state,zones,block -b",
    "-r -o +NODE,ZONES",
    "-S none",
    "-S node,zones",
    "-S state -o +ZONES",
    "--summary=only",
    "--summary=never",
    "--summary=only -b",
    f"-a -o {SEVEN}",
    *(f"-r -o {name} -S {name}" for name in SEVEN.split(",")),
    f"-o {SEVEN} -S range,size,block",
    f"-r -o {SEVEN} -S removable,block",
]


@pytest.fixture(scope="module", params=NAMES)
def recorded(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param) / "root"
    Sysroot.read(RECORDINGS / f"{request.param}.tar.xz").write(folder)
    return folder


def ls(capsys, *arguments):
    status = main(["ls", *map(str, arguments)])
    out, err = capsys.readouterr()
    return status, out, err


@pytest.mark.skipif(LSMEM is None, reason="needs lsmem from util-linux")
@pytest.mark.parametrize("options", OPTIONS)
def test_the_text_is_that_of_lsmem(recorded, capsys, options):
    ran = subprocess.run(
        [LSMEM, "--sysroot", recorded, *options.split()], check=True, capture_output=True, text=True
    )
    expected = "".join(line.rstrip() + "\n" for line in ran.stdout.splitlines())
    # Raw lines may end in an empty cell; blanks at the end carry nothing in the table.
    status, out, err = ls(capsys, "-s", recorded, *options.split())
    assert (status, err) == (0, "")
    assert "".join(line.rstrip() + "\n" for line in out.splitlines()) == expected


@pytest.mark.skipif(LSMEM is None, reason="needs lsmem from util-linux")
@pytest.mark.parametrize("zones", ["Odd", "none", "", "Movable Odd"])
@pytest.mark.parametrize("options", ["-S zones", "-S state", ""])
def test_zones_that_lsmem_does_not_know_keep_ranges_apart(tmp_path, capsys, zones, options):
    folder = tmp_path / "root"
    sysroot = Sysroot.read(RECORDINGS / "linux-6.12-dimm.tar.xz")
    for nr in (1, 2, 3):
        sysroot.files[f"sys/devices/system/memory/memory{nr}/valid_zones"] = f"{zones}\n".encode()
    sysroot.write(folder)
    words = ["-r", "-o", SEVEN, *options.split()]
    ran = subprocess.run([LSMEM, "--sysroot", folder, *words], check=True, capture_output=True)
    assert ls(capsys, "-s", folder, *words) == (0, ran.stdout.decode(), "")


@pytest.mark.skipif(LSMEM is None, reason="needs lsmem from util-linux")
@pytest.mark.parametrize("options", [f"-J -o {SEVEN}", f"-J -b -a -o {SEVEN}", "-J", "-J -S none"])
def test_the_json_holds_the_object_of_lsmem(recorded, capsys, options):
    ran = subprocess.run(
        [LSMEM, "--sysroot", recorded, *options.split()], check=True, capture_output=True, text=True
    )
    made = json.loads(ls(capsys, "-s", recorded, *options.split())[1])
    assert made["memory"] == json.loads(ran.stdout)["memory"]
    assert (made["schema"], made["version"]) == ("altmap-ls", 1)


def test_the_archive_lists_as_the_folder_does(recorded, capsys):
    archive = RECORDINGS / f"{recorded.parent.name.rstrip('0123456789')}.tar.xz"
    assert ls(capsys, "-s", archive, "--output-all") == ls(capsys, "-s", recorded, "--output-all")
    seven = ("-o", SEVEN)
    assert ls(capsys, "-s", archive, *seven) == ls(capsys, "-s", recorded, *seven)


def test_the_quick_reader_reads_what_the_whole_one_does(recorded):
    quick, whole = read_blocks(recorded), memory.parse(Reader(Sysroot.read(recorded)))
    assert quick.block_size_bytes == whole.block_size_bytes
    assert {
        nr: (block.state, block.removable, block.valid_zones, block.nodes)
        for nr, block in quick.blocks.items()
    } == {
        nr: (block.state, block.removable, block.valid_zones, block.nodes)
        for nr, block in whole.blocks.items()
    }


@pytest.mark.parametrize("release", ["6.1", "6.12", "7.3"])
def test_a_dimm_shows_its_device_memmap_and_blockers(capsys, release):
    # As the recordings' README says: 32 online in Movable, 33 in Normal, 34 and 35 offline, with
    # memmap_on_memory; 6.1 serves only DIMMs of one block.
    archive = RECORDINGS / f"linux-{release}-dimm.tar.xz"
    columns = "BLOCK,STATE,MEMMAP,DRIVER,DEVICE,BLOCKERS"
    _, out, _ = ls(capsys, "-s", archive, "-J", "-a", "-o", columns)
    rows = {row["block"]: row for row in json.loads(out)["memory"]}
    place = "existing" if release == "6.1" else "self"
    assert [rows[nr]["driver"] for nr in ("32", "35")] == ["acpi", "acpi"]
    assert [rows[nr]["device"] for nr in ("32", "35")] == ["PNP0C80:00", "PNP0C80:00"]
    assert [rows[nr]["memmap"] for nr in ("32", "33")] == [place, place]
    assert rows["34"]["memmap"] == ("self" if place == "self" else None)
    assert rows["32"]["blockers"] is None
    assert rows["33"]["blockers"]
    assert rows["34"]["blockers"] is None
    # The first MiB of a PC has holes, and its zones are DMA and DMA32.
    assert rows["0"]["blockers"].startswith("zones,hole,reserved")
    assert rows["0"]["driver"] is None


def test_blockers_of_a_machine_without_page_flags_are_a_question_mark(tmp_path, capsys):
    whole = Sysroot.read(RECORDINGS / "linux-6.12-dimm.tar.xz")
    del whole.files["proc/kpageflags.runs"]
    whole.write(tmp_path / "root")
    _, out, _ = ls(capsys, "-s", tmp_path / "root", "-J", "-a", "-o", "BLOCK,STATE,MEMMAP,BLOCKERS")
    rows = {row["block"]: row for row in json.loads(out)["memory"]}
    assert rows["32"]["blockers"] == "?"
    assert rows["32"]["memmap"] is None
    assert rows["34"]["blockers"] is None


def test_a_folder_above_the_sysroot_is_entered(recorded, tmp_path, capsys):
    # As sos archives have it, beside other files.
    shutil.copytree(recorded, tmp_path / "sosreport-host", symlinks=True)
    (tmp_path / "sosreport-host/sos_commands").mkdir()
    plain = ls(capsys, "-s", recorded)
    assert ls(capsys, "-s", tmp_path) == plain
    archive = tmp_path / "sosreport-host.tar.xz"
    (tmp_path / "sosreport-host/hostname").symlink_to("/etc/hostname")
    with tarfile.open(archive, "w:xz") as tar:
        tar.add(tmp_path / "sosreport-host", "sosreport-host")
    assert ls(capsys, "-s", archive) == plain


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1 << 27, "128M"),
        (1342177280, "1.3G"),
        (15 << 27, "1.9G"),
        ((1 << 30) - (1 << 20), "1023M"),
        ((2 << 30) - (50 << 20), "2G"),
        (1 << 62, "4E"),
    ],
)
def test_sizes_are_written_as_lsmem_writes_them(size_bytes, text):
    assert human_size(size_bytes) == text


HOSTILE = {
    "state-leaves": lambda m: (
        (m / "memory0/state").unlink(),
        (m / "memory0/state").symlink_to("/etc/passwd"),
    ),
    "block-is-a-link": lambda m: (shutil.rmtree(m / "memory0"), (m / "memory0").symlink_to("/")),
    "block-links-to-itself": lambda m: (
        shutil.rmtree(m / "memory0"),
        (m / "memory0").symlink_to("memory0"),
    ),
    "state-is-a-pipe": lambda m: ((m / "memory0/state").unlink(), os.mkfifo(m / "memory0/state")),
    "size-is-gigantic": lambda m: (m / "block_size_bytes").write_text("f" * 99),
    "size-is-no-number": lambda m: (m / "block_size_bytes").write_text("-1"),
    "size-is-gone": lambda m: (m / "block_size_bytes").unlink(),
    "block-is-a-file": lambda m: (shutil.rmtree(m / "memory0"), (m / "memory0").write_text("x")),
}


@pytest.mark.parametrize("columns", [SEVEN, "BLOCK,BLOCKERS"])
@pytest.mark.parametrize("mount", ["with devices", "without devices"])
@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_folder_is_refused_in_one_line(
    tmp_path, capsys, monkeypatch, damage, mount, columns
):
    if mount == "without devices":  # as /sys is mounted
        monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_flag=os.ST_NODEV))
    folder = tmp_path / "root"
    Sysroot.read(RECORDINGS / "linux-6.12-dimm.tar.xz").write(folder)
    damage(folder / "sys/devices/system/memory")
    status, out, err = ls(capsys, "-s", folder, "-o", columns)
    assert (status, out) == (2, "")
    assert err.startswith("altmap: ")
    assert err.count("\n") == 1


def test_a_device_is_not_opened_where_the_mount_has_devices(tmp_path, monkeypatch):
    folder = tmp_path / "root"
    Sysroot.read(RECORDINGS / "linux-6.12-dimm.tar.xz").write(folder)
    (folder / "sys/devices/system/memory/memory0/state").unlink()
    os.mkfifo(folder / "sys/devices/system/memory/memory0/state")  # stands for any special file
    opened, real_open = [], os.open
    monkeypatch.setattr(os, "fstatvfs", lambda _: SimpleNamespace(f_flag=0))
    monkeypatch.setattr(
        os, "open", lambda path, *a, **k: opened.append(str(path)) or real_open(path, *a, **k)
    )
    with pytest.raises(InputError, match="need a regular file"):
        read_blocks(folder)
    assert "memory0/state" not in opened


def test_a_block_of_two_nodes_is_linked_to_both(tmp_path):
    folder = tmp_path / "root"
    Sysroot.read(RECORDINGS / "linux-6.12-dimm.tar.xz").write(folder)
    nodes = folder / "sys/devices/system/node"
    for node in (2, 10):
        (nodes / f"node{node}").mkdir()
        (nodes / f"node{node}/memory1").symlink_to("../../memory/memory1")
    blocks = read_blocks(folder).blocks
    assert blocks[1].nodes == (0, 2, 10)
    assert blocks[2].nodes == (0,)


DAMAGED = {
    "state-is-garbage": lambda m: (m / "memory1/state").write_bytes(b"\xff\x00" * 900),
    "state-is-gone": lambda m: (m / "memory1/state").unlink(),
}


@pytest.mark.parametrize("columns", [SEVEN, "BLOCK,BLOCKERS"])
@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_the_file_online_stands_for_a_state_that_is_not_told(tmp_path, capsys, damage, columns):
    folder = tmp_path / "root"
    Sysroot.read(RECORDINGS / "linux-6.12-dimm.tar.xz").write(folder)
    whole = ls(capsys, "-s", folder, "-o", columns)
    damage(folder / "sys/devices/system/memory")
    status, out, err = ls(capsys, "-s", folder, "-o", columns)
    assert (status, out) == whole[:2]
    assert "memory1/state: " in err


@pytest.mark.parametrize("columns", [SEVEN, "BLOCK,BLOCKERS"])
@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_block_of_unknown_state_is_left_out_with_a_note(tmp_path, capsys, damage, columns):
    folder = tmp_path / "root"
    Sysroot.read(RECORDINGS / "linux-6.12-dimm.tar.xz").write(folder)
    (folder / "sys/devices/system/memory/memory1/online").unlink()
    damage(folder / "sys/devices/system/memory")
    status, out, err = ls(capsys, "-a", "-n", "--summary=never", "-s", folder, "-o", columns)
    assert (status, len(out.splitlines())) == (0, 11)
    assert "memory1/state: " in err


@pytest.mark.parametrize("arguments", [["-o", "FOO"], ["-S", "FOO"], ["-J", "--summary=only"]])
def test_what_no_table_has_is_refused(capsys, arguments):
    status, out, err = ls(capsys, "-s", RECORDINGS / "linux-6.12-dimm.tar.xz", *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
