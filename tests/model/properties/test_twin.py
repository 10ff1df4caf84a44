"""The model's page sets agree with a twin that keeps one record per page frame."""

from dataclasses import replace

import numpy as np
from hypothesis import given, note
from hypothesis import strategies as st
from twin import (
    CHUNK,
    FREE,
    HUGE,
    HUGE_USED,
    MEMMAP,
    MOVABLE,
    PINNED,
    POISONED,
    PRESENT,
    RESERVED,
    UNMOVABLE,
    Sizes,
    Twin,
)

from altmap.model.arch import ARCHES
from altmap.model.kernel.accounting import POLICIES
from altmap.model.kernel.add import add_memory_resource
from altmap.model.kernel.hugetlb import hugetlbfs_fallocate, pool_of, set_max_huge_pages
from altmap.model.kernel.offline import memory_block_offline
from altmap.model.kernel.online import memory_block_online
from altmap.model.kernel.params import Tunables
from altmap.model.kernel.poison import soft_offline_page
from altmap.model.kernel.remove import try_remove_memory
from altmap.model.kernel.state import Kernel
from altmap.model.kernel.zone import Zone
from altmap.model.releases import RELEASES
from altmap.pfn import PfnRange, PfnSet

#: 64 KiB pages, sections of 128 pages; a section's memmap is 32 pages of it: as on real
#: architectures a pageblock is not smaller than a subsection (2 MiB).
TOY = replace(
    ARCHES["aarch64-64k"],
    name="toy",
    direct_map="hidden",
    section_size_bytes=128 << 16,
    pmd_size_bytes=1 << 16,
    pageblock_nr_pages=32,
    max_page_order=6,
    max_physmem_bits=28,
    struct_page_size_bytes=16 << 10,
    offlines_boot_memory=True,
    kernel_zones=(("DMA", None), ("DMA32", None), ("Normal", None)),
)
ZONES = ("DMA", "DMA32", "Normal", "Movable")
NR_SECTIONS = 32


class Both:
    """The model and the twin of the same machine."""

    def __init__(self, model, twin):
        self.model, self.twin = model, twin

    def __repr__(self):
        model, twin = self.model, self.twin
        tunables = model.tunables
        return (
            f"{model.release.name}, memmap_on_memory={tunables.memmap_on_memory}, "
            f"movable_node={tunables.movable_node}, {twin.nr_nodes} nodes, {twin.sizes}, "
            f"spans {twin.spans}, movable {sorted(twin.of_kind(MOVABLE))}"
        )


@st.composite
def machines(draw):
    arch = replace(TOY, struct_page_size_bytes=draw(st.sampled_from([16384, 4096, 16384, 12288])))
    block = draw(st.sampled_from([128, 128, 256]))
    release = replace(RELEASES[draw(st.sampled_from(["6.1", "6.12"]))], self_hosting=("toy",))
    mode = draw(st.sampled_from(["off", "on", "force"]))
    if mode == "force" and release.name == "6.1":
        mode = "on"
    nr_nodes = draw(st.sampled_from([1, 1, 2]))
    tunables = Tunables(memmap_on_memory=mode, movable_node=draw(st.booleans()))
    sizes = Sizes(
        page_bytes=arch.page_size_bytes,
        struct_page_bytes=arch.struct_page_size_bytes,
        section=128,
        subsection=32,
        pageblock=32,
        max_order=6,
        pmd_bytes=arch.pmd_size_bytes,
        block=block,
        limit=1 << (28 - 16),
    )
    twin = Twin(
        sizes,
        list(ZONES),
        nr_nodes,
        one_block_only=release.name == "6.1",
        mode=mode,
        movable_node=tunables.movable_node,
    )
    regions = [
        ((0, "DMA"), 0, 64, {"holes": {0}, "reserved": {1, 2, 3}}),
        ((0, "DMA32"), 64, 1024, {"holes": set(range(1020, 1024)), "reserved": {1000}}),
    ]
    if draw(st.booleans()):
        regions.append(((0, "Normal"), 2048, 2048 + 512, {"reserved": {2048}}))
    if nr_nodes == 2:
        regions.append(((1, "Normal"), 3072, 3072 + 512, {"reserved": {3073}}))
    in_use = draw(st.sets(st.integers(4, 1000), max_size=6))
    regions = [
        (zone, start, end, {"movable": in_use, **kinds}) for zone, start, end, kinds in regions
    ]
    for zone, start, end, kinds in regions:
        twin.boot(zone, start, end, **kinds)
    return Both(_model_of(twin, arch, release, tunables, block), twin)


