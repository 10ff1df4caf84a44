"""Hyper-V's hot-add: the driver's bookkeeping, what it onlines, and what a memmap inside does."""

import pytest

from altmap.model.drivers.hyperv import HypervBalloon
from altmap.model.kernel.touch import KernelFault
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.protocol.hyperv_messages import HotAddRequest, PageRange, decode, encode
from altmap.scenario import Address, Fill, Machine, Node, Offline, Online, Plug, Region, Size

MIB, GIB = 1 << 20, 1 << 30
M = 256  # pages of one MiB


class Guest:
    """A guest with nothing but hv_balloon; the host backs what it names."""

    def __init__(self, auto_online="online", **changes):
        settings = {"memory": Size(GIB), "release": "6.12", "auto_online_blocks": auto_online}
        self.model = ModelMachine.start(Machine(**settings | changes))
        self.kernel = self.model.kernel
        self.before = self.kernel.total_ram_nr_pages()
        self.balloon = HypervBalloon(self.kernel)
        self.driver = self.balloon.hot_add

    def hot_add(self, start, nr_pages, region=None):
        """Return the page count that the driver answers, and the result word."""
        pages = PfnRange(start, start + nr_pages)
        self.model.backing.backed |= pages
        named = None if region is None else PageRange(region[0], region[1] - region[0])
        request = HotAddRequest(trans_id=1, pages=PageRange(start, nr_pages), region=named)
        (raw,) = self.balloon.receive(encode(request))
        answer = decode(raw)
        return answer.page_count, answer.result

    @property
    def ends(self):
        region = self.driver.regions[0]
        return (
            region.start,
            region.covered_start,
            region.covered_end,
            region.added_end,
            region.end,
        )

    @property
    def onlined(self):
        """Pages that the driver gave to the buddy."""
        return self.kernel.total_ram_nr_pages() - self.before

    @property
    def nr_added(self):
        return sum(len(addition.pfns) for addition in self.kernel.additions)


@pytest.mark.parametrize(
    ("release", "kind", "function"),
    [
        ("6.1", "reserved", "has_unmovable_pages"),
        ("6.12", "fake_offline", "scan_movable_pages"),
        ("7.3", None, None),
    ],
)
def test_a_block_of_no_region_stays_as_its_memmap_was_initialised(release, kind, function):
    guest = Guest("online_movable", release=release)
    guest.kernel.online_page_callback = guest.driver.online_pages
    block = guest.kernel.block_pfns(3)
    assert guest.model.perform(Offline(blocks=3)).outcome
    assert guest.model.perform(Online(blocks=3, to="online_movable")).outcome
    sets = {name: getattr(guest.kernel, name).count(block) for name in ("reserved", "fake_offline")}
    assert sets == dict.fromkeys(sets, 0) | ({kind: len(block)} if kind else {})
    again = guest.model.perform(Offline(blocks=3)).outcome
    assert again.function == function


def test_vector_1_half_a_block_and_then_the_rest():
    guest = Guest()
    assert guest.hot_add(0x100000, 0x4000) == (0x4000, 1)
    assert guest.ends == (0x100000, 0x100000, 0x104000, 0x108000, 0x108000)
    assert (guest.nr_added, guest.onlined) == (0x8000, 0x4000)
    zone = guest.kernel.zones[0, "Normal"]
    assert guest.kernel.nr_present(zone) == 0x8000
    assert guest.kernel.nr_managed(zone) == 0x4000
    assert guest.kernel.fake_offline == PfnSet([PfnRange(0x104000, 0x108000)])
    # 1b: nothing is added; the pages go online because their section is.
    assert guest.hot_add(0x104000, 0x4000) == (0x4000, 1)
    assert guest.ends == (0x100000, 0x100000, 0x108000, 0x108000, 0x108000)
    assert (guest.nr_added, guest.onlined) == (0x8000, 0x8000)
    assert not guest.kernel.fake_offline


def test_vector_1b_while_the_block_is_offline_only_moves_the_coverage():
    guest = Guest(auto_online="offline")
    guest.hot_add(0x100000, 0x4000)
    assert guest.hot_add(0x104000, 0x4000) == (0x4000, 1)
    assert guest.onlined == 0
    assert guest.model.perform(Online(blocks=32)).outcome
    assert guest.onlined == 0x8000


