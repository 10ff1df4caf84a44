import itertools
import os
import struct
import tarfile
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.errors import InputError
from altmap.linux.kpageflags import flag_names
from altmap.linux.pagewords import PIECE_NR_PAGES, PageRun, PageWords
from altmap.linux.sysroot import Sysroot
from altmap.pfn import PfnRange, PfnSet

from .conftest import RECORDINGS

BUDDY = 1 << 10
NOPAGE = 1 << 20


def runs_by_loop(words):
    runs, pfn = [], 0
    for flags, group in itertools.groupby(words):
        nr_pages = len(list(group))
        runs.append((pfn, nr_pages, flags))
        pfn += nr_pages
    return tuple(runs)


@pytest.fixture(scope="module")
def raw():
    with tarfile.open(RECORDINGS / "linux-7.3-dimm.tar.xz") as tar:
        return tar.extractfile("proc/kpageflags").read()


def test_a_kernels_own_file_agrees_with_a_loop_over_its_words(raw):
    words = struct.unpack(f"<{len(raw) // 8}Q", raw)
    assert tuple(PageWords.from_raw([raw])) == runs_by_loop(words)


def test_a_big_endian_file_has_the_same_runs(raw):
    swapped = np.frombuffer(raw, "<u8").astype(">u8").tobytes()
    assert PageWords.from_raw([swapped]) == PageWords.from_raw([raw])


def test_a_sysroot_writes_a_file_of_few_runs_as_runs(raw, tmp_path):
    sysroot = Sysroot.read(RECORDINGS / "linux-7.3-dimm.tar.xz")
    assert "proc/kpageflags" not in sysroot.files
    assert b"".join(sysroot.pages["proc/kpageflags"].raw()) == raw
    sysroot.pack(tmp_path / "s.tar")
    again = Sysroot.read(tmp_path / "s.tar")
    assert b"".join(again.page_words("proc/kpageflags").raw()) == raw
    assert "proc/kpageflags.runs" in again.files


def busy(nr_pages, nr_distinct=70, seed=1):
    """Return the words of a machine in use: nearly every page differs from the one before."""
    rng = np.random.default_rng(seed)
    table = rng.integers(1, 1 << 43, nr_distinct, dtype=np.uint64)
    return table[rng.integers(0, nr_distinct, nr_pages)]


@pytest.mark.parametrize("nr_distinct", [70, 300, 70_000])
def test_a_busy_machine_is_kept_as_codes_and_loses_nothing(nr_distinct, tmp_path):
    words = busy(PIECE_NR_PAGES + 12_345, nr_distinct)
    made = PageWords.from_raw([words.astype("<u8").tobytes()])
    assert not made.is_compact
    assert b"".join(made.raw()) == words.astype("<u8").tobytes()
    assert b"".join(made.raw("big")) == words.astype(">u8").tobytes()
    Sysroot({"proc/meminfo": b""}, pages={"proc/kpageflags": made}).pack(tmp_path / "s.tar.gz")
    again = Sysroot.read(tmp_path / "s.tar.gz")
    assert b"".join(again.pages["proc/kpageflags"].raw()) == words.astype("<u8").tobytes()


