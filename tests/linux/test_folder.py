import os
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from altmap.errors import AltmapError, InputError
from altmap.linux import intake, iomem
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot

NOBODY = 65534
MEMINFO = b"MemTotal:           1024 kB\n"


@pytest.fixture
def root(tmp_path):
    made = tmp_path / "root"
    (made / "proc").mkdir(parents=True)
    (made / "proc/meminfo").write_bytes(MEMINFO)
    (made / "sys/devices/system/memory/memory0").mkdir(parents=True)
    return made


@contextmanager
def without_privileges():
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_what_is_written_is_read_again(recorded, tmp_path):
    recorded.write(tmp_path / "a/b/root")
    again = Sysroot.read(tmp_path / "a/b/root")
    assert (again.contents(), again.links) == (recorded.contents(), recorded.links)
    assert [path.name for path in tmp_path.glob("a/b/*")] == ["root"]


def test_an_empty_folder_may_be_written_into(tmp_path):
    Sysroot({"proc/meminfo": MEMINFO}).write(tmp_path)
    assert (tmp_path / "proc/meminfo").read_bytes() == MEMINFO


def test_a_leading_folder_is_skipped(root):
    assert Sysroot.read(root.parent).files == {"proc/meminfo": MEMINFO}


def test_two_leading_folders_are_refused(root):
    (root.parent / "other/sys").mkdir(parents=True)
    with pytest.raises(InputError, match="more than one sysroot, such as 'other' and 'root'"):
        Sysroot.read(root.parent)


def test_files_that_say_nothing_about_memory_are_left_out(root):
    (root / "proc/kcore").write_bytes(b"x" * 10)
    (root / "etc").mkdir()
    (root / "etc/shadow").write_bytes(b"secret")
    (root / "sys/devices/system/memory/memory0/uevent").write_bytes(b"")
    (root / "sys/devices/system/memory/memory0/subsystem").symlink_to("../../../../bus/memory")
    assert Sysroot.read(root) == Sysroot({"proc/meminfo": MEMINFO})


@pytest.mark.parametrize(
    ("target", "rule"),
    [
        ("/etc/passwd", "symbolic link to '/etc/passwd': need a relative target"),
        ("../../../../../../etc", "symbolic link to '../../../../../../etc' leaves the sysroot"),
        ("x/../../../../../../..", "symbolic link to .* leaves the sysroot"),
    ],
)
def test_a_link_out_of_the_folder_is_refused(root, target, rule):
    (root / "sys/devices/system/memory/memory0/node0").symlink_to(target)
    with pytest.raises(InputError, match=f"member 'sys/.*/memory0/node0': {rule}$"):
        Sysroot.read(root)


def test_a_link_to_the_top_of_the_sysroot_is_inside(root):
    (root / "sys/devices/system/memory/memory0/node0").symlink_to("../../../../..")
    assert Sysroot.read(root).links == {"sys/devices/system/memory/memory0/node0": "../../../../.."}


def test_a_link_in_place_of_a_folder_is_never_entered(root, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (root / "sys/devices/system/node").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="member 'sys/devices/system/node': need a folder"):
        Sysroot.read(root)


def test_special_files_are_refused_and_not_opened(root):
    os.mkfifo(root / "proc/zoneinfo")
    with pytest.raises(InputError, match="'proc/zoneinfo': need a regular file, folder or"):
        Sysroot.read(root)
    (root / "proc/zoneinfo").unlink()
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "proc/vmstat"))
        with pytest.raises(InputError, match="'proc/vmstat': need a regular file, folder or"):
            Sysroot.read(root)


def test_a_file_in_place_of_a_folder_is_refused(root):
    (root / "sys/module").write_text("")
    with pytest.raises(InputError, match="'sys/module': need a folder"):
        Sysroot.read(root)


def test_a_folder_without_a_sysroot_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"need a file of a sysroot, such as proc/meminfo$"):
        Sysroot.read(tmp_path)


def test_a_missing_source_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"No such file or directory$"):
        Sysroot.read(tmp_path / "absent")


def test_limits_are_kept(root, monkeypatch):
    monkeypatch.setattr(intake, "MAX_FILE_BYTES", 10)
    with pytest.raises(InputError, match=r"member 'proc/meminfo': need at most 10 bytes$"):
        Sysroot.read(root)
    monkeypatch.undo()
    monkeypatch.setattr(intake, "MAX_TOTAL_BYTES", 10)
    with pytest.raises(InputError, match=r"member 'proc/meminfo': need at most 10 bytes in all$"):
        Sysroot.read(root)
    monkeypatch.undo()
    monkeypatch.setattr(intake, "MAX_MEMBERS", 3)
    with pytest.raises(InputError, match=r"need at most 3 members$"):
        Sysroot.read(root)


