"""Page sets agree with Python's sets; sizes are what their units say."""

import operator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap import pfn
from altmap.errors import InputError
from altmap.pfn import PfnRange, PfnSet, PfnStride
from altmap.units import (
    column_unit,
    counted_size,
    format_size,
    parse_address,
    parse_size,
)

#: Small pfns beside large ones: the bitmap changes its container at 2**16 and its map at 2**32.
BASES = (0, 65500, (1 << 32) - 40)


@st.composite
def ranges(draw):
    start = draw(st.sampled_from(BASES)) + draw(st.integers(0, 80))
    return PfnRange(start, start + draw(st.integers(0, 60)))


@st.composite
def strides(draw):
    start = draw(st.sampled_from(BASES)) + draw(st.integers(0, 40))
    step = draw(st.integers(1, 12))
    nr_steps = draw(st.integers(0, 6))
    return PfnStride(start, start + step * nr_steps, step, draw(st.integers(1, step)))


range_lists = st.lists(ranges(), max_size=6)


def pages(some):
    """Return the page frames as a set, by counting them up."""
    if isinstance(some, PfnRange):
        return set(range(some.start, some.end))
    if isinstance(some, PfnStride):
        return {
            pfn
            for first in range(some.start, some.end, some.step)
            for pfn in range(first, first + some.nr_pages)
        }
    return {pfn for pfns in some for pfn in range(pfns.start, pfns.end)}


def operands():
    return range_lists.map(lambda found: (PfnSet(found), pages(found))) | (
        ranges() | strides()
    ).map(lambda some: (some, pages(some)))


@given(range_lists, operands())
def test_operators_are_those_of_sets(some, other):
    mine, theirs = PfnSet(some), pages(some)
    pfns, plain = other
    assert set(mine | pfns) == theirs | plain
    assert set(mine & pfns) == theirs & plain
    assert set(mine - pfns) == theirs - plain
    assert set(mine ^ pfns) == theirs ^ plain
    assert set(mine) == theirs


@given(range_lists, operands())
def test_assigning_operators_change_only_their_own_set(some, other):
    pfns, plain = other
    for grow, expected in (
        (PfnSet.__ior__, pages(some) | plain),
        (PfnSet.__iand__, pages(some) & plain),
        (PfnSet.__isub__, pages(some) - plain),
    ):
        mine = PfnSet(some)
        kept = mine.copy()
        changed = grow(mine, pfns)
        assert changed is mine
        assert set(mine) == expected
        assert set(kept) == pages(some)
    if isinstance(pfns, PfnSet):
        assert set(pfns) == plain


@given(range_lists, range_lists, ranges())
def test_questions_have_the_answers_of_sets(some, others, pfns):
    mine, theirs = PfnSet(some), pages(some)
    other, plain = PfnSet(others), pages(others)
    assert len(mine) == len(theirs)
    assert bool(mine) == bool(theirs)
    assert list(mine) == sorted(theirs)
    assert (mine == other) == (theirs == plain)
    assert mine.isdisjoint(other) == theirs.isdisjoint(plain)
    assert mine.issubset(other) == theirs.issubset(plain)
    assert mine.count(other) == len(theirs & plain)
    assert mine.count(pfns) == len(theirs & pages(pfns))
    assert mine.covers(pfns) == (pages(pfns) <= theirs)
    assert all((pfn in mine) == (pfn in theirs) for pfn in (*pages(pfns), *BASES))
    assert PfnSet.of(mine, pfns, other) == PfnSet([*some, pfns, *others])


#: Changes of three sets: which, how, by what; a copy takes the place of another set.
CHANGES = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(["|=", "-=", "&=", "copy"]),
        operands(),
        st.integers(0, 2),
    ),
    max_size=12,
)


@given(st.tuples(range_lists, range_lists, range_lists), CHANGES)
def test_numbers_of_pages_that_are_kept_follow_every_change(some, changes):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pfn, "_MANY_PAGES", 1)  # as if all were long
        patch.setattr(pfn, "_MOST_COUNTS", 3)
        sets, plain = [PfnSet(each) for each in some], [pages(each) for each in some]
        for which, how, (other, others), another in changes:
            if how == "copy":
                sets[which], plain[which] = sets[another].copy(), set(plain[another])
            elif how == "|=":
                sets[which] |= other
                plain[which] |= others
            elif how == "-=":
                sets[which] -= other
                plain[which] -= others
            else:
                sets[which] &= other
                plain[which] &= others
            assert [len(each) for each in sets] == [len(each) for each in plain]
            for one, of_one in zip(sets, plain, strict=True):
                found = [one.count(each) for each in sets]
                assert found == [len(of_one & each) for each in plain]
                assert [set(one - each) for each in sets] == [of_one - each for each in plain]


