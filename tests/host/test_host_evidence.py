"""What commands make of files that are padded, damaged, or of other kernels."""

import dataclasses
import io
import re
import tarfile
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.host.explain import explain_block
from altmap.linux import iomem
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot

RECORDINGS = Path(__file__).parents[1] / "recordings/files"
DIMM = RECORDINGS / "linux-6.12-dimm.tar.xz"
MEMORY = "sys/devices/system/memory"


@pytest.fixture
def dimm():
    return Sysroot.read(DIMM)


def ran(capsys, *words):
    status = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return status, out, err


def as_tar_packs_sysfs(sysroot, target, ends=4096):
    """Pack every file below sys/ with the size that sysfs claims, or one byte more than it has."""
    with tarfile.open(target, "w") as tar:
        for path, raw in sysroot.files.items():
            padded = raw.ljust(ends or len(raw) + 1, b"\0") if path.startswith("sys/") else raw
            member = tarfile.TarInfo(path)
            member.size = len(padded)
            tar.addfile(member, io.BytesIO(padded))
        for path, to in sysroot.links.items():
            member = tarfile.TarInfo(path)
            member.type, member.linkname = tarfile.SYMTYPE, to
            tar.addfile(member)
    return target


@pytest.mark.parametrize("ends", [4096, 0])
@pytest.mark.parametrize("unpacked", [False, True])
def test_what_follows_the_first_nul_below_sys_is_cut_off_with_one_note(
    capsys, tmp_path, dimm, ends, unpacked
):
    source = as_tar_packs_sysfs(dimm, tmp_path / "s.tar", ends)
    if unpacked:
        with tarfile.open(source) as tar:
            tar.extractall(tmp_path / "root", filter="data")
        source = tmp_path / "root"
    for words in (("ls", "-o", "+ZONES,NODE", "-s"), ("explain", "33"), ("account",)):
        _, plain, _ = ran(capsys, *words, DIMM)
        status, out, err = ran(capsys, *words, source)
        assert status == 0
        if words[0] != "explain":
            assert out.replace(str(source), str(DIMM)) == plain
        assert (out + err).count("padded with NUL") == 1


def test_a_nul_outside_of_sys_is_no_padding(dimm):
    sysroot = Sysroot({**dimm.files, "proc/cmdline": b"a\0b\n"}, dimm.links)
    assert Observation.read(sysroot).cmdline == "a\0b"


def crash(seen, first, last, *, beside):
    """Return an observation with the crash kernel in these blocks, inside or beside System RAM."""
    start, end = first << 27, (last + 1) << 27
    lines = []
    for line in seen.iomem:
        if line.start <= start and end <= line.end and line.name == "System RAM":
            if beside:
                lines += [line._replace(end=start), iomem.Resource(0, start, end, "Crash kernel")]
                lines.append(line._replace(start=end))
            else:
                lines += [line, iomem.Resource(1, start, end, "Crash kernel")]
        else:
            lines.append(line)
    return dataclasses.replace(seen, iomem=tuple(lines))


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("pages", [True, False])
def test_a_block_of_the_crash_kernel_is_reserved_and_no_hole(dimm, beside, pages):
    seen = crash(Observation.read(dimm), 5, 5, beside=beside)
    if not pages:
        seen = dataclasses.replace(seen, kpageflags=None)
    found = explain_block(seen, 5)
    assert "hole" not in [blocker.name for blocker in found.blockers]
    if not pages:
        (blocker,) = found.blockers
        assert (blocker.name, blocker.errno, blocker.certainty) == ("reserved", "EBUSY", "certain")
        assert (blocker.function, blocker.nr_pages) == ("has_unmovable_pages", 1 << 15)
        assert "crashkernel=" in blocker.cure
        assert "firmware" not in blocker.cure


def test_an_online_block_without_valid_zones_is_in_the_zones_whose_spans_it_is_in(
    capsys, tmp_path, dimm
):
    dimm.files[f"{MEMORY}/memory3/valid_zones"] = b""
    dimm.pack(tmp_path / "s.tar")
    assert ran(capsys, "report", tmp_path / "s.tar")[0] == 0
    assert ran(capsys, "report", tmp_path / "s.tar", "-o", tmp_path / "r.html")[0] == 0


def test_memory_of_a_dax_device_before_5_8_is_kmems(capsys, tmp_path, dimm):
    text = dimm.text("proc/iomem")
    ram = "100000000-10fffffff : System RAM"
    assert ram in text or re.search("^100000000-.* : System RAM$", text, re.M)
    text = re.sub(
        "^(100000000-[0-9a-f]+) : System RAM$", r"\1 : dax0.0\n  \1 : System RAM", text, flags=re.M
    )
    dimm.files["proc/iomem"] = text.encode()
    dimm.links = {path: to for path, to in dimm.links.items() if "firmware_node" not in path}
    dimm.pack(tmp_path / "s.tar")
    _, out, _ = ran(capsys, "ls", "-r", "-n", "-s", tmp_path / "s.tar", "-o", "BLOCK,DRIVER,DEVICE")
    assert "32-35 kmem dax0.0" in out.splitlines()
    status, out, _ = ran(capsys, "plan", "remove", "dax0.0", "--from", tmp_path / "s.tar")
    assert (status, "offline memory32" in out) == (0, True)
