"""Which files each command opens, and how much it reads of those with a word for each page."""

import os
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.linux.sysroot import Sysroot

RECORDING = Path(__file__).parents[1] / "recordings/files/linux-6.12-dimm.tar.xz"
MEMORY = "sys/devices/system/memory"
BLOCK_BYTES_OF_FLAGS = 32768 * 8
PAGE_FILES = {"proc/kpageflags", "proc/kpagecount", "proc/kpagecgroup"}


@pytest.fixture
def root(tmp_path):
    """A machine's folder: page flags as the kernel's own file, and who uses each page."""
    root = tmp_path / "root"
    sysroot = Sysroot.read(RECORDING)
    words = sysroot.page_words("proc/kpageflags")
    del sysroot.files["proc/kpageflags.runs"]
    sysroot.write(root)
    raw = b"".join(words.raw())
    (root / "proc/kpageflags").write_bytes(raw)
    for name in ("kpagecount", "kpagecgroup"):
        (root / "proc" / name).write_bytes(bytes(len(raw)))
    return root


@pytest.fixture
def opened(root, monkeypatch):
    """Paths of files below the root that were opened, and bytes read from anywhere in a file."""
    paths, lengths = [], {}
    os_open, os_pread = os.open, os.pread

    def path_of(file):
        path = str(Path(f"/proc/self/fd/{file}").readlink())
        return path.removeprefix(f"{root}/") if path.startswith(f"{root}/") else None

    def open_(path, flags, mode=0o777, *, dir_fd=None):
        file = os_open(path, flags, mode, dir_fd=dir_fd)
        found = path_of(file)
        if found is not None and not flags & os.O_DIRECTORY:
            paths.append(found)
        return file

    def pread(file, nr_bytes, offset):
        found = path_of(file)
        lengths[found] = lengths.get(found, 0) + nr_bytes
        return os_pread(file, nr_bytes, offset)

    monkeypatch.setattr(os, "open", open_)
    monkeypatch.setattr(os, "pread", pread)
    return paths, lengths


def of_blocks(paths):
    """The files of memory blocks, by their names."""
    inner = [path.removeprefix(f"{MEMORY}/memory").partition("/") for path in paths]
    found = {}
    for nr, _, name in inner:
        if nr.isdecimal():
            found.setdefault(name, []).append(int(nr))
    return found


def blocks(root):
    names = (path.name for path in (root / MEMORY).iterdir())
    return sorted(int(name[6:]) for name in names if name.startswith("memory"))


def test_ls_opens_nothing_but_the_files_of_its_columns(root, opened, capsys):
    assert main(["ls", "-s", str(root)]) == 0
    files = of_blocks(opened[0])
    assert {name: sorted(nrs) for name, nrs in files.items()} == {
        "state": blocks(root),
        "removable": blocks(root),
    }
    beside = {path for path in opened[0] if "/memory/memory" not in path}
    assert beside <= {f"{MEMORY}/block_size_bytes", "proc/meminfo"}


@pytest.mark.parametrize("column", ["DEVICE", "DRIVER"])
def test_ls_reads_page_flags_only_for_columns_of_them(root, opened, capsys, column):
    assert main(["ls", "-o", f"+{column}", "-s", str(root)]) == 0
    assert not PAGE_FILES & set(opened[0])


def test_account_reads_the_state_of_blocks_and_page_flags_of_added_ones(root, opened, capsys):
    assert main(["account", str(root)]) == 0
    paths, lengths = opened
    assert list(of_blocks(paths)) == ["state"]
    assert PAGE_FILES & set(paths) == {"proc/kpageflags"}
    unneeded = {"proc/buddyinfo", "proc/pagetypeinfo"}
    assert not unneeded & set(paths)
    assert not [path for path in paths if path.startswith(("sys/firmware", "etc", "lib", "usr"))]
    order_bytes, asked_bytes, nr_online_of_the_dimm = 8 << 12, 64 * len(blocks(root)), 2
    read_bytes = nr_online_of_the_dimm * BLOCK_BYTES_OF_FLAGS
    assert lengths["proc/kpageflags"] <= read_bytes + order_bytes + asked_bytes


def test_explain_reads_its_own_block_and_that_part_of_page_files(root, opened, capsys):
    nr = 33
    assert main(["explain", f"memory{nr}", str(root)]) == 0
    paths, lengths = opened
    assert "proc/kpageflags" in paths
    assert not {"phys_device", "phys_index"} & of_blocks(paths).keys()
    assert len(of_blocks(paths).get("removable", [])) <= 1  # tells whether the kernel can remove
    # Flags of blocks beside it are read with it; the other files for each kind of its pages.
    whole = (root / "proc/kpageflags").stat().st_size
    for path in PAGE_FILES:
        assert lengths.get(path, 0) <= 10 * BLOCK_BYTES_OF_FLAGS < whole, path


def test_no_file_is_opened_twice(root, opened, capsys):
    nr = 33
    assert main(["explain", f"memory{nr}", str(root)]) == 0
    assert len(opened[0]) == len(set(opened[0]))


@pytest.mark.parametrize("command", [["account"], ["explain", "memory0"]])
@pytest.mark.parametrize("path", ["proc/buddyinfo", f"{MEMORY}/memory1/removable"])
def test_a_malformed_file_that_is_not_needed_ends_no_command(root, capsys, command, path):
    (root / path).write_text("nonsense\n")
    assert main([*command, str(root)]) == 0
