"""Zones: the choice for a block, and spans that grow and shrink."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from altmap.model.kernel.zone import (
    Zone,
    default_kernel_zone,
    extend_span,
    shrink_span,
    zone_for_policy,
)
from altmap.pfn import PfnRange, PfnSet


def zone(name, start=0, end=0):
    return Zone(0, name, PfnRange(start, end), PfnSet([PfnRange(start, end)]))


DMA, DMA32 = zone("DMA", 1, 0x1000), zone("DMA32", 0x1000, 0x40000)


@pytest.mark.parametrize(
    ("start", "end", "name"),
    [
        (0x100000, 0x108000, "Normal"),
        (0x38000, 0x40000, "DMA32"),
        (0x40000, 0x48000, "Normal"),  # below 4 GiB, but no span of DMA32 reaches it
        (0, 0x8000, "DMA"),
        (0x1000, 0x8000, "DMA32"),
    ],
)
def test_the_kernel_zone_follows_spans_not_dma_limits(start, end, name):
    zones = [DMA, DMA32, zone("Normal")]
    assert default_kernel_zone(zones, PfnRange(start, end)).name == name


BLOCK = PfnRange(0x108000, 0x110000)
EMPTY, BELOW, AROUND = (0, 0), (0x100000, 0x108000), (0x100000, 0x118000)


@pytest.mark.parametrize(
    ("normal", "movable", "movable_node", "name"),
    [
        (EMPTY, EMPTY, False, "Normal"),
        (EMPTY, EMPTY, True, "Movable"),
        (BELOW, EMPTY, True, "Movable"),  # adjacent is not overlapping
        (EMPTY, BELOW, False, "Normal"),
        (AROUND, EMPTY, False, "Normal"),
        (AROUND, EMPTY, True, "Normal"),
        (EMPTY, AROUND, False, "Movable"),
        (EMPTY, AROUND, True, "Movable"),
        (AROUND, AROUND, False, "Normal"),
        (AROUND, AROUND, True, "Movable"),
    ],
)
def test_contig_zones_joins_the_one_zone_whose_span_it_meets(normal, movable, movable_node, name):
    chosen = zone_for_policy(
        zone("Normal", *normal), zone("Movable", *movable), BLOCK, movable_node
    )
    assert chosen.name == name


def shrunk(span, left, removed):
    found = Zone(0, "Normal", PfnRange(*span), PfnSet(PfnRange(*run) for run in left))
    shrink_span(found, PfnRange(*removed), 512)
    return found.span.start, found.span.end


@pytest.mark.parametrize(
    ("left", "removed", "span"),
    [
        ([(0x8000, 0x18000)], (0, 0x8000), (0x8000, 0x18000)),
        ([(0, 0x10000)], (0x10000, 0x18000), (0, 0x10000)),
        ([(0, 0x8000), (0x10000, 0x18000)], (0x8000, 0x10000), (0, 0x18000)),  # the hole stays
        ([(0x10000, 0x18000)], (0, 0x8000), (0x10000, 0x18000)),  # over an older hole
        ([(0, 0x8000)], (0x10000, 0x18000), (0, 0x8000)),
        ([], (0, 0x18000), (0, 0)),
    ],
)
def test_only_an_edge_moves_and_only_to_what_is_left(left, removed, span):
    assert shrunk((0, 0x18000), left, removed) == span


def walked(span, left, removed):
    """Return the span as the kernel's loops over subsections find it, a pfn at a time.

    A page is online if its subsection has any RAM (``mm/memory_hotplug.c:
    find_smallest_section_pfn, find_biggest_section_pfn``).
    """
    online = {pfn // 512 for run in left for pfn in range(*run)}
    if removed[0] == span[0]:
        for pfn in range(removed[1], span[1], 512):
            if pfn // 512 in online:
                return pfn, span[1]
        return 0, 0
    if removed[1] == span[1]:
        for pfn in range(removed[0] - 1, span[0] - 1, -512):
            if pfn // 512 in online:
                return span[0], pfn + 1
        return 0, 0
    return span


runs = st.lists(
    st.tuples(st.integers(0, 6 * 1024), st.integers(1, 1500)).map(lambda r: (r[0], r[0] + r[1])),
    max_size=3,
)


@given(runs, st.integers(0, 7), st.sampled_from([0, 1]))
@example([(2048, 2049)], 7, 0)  # the end of RAM in the middle of a subsection
@example([(2048 + 511, 2048 + 512)], 0, 0)  # and its start
@example([(2048 + 512, 2048 + 1024)], 7, 0)  # both at edges
def test_an_edge_in_the_middle_of_a_subsection_is_rounded_outwards(present, block, shorter):
    span = (0, (8 - shorter) * 1024)
    removed = (min(block, 7 - shorter) * 1024, (min(block, 7 - shorter) + 1) * 1024)
    pages = PfnSet(PfnRange(*run) for run in present) & PfnRange(*span)
    pages -= PfnRange(*removed)
    left = [(run.start, run.end) for run in pages.ranges()]
    assert shrunk(span, left, removed) == walked(span, left, removed)


def test_a_span_grows_to_cover_and_an_empty_one_starts_anew():
    found = Zone(0, "Movable")
    extend_span(found, PfnRange(0x100000, 0x108000))
    assert found.span == PfnRange(0x100000, 0x108000)
    extend_span(found, PfnRange(0x180000, 0x188000))
    assert found.span == PfnRange(0x100000, 0x188000)
    extend_span(found, PfnRange(0x110000, 0x118000))
    assert found.span == PfnRange(0x100000, 0x188000)


@given(st.lists(st.integers(0, 7), min_size=1, max_size=8, unique=True), st.data())
def test_spans_of_whole_blocks_follow_the_blocks_that_come_and_go(blocks, data):
    """Removing what lies at an edge leaves the hull; removing from the middle leaves the span."""
    found, there = Zone(0, "Normal"), set()
    for block in blocks:
        pfns = PfnRange(block * 1024, block * 1024 + 1024)
        extend_span(found, pfns)
        found.present |= pfns
        there.add(block)
        assert found.span == PfnRange(min(there) * 1024, max(there) * 1024 + 1024)
    for block in data.draw(st.permutations(blocks)):
        pfns = PfnRange(block * 1024, block * 1024 + 1024)
        there.discard(block)
        found.present -= pfns
        shrink_span(found, pfns, 512)
        hull = (min(there) * 1024, max(there) * 1024 + 1024) if there else (0, 0)
        assert (found.span.start, found.span.end) == hull