@pytest.mark.parametrize("words", [busy(PIECE_NR_PAGES + 999), np.arange(5000, dtype="<u8") // 700])
def test_sets_are_those_of_a_loop_over_the_words(words):
    made = PageWords.from_raw([words.astype("<u8").tobytes()])
    pfns = PfnRange(len(words) // 3, len(words) // 2)
    found = made.sets(lambda word: word % 3 or None)
    inside = made.sets(lambda word: word % 3 or None, pfns)
    for key in (1, 2):
        expected = np.flatnonzero(words % 3 == key)
        assert list(found[key]) == expected.tolist()
        mine = expected[(expected >= pfns.start) & (expected < pfns.end)]
        assert list(inside.get(key, PfnSet())) == mine.tolist()
    assert set(found) == {1, 2}


@pytest.mark.parametrize("pfn", [0, 1, 12_000, PIECE_NR_PAGES - 1, PIECE_NR_PAGES])
def test_one_word_is_read_by_its_pfn(pfn):
    words = busy(PIECE_NR_PAGES + 1)
    made = PageWords.from_raw([words.astype("<u8").tobytes()])
    assert made.word_at(pfn) == int(words[pfn])
    assert made.word_at(len(words)) is None


def test_a_page_frame_beyond_4_pib_is_refused():
    with pytest.raises(InputError, match=r"line 1: .*: no machine addresses more than 4 PiB"):
        PageWords.parse(f"0x0 {(1 << 40) + 1} 0x0\n")
    assert PageWords.parse(f"0x0 {1 << 40} 0x0\n").nr_pages == 1 << 40


@pytest.mark.parametrize("words", [busy(3000), [0] * 2000 + [7] * 1000], ids=("codes", "runs"))
@pytest.mark.parametrize("on_disk", [False, True], ids=("read", "on disk"))
def test_words_of_some_page_frames_are_counted_as_by_a_loop(words, on_disk, tmp_path):
    (tmp_path / "proc").mkdir()
    raw = struct.pack(f"<{len(words)}Q", *words)
    (tmp_path / "proc/kpageflags").write_bytes(raw)
    made = Sysroot.read(tmp_path, leave="files").page_words("proc/kpageflags")
    made = made if on_disk else PageWords.from_raw([raw])
    asked = [2, 3, 500, *range(1990, 2010), 2999, 3000, 5000]  # the last two are beyond the end
    expected = Counter(words[pfn] for pfn in asked if pfn < len(words))
    assert made.counts(PfnSet.of_runs((pfn, 1) for pfn in asked)) == expected
    assert made.counts(PfnSet()) == Counter()


@given(st.lists(st.sampled_from([0, BUDDY, NOPAGE, 1 << 42]), max_size=40), st.data())
def test_runs_do_not_depend_on_where_the_file_is_cut(words, data):
    raw = struct.pack(f"<{len(words)}Q", *words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    pieces = [raw[a:b] for a, b in itertools.pairwise([0, *cuts, len(raw)])]
    assert tuple(PageWords.from_raw(pieces)) == runs_by_loop(words)


@pytest.mark.slow
def test_64_gib_of_pages_take_seconds_of_the_processor_at_most():
    words = np.zeros(1 << 24, "<u8")
    words[:: 1 << 9] = BUDDY
    raw = words.tobytes()
    began = time.process_time()
    runs = list(PageWords.from_raw([raw]))
    assert time.process_time() - began < 5
    assert len(runs) == 1 << 16
    assert runs[:3] == [PageRun(0, 1, BUDDY), PageRun(1, 511, 0), PageRun(512, 1, BUDDY)]


def test_half_a_word_is_refused():
    with pytest.raises(InputError, match=r"^12 bytes: need a multiple of 8$"):
        PageWords.from_raw([b"\0" * 12])


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        (0, ()),
        (0x400, ("BUDDY",)),
        (0x100000, ("NOPAGE",)),
        (0x2100000000, ("RESERVED", "OWNER_PRIVATE")),
        (0x800000, ("OFFLINE",)),
        (1 << 63 | 1, ("LOCKED", "BIT_63")),
    ],
)
def test_flags_have_the_kernels_names(flags, names):
    assert flag_names(flags) == names


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0x0 1 1\n", "line 1: '0x0 1 1': need '0x<start_pfn> <nr_pages> 0x<flags>'"),
        ("# x\n0x8 1 0x0\n", "line 2: .*: need a run of at least one page that starts at 0x0"),
        ("0x0 0 0x0\n", "line 1: .*: need a run of at least one page that starts at 0x0"),
        ("0x0 4 0x0\n0x5 1 0x1\n", "line 2: .*: need a run of at least one page .* at 0x4"),
    ],
)
def test_runs_with_gaps_or_nonsense_are_refused(text, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        PageWords.parse(text)


@pytest.mark.parametrize("order", ["<u8", ">u8"])
@pytest.mark.parametrize("words", [busy(PIECE_NR_PAGES + 999), np.arange(5000, dtype="<u8") // 700])
def test_a_file_left_on_disk_says_the_same_as_one_that_was_read(words, order, tmp_path):
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/kpageflags").write_bytes(words.astype(order).tobytes())
    read, left = (
        Sysroot.read(tmp_path, leave=leave).pages["proc/kpageflags"]
        for leave in ("nothing", "pages")
    )
    assert left == read
    assert left.nr_pages == read.nr_pages == len(words)
    assert b"".join(left.raw()) == b"".join(read.raw())
    assert b"".join(left.raw("big")) == b"".join(read.raw("big"))
    for pfns in (None, PfnRange(700, 701), PfnRange(123, 4567), PfnRange(0, 1 << 30)):
        assert left.sets(lambda word: word % 3, pfns) == read.sets(lambda word: word % 3, pfns)
    for pfn in (0, 699, 700, len(words) - 1, len(words)):
        assert left.word_at(pfn) == read.word_at(pfn)


def test_only_the_page_frames_asked_for_are_read_from_disk(tmp_path, monkeypatch):
    (tmp_path / "proc").mkdir()
    with (tmp_path / "proc/kpageflags").open("wb") as file:
        file.write((1 << 10).to_bytes(8, "little"))
        file.truncate(8 << 28)  # 1 TiB in pages of 4 KiB
    words = Sysroot.read(tmp_path, leave="pages").pages["proc/kpageflags"]
    lengths = []
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, n, at: lengths.append(n) or pread(fd, n, at))
    words.sets(bool, PfnRange(1 << 27, (1 << 27) + 32768))
    to_find_the_end, to_tell_the_order = 8 * 42, 8 << 12
    assert sum(lengths) <= 32768 * 8 + to_find_the_end + to_tell_the_order


@pytest.mark.parametrize("most", [99, 100])
def test_more_runs_than_are_read_again_are_kept_as_words(most, tmp_path, monkeypatch):
    """A file of runs beyond the limit of lines would be refused when the snapshot is read."""
    monkeypatch.setattr("altmap.linux.pagewords._MOST_RUNS", most)
    raw = np.repeat(np.arange(100, dtype="<u8"), 64).tobytes()
    made = PageWords.from_raw([raw])
    assert made.is_compact == (most == 100)
    Sysroot({"proc/meminfo": b""}, pages={"proc/kpageflags": made}).pack(tmp_path / "s.tar")
    again = Sysroot.read(tmp_path / "s.tar")
    assert b"".join(again.page_words("proc/kpageflags").raw()) == raw