@given(range_lists, st.integers(-2, 120))
def test_ends_and_runs_are_those_of_the_sorted_list(some, nr_pages):
    mine, theirs = PfnSet(some), sorted(pages(some))
    runs = list(mine.ranges())
    assert [pfn for run in runs for pfn in range(run.start, run.end)] == theirs
    assert all(run for run in runs)
    assert all(a.end < b.start for a, b in pairwise(runs))
    assert mine.nr_ranges() == len(runs)
    if theirs:
        assert (mine.min(), mine.max()) == (theirs[0], theirs[-1])
        assert mine.span() == PfnRange(theirs[0], theirs[-1] + 1)
    else:
        assert mine.span() == PfnRange(0, 0)
    assert list(mine.highest(nr_pages)) == (theirs[-nr_pages:] if nr_pages > 0 else [])


@given(ranges(), ranges())
def test_two_ranges_meet_where_their_page_frames_do(one, other):
    both = pages(one) & pages(other)
    assert one.overlaps(other) == bool(both)
    assert pages(one.intersection(other)) == both
    assert len(one) == len(pages(one))
    assert all(pfn in one for pfn in pages(one))
    assert one.end not in one


@given(strides())
def test_a_stride_counts_and_hulls_its_page_frames(stride):
    found = pages(stride)
    assert len(stride) == len(found)
    hull = stride.hull()
    assert pages(hull) >= found
    if found:
        assert (hull.start, hull.end) == (min(found), max(found) + 1)
    else:
        assert not hull


@pytest.mark.parametrize(("start", "end"), [(-1, 4), (8, 4), (-2, -1)])
def test_a_range_that_is_none_is_refused_with_its_bounds(start, end):
    with pytest.raises(InputError) as caught:
        PfnRange(start, end)
    assert str(caught.value) == f"PFN range [{start:#x}, {end:#x}): need 0 <= start <= end"


def test_a_set_shows_its_runs_and_cannot_be_hashed():
    assert repr(PfnSet([PfnRange(0, 1), PfnRange(16, 32)])) == (
        "PfnSet(17 pages: [0x0, 0x1) [0x10, 0x20))"
    )
    many = PfnSet(PfnRange(pfn, pfn + 1) for pfn in range(0, 20, 2))
    assert repr(many).endswith("…)")
    with pytest.raises(TypeError):
        hash(many)


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("128MiB", 134217728),
        ("128M", 134217728),
        ("128 MiB", 134217728),
        (" 1G ", 1073741824),
        ("1.5GiB", 1610612736),
        ("128MB", 128000000),
        ("4kB", 4000),
        ("4KB", 4000),
        ("4K", 4096),
        ("4096B", 4096),
        ("64T", 70368744177664),
        ("0B", 0),
        ("0.5KiB", 512),
        ("1PiB", 1125899906842624),
    ],
)
def test_a_size_is_its_number_times_its_unit(text, size_bytes):
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("128", "need a unit, such as '128MiB'"),
        ("12x", "unknown unit 'x'"),
        ("128 mib", "unknown unit 'mib'"),
        ("128Mib", "unknown unit 'Mib'"),
        ("-1MiB", "need a number and a unit"),
        ("", "need a number and a unit"),
        ("MiB", "need a number and a unit"),
        ("1,5GiB", "need a number and a unit"),
        ("0x10MiB", "need a number and a unit"),
        ("0.3B", "whole number of bytes"),
        ("4097T", "4 PiB"),
        ("5PiB", "4 PiB"),
        (128, "need a number and a unit"),
        (None, "need a number and a unit"),
    ],
)
def test_a_size_that_is_none_is_refused_with_value_and_rule(text, rule):
    with pytest.raises(InputError) as caught:
        parse_size(text)
    message = str(caught.value)
    assert message.startswith(f"size {text!r}: ")
    assert rule in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("0x100000000", 4 << 30),
        ("0X10", 16),
        ("4GiB", 4 << 30),
        (0, 0),
        (4096, 4096),
        (" 0x10 ", 16),
    ],
)
def test_an_address_is_a_number_hexadecimal_text_or_a_size(value, address):
    assert parse_address(value) == address