def _model_of(twin, arch, release, tunables, block):
    ram = _set(np.flatnonzero(twin.boot_ram).tolist())
    zones = {}
    for key in twin.spans:
        present = _set(twin.of_zone(key, *PRESENT))
        zones[key] = Zone(*key, PfnRange(*twin.spans[key]), present, early_nr_pages=len(present))
    movable = _set(twin.of_kind(MOVABLE))
    blocks = _set(twin.boot_blocks)
    nodes = {
        node: PfnSet.of(*(zone.present for key, zone in zones.items() if key[0] == node))
        for node in range(twin.nr_nodes)
    }
    return Kernel(
        arch,
        release,
        POLICIES["opt-in"],
        tunables,
        block,
        check_access=lambda touch: None,
        zones=zones,
        added_blocks=blocks.copy(),
        online_blocks=blocks.copy(),
        boot_ram=ram,
        reserved=_set(twin.of_kind(RESERVED)),
        used=movable.copy(),
        movable=movable,
        max_pfn=ram.max() + 1,
        boot_node_pages=nodes,
        boot_nodes=frozenset(nodes),
        cpu_nodes=frozenset(twin.cpu_nodes),
    )


def _set(pfns):
    return PfnSet(PfnRange(pfn, pfn + 1) for pfn in pfns)


def word(outcome):
    return "ok" if outcome else outcome.errno


def check_same(model, twin):
    for key, zone in model.zones.items():
        assert (zone.span.start, zone.span.end) == twin.spans[key], key
        assert model.nr_present(zone) == twin.present(key), key
        assert model.nr_managed(zone) == twin.managed(key), key
        assert model.nr_free(zone) == twin.free(key), key
        assert list(zone.present) == twin.of_zone(key, *PRESENT), key
    assert model.total_ram_nr_pages() == twin.total()
    assert model.memmap_nr_pages() == twin.nr_memmap_pages()
    assert set(model.online_blocks) == twin.online_blocks
    assert set(model.added_blocks) == twin.existing_blocks()
    everything = PfnSet.of(*(zone.present for zone in model.zones.values()))
    assert set(model.self_hosted & everything) == twin.of_kind(MEMMAP)
    assert set(model.unmovable()) == twin.of_kind(UNMOVABLE)
    assert set(model.movable - model.pinned) == twin.of_kind(MOVABLE)
    assert set(model.pinned) == twin.of_kind(PINNED)
    assert set(model.poisoned) == twin.of_kind(POISONED) | twin.left_poisoned
    assert model.nr_poisoned() == len(model.poisoned) + twin.forgotten
    pool = pool_of(model, CHUNK << 16)
    assert set(pool.free_pages) == twin.of_kind(HUGE)
    assert set(pool.in_use) == twin.of_kind(HUGE_USED)
    assert set(model.reserved) == twin.of_kind(RESERVED)
    free = PfnSet.of(*(model.free(zone) for zone in model.zones.values()))
    assert set(free) == twin.of_kind(FREE)


ONLINING = ["add", "add", "online", "online", "online", "offline", "offline", "remove", "auto"]
USING = ["use", "pin", "pool", "huge", "poison"]
actions = st.sampled_from([*ONLINING, *USING])
hows = st.sampled_from(["online", "online_kernel", "online_movable"])


def act(data, model, twin):
    """Do one random thing to both, and return what each answered."""
    action, block = data.draw(actions), twin.sizes.block
    blocks = st.sampled_from(sorted(twin.existing_blocks()))
    if action == "add":
        start = data.draw(st.integers(8, NR_SECTIONS)) * 128
        nr_pages = data.draw(st.sampled_from([128, 128, 256, 256, 512, 768, 64]))
        node, asks = data.draw(st.sampled_from([0, 0, 1])), data.draw(st.booleans())
        note(f"add {start // block} +{nr_pages} node {node} asks {asks}")
        pfns = PfnRange(start, start + nr_pages)
        if twin.memmap_needs(*_ends(pfns), asks=asks) > twin.spare():
            return "ok", "ok"  # what a kernel out of memory does is told elsewhere
        answer = word(add_memory_resource(model, pfns, node, asks=asks))
        chosen = model.additions[-1].host_pages if answer == "ok" else ()
        return answer, twin.add(*_ends(pfns), node, asks=asks, chosen=chosen)
    if action == "auto":
        how = data.draw(st.sampled_from(["offline", "online", "online_kernel", "online_movable"]))
        note(f"auto_online_blocks {how}")
        model.tunables.auto_online_blocks = twin.auto_online = how
        return "ok", "ok"
    if action == "use":
        return use_movable_page(data, model, twin)
    if action in ("pin", "pool", "huge", "poison"):
        return {"pin": pin, "pool": grow, "huge": use_huge, "poison": poison}[action](
            data, model, twin
        )
    if action == "remove":
        if not twin.added:
            return "ok", "ok"
        index = data.draw(st.integers(0, len(twin.added) - 1))
        note(f"remove {twin.added[index]}")
        return word(try_remove_memory(model, model.additions[index])), twin.remove(
            twin.added[index]
        )
    chosen = data.draw(blocks)
    pfns = model.block_pfns(chosen)
    if action == "online":
        how = data.draw(hows)
        note(f"{how} {chosen}")
        return word(memory_block_online(model, pfns, how)), twin.online(chosen, how)
    note(f"offline {chosen}")
    before, huge = model.movable - pfns, pool_of(model, CHUNK << 16).in_use - pfns
    outcome = memory_block_offline(model, pfns)
    new_huge = pool_of(model, CHUNK << 16).in_use - huge - pfns
    fails = outcome.kind == "hugetlb" and outcome.certainty == "certain"
    return word(outcome), twin.offline(
        chosen, list(model.movable - before - pfns), list(new_huge), fails
    )