def test_vector_2_the_backed_half_need_not_be_the_first():
    guest = Guest()
    assert guest.hot_add(0x104000, 0x4000) == (0x4000, 1)
    assert guest.ends == (0x100000, 0x104000, 0x108000, 0x108000, 0x108000)
    assert guest.onlined == 0x4000
    assert guest.kernel.fake_offline == PfnSet([PfnRange(0x100000, 0x104000)])


def test_vector_2b_a_range_below_the_covered_one_is_answered_and_never_onlined():
    guest = Guest()
    guest.hot_add(0x104000, 0x4000)
    assert guest.hot_add(0x100000, 0x4000) == (0x4000, 1)
    assert guest.ends == (0x100000, 0x104000, 0x104000, 0x108000, 0x108000)
    assert guest.driver.regions[0].gaps == [(0x108000, 0x100000)]
    assert not guest.driver.regions[0].backed()
    # Success, but nothing went online; and 64 MiB that the host backs stay out of reach.
    assert guest.onlined == 0x4000
    assert len(guest.kernel.fake_offline) == 0x4000


def test_vector_3_the_length_is_rounded_from_the_count_alone():
    guest = Guest()
    assert guest.hot_add(0x104000, 0x8000) == (0x8000, 1)
    assert guest.ends == (0x100000, 0x104000, 0x10C000, 0x108000, 0x108000)
    assert (guest.nr_added, guest.onlined) == (0x8000, 0x4000)


def test_vector_4_a_gap_is_never_filled():
    guest = Guest()
    assert guest.hot_add(0x100000, 0x2000) == (0x2000, 1)
    assert guest.hot_add(0x104000, 0x2000) == (0x2000, 1)
    assert guest.driver.regions[0].covered_end == 0x106000
    assert guest.driver.regions[0].gaps == [(0x102000, 0x104000)]
    assert guest.onlined == 0x4000
    guest.hot_add(0x102000, 0x2000)
    assert guest.onlined == 0x4000
    assert not guest.driver.regions[0].backed().count(PfnRange(0x102000, 0x104000))


def test_vector_5_one_request_of_one_and_a_half_chunks_is_two_adds():
    guest = Guest()
    assert guest.hot_add(0x100000, 0xC000) == (0xC000, 1)
    assert guest.ends == (0x100000, 0x100000, 0x10C000, 0x110000, 0x110000)
    assert [addition.pfns for addition in guest.kernel.additions] == [
        PfnRange(0x100000, 0x108000),
        PfnRange(0x108000, 0x110000),
    ]
    assert guest.onlined == 0xC000


def test_vector_6_a_region_is_extended_by_chunks():
    guest = Guest()
    assert guest.hot_add(0x100000, 0x4000) == (0x4000, 1)
    assert guest.hot_add(0x104000, 0x8000) == (0x8000, 1)
    assert guest.ends == (0x100000, 0x100000, 0x10C000, 0x110000, 0x110000)
    assert guest.onlined == 0xC000


def test_vector_7_a_region_is_added_chunk_by_chunk_on_demand():
    guest = Guest()
    assert guest.hot_add(0x100000, 0x4000, (0x100000, 0x110000)) == (0x4000, 1)
    assert guest.nr_added == 0x8000
    assert guest.hot_add(0x104000, 0x4000) == (0x4000, 1)
    assert guest.nr_added == 0x8000
    assert guest.hot_add(0x108000, 0x4000) == (0x4000, 1)
    assert guest.ends == (0x100000, 0x100000, 0x10C000, 0x110000, 0x110000)
    assert guest.onlined == 0xC000
    assert len(guest.driver.regions) == 1


