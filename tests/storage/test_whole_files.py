"""Files, folders and locks: whole or not at all, synced, with the right mode, and one way only."""

import ast
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from altmap.errors import InputError
from altmap.storage import files
from altmap.storage.files import (
    append,
    check_new_folder,
    new_folder,
    remove_drafts,
    sync_folder,
    write_file,
    write_folder,
)
from altmap.storage.lines import LineFile
from altmap.storage.locks import lock, locked

SOURCE = Path(files.__file__).parents[1]


@pytest.fixture
def umask():
    """The umask of most users, whatever that of the tests is."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# --- one file --------------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "raw"), [("ä\n", b"\xc3\xa4\n"), (b"\0\xff", b"\0\xff")])
def test_a_file_holds_what_was_written_and_nothing_is_left_beside_it(tmp_path, content, raw):
    write_file(tmp_path / "a", content)
    assert (tmp_path / "a").read_bytes() == raw
    assert names(tmp_path) == ["a"]


def test_a_new_file_has_the_mode_less_the_umask(tmp_path, umask):
    write_file(tmp_path / "a", "")
    write_file(tmp_path / "b", "", mode=0o600)
    assert (mode(tmp_path / "a"), mode(tmp_path / "b")) == (0o644, 0o600)


def test_a_replaced_file_keeps_its_mode(tmp_path, umask):
    path = tmp_path / "a"
    path.write_text("old")
    path.chmod(0o606)
    write_file(path, "new", mode=0o600)
    assert (path.read_text(), mode(path)) == ("new", 0o606)


def test_a_reader_who_has_the_file_open_keeps_the_old_content(tmp_path):
    path = tmp_path / "a"
    path.write_text("old")
    with path.open() as reader:
        write_file(path, "new")
        assert reader.read() == "old"


def test_a_symbolic_link_stays_and_the_file_that_it_names_is_replaced(tmp_path):
    (tmp_path / "there").mkdir()
    link, real = tmp_path / "link", tmp_path / "there/real"
    real.write_text("old")
    link.symlink_to(real)
    write_file(link, "new")
    assert link.is_symlink()
    assert real.read_text() == "new"
    assert names(tmp_path / "there") == ["real"]


def test_a_pipe_is_written_to_and_stays_a_pipe(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    read = []
    reader = threading.Thread(target=lambda: read.append(path.read_text()))
    reader.start()
    write_file(path, "through")
    reader.join(10)
    assert read == ["through"]
    assert path.is_fifo()


def test_a_device_stays_a_device():
    write_file(Path("/dev/null"), "gone")
    assert Path("/dev/null").is_char_device()


def test_new_refuses_a_file_that_exists_even_a_broken_link(tmp_path):
    write_file(tmp_path / "a", "first", new=True)
    (tmp_path / "broken").symlink_to("nowhere")
    for name in ("a", "broken"):
        with pytest.raises(InputError, match=rf"/{name}: cannot be written: File exists$"):
            write_file(tmp_path / name, "second", new=True)
    assert (tmp_path / "a").read_text() == "first"
    assert names(tmp_path) == ["a", "broken"]


def test_new_never_replaces_what_another_process_made_meanwhile(tmp_path, monkeypatch):
    path = tmp_path / "a"
    real = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (path.write_text("theirs"), real(fd)))
    with pytest.raises(InputError, match="File exists"):
        write_file(path, "ours", new=True)
    assert path.read_text() == "theirs"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("name", ["no/such", "folder", "file/below", "a" * 300])
def test_what_cannot_be_written_is_one_error_that_names_the_path(tmp_path, name):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=rf"^{tmp_path}/{name}: cannot be written: \w"):
        write_file(tmp_path / name, "x")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
@pytest.mark.parametrize("cause", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failure_on_the_way_leaves_the_old_file_and_no_other(tmp_path, monkeypatch, call, cause):
    path = tmp_path / "a"
    path.write_text("old")

    def fail(*_):
        raise cause

    monkeypatch.setattr(Path if call == "replace" else os, call, fail)
    wanted = InputError if isinstance(cause, OSError) else KeyboardInterrupt
    with pytest.raises(wanted):
        write_file(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_the_content_is_on_disk_before_the_name_and_then_the_folder(tmp_path, monkeypatch):
    seen = []
    real = os.fsync

    def fsync(file):
        kind = "folder" if stat.S_ISDIR(os.fstat(file).st_mode) else os.fstat(file).st_size
        seen.append((kind, (tmp_path / "a").exists()))
        real(file)

    monkeypatch.setattr(os, "fsync", fsync)
    write_file(tmp_path / "a", "12345")
    assert seen == [(5, False), ("folder", True)]


def test_a_short_write_goes_on_until_all_is_written(tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr(os, "write", lambda file, raw: real(file, raw[:2]))
    write_file(tmp_path / "a", "12345")
    assert (tmp_path / "a").read_text() == "12345"


@pytest.mark.parametrize(("number", "raises"), [(errno.EINVAL, False), (errno.EIO, True)])
def test_a_folder_that_cannot_be_synced_is_no_error_and_a_broken_disk_is(
    tmp_path, monkeypatch, number, raises
):
    def fail(_):
        raise OSError(number, "no")

    monkeypatch.setattr(os, "fsync", fail)
    if raises:
        with pytest.raises(OSError, match="no"):
            sync_folder(tmp_path)
    else:
        sync_folder(tmp_path)


def test_what_a_killed_process_left_is_removed_and_nothing_else(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from altmap.storage.files import write_file\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "write_file(Path(sys.argv[1]), 'new')\n"
    )
    path = tmp_path / "a"
    path.write_text("old")
    env = os.environ | {"PYTHONPATH": str(SOURCE.parent)}
    done = subprocess.run([sys.executable, "-c", script, path], env=env, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"
    assert len(names(tmp_path)) == 2
    remove_drafts(tmp_path)
    assert names(tmp_path) == ["a"]


# --- a folder --------------------------------------------------------------------------------


def test_a_folder_appears_complete(tmp_path, umask):
    target = tmp_path / "x/y/out"
    with new_folder(target) as draft:
        (draft / "sub").mkdir()
        (draft / "sub/a").write_text("1")
        assert not target.exists()
    assert (target / "sub/a").read_text() == "1"
    assert mode(target) == 0o755
    assert names(target.parent) == ["out"]


def test_an_empty_folder_or_a_link_to_one_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "link").symlink_to("empty")
    write_folder(tmp_path / "link", {"a": "1", "b": b"2"})
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "empty") == ["a", "b"]


@pytest.mark.parametrize("cause", [OSError(errno.ENOSPC, "full"), KeyboardInterrupt(), KeyError()])
def test_a_folder_that_fails_leaves_nothing_not_even_those_above(tmp_path, cause):
    def fill():
        with new_folder(tmp_path / "x/y/out") as draft:
            (draft / "a").write_text("1")
            raise cause

    wanted = InputError if isinstance(cause, OSError) else type(cause)
    with pytest.raises(wanted) as caught:
        fill()
    assert names(tmp_path) == []
    if wanted is InputError:
        assert str(caught.value) == f"{tmp_path}/x/y/out: cannot be written: full"


def test_a_folder_must_be_new_or_empty_before_any_work(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full/b").write_text("")
    (tmp_path / "full/a").write_text("")
    (tmp_path / "file").write_text("")
    for name, what in (("full", "it holds 'a'"), ("file", "it is a file")):
        message = rf"{name}: need a new or empty folder, but {what}$"
        with pytest.raises(InputError, match=message):
            check_new_folder(tmp_path / name)
        with pytest.raises(InputError, match=message), new_folder(tmp_path / name):
            pytest.fail("began to fill it")
    check_new_folder(tmp_path / "none")
    assert names(tmp_path) == ["file", "full"]


def test_a_folder_that_is_filled_meanwhile_is_not_replaced(tmp_path):
    target = tmp_path / "out"

    def fill():
        with new_folder(target) as draft:
            (draft / "a").write_text("ours")
            target.mkdir()
            (target / "b").write_text("theirs")

    with pytest.raises(InputError, match="out: cannot be written: Directory not empty"):
        fill()
    assert names(target) == ["b"]
    assert names(tmp_path) == ["out"]


# --- locks and lines -------------------------------------------------------------------------


def test_a_lock_that_is_held_is_an_error_or_waited_for(tmp_path):
    path, order = tmp_path / "lock", []

    def wait():
        with locked(path):
            order.append("second")

    with locked(path):
        with pytest.raises(InputError, match=r"^in use$"), locked(path, "in use"):
            pytest.fail("got a lock that is held")
        waiting = threading.Thread(target=wait)
        waiting.start()
        time.sleep(0.05)
        order.append("first")
    waiting.join(10)
    assert order == ["first", "second"]
    with locked(path, "in use"):
        pass


def test_a_lock_of_an_open_file_ends_with_it(tmp_path):
    first, second = (os.open(tmp_path / "a", os.O_RDWR | os.O_CREAT) for _ in range(2))
    lock(first, "in use")
    with pytest.raises(InputError, match=r"^in use$"):
        lock(second, "in use")
    os.close(first)
    lock(second, "in use")
    os.close(second)


def test_lines_are_kept_and_a_cut_off_one_is_not(tmp_path):
    path = tmp_path / "lines"
    with LineFile(path, "in use", flags=os.O_CREAT) as file:
        assert file.lines == []
        for line in (b"one", b"", b"two"):
            file.add(line)
        with pytest.raises(InputError, match=r"^in use$"):
            LineFile(path, "in use")
    with path.open("ab") as raw:
        raw.write(b"cut off, and longer than what follows")
    with LineFile(path, "in use") as file:
        assert file.lines == [b"one", b"", b"two"]
        file.add(b"three")
    assert path.read_bytes() == b"one\n\ntwo\nthree\n"


def test_lines_longer_than_one_read_are_whole(tmp_path):
    path = tmp_path / "lines"
    long = b"x" * 200_000
    path.write_bytes(long + b"\n" + long + b"\ny")
    with LineFile(path, "in use") as file:
        assert file.lines == [long, long]


def test_flags_and_mode_of_a_line_file_are_those_of_open(tmp_path, umask):
    with pytest.raises(FileNotFoundError):
        LineFile(tmp_path / "a", "")
    with LineFile(tmp_path / "a", "", flags=os.O_CREAT | os.O_EXCL, mode=0o600):
        assert mode(tmp_path / "a") == 0o600
    with pytest.raises(FileExistsError):
        LineFile(tmp_path / "a", "", flags=os.O_CREAT | os.O_EXCL)


def test_a_line_is_on_disk_when_it_is_added(tmp_path, monkeypatch):
    synced = []
    with LineFile(tmp_path / "a", "", flags=os.O_CREAT) as file:
        monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_size))
        file.add(b"1234")
    assert synced == [5]


def test_append_writes_at_the_position(tmp_path):
    (tmp_path / "a").write_text("12345")
    file = os.open(tmp_path / "a", os.O_RDWR)
    os.lseek(file, 5, os.SEEK_SET)
    append(file, b"67")
    os.close(file)
    assert (tmp_path / "a").read_text() == "1234567"


# --- one way only ----------------------------------------------------------------------------


#: Modules that may write files without the helpers, and why.
ALLOWED = {
    "lab/pmem.py": "the folder into which QEMU writes a device tree",
    "storage/files.py": "the helpers",
    "storage/locks.py": "the helper for locks",
    "storage/export.py": "files inside a folder that new_folder makes whole",
    "linux/folder.py": "below storage: a sysroot as a folder, whole or not at all",
    "linux/archive.py": "below storage: a sysroot as an archive, whole or not at all",
    "lab/kernels.py": "200 MB: a folder by one name, so that a killed run's is found and removed",
    "lab/snapshot.py": "200 MB: as lab/kernels.py",
    "lab/build.py": "what compiler and linker write, moved into the cache when it is complete",
    "lab/kernel_build.py": "a kernel's tree, moved into the cache when it is complete",
    "lab/touch_plugin.py": "what the compiler writes, moved into the cache when it is complete",
    "verify/hunt/store.py": "files inside a folder that new_folder makes whole",
    "live/mounting.py": "folders for a mount and for the parts of a namespace, which end with it",
    "live/server.py": "the name of the folder for temporary files, for its socket",
    "lab/apt.py": "inside such a folder: apt's own configuration",
    "lab/tools.py": "inside such a folder: a file of a package",
    "cli/check.py": "what a package with a kernel is unpacked into, which ends with the command",
    "lab/process.py": "a file without a name, for what a process prints",
}


def writes(path):
    """Yield what a module does with files that the helpers are there for."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from {alias.name for alias in node.names} & {"tempfile", "fcntl"}
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute):
            name = node.func.attr
            # str.replace has two arguments, those of dataclasses and datetime have names.
            one = len(node.args) == 1 and not node.keywords
            if name in ("write_text", "write_bytes", "copytree", "copyfile", "link", "mkstemp"):
                yield name
            if (name in ("rename", "replace") and one) or ast.unparse(node.func) == "os.replace":
                yield name
        values = [*node.args, *(keyword.value for keyword in node.keywords)]
        words = {value.value for value in values if isinstance(value, ast.Constant)}
        if ast.unparse(node.func).split(".")[-1] == "open" and words & {"w", "wb", "x", "xb", "ab"}:
            yield "open"


