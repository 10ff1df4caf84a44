"""Free chunks of each order: those that freeing the pages one by one leaves."""

from hypothesis import given
from hypothesis import strategies as st

from altmap.model.boot import boot
from altmap.model.observe.buddyinfo import buddyinfo_shown, free_chunks, zone_chunks
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine, Size


def merged(pages, nr_orders):
    """Free the pages one by one, and merge buddies as far as they go."""
    free = [set() for _ in range(nr_orders)]
    for page in pages:
        pfn, order = page, 0
        while order < nr_orders - 1 and pfn ^ (1 << order) in free[order]:
            free[order].discard(pfn ^ (1 << order))
            pfn &= ~(1 << order)
            order += 1
        free[order].add(pfn)
    return [len(chunks) for chunks in free]


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(0, 200)), max_size=8),
    st.integers(1, 7),
    st.randoms(use_true_random=False),
)
def test_chunks_are_those_of_freeing_the_pages_one_by_one(runs, nr_orders, random):
    pages = PfnSet(PfnRange(start, start + nr) for start, nr in runs)
    order_of_freeing = list(pages)
    random.shuffle(order_of_freeing)
    assert free_chunks(pages, nr_orders) == merged(order_of_freeing, nr_orders)


def test_chunks_of_a_populated_zone_gain_and_never_fall_below_0():
    kernel = boot(Machine(memory=Size(1 << 30)))[0]
    keys = list(kernel.zones)
    base, start, now = ({key: [nr] * 11 for key in keys} for nr in (5, 3, 4))
    now[0, "DMA"] = [0, 3] + [1] * 9
    start[0, "DMA"] = [9] + [3] * 10
    shown = buddyinfo_shown({key: tuple(row) for key, row in base.items()}, kernel, start, now)
    assert shown == {(0, "DMA"): (0, 5) + (3,) * 9, (0, "DMA32"): (6,) * 11}
    assert buddyinfo_shown({}, kernel, {}, now)[0, "DMA32"] == (4,) * 11
    assert buddyinfo_shown(None, kernel, {}, now) is None


def test_a_zone_has_chunks_up_to_the_highest_order():
    kernel = boot(Machine(memory=Size(1 << 30)))[0]
    chunks = zone_chunks(kernel, kernel.zones[0, "DMA32"])
    assert len(chunks) == 11
    assert chunks[10] > 0
    assert sum(nr << order for order, nr in enumerate(chunks)) == kernel.nr_free(
        kernel.zones[0, "DMA32"]
    )