def test_vector_8_naming_the_region_again_skips_the_gap():
    guest = Guest()
    region = (0x100000, 0x110000)
    assert guest.hot_add(0x100000, 0x4000, region) == (0x4000, 1)
    assert guest.hot_add(0x108000, 0x4000, region) == (0x4000, 1)
    assert guest.ends == (0x100000, 0x100000, 0x108000, 0x110000, 0x110000)
    assert len(guest.driver.regions) == 2
    # What counts as backed is what is not, and the 64 MiB just given are not onlined.
    assert guest.onlined == 0x4000
    assert guest.driver.regions[0].backed() == PfnSet([PfnRange(0x100000, 0x108000)])


def test_vector_9_qemu_names_each_range_as_its_own_region():
    guest = Guest()
    for start in (0x100000, 0x108000):
        assert guest.hot_add(start, 0x8000, (start, start + 0x8000)) == (0x8000, 1)
    assert len(guest.driver.regions) == 2
    assert guest.onlined == 0x10000


def test_a_range_that_is_taken_ends_hot_add_for_good():
    guest = Guest()
    assert guest.hot_add(0x30000, 0x8000) == (0, 1)  # boot memory: the add says EEXIST
    assert not guest.driver.do_hot_add
    assert guest.driver.regions[0].covered_end == 0x30000
    assert guest.hot_add(0x100000, 0x8000) == (0, 1)
    assert guest.nr_added == 0


def test_6_1_cannot_add_to_blocks_larger_than_128_mib():
    guest = Guest(release="6.1", block_size=Size(GIB))
    assert guest.driver.chunk_nr_pages == 0x8000
    assert guest.hot_add(0x100000, 0x8000) == (0, 0)
    assert guest.driver.do_hot_add
    guest = Guest(release="6.12", block_size=Size(GIB))
    assert guest.driver.chunk_nr_pages == 0x40000
    assert guest.hot_add(0x100000, 0x8000) == (0x8000, 1)
    assert (guest.nr_added, guest.onlined) == (0x40000, 0x8000)


def test_hv_balloon_never_asks_for_a_self_hosted_memmap():
    guest = Guest(memmap_on_memory="on")
    guest.hot_add(0x100000, 0x8000)
    assert not guest.kernel.self_hosted
    assert guest.onlined == 0x8000


def test_memory_of_others_is_swallowed_while_the_driver_is_loaded():
    for release, managed in (("6.12", 0), ("7.3", 0x8000)):
        guest = Guest(release=release)
        assert guest.model.perform(Plug(id="d", size=Size(128 * MIB))).outcome
        zone = guest.kernel.zones[0, "Normal"]
        assert guest.kernel.nr_present(zone) == 0x8000
        assert guest.kernel.nr_managed(zone) == managed, release


def hot_add(id_, address, mib, **more):
    return Plug(id=id_, driver="hyperv", address=Address(address), size=Size(mib * MIB), **more)


def start(policy, **changes):
    return ModelMachine.start(
        Machine(
            memory=Size(GIB), release="6.12", policy=policy, auto_online_blocks="online", **changes
        )
    )


def test_a_memmap_at_the_start_faults_in_the_plug_if_only_the_second_half_is_backed():
    model = start("rfc-2018")
    record = model.perform(hot_add("h", 4 * GIB + 64 * MIB, 64))
    assert record.outcome.status == "fault"
    assert record.outcome.function == "mark_vmemmap_pages"
    (fault,) = record.faults
    assert (fault.pfn, fault.access, fault.function) == (0x100000, "write", "mark_vmemmap_pages")
    assert fault.pfns == PfnSet([PfnRange(0x100000, 0x100008)])
    assert model.crashed


def test_the_same_driven_directly_raises_the_trap():
    guest = Guest(policy="rfc-2018")
    with pytest.raises(KernelFault) as caught:
        guest.hot_add(0x104000, 0x4000)
    assert caught.value.fault.pfn == 0x100000


def test_a_memmap_at_the_start_is_safe_if_the_first_half_is_backed():
    model = start("rfc-2018")
    record = model.perform(hot_add("h", 4 * GIB, 64))
    assert record.outcome
    assert record.faults == []
    kernel = model.kernel
    zone = kernel.zones[0, "Normal"]
    # 512 of the backed half hold the memmap, which this policy counts nowhere.
    assert kernel.nr_present(zone) == 0x8000 - 512
    assert kernel.nr_managed(zone) == 0x4000 - 512
    assert kernel.self_hosted == PfnSet([PfnRange(0x100000, 0x100200)])