def test_modules_write_files_and_take_locks_by_the_helpers():
    found = {
        str(path.relative_to(SOURCE)): sorted(set(writes(path)))
        for path in SOURCE.rglob("*.py")
        if any(writes(path))
    }
    others = {name: what for name, what in found.items() if name not in ALLOWED}
    assert others == {}, "use altmap.storage.files and altmap.storage.locks"
    assert set(ALLOWED) == set(found), "names a module that needs no exception"


@pytest.mark.parametrize(
    "line",
    [
        "import tempfile",
        "import fcntl",
        "Path('a').replace(b)",
        "os.replace(a, b)",
        "draft.rename(path)",
        "path.write_text('x', encoding='utf-8')",
        "open(path, 'w')",
        "path.open('xb')",
        "shutil.copytree(a, b)",
    ],
)
def test_the_rule_finds_every_way_around_the_helpers(tmp_path, line):
    (tmp_path / "m.py").write_text(line)
    assert list(writes(tmp_path / "m.py"))


@pytest.mark.parametrize(
    "line",
    ["text.replace('a', 'b')", "replace(item, key=1)", "when.replace(tzinfo=UTC)", "open(p)"],
)
def test_the_rule_lets_other_calls_be(tmp_path, line):
    (tmp_path / "m.py").write_text(line)
    assert not list(writes(tmp_path / "m.py"))
