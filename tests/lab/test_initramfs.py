import gzip
import io
import shutil
import stat
import subprocess

import pytest

from altmap.lab.initramfs import build_initramfs, newc_entry


def unpack(archive):
    """Read a newc archive as the buffer format document describes it."""
    stream = io.BytesIO(archive)
    while True:
        magic, *fields = [stream.read(6)] + [int(stream.read(8), 16) for _ in range(13)]
        assert magic == b"070701"
        mode, nr_bytes, device, name_bytes = fields[1], fields[6], tuple(fields[9:11]), fields[11]
        name = stream.read(name_bytes)[:-1].decode()
        stream.seek(-stream.tell() % 4, io.SEEK_CUR)
        content = stream.read(nr_bytes)
        stream.seek(-stream.tell() % 4, io.SEEK_CUR)
        if name == "TRAILER!!!":
            return
        yield name, mode, device, content


@pytest.fixture
def archive(tmp_path):
    (tmp_path / "busybox").write_bytes(b"not really busybox")
    return gzip.decompress(build_initramfs(tmp_path / "busybox"))


def test_archive_holds_console_busybox_and_an_executable_init(archive):
    members = {name: rest for name, *rest in unpack(archive)}
    mode, device, _ = members["dev/console"]
    assert (stat.S_ISCHR(mode), device) == (True, (5, 1))
    assert members["bin/busybox"][2] == b"not really busybox"
    assert members["init"][0] == stat.S_IFREG | 0o755
    assert members["init"][2].startswith(b"#!/bin/busybox sh\n")


def test_folders_come_before_what_is_in_them(archive):
    seen = set()
    for name, mode, _, _ in unpack(archive):
        assert "/" not in name or name.rpartition("/")[0] in seen
        if stat.S_ISDIR(mode):
            seen.add(name)


@pytest.mark.parametrize("nr_bytes", range(5))
def test_every_length_of_name_and_content_is_padded(nr_bytes):
    entry = newc_entry("n" * (nr_bytes + 1), stat.S_IFREG, b"x" * nr_bytes)
    (member,) = unpack(entry + newc_entry("TRAILER!!!", 0))
    assert (member[0], member[3]) == ("n" * (nr_bytes + 1), b"x" * nr_bytes)


@pytest.mark.skipif(shutil.which("cpio") is None, reason="missing: cpio")
def test_cpio_itself_can_list_it(archive):
    done = subprocess.run(["cpio", "-t"], input=archive, capture_output=True, check=True)
    assert b"dev/console" in done.stdout
