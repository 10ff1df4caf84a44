import gzip
import io
import tarfile

import pytest

from altmap.errors import InputError
from altmap.linux import intake
from altmap.linux.sysroot import Sysroot

from .conftest import RECORDINGS

MEMINFO = b"MemTotal:           1024 kB\n"
MEMORY = "sys/devices/system/memory"


def member(name, content=b"", kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, target, len(content)
    return info, content


@pytest.fixture
def archive(tmp_path):
    """Return the function that writes an archive of the given members."""

    def make(*members, mode="w", name="a.tar"):
        path = tmp_path / name
        with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:
            for info, content in members:
                tar.addfile(info, io.BytesIO(content))
        return path

    return make


GOOD = member("proc/meminfo", MEMINFO)


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
def test_the_compression_is_found_from_the_content(archive, compression):
    path = archive(GOOD, mode=f"w:{compression}", name="without-extension")
    assert Sysroot.read(path) == Sysroot({"proc/meminfo": MEMINFO})


@pytest.mark.parametrize("top", ["", "./", "./01-online/", "sosreport-host-2026-11-24/"])
def test_everything_may_lie_below_one_folder(archive, top):
    path = archive(
        member(top or ".", kind=tarfile.DIRTYPE),
        member(f"{top}sos_commands/memory/free", b"x"),
        member(f"{top}etc/localtime", kind=tarfile.SYMTYPE, target="/usr/share/zoneinfo/UTC"),
        member(f"{top}dev/null", kind=tarfile.CHRTYPE),
        member(f"{top}proc/meminfo", MEMINFO),
        member(f"{top}{MEMORY}/memory0", kind=tarfile.DIRTYPE),
        member(f"{top}{MEMORY}/memory0/node0", b"", tarfile.SYMTYPE, "../../node/node0"),
    )
    assert Sysroot.read(path) == Sysroot(
        {"proc/meminfo": MEMINFO}, {f"{MEMORY}/memory0/node0": "../../node/node0"}
    )


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (member("/proc/vmstat"), "member '/proc/vmstat': need a relative name"),
        (member("/etc/passwd"), "member '/etc/passwd': need a relative name"),
        (member("x/../../etc/passwd"), "member 'x/../../etc/passwd': need a name without '..'"),
        (member("proc/../proc/vmstat"), "member 'proc/../proc/vmstat': need a name without '..'"),
        (
            member("proc/vmstat", kind=tarfile.SYMTYPE, target="/etc/shadow"),
            "member 'proc/vmstat': symbolic link to '/etc/shadow': need a relative target",
        ),
        (
            member("proc/vmstat", kind=tarfile.SYMTYPE, target="../../etc/shadow"),
            "member 'proc/vmstat': symbolic link to '../../etc/shadow' leaves the sysroot",
        ),
        (
            member("sys/devices", kind=tarfile.SYMTYPE, target="../etc"),
            "member 'sys/devices': need a folder",
        ),
        (member("proc", b"x"), "member 'proc': need a folder"),
        (
            member("proc/vmstat", kind=tarfile.LNKTYPE, target="proc/meminfo"),
            "member 'proc/vmstat': need a regular file, folder or symbolic link",
        ),
        (
            member("proc/vmstat", kind=tarfile.CHRTYPE),
            "member 'proc/vmstat': need a regular file, folder or symbolic link",
        ),
        (
            member(f"{MEMORY}/memory0/state", kind=tarfile.FIFOTYPE),
            f"member '{MEMORY}/memory0/state': need a regular file, folder or symbolic link",
        ),
        (GOOD, "member 'proc/meminfo': is there twice"),
        (
            member("second/proc/vmstat"),
            "member 'second/proc/vmstat': is of a second sysroot, the first is '.'",
        ),
        (
            member("proc/meminfo/x/../y"),
            "member 'proc/meminfo/x/../y': need a name without '..'",
        ),
        (
            member(f"{MEMORY}/memory0", kind=tarfile.SYMTYPE, target="memory1"),
            None,
        ),
    ],
)
def test_a_hostile_member_is_refused_by_name(archive, bad, message):
    path = archive(GOOD, bad)
    if message is None:
        path = archive(GOOD, bad, member(f"{MEMORY}/memory0/state", b"online\n"))
        message = f"member '{MEMORY}/memory0': need a folder, since other names lie below it"
    with pytest.raises(InputError) as refused:
        Sysroot.read(path)
    assert str(refused.value) == f"{path}: {message}"