def test_what_may_not_be_read_is_listed():
    # Not tmp_path, which nobody else may enter.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        made = Path(name, "root")
        Sysroot({"proc/meminfo": MEMINFO, "proc/iomem": b"", "sys/module": b""}).write(made)
        # Readable by someone, but not by who reads here: nobody instead of root, or the owner.
        (made / "proc/iomem").chmod(0o004 if os.geteuid() else 0o400)
        (made / "sys/module").unlink()
        (made / "sys/module").mkdir(0o000)
        with without_privileges():
            sysroot = Sysroot.read(made)
        (made / "sys/module").chmod(0o700)
    assert sysroot == Sysroot({"proc/meminfo": MEMINFO}, {}, ("proc/iomem", "sys/module"))


def test_a_file_that_is_only_for_writing_is_no_content(root):
    probe = root / "sys/devices/system/memory/probe"
    probe.write_bytes(b"")
    probe.chmod(0o200)
    assert Sysroot.read(root) == Sysroot({"proc/meminfo": MEMINFO})


@pytest.mark.skipif(not Path("/proc/zoneinfo").exists(), reason="needs /proc of Linux")
def test_this_machine_is_read_without_privileges():
    with without_privileges():
        sysroot = Sysroot.read(Path("/"))
    seen = Observation.read(sysroot)
    assert seen.version == Path("/proc/version").read_text().rstrip("\n")
    assert "MemTotal" in seen.meminfo
    assert all(zone.populated is (zone.start_pfn is not None) for zone in seen.zoneinfo)
    if Path("/proc/kpageflags").exists():
        assert "proc/kpageflags" in sysroot.unreadable
    assert "proc/kpageflags" in seen.missing
    assert iomem.addresses_hidden(seen.iomem)
    with pytest.raises(InputError, match=r"without CAP_SYS_ADMIN; record the file as root$"):
        iomem.require_addresses(seen.iomem)


def test_a_folder_that_holds_something_is_not_written_into(tmp_path):
    (tmp_path / "mine").write_text("")
    with pytest.raises(InputError, match=r"need an empty or new folder, but it holds 'mine'$"):
        Sysroot({"proc/meminfo": MEMINFO}).write(tmp_path)
    with pytest.raises(InputError, match=r"need a folder to write into: Not a directory$"):
        Sysroot({"proc/meminfo": MEMINFO}).write(tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


@pytest.mark.parametrize(
    ("sysroot", "rule"),
    [
        (Sysroot({"../escaped": b""}), "'../escaped': need a name without '..'"),
        (Sysroot({"/etc/passwd": b""}), "'/etc/passwd': need a relative name"),
        (Sysroot({"proc//x": b""}), "'proc//x': need a name such as 'proc/meminfo'"),
        (Sysroot({"": b""}), "'': need a name such as"),
        (Sysroot({}, {"proc": "/etc"}), "'proc': symbolic link to '/etc': need a relative"),
        (Sysroot({}, {"proc": "../etc"}), "'proc': symbolic link to '../etc' leaves"),
        (Sysroot({"a/b": b""}, {"a": "c"}), "'a': need a folder, since other names lie below it"),
        (Sysroot({"a/b": b"", "a": b""}), "'a': need a folder"),
        (Sysroot({"a": b""}, {"a": "c"}), "'a': is both a file and a symbolic link"),
    ],
)
def test_names_that_would_leave_the_folder_are_not_written(tmp_path, sysroot, rule):
    with pytest.raises(InputError, match=f"^{rule}"):
        sysroot.write(tmp_path / "root")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_nothing_behind(tmp_path):
    with pytest.raises(AltmapError, match=r"cannot be written: File name too long$"):
        Sysroot({"proc/meminfo": MEMINFO, f"proc/{'x' * 300}": b""}).write(tmp_path / "root")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("leave", ["nothing", "files"])
def test_words_of_the_device_tree_are_no_padding(root, leave):
    path = "sys/firmware/devicetree/base/compatible"
    (root / path).parent.mkdir(parents=True)
    (root / path).write_bytes(b"ibm,p10\0ibm,p9\0")
    padded = "sys/devices/system/memory/block_size_bytes"
    (root / padded).write_bytes(b"8000000\n".ljust(4096, b"\0"))
    sysroot = Sysroot.read(root, leave=leave)
    assert sysroot.files[path] == b"ibm,p10\0ibm,p9\0"
    assert sysroot.files[padded] == b"8000000\n"
