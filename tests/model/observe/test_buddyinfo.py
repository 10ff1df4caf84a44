"""Free chunks of each order: those that freeing the pages one by one leaves."""

from hypothesis import given
from hypothesis import strategies as st

from altmap.model.observe.buddyinfo import free_chunks
from altmap.pfn import PfnRange, PfnSet


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
