"""HVO: the memmap of huge pages is freed and allocated again, as the kernel counts it.

Of a huge page of 2 MiB, 8 pages hold 512 struct pages of 64 bytes (``mm/hugetlb_vmemmap.c``).
"""

import pytest

from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange
from altmap.scenario import Fill, Free, HugePages, Machine, Offline, Plug, SetTunables, Size, Unplug

MIB, GIB = 1 << 20, 1 << 30


def machine(mode="off", mib=256, **changes):
    """Return a guest with HVO and a DIMM."""
    keys = {"memory": Size(GIB), "auto_online_blocks": "online_movable", "release": "7.3"}
    model = ModelMachine.start(
        Machine(**keys | {"memmap_on_memory": mode, "hugetlb_free_vmemmap": True} | changes)
    )
    if mib:
        do(model, Plug(id="d", size=Size(mib * MIB)))
    return model


def do(model, step):
    outcome = model.perform(step).outcome
    assert outcome, outcome


def reserve(model, number):
    do(model, HugePages(nr_hugepages=number))


def counters(model):
    """Return nr_memmap_pages, nr_memmap_boot_pages, MemTotal and MemFree in pages."""
    seen = model.observe()
    kib = [seen.meminfo[name] // 4 for name in ("MemTotal", "MemFree")]
    return (seen.vmstat["nr_memmap_pages"], seen.vmstat["nr_memmap_boot_pages"], *kib)


def gains(model, step):
    before = counters(model)
    do(model, step)
    return tuple(now - then for now, then in zip(counters(model), before, strict=True))


def test_of_added_memory_seven_pages_of_each_are_freed():
    model = machine()
    assert gains(model, HugePages(nr_hugepages=100)) == (-700, 0, 0, -100 * 512 + 700)
    assert gains(model, HugePages(nr_hugepages=60)) == (280, 0, 0, 40 * 512 - 280)
    assert gains(model, HugePages(nr_hugepages=0)) == (420, 0, 0, 60 * 512 - 420)


def test_of_boot_memory_eight_reserved_pages_are_freed_for_a_new_one():
    model = machine(mib=0)
    assert gains(model, HugePages(nr_hugepages=50)) == (50, -400, 400, -50 * 512 + 350)


def test_what_replaced_reserved_pages_is_memmap_as_that_of_added_memory():
    model = machine(mib=0)
    reserve(model, 50)
    assert gains(model, HugePages(nr_hugepages=0)) == (350, 0, 0, 50 * 512 - 350)
    # Some of the next ones are the same page frames: then 7 of 8 pages are freed.
    replaced = model.kernel.hvo.replaced.copy()
    before = counters(model)
    reserve(model, 50)
    again = len(model.kernel.hugetlb[512].pages & replaced) // 512
    fresh = 50 - again
    memmap, boot, total, _ = (now - then for now, then in zip(counters(model), before, strict=True))
    assert again
    assert (memmap, boot, total) == (fresh - 7 * again, -8 * fresh, 8 * fresh)


def test_before_6_2_the_first_page_stays_as_it_is():
    model = machine(mib=0, release="6.1")
    before = model.kernel.total_ram_nr_pages(), model.kernel.free_nr_pages()
    reserve(model, 50)
    after = model.kernel.total_ram_nr_pages(), model.kernel.free_nr_pages()
    assert (after[0] - before[0], after[1] - before[1]) == (350, -50 * 512 + 350)


@pytest.mark.parametrize(("release", "saved"), [("5.13", 0), ("5.15", 6), ("6.1", 7)])
def test_how_much_is_saved_follows_the_release(release, saved):
    model = machine(release=release)
    free = model.kernel.free_nr_pages()
    reserve(model, 100)
    assert model.kernel.free_nr_pages() - free == 100 * (saved - 512)


def test_a_memmap_in_its_own_block_is_never_freed():
    model = machine("on")
    assert gains(model, HugePages(nr_hugepages=100)) == (0, 0, 0, -100 * 512)
    memmap, boot, total, _ = gains(model, HugePages(nr_hugepages=150))
    in_boot = len(model.kernel.hugetlb[512].pages & model.kernel.boot_ram) // 512
    assert in_boot >= 150 - 2 * 63  # a block has 63 beside its memmap
    assert (memmap, boot, total) == (in_boot, -8 * in_boot, 8 * in_boot)


def test_an_architecture_without_it_saves_nothing():
    model = machine(arch="aarch64", mib=0)
    assert gains(model, HugePages(nr_hugepages=20)) == (0, 0, 0, -20 * 512)


def test_pages_are_whole_again_before_they_are_dissolved():
    model = machine()
    reserve(model, 100)
    memmap, *_ = counters(model)
    of_block = len(model.kernel.hugetlb[512].pages & model.kernel.block_pfns(33)) // 512
    do(model, Offline(blocks=33))
    assert counters(model)[0] == memmap + 7 * of_block
    do(model, Unplug(id="d"))
    assert counters(model)[0] == 0


def test_a_huge_page_of_a_file_that_moves_to_a_new_one_frees_the_memmap_of_that():
    model = machine()
    do(model, Fill(id="f", size=Size(40 * MIB), kind="hugetlb-file"))
    moving = len(model.kernel.hugetlb[512].in_use & model.kernel.block_pfns(32)) // 512
    memmap, boot, *_ = counters(model)
    do(model, Offline(blocks=32))
    now = counters(model)
    assert moving
    to_boot = (boot - now[1]) // 8
    assert now[0] - memmap == 7 * moving + to_boot - 7 * (moving - to_boot)
    do(model, Free(id="f"))


def test_the_parameter_decides_for_huge_pages_that_come_later():
    model = machine()
    reserve(model, 50)
    do(model, SetTunables(hugetlb_optimize_vmemmap=False))
    assert model.parameter("hugetlb_optimize_vmemmap") is False
    assert gains(model, HugePages(nr_hugepages=60))[0] == 0
    assert gains(model, HugePages(nr_hugepages=0))[0] == 350
    do(model, SetTunables(hugetlb_optimize_vmemmap=True))
    assert gains(model, HugePages(nr_hugepages=10))[0] == -70


def test_without_memory_for_the_memmap_a_huge_page_stays(monkeypatch):
    model = machine()
    reserve(model, 100)
    with monkeypatch.context() as patched:
        patched.setattr("altmap.model.kernel.hvo.available_nr_pages", lambda *_: 7 * 3 + 6)
        assert gains(model, HugePages(nr_hugepages=90))[0] == 21
        pool = model.kernel.hugetlb[512]
        assert len(pool.pages) == 97 * 512
        assert pool.surplus[0] == 7
        patched.setattr("altmap.model.kernel.hvo.available_nr_pages", lambda *_: 6)
        outcome = model.perform(Offline(blocks=33)).outcome
        assert (outcome.errno, outcome.function) == ("ENOMEM", "dissolve_free_hugetlb_folios")
    do(model, Offline(blocks=33))


def test_a_machine_that_starts_with_huge_pages_frees_and_restores_them():
    start = machine()
    reserve(start, 100)
    model = ModelMachine.start(Machine(release="7.3", hugetlb_free_vmemmap=True), start.observe())
    used = len(model.kernel.used)
    assert gains(model, HugePages(nr_hugepages=0)) == (700, 0, 0, 100 * 512 - 700)
    assert len(model.kernel.used) == used - 100 * 512 + 700


def test_what_hvo_restores_is_lost_on_debians_6_12():
    # 6.12.118: MemFree 892256 kB, 30 huge pages, none again: 829812 kB; of it 1004 kB are the
    # memmap's. A block with lost pages is "signal backoff", others go offline.
    model = machine(mib=0, release="6.12")
    free = model.kernel.free_nr_pages()
    reserve(model, 30)
    reserve(model, 0)
    assert not model.kernel.hugetlb_pages()
    assert free - model.kernel.free_nr_pages() == 30 * 512
    lost = model.kernel.hvo.lost
    assert len(lost) == 30 * 512
    assert not lost & model.kernel.unmovable()
    # In kpageflags each has 7 pages with the flag HUGE: the first that a restored page describes.
    seen = model.kernel.hvo.copied_heads
    assert len(seen) == 30 * 7
    assert {pfn % 512 for pfn in seen} == {64, 128, 192, 256, 320, 384, 448}


def test_a_block_with_lost_pages_never_goes_offline_and_others_do():
    model = machine(release="6.12")
    reserve(model, 30)
    reserve(model, 0)
    touched = {
        n: bool(model.kernel.hvo.lost.count(PfnRange(n << 15, n + 1 << 15))) for n in (32, 33)
    }
    assert sorted(touched.values()) == [False, True]
    for block, has_lost in touched.items():
        outcome = model.perform(Offline(blocks=block)).outcome
        assert (outcome.errno, outcome.kind) == (("EINTR", "lost") if has_lost else (None, None))


def test_free_huge_pages_of_the_block_are_lost_while_it_goes_offline():
    model = machine(mib=128, release="6.12")
    reserve(model, 30)
    outcome = model.perform(Offline(id="d")).outcome
    assert (outcome.errno, outcome.kind, len(outcome.pfns)) == ("EINTR", "lost", 30 * 512)