@pytest.mark.parametrize("first", [0, 64])
def test_opt_in_onlines_the_backed_half_and_then_the_rest(first):
    model = start("opt-in", memmap_on_memory="on")
    before = model.kernel.total_ram_nr_pages()
    record = model.perform(hot_add("h1", 4 * GIB + first * MIB, 64))
    assert record.outcome
    assert record.faults == []
    assert model.kernel.total_ram_nr_pages() - before == 16384
    assert len(model.kernel.fake_offline) == 16384
    outcome = model.perform(Offline(blocks=32)).outcome
    assert (outcome.errno, outcome.function) in {
        ("EBUSY", "scan_movable_pages"),
        ("EBUSY", "has_unmovable_pages"),
    }
    if first == 0:
        assert model.perform(hot_add("h2", 4 * GIB + 64 * MIB, 64)).outcome
        assert model.kernel.total_ram_nr_pages() - before == 32768
        assert not model.kernel.fake_offline


def test_fake_offline_pages_keep_a_block_from_going_offline():
    model = start("opt-in")
    model.perform(hot_add("h0", 6 * GIB, 128))  # takes what a new zone's first block takes
    model.perform(hot_add("h1", 4 * GIB, 64))
    outcome = model.perform(Offline(blocks=32)).outcome
    assert (outcome.errno, outcome.function) == ("EBUSY", "scan_movable_pages")
    assert "0x104000" in outcome.why
    model.perform(hot_add("h2", 4 * GIB + 64 * MIB, 64))
    assert model.perform(Offline(blocks=32)).outcome


def test_a_region_of_the_host_is_read_from_the_scenario():
    model = start("opt-in")
    region = Region(address=Address(4 * GIB), size=Size(256 * MIB))
    assert model.perform(hot_add("h1", 4 * GIB, 64, region=region)).outcome
    assert list(model.kernel.added_blocks)[-1] == 32
    assert model.perform(hot_add("h2", 4 * GIB + 64 * MIB, 128)).outcome
    assert list(model.kernel.added_blocks)[-1] == 33


def test_a_range_where_other_memory_is_already_is_refused_and_changes_nothing_for_its_owner():
    model = start("opt-in")
    assert model.perform(Plug(id="dimm1", size=Size(256 * MIB), address=Address(4 * GIB))).outcome
    backed = model.backed
    outcome = model.perform(hot_add("h", 4 * GIB + 128 * MIB, 128)).outcome
    assert (outcome.errno, outcome.function) == ("EEXIST", "register_memory_resource")
    assert f"[{4 * GIB + 128 * MIB:#x}, {4 * GIB + 256 * MIB:#x})" in outcome.why
    assert model.backed == backed
    assert model.device_ids("hyperv") == ["balloon"]
    # hv_mem_hot_add() ends hot-add for good after EEXIST.
    assert not model.perform(hot_add("h2", 8 * GIB, 128)).outcome


@pytest.mark.parametrize("pages", ["file", "hugetlb-file"])
def test_pages_below_those_without_backing_move_before_the_offline_is_refused(pages):
    """scan_movable_pages finds what can move first, and all of the block moves."""
    nodes = [Node(memory=Size(512 << 20)), Node(memory=Size(1 << 30))]
    model = ModelMachine.start(
        Machine(nodes=nodes, release="6.12", auto_online_blocks="online_movable")
    )
    plug = Plug(id="h", driver="hyperv", size=Size(66 << 20), address=0x2_0000_0000)
    assert model.perform(plug).outcome
    size = {"page_size": Size(2 << 20)} if pages == "hugetlb-file" else {}
    assert model.perform(Fill(id="f", kind=pages, size=Size(4 << 20), **size)).outcome
    block = model.kernel.block_pfns(64)
    used = model.kernel.used.count(block)
    assert used >= 1024
    outcome = model.perform(Offline(id="h")).outcome
    assert (outcome.errno, outcome.function) == ("EBUSY", "scan_movable_pages")
    assert model.kernel.used.count(block) < used
    assert model.kernel.nr_online(block) == 1