def _ends(pfns):
    return pfns.start, pfns.end


def use_movable_page(data, model, twin):
    """Let a program use a free page, which can be migrated later."""
    free = sorted(twin.of_kind(FREE))
    if free:
        pfn = data.draw(st.sampled_from(free))
        note(f"use {pfn:#x}")
        twin.kind[pfn] = MOVABLE
        model.used |= PfnRange(pfn, pfn + 1)
        model.movable |= PfnRange(pfn, pfn + 1)
    return "ok", "ok"


def pin(data, model, twin):
    """Take a reference to a movable page that migration cannot account for."""
    movable = sorted(twin.of_kind(MOVABLE))
    if movable:
        pfn = data.draw(st.sampled_from(movable))
        note(f"pin {pfn:#x}")
        twin.kind[pfn] = PINNED
        model.pinned |= PfnRange(pfn, pfn + 1)
    return "ok", "ok"


def grow(data, model, twin):
    """Add huge pages to a node's pool."""
    node = data.draw(st.integers(0, twin.nr_nodes - 1))
    pool = pool_of(model, CHUNK << 16)
    before = pool.pages
    now = before.count(model.node_pages(node)) // CHUNK
    wanted = data.draw(st.sampled_from([1, 2, 5]))
    note(f"pool of node {node} +{wanted}")
    set_max_huge_pages(model, pool, node, now + wanted)
    got = pool.pages - before
    assert len(got) <= wanted * CHUNK
    twin.grow_pool(node, set(got))
    return "ok", "ok"


def use_huge(data, model, twin):
    """Give a file huge pages."""
    pool = pool_of(model, CHUNK << 16)
    wanted = data.draw(st.sampled_from([1, 2]))
    enough = len(twin.of_kind(HUGE)) >= wanted * CHUNK
    name = f"huge-{len(model.huge_files)}"
    got = hugetlbfs_fallocate(model, pool, name, wanted)
    note(f"a file of {wanted} huge pages: {got}")
    assert got == enough
    if got:
        taken = model.huge_files[name][1]
        assert len(taken) == wanted * CHUNK
        twin.use_huge(set(taken))
    return "ok", "ok"


def poison(data, model, twin):
    """Withdraw a page, of any kind but those of huge pages in use."""
    pfn = data.draw(st.integers(0, NR_SECTIONS * 128 - 1))
    if twin.kind[pfn] == HUGE_USED:
        return "ok", "ok"
    note(f"poison {pfn:#x}, of kind {twin.kind[pfn]}")
    before = model.movable.copy()
    outcome = soft_offline_page(model, pfn)
    return word(outcome), twin.poison(pfn, next(iter(model.movable - before), None))


@given(machines(), st.data())
def test_the_model_agrees_with_a_twin_that_counts_page_by_page(both, data):
    model, twin = both.model, both.twin
    check_same(model, twin)
    for _ in range(data.draw(st.integers(1, 14))):
        answer, expected = act(data, model, twin)
        note(f"  {expected}")
        assert answer == expected
        check_same(model, twin)


def test_the_toy_machine_exercises_every_way_a_memmap_can_be_placed():
    sizes = Sizes(1 << 16, 16384, 128, 32, 32, 6, 1 << 16, 128, 4096)
    kinds = {"one_block_only": False, "movable_node": False}
    assert Twin(sizes, list(ZONES), 1, mode="on", **kinds).memmap_of_block() == 32
    sizes = replace(sizes, struct_page_bytes=4096)  # 8 pages, not a pageblock
    assert Twin(sizes, list(ZONES), 1, mode="on", **kinds).memmap_of_block() == 0
    assert Twin(sizes, list(ZONES), 1, mode="force", **kinds).memmap_of_block() == 32
    sizes = replace(sizes, struct_page_bytes=12288)  # 24 pages
    assert Twin(sizes, list(ZONES), 1, mode="on", **kinds).memmap_of_block() == 0
