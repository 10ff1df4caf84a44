"""Huge pages that move to free ones of the pool in the block that they are to leave.

The kernel's loops are played here page by page: each huge page takes the one that became free last.
"""

import random
from types import SimpleNamespace

import pytest

from altmap.model.kernel.migrate import _rotating_huge_pages
from altmap.model.kernel.pool import HugePool
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Fill, HugePages, Machine, Offline, Plug, Size

MIB = 1 << 20
BLOCK = range(10, 20)


def ends(in_use, free):
    """Play offline_pages on huge pages by number, *free* from the head of the list."""
    in_use, free = set(in_use), list(free)
    while in_use & set(BLOCK):
        start, seen = BLOCK.start, set()
        while found := sorted(page for page in in_use if start <= page < BLOCK.stop):
            start = found[0]
            state = start, frozenset(in_use), tuple(free)
            if state in seen:
                return False
            seen.add(state)
            for page in found:
                if free:
                    in_use = in_use - {page} | {free.pop(0)}
                    free.insert(0, page)
                else:  # a new one takes its place, and it goes to the buddy allocator
                    in_use = in_use - {page} | {100 + page}
        free = [page for page in free if page not in BLOCK]  # they are dissolved
    return True


def frames(pages):
    return PfnSet(PfnRange(512 * page, 512 * page + 512) for page in pages)


def test_huge_pages_rotate_where_the_loops_of_the_kernel_do_not_end():
    chance = random.Random(7)
    certain = 0
    for _ in range(2000):
        pages = chance.sample(range(30), chance.randrange(2, 9))
        in_use = {page for page in pages[: chance.randrange(1, 5)] if page in BLOCK}
        free = [page for page in pages if page not in in_use]
        pool = HugePool(512, [frames([page]) for page in reversed(free)], frames(in_use))
        kernel = SimpleNamespace(
            release=SimpleNamespace(
                hugetlb_dequeues_isolated=True, hugetlb_first_in_first_out=True
            ),
            pools=lambda pool=pool: [pool],
            node_pages=lambda node: PfnSet([PfnRange(0, 512 * 40)]),
        )
        block = PfnRange(512 * BLOCK.start, 512 * BLOCK.stop)
        outcome = _rotating_huge_pages(kernel, 0, [0], block)
        assert (outcome is None) == ends(in_use, free), (in_use, free)
        certain += outcome is not None and outcome.certainty == "certain"
    assert certain > 20


@pytest.mark.parametrize(
    ("release", "errno"),
    [("6.1", "EINTR"), ("6.12.95", "EINTR"), ("6.12.118", None), ("6.12", None), ("7.3", None)],
)
def test_a_block_with_huge_pages_goes_offline_where_isolated_ones_are_no_target(release, errno):
    machine = Machine(memory=Size(1024 * MIB), release=release, auto_online_blocks="online_movable")
    model = ModelMachine.start(machine)
    for step in (
        Plug(id="d", size=Size(256 * MIB)),
        HugePages(nr_hugepages=40),
        Fill(id="f", size=Size(32 * MIB), kind="hugetlb-file"),
    ):
        assert model.perform(step).outcome
    record = model.perform(Offline(blocks=32))
    assert record.outcome.errno == errno
    assert record.outcome.certainty == "certain"


def test_files_move_before_huge_pages_rotate():
    """do_migrate_range takes all of the block at once; only huge pages come back into it."""
    machine = Machine(memory=Size(1024 * MIB), release="6.1", auto_online_blocks="online_movable")
    model = ModelMachine.start(machine)
    for step in (
        Plug(id="d", size=Size(256 * MIB)),
        HugePages(nr_hugepages=40),
        Fill(id="h", size=Size(32 * MIB), kind="hugetlb-file"),
        Fill(id="f", size=Size(8 * MIB)),
    ):
        assert model.perform(step).outcome
    block = next(
        id_
        for id_ in (32, 33)
        if any(pool.in_use.count(model.kernel.block_pfns(id_)) for pool in model.kernel.pools())
    )
    pfns = model.kernel.block_pfns(block)
    before = model.kernel.movable.count(pfns)
    record = model.perform(Offline(blocks=block))
    assert record.outcome.errno == "EINTR"
    assert before
    assert model.kernel.movable.count(pfns) == 0