def test_an_archive_without_a_sysroot_is_refused(archive):
    with pytest.raises(InputError, match=r"need a file of a sysroot, such as proc/meminfo$"):
        Sysroot.read(archive(member("etc/passwd", b"x")))


@pytest.mark.parametrize("limit", ["MAX_FILE_BYTES", "MAX_TOTAL_BYTES", "MAX_MEMBERS"])
def test_limits_are_kept(archive, monkeypatch, limit):
    monkeypatch.setattr(intake, limit, 1)
    with pytest.raises(InputError, match=r"member '.*': need at most 1 (bytes|members)"):
        Sysroot.read(archive(GOOD, member("proc/vmstat", b"nr_free_pages 1\n")))


def test_a_bomb_of_a_header_is_refused(archive):
    info, content = GOOD
    info = tarfile.TarInfo(info.name)
    info.size, info.pax_headers = len(content), {"comment": "x" * (2 << 20)}
    with pytest.raises(InputError, match="need extended headers of at most 1048576 bytes"):
        Sysroot.read(archive((info, content)))


@pytest.mark.parametrize("nr_headers", [3000])
def test_a_long_chain_of_headers_is_refused(tmp_path, nr_headers):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 0
    path = tmp_path / "chain.tar"
    path.write_bytes(header.tobuf() * nr_headers + b"\0" * 1024)
    with pytest.raises(InputError, match="need a whole tar archive or a folder"):
        Sysroot.read(path)


@pytest.fixture(scope="module")
def plain():
    with tarfile.open(RECORDINGS / "linux-6.1-start.tar.xz") as tar:
        members = [
            (info, tar.extractfile(info).read() if info.isreg() else b"")
            for info in tar
            if not info.name.endswith(("kpageflags.runs", "zoneinfo"))
        ]
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    # GNU tar's padding after the end-of-archive mark of two blocks is not needed.
    return raw.getvalue().rstrip(b"\0") + b"\0" * 1024


@pytest.mark.slow
def test_a_plain_archive_cut_anywhere_is_refused(plain, tmp_path):
    path = tmp_path / "cut.tar"
    whole = -(-len(plain.rstrip(b"\0")) // 512) * 512
    for length in [0, 1, 511, *range(512, whole, 512), *range(700, whole, 1931)]:
        path.write_bytes(plain[:length])
        with pytest.raises(InputError, match="need a whole tar archive or a folder"):
            Sysroot.read(path)
    path.write_bytes(plain)
    assert Sysroot.read(path).files


def test_a_compressed_archive_cut_anywhere_is_refused(plain, tmp_path):
    path = tmp_path / "cut.tar.gz"
    squeezed = gzip.compress(plain)
    for length in range(0, len(squeezed), 97):
        path.write_bytes(squeezed[:length])
        with pytest.raises(InputError, match="need a whole tar archive or a folder"):
            Sysroot.read(path)


@pytest.mark.parametrize("padding", [0, 1 << 16])
def test_a_wrong_checksum_is_refused(plain, tmp_path, padding):
    path = tmp_path / "bad.tar.gz"
    squeezed = bytearray(gzip.compress(plain + bytes(padding)))
    squeezed[-8] ^= 1
    path.write_bytes(squeezed)
    with pytest.raises(InputError, match="need a whole tar archive or a folder: CRC check failed"):
        Sysroot.read(path)


def test_a_damaged_header_is_not_taken_for_the_end(plain, tmp_path):
    with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
        offset = tar.getmember("proc/vmstat").offset
    damaged = bytearray(plain)
    damaged[offset] ^= 1
    path = tmp_path / "bad.tar"
    path.write_bytes(damaged)
    with pytest.raises(InputError, match="need a whole tar archive or a folder: bad checksum"):
        Sysroot.read(path)


@pytest.mark.parametrize("content", [b"", b"hello\n", b"\x1f\x8b", b"\0" * 1024, b"\xff" * 4096])
def test_what_is_no_archive_is_refused_in_one_line(tmp_path, content):
    path = tmp_path / "odd"
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        Sysroot.read(path)
    assert str(refused.value).startswith(f"{path}: need a ")
    assert "\n" not in str(refused.value)
