"""What lsmem printed stands for the folder of memory blocks, as an archive of sos has it."""

import io
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.cli.main import main
from altmap.errors import InputError
from altmap.linux import lsmem, memory
from altmap.linux.reading import Reader
from altmap.linux.sysroot import Sysroot

LSMEM = shutil.which("lsmem")
RECORDINGS = Path(__file__).parents[1] / "recordings/files"
NAMES = sorted(RECORDINGS.glob("*.tar.xz"))
#: As sos calls it, and the file that it writes.
ORDER = "RANGE,SIZE,STATE,REMOVABLE,ZONES,NODE,BLOCK"
PATH = f"sos_commands/memory/lsmem_-a_-o_{ORDER.replace(',', '_')}"
TABLE = """\
RANGE                                 SIZE   STATE REMOVABLE          ZONES NODE BLOCK
0x0000000000000000-0x0000000007ffffff 128M  online       yes           None    0     0
0x0000000008000000-0x000000000fffffff 128M on->off        no        Movable    1     1
0x0000000100000000-0x0000000107ffffff 128M offline           Normal/Movable    0    32

Memory block size:       128M
"""


@pytest.mark.skipif(LSMEM is None, reason="needs lsmem from util-linux")
@pytest.mark.parametrize("options", [["-a"], []])
@pytest.mark.parametrize("archive", NAMES, ids=lambda path: path.name)
def test_the_table_says_what_the_folder_says(archive, tmp_path, options):
    Sysroot.read(archive).write(tmp_path / "root")
    said = subprocess.run(
        [LSMEM, "--sysroot", tmp_path / "root", *options, "-o", ORDER],
        check=True, capture_output=True,
    )  # fmt: skip
    real = memory.parse(Reader(Sysroot.read(archive)))
    read = memory.parse(Reader(Sysroot({PATH: said.stdout})))
    assert read.block_size_bytes == real.block_size_bytes
    assert list(read.blocks) == list(real.blocks)
    for nr, block in read.blocks.items():
        whole = real.blocks[nr]
        assert (block.state, block.valid_zones) == (whole.state, whole.valid_zones)
        assert block.nodes == whole.nodes[:1]
        assert block.removable == (whole.removable if whole.state == "online" else None)


@pytest.mark.skipif(LSMEM is None, reason="needs lsmem from util-linux")
def test_an_archive_of_sos_is_listed_as_the_machine_was(tmp_path, capsys):
    root = tmp_path / "root"
    Sysroot.read(RECORDINGS / "linux-6.12-dimm.tar.xz").write(root)
    said = subprocess.run(
        [LSMEM, "--sysroot", root, "-a", "-o", ORDER], check=True, capture_output=True
    )
    archive = tmp_path / "sosreport-host.tar.xz"
    files = {
        PATH: said.stdout,
        "proc/meminfo": (root / "proc/meminfo").read_bytes(),
        "proc/zoneinfo": (root / "proc/zoneinfo").read_bytes(),
        "sos_commands/memory/free": b"x\n",
        "sos_reports/sos.txt": b"x\n",
    }
    with tarfile.open(archive, "w:xz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"sosreport-host/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    with tarfile.open(archive) as tar:
        tar.extractall(tmp_path / "unpacked", filter="data")
    expected = subprocess.run(
        [LSMEM, "--sysroot", root, "-o", "+ZONES,NODE"], check=True, capture_output=True, text=True
    ).stdout
    for source in (archive, tmp_path / "unpacked", tmp_path / "unpacked/sosreport-host"):
        assert main(["ls", "-s", str(source), "-o", "+ZONES,NODE"]) == 0
        assert capsys.readouterr().out.split() == expected.split()
        assert main(["account", str(source)]) == 0
        assert "memory blocks" in capsys.readouterr().out
        assert main(["export", "--prometheus", str(source)]) == 0
        assert (
            'altmap_memory_blocks{node="0",state="offline",zone=""} 2.0' in capsys.readouterr().out
        )


def test_the_table_is_read_by_its_columns():
    first, second, third = lsmem.parse(TABLE)
    assert (first.state, first.removable, first.zones, first.node) == ("online", True, ("none",), 0)
    assert (second.state, second.removable, second.node) == ("going-offline", False, 1)
    assert (third.first, third.state, third.removable) == (32, "offline", None)
    assert third.zones == ("Normal", "Movable")


def test_a_prediction_replaces_the_table():
    sysroot = Sysroot({PATH: TABLE.encode()})
    folder = memory.parse(Reader(sysroot))
    assert memory.owns(PATH, folder)
    assert memory.parse(Reader(memory.render(folder))).blocks.keys() == {0, 1, 32}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("RANGE  ", "RAMGE  "),
        ("    32\n", "    33\n"),
        ("    32\n", "    1\n"),
        ("    32\n", "32-999\n"),
        ("-0x0000000107ffffff", "-0x00000000ffffffff"),
        ("-0x0000000107ffffff", "-0xffffffffffffffff"),
        ("on->off", "\x1b[2Joff"),
        ("on->off", "unknown"),
        ("      no ", "   maybe "),
        ("   1     1", "  -1     1"),
        ("0x0000000008000000-0x000000000fffffff", "0x0000000000000000-0x0000000007ffffff"),
    ],
)
def test_what_contradicts_itself_in_a_table_is_not_listed(tmp_path, capsys, old, new):
    assert old in TABLE
    (tmp_path / PATH).parent.mkdir(parents=True)
    (tmp_path / PATH).write_text(TABLE.replace(old, new, 1))
    (tmp_path / "proc").mkdir()
    code = main(["ls", "-a", "-s", str(tmp_path), "-o", "RANGE,BLOCK", "-n", "--summary=never"])
    out, err = capsys.readouterr()
    # A row that contradicts itself is left out; of a table that does, nothing is listed.
    assert (code, out.count("\n")) in ((0, 2), (2, 0))
    assert err.count("\n") == 1
    assert "\x1b" not in err


@given(st.text(max_size=200))
def test_garbage_is_rows_or_an_error(text):
    for whole in (text, TABLE.splitlines(keepends=True)[0] + text):
        try:
            rows = lsmem.parse(whole)
        except InputError:
            continue
        assert all(row.first <= row.last for row in rows)