@pytest.mark.parametrize(
    "value", [-1, "-0x10", "4096", "0x", "0xg", True, "", 1.5, None, [1], (1 << 52) + 1]
)
def test_an_address_that_is_none_is_refused(value):
    with pytest.raises(InputError) as caught:
        parse_address(value)
    assert repr(value) in str(caught.value)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (1537, "1537 B"),
        (10**9, "1000000000 B"),
        (1152 << 20, "1152 MiB"),
        (26112 << 20, "25.5 GiB"),
        (12096 << 20, "12096 MiB"),
        (243072 << 20, "237.375 GiB"),
        (64 << 20, "64 MiB"),
        (1 << 30, "1 GiB"),
        (3 << 29, "1.5 GiB"),
        (64 << 40, "64 TiB"),
    ],
)
def test_a_size_is_exact_in_the_unit_that_people_read_it_in(size_bytes, text):
    assert format_size(size_bytes) == text


@given(st.integers(0, 1 << 52))
def test_a_size_that_is_shown_can_be_read_again(size_bytes):
    assert parse_size(format_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(
    ("sizes", "shown"),
    [
        ([], []),
        ([0, (10 << 30) - (1 << 20)], ["0.0 MiB", "10,239.0 MiB"]),
        ([1 << 20, 10 << 30], ["0.001 GiB", "10.000 GiB"]),
        ([-(10 << 30), 5 << 20], ["-10.000 GiB", "0.005 GiB"]),
    ],
)
def test_a_column_has_one_unit_by_its_largest_size(sizes, shown):
    unit = column_unit(sizes, decimals=1)
    assert [unit.text(size) for size in sizes] == shown
    assert [unit.number(size) for size in sizes] == [text.split()[0] for text in shown]


@pytest.mark.parametrize(
    ("kib", "gained", "text"),
    [
        (1954444, None, "1.9 GiB (1954444 kB)"),
        (1954444, 1032192, "1.9 GiB, +1008 MiB (1954444 kB, +1032192)"),
        (1954444, -1032192, "1.9 GiB, -1008 MiB (1954444 kB, -1032192)"),
        (922252, 0, "900.6 MiB (922252 kB, +0)"),
    ],
)
def test_what_linux_counts_is_shown_rounded_and_as_counted(kib, gained, text):
    assert counted_size(kib, gained) == text


RUNS_OF_LONG_SETS = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=12
)


@given(RUNS_OF_LONG_SETS, st.sampled_from([1, 7, 1 << 16, 1 << 20]), st.integers(1, 600))
def test_the_runs_of_a_long_set_are_those_of_its_pages(parts, unit, most_parts):
    edges, at = [], 0
    for gap, length in parts:
        start = at + gap * unit
        at = start + length * unit
        if edges and edges[-1] == start:
            edges[-1] = at
        else:
            edges += [start, at]
    ranges = [PfnRange(a, b) for a, b in zip(edges[::2], edges[1::2], strict=True)]
    pages = PfnSet(ranges)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pfn, "_LONG_RANGE", 1)
        patch.setattr(pfn, "_MOST_PARTS", most_parts)
        assert pages.edges() == tuple(edges)
        assert list(pages.ranges()) == ranges
        inner = PfnRange(edges[0] + 1, edges[-1])
        by_pages = (pages & inner).edges()
        assert tuple(pages.edge_array(inner).tolist()) == by_pages


@given(st.sets(st.integers(0, 99)), st.sets(st.integers(0, 99)), st.sampled_from("|&-"))
def test_an_operation_changes_neither_of_its_sets(left, right, name):
    operation = {"|": operator.or_, "&": operator.and_, "-": operator.sub}[name]
    in_place = {"|": operator.ior, "&": operator.iand, "-": operator.isub}[name]
    first, second = (PfnSet.of(*(PfnRange(n, n + 1) for n in each)) for each in (left, right))
    made = operation(first, second)
    made |= PfnRange(200, 210)
    changed = first.copy()
    changed = in_place(changed, second)
    changed |= PfnRange(300, 310)
    assert set(first) == left
    assert set(second) == right
    assert set(made) == operation(left, right) | set(range(200, 210))
    assert set(changed) == operation(left, right) | set(range(300, 310))
