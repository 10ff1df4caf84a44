"""What a compressed file may unpack to; the bombs themselves are small."""

import bz2
import gzip
import io
import lzma
import os
import tarfile

import pytest

from altmap.errors import InputError
from altmap.linux import archive, intake, lsmem, unpacking, zoneinfo
from altmap.linux.lines import lines
from altmap.linux.sysroot import Sysroot

MEMINFO = b"MemTotal:           1024 kB\n"
MIB = 1 << 20


@pytest.fixture(autouse=True)
def few_bytes(monkeypatch):
    """Let a file unpack to a MiB, and 4 bytes for each of its own."""
    monkeypatch.setattr(unpacking, "FREE_BYTES", MIB)
    monkeypatch.setattr(unpacking, "MOST_RATIO", 4)


def tar_of(*members):
    """Return an archive of (name, content) or of (TarInfo, content)."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = len(content) if isinstance(name, str) else info.size
            tar.addfile(info, io.BytesIO(content))
    return made.getvalue()


PACKERS = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
MEMBER = ("proc/meminfo", MEMINFO)


@pytest.mark.parametrize("packer", PACKERS.values(), ids=PACKERS)
@pytest.mark.parametrize(
    "raw",
    [
        tar_of(MEMBER) + bytes(2 * MIB),
        tar_of(MEMBER, ("var/log/messages", bytes(2 * MIB))),
        tar_of(MEMBER, ("proc/kpageflags", bytes(2 * MIB))),
        tar_of(*[(f"{n:02d}-a/proc/vmstat", bytes(128 << 10)) for n in range(16)]),
    ],
    ids=["padding", "skipped member", "page flags", "many folders"],
)
def test_a_file_unpacks_to_no_more_than_one_of_its_size_may(packer, raw, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(packer(raw))
    size = path.stat().st_size
    for read in (Sysroot.read, archive.read_several):
        with pytest.raises(InputError) as refused:
            read(path)
        if "second sysroot" in str(refused.value):
            continue
        most = MIB + 4 * size
        assert f"its {size} bytes unpack to more than {most}: need at most" in str(refused.value)


def test_what_does_not_compress_may_be_of_any_size(tmp_path):
    path = tmp_path / "a.tar.gz"
    noise = os.urandom(3 * MIB)
    path.write_bytes(gzip.compress(tar_of(MEMBER, ("var/log/messages", noise))))
    assert Sysroot.read(path) == Sysroot({"proc/meminfo": MEMINFO})


@pytest.mark.parametrize("read", [Sysroot.read, archive.read_several])
@pytest.mark.parametrize("name", ["x", "proc/vmstat", "00-a/x", "proc/kpageflags"])
@pytest.mark.parametrize("size", [MIB, 1 << 40, 1 << 60, (1 << 63) - 1])
def test_a_member_that_is_larger_than_its_file_is_refused_at_once(read, name, size, tmp_path):
    info = tarfile.TarInfo(name)
    info.size = size
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(MEMBER)[:1024] + info.tobuf(tarfile.GNU_FORMAT) + b"x" * 512)
    with pytest.raises(InputError, match=r"need a whole tar archive .*: (it ends in|unexpected)"):
        read(path)


def sparse_of(name, size):
    """Return a member of nothing but a hole, as ``tar --sparse --format=posix`` writes it."""
    info = tarfile.TarInfo(name)
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": name,
        "GNU.sparse.realsize": str(size),
    }
    content = f"1\n{size}\n0\n".encode().ljust(512, b"\0")
    info.size = len(content)
    return info, content


def test_holes_of_sparse_members_count(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(sparse_of("proc/kpageflags", 8 << 10)))
    assert Sysroot.read(path).pages["proc/kpageflags"].nr_pages == 1 << 10
    path.write_bytes(tar_of(sparse_of("proc/kpageflags", 1 << 40)))
    with pytest.raises(InputError, match="bytes unpack to more than"):
        Sysroot.read(path)


def test_the_list_of_a_sparse_member_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "FREE_BYTES", 1 << 30)
    info, _ = sparse_of("x", 1)
    content = b"999999\n" + b"0\n1\n" * MIB
    info.size = len(content)
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of((info, content)))
    with pytest.raises(InputError, match="need shorter headers"):
        Sysroot.read(path)


def test_extended_headers_cost_more_than_what_they_hold(tmp_path):
    members = []
    for number in range(3):
        info = tarfile.TarInfo(f"x{number}")
        info.pax_headers = {"comment": "x" * (20 << 10)}
        members.append((info, b""))
    path = tmp_path / "a.tar.bz2"
    path.write_bytes(bz2.compress(tar_of(*members[:1], MEMBER)))
    assert Sysroot.read(path)
    path.write_bytes(bz2.compress(tar_of(*members, MEMBER)))
    with pytest.raises(InputError, match="bytes unpack to more than"):
        Sysroot.read(path)


@pytest.mark.parametrize("read", [Sysroot.read, archive.read_several])
def test_members_are_bounded_by_the_size_of_the_file(read, tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "_FREE_MEMBERS", 10)
    monkeypatch.setattr(archive, "_LEAST_MEMBER_BYTES", 1 << 20)
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(*[(f"x{n}", b"") for n in range(9)], MEMBER))
    read(path)
    path.write_bytes(tar_of(*[(f"x{n}", b"") for n in range(10)], MEMBER))
    with pytest.raises(InputError, match=r"need at most 10 members in \d+ bytes"):
        read(path)


@pytest.mark.parametrize(
    ("limit", "value", "message"),
    [
        ("MAX_TOTAL_BYTES", 50, "need at most 50 bytes in all"),
        ("MAX_LINES", 3, "need at most 3 lines in all"),
    ],
)
def test_all_sysroots_of_an_archive_share_its_limits(limit, value, message, tmp_path, monkeypatch):
    monkeypatch.setattr(intake, limit, value)
    path = tmp_path / "a.tar"
    folders = [(f"0{n}-a/proc/vmstat", b"a 1\nb 2\nc 3\n") for n in range(5)]
    path.write_bytes(tar_of(folders[0]))
    assert archive.read_several(path).sysroots
    path.write_bytes(tar_of(*folders))
    with pytest.raises(InputError, match=message):
        archive.read_several(path)


@pytest.mark.parametrize(
    "name",
    ["sys/devices/system/memory/memory0/state", "proc/version", "proc/sys/vm/min_free_kbytes"],
)
def test_a_file_of_one_line_has_no_megabytes(name, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of((name, b"x" * ((64 << 10) + 1))))
    with pytest.raises(InputError, match="need at most 65536 bytes"):
        Sysroot.read(path)


def test_xz_that_needs_much_memory_is_refused(tmp_path):
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 200 << 20}]
    path = tmp_path / "a.tar.xz"
    path.write_bytes(lzma.compress(tar_of(MEMBER), filters=filters))
    with pytest.raises(InputError, match="Memory usage limit"):
        Sysroot.read(path)


def test_streams_of_xz_may_follow_each_other_and_end_in_padding(tmp_path):
    raw = tar_of(MEMBER)
    path = tmp_path / "a.tar.xz"
    path.write_bytes(lzma.compress(raw[:700]) + lzma.compress(raw[700:]) + bytes(4))
    assert Sysroot.read(path) == Sysroot({"proc/meminfo": MEMINFO})
    path.write_bytes(lzma.compress(raw)[:-9])
    with pytest.raises(InputError, match="need a whole tar archive or a folder"):
        Sysroot.read(path)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_regular_file_is_neither_read_nor_waited_for(kind, tmp_path):
    path = tmp_path / "a.tar"
    if kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="need a regular file or a folder"):
        Sysroot.read(path)


def test_a_line_of_a_text_is_bounded_and_said():
    with pytest.raises(InputError, match=r"line 2: .*: need at most 65536 characters"):
        list(lines("a\n" + "b" * 65537 + "\n"))
    assert [line.nr for line in lines("b" * 65536 + "\nc")] == [1, 2]


def test_zones_of_many_nodes_are_read_in_time():
    zone = "Node {}, zone Normal\n" + "".join(
        f" {name} 0\n" for name in ("free", "min", "low", "high", "spanned", "present", "managed")
    )
    zones = zoneinfo.parse("".join(zone.format(nr) for nr in range(3000)))
    assert len({zone.key for zone in zones}) == 3000
    with pytest.raises(InputError, match="the zone is given twice"):
        zoneinfo.parse(zone.format(1) * 2)


def test_all_rows_of_lsmem_together_have_a_bounded_number_of_blocks():
    head = "RANGE SIZE STATE REMOVABLE ZONES NODE BLOCK\n"
    row = "0x{:016x}-0x{:016x} 1T online yes Normal 0 {}-{}\n"
    rows = [row.format(n << 46, ((n + 1) << 46) - 1, n << 19, ((n + 1) << 19) - 1) for n in (0, 1)]
    with pytest.raises(InputError):
        lsmem.parse(head + "".join(rows))


def test_a_compressed_member_that_is_too_large_is_refused_by_its_header(tmp_path):
    """A compressed claim is not unpacked for seconds before it is refused."""
    info = tarfile.TarInfo("proc/kpageflags")
    info.size = 1 << 40
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(512)))
    with pytest.raises(InputError, match="unpack to more than"):
        Sysroot.read(path)
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(512))
    with pytest.raises(InputError, match="unexpected end of data"):
        Sysroot.read(path)
