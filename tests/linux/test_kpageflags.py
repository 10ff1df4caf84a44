import itertools
import struct
import tarfile
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.errors import InputError
from altmap.linux import kpageflags
from altmap.linux.kpageflags import PageRun, flag_names
from altmap.linux.sysroot import Sysroot

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
    assert kpageflags.parse_raw([raw]) == runs_by_loop(words)


def test_a_big_endian_file_has_the_same_runs(raw):
    swapped = np.frombuffer(raw, "<u8").astype(">u8").tobytes()
    assert kpageflags.parse_raw([swapped]) == kpageflags.parse_raw([raw])


def test_a_sysroot_keeps_the_kernels_own_file_as_runs(raw):
    sysroot = Sysroot.read(RECORDINGS / "linux-7.3-dimm.tar.xz")
    assert "proc/kpageflags" not in sysroot.files
    runs = kpageflags.parse(sysroot.text("proc/kpageflags.runs"))
    assert kpageflags.render_raw(runs) == raw


@given(st.lists(st.sampled_from([0, BUDDY, NOPAGE, 1 << 42]), max_size=40), st.data())
def test_runs_do_not_depend_on_where_the_file_is_cut(words, data):
    raw = struct.pack(f"<{len(words)}Q", *words)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=5)))
    pieces = [raw[a:b] for a, b in itertools.pairwise([0, *cuts, len(raw)])]
    assert kpageflags.parse_raw(pieces) == runs_by_loop(words)


def test_64_gib_of_pages_take_seconds_of_the_processor_at_most():
    words = np.zeros(1 << 24, "<u8")
    words[:: 1 << 9] = BUDDY
    raw = words.tobytes()
    began = time.process_time()
    runs = kpageflags.parse_raw([raw])
    assert time.process_time() - began < 5
    assert len(runs) == 1 << 16
    assert runs[:3] == (PageRun(0, 1, BUDDY), PageRun(1, 511, 0), PageRun(512, 1, BUDDY))


def test_half_a_word_is_refused():
    with pytest.raises(InputError, match=r"^12 bytes: need a multiple of 8$"):
        kpageflags.parse_raw([b"\0" * 12])


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
        kpageflags.parse(text)
