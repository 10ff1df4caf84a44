"""Whatever reads a machine's files refuses hostile ones in one line and writes nothing else."""

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from altmap.cli.main import main
from altmap.linux.sysroot import Sysroot

DIMM = Path(__file__).parents[1] / "recordings/files/linux-6.12-dimm.tar.xz"
MEMORY = "sys/devices/system/memory"
STATE = f"{MEMORY}/memory33/state"


def member(name, kind=tarfile.REGTYPE, to="", size=0):
    made = tarfile.TarInfo(name)
    made.type, made.linkname, made.size = kind, to, size
    return made


#: Members that take the place of a good one, or come beside it.
HOSTILE = {
    "absolute": member("/etc/altmap-was-here"),
    "upwards": member("../altmap-was-here"),
    "upwards-inside": member("proc/../../altmap-was-here"),
    "link-out": member(STATE, tarfile.SYMTYPE, "../../../../../../../etc/passwd"),
    "link-absolute": member(STATE, tarfile.SYMTYPE, "/etc/passwd"),
    "folder-is-a-link": member(MEMORY, tarfile.SYMTYPE, "."),
    "hard-link": member(STATE, tarfile.LNKTYPE, "proc/meminfo"),
    "device": member(STATE, tarfile.CHRTYPE),
    "disk": member("proc/meminfo", tarfile.BLKTYPE),
    "pipe": member("proc/meminfo", tarfile.FIFOTYPE),
    "gigantic": member("proc/vmstat", size=1 << 60),
}
READERS = {
    "ls": lambda source, out: ["ls", "-s", source],
    "ls-blockers": lambda source, out: ["ls", "-s", source, "--output-all"],
    "account": lambda source, out: ["account", source],
    "export": lambda source, out: ["export", "--prometheus", source],
    "textfile": lambda source, out: [
        "export",
        "--prometheus",
        source,
        "--textfile",
        out / "a.prom",
    ],
    "snapshot": lambda source, out: ["snapshot", source, "-o", out / "s.tar"],
    "explain": lambda source, out: ["explain", "33", source],
    "plan": lambda source, out: ["plan", "free", "33", "--from", source, "-o", out / "p.json"],
}


@pytest.fixture(scope="module")
def good():
    return Sysroot.read(DIMM)


def packed(target, good, replaced):
    with tarfile.open(target, "w") as tar:
        for path, content in good.files.items():
            if path != replaced.name and not path.startswith(f"{replaced.name}/"):
                made = member(path, size=len(content))
                tar.addfile(made, io.BytesIO(content))
        for path, to in good.links.items():
            if not path.startswith(replaced.name):
                tar.addfile(member(path, tarfile.SYMTYPE, to))
        # The header alone: a size is only claimed.
        tar.fileobj.write(replaced.tobuf(tarfile.GNU_FORMAT))
        tar.offset = tar.fileobj.tell()
    return target


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused_in_one_line(tmp_path, capsys, good, reader, damage):
    (tmp_path / "in").mkdir()
    out = tmp_path / "out"
    out.mkdir()
    source = packed(tmp_path / "in/hostile.tar", good, damage)
    before = sorted(tmp_path.rglob("*"))
    status = main([str(word) for word in reader(source, out)])
    said, err = capsys.readouterr()
    assert (status in (1, 2), said, err.count("\n")) == (True, "", 1)
    assert err.startswith("altmap: ")
    assert sorted(tmp_path.rglob("*")) == before
    assert not Path("/etc/altmap-was-here").exists()


#: Members in place of a good one that take nothing from the others.
DAMAGED = {
    "block-is-a-link": member(f"{MEMORY}/memory33", tarfile.SYMTYPE, "memory32"),
    "link-to-itself": member(STATE, tarfile.SYMTYPE, "state"),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_a_link_in_place_of_a_file_is_not_followed(tmp_path, capsys, good, reader, damage):
    (tmp_path / "out").mkdir()
    source = packed(tmp_path / "hostile.tar", good, damage)
    status = main([str(word) for word in reader(source, tmp_path / "out")])
    said, err = capsys.readouterr()
    assert status in (0, 1, 2)
    assert all(line.startswith("altmap: ") for line in err.splitlines())
    assert "need " in said + err or "no such memory block" in err


NUMBERS = ("proc/meminfo", "proc/zoneinfo", "proc/iomem", "proc/kpageflags.runs", STATE,
           f"{MEMORY}/block_size_bytes", "proc/buddyinfo", "proc/vmstat")  # fmt: skip
GARBAGE = st.one_of(
    st.sampled_from(
        [b"", b"-1", b"9" * 40, b"f" * 40, b"\xff\xfe", b"\x1b[2J", b"0x", b"1e9", b"\n"]
    ),
    st.binary(max_size=12),
)


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@settings(
    max_examples=settings.default.max_examples // 5,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(path=st.sampled_from(NUMBERS), at=st.integers(0, 1 << 16), garbage=GARBAGE)
def test_garbage_in_a_file_is_read_or_refused_in_one_line(
    tmp_path_factory, capsys, good, reader, path, at, garbage
):
    folder = tmp_path_factory.mktemp("garbage")
    raw = good.files[path]
    at %= len(raw) + 1
    damaged = Sysroot(
        {**good.files, path: raw[:at] + garbage + raw[at + len(garbage) :]}, good.links
    )
    damaged.pack(folder / "s.tar")
    (folder / "out").mkdir()
    status = main([str(word) for word in reader(folder / "s.tar", folder / "out")])
    said, err = capsys.readouterr()
    assert status in (0, 1, 2)
    errors = [line for line in err.splitlines() if not line.startswith("altmap: note: ")]
    if errors:
        assert (said, len(errors)) == ("", 1)
        assert errors[0].startswith("altmap: ")
    assert "internal error" not in err
    assert "\x1b" not in said + err
