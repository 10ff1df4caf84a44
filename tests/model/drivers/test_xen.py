"""The Xen balloon: where it puts memory, what it has backed, and what a memmap inside does.

Numbers without a reason beside them were measured on a dom0 of Xen 4.17 with Linux 6.12.
"""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.errors import InputError
from altmap.model.drivers.xen import (
    BALLOON,
    BalloonedPages,
    _by_hypercall,
    additional_memory_resource,
)
from altmap.model.machine import ModelMachine, predict
from altmap.model.platform.xen import dom0_memory, host_resources
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import (
    Machine,
    Offline,
    Online,
    Plug,
    Resize,
    Scenario,
    Size,
    Unplug,
    load_scenario,
)

MIB, GIB = 1 << 20, 1 << 30
SECTION = 32768


class Domain:
    """A dom0 of 512 MiB that boots on paper."""

    def __init__(self, **changes):
        settings = {
            "platform": "xen",
            "memory": Size(512 * MIB),
            "xen_max_memory": Size(GIB),
            "release": "6.12",
            "auto_online_blocks": "online",
        }
        self.model = ModelMachine.start(Machine(**settings | changes))
        self.kernel, self.backing = self.model.kernel, self.model.backing
        self.total = self.kernel.total_ram_nr_pages()

    def to(self, mib):
        """Resize and return the errno, or what else came of it."""
        record = self.model.perform(Resize(id=BALLOON, size=Size(int(mib * MIB))))
        self.events = record.events
        return record.outcome.errno or record.outcome.status

    @property
    def gained(self):
        """Pages of MemTotal since boot."""
        return self.kernel.total_ram_nr_pages() - self.total

    @property
    def files(self):
        return self.model.observe().balloon

    @property
    def added(self):
        return [addition.pfns for addition in self.kernel.additions]

    def texts(self, kind="driver"):
        return [event.text for event in self.events if event.kind == kind]


# --- where new memory goes ---------------------------------------------------------------------


def test_without_a_limit_memory_lands_above_the_pci_window():
    domain = Domain(xen_max_memory=None)
    domain.to(600)
    assert [pfns.start << 12 for pfns in domain.added] == [0x980000000]


def test_with_a_limit_it_lands_in_the_first_gap_of_a_section():
    domain = Domain(xen_max_memory=Size(512 * MIB))
    domain.to(600)
    assert [pfns.start << 12 for pfns in domain.added] == [0x28000000]


def brute_force(taken, size, align, end):
    blocked = [*taken, (0xFFE00000, 0x100000000)]
    for start in range(0, end - size + 1, align):
        if all(start + size <= low or start >= high for low, high in blocked):
            return start
    return None


def test_new_memory_does_not_go_below_the_bios_rom():
    """arch_remove_reservations: the gap below 4 GiB ends at 0xffe00000."""
    section = 128 << 20
    below = [(0, 0xF8000000)]
    assert additional_memory_resource(below, section, section, 1 << 46) == 0x100000000


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 12)), max_size=6),
    st.integers(1, 5),
)
def test_the_place_is_the_lowest_that_is_free_and_aligned(spans, nr_sections):
    align = 128 * MIB
    taken = [(start * 96 * MIB, (start + length) * 96 * MIB) for start, length in spans]
    size, end = nr_sections * align, 8 * GIB
    assert additional_memory_resource(taken, size, align, end) == brute_force(
        taken, size, align, end
    )


def test_no_gap_cancels_the_request():
    domain = Domain()
    domain.model._balloon.resources = [(0, 1 << 46)]
    assert (domain.to(600), domain.added) == ("ECANCELED", [])


# --- the map of the first domain ----------------------------------------------------------------


def test_the_domains_ram_is_as_its_kernel_listed_it():
    # /proc/iomem of a dom0 of 512 MiB on a host of 4 GiB.
    ram = dom0_memory(512 * MIB, 4 * GIB, None, keeps_ibft=True).ram
    lines = [(0x1000, 0x80000), (0x100000, 0x7FFE0000), (0x100000000, 0x180000000)]
    assert [(run.start << 12, run.end << 12) for run in ram.ranges()] == lines


def test_ram_ends_at_the_limit_and_frames_from_the_hole_are_moved_behind():
    memory = dom0_memory(512 * MIB, 4 * GIB, 512 * MIB, keeps_ibft=True)
    assert memory.ram.max() == 0x2007F
    assert memory.backed == memory.ram
    # Page 0 is the domain's too, but not its kernel's.
    assert len(memory.backed) + 1 == 512 * MIB >> 12


def test_6_1_counts_ram_without_backing_as_ballooned():
    # info/low_kb of a dom0 of 512 MiB on a host of 4 GiB.
    domain = Domain(release="6.1", xen_max_memory=None)
    assert domain.files.low_kb == 3669500
    assert Domain(xen_max_memory=None).files.low_kb == 0


@given(
    memory=st.integers(128, 1024),
    host=st.integers(1300, 8192),
    limit=st.none() | st.integers(0, 4096),
    keeps_ibft=st.booleans(),
)
def test_a_domain_is_backed_by_as_much_as_it_was_given(memory, host, limit, keeps_ibft):
    most = None if limit is None else (memory + limit) * MIB
    made = dom0_memory(memory * MIB, host * MIB, most, keeps_ibft=keeps_ibft)
    assert made.backed.issubset(made.ram)
    assert len(made.backed) + 1 == memory * MIB >> 12
    if most is not None:
        assert len(made.ram) + 1 <= most >> 12
    lines = [(run.start << 12, run.end << 12) for run in made.ram.ranges()]
    lines += [(start, end) for start, end, _ in host_resources(host * MIB)]
    assert all(end <= start for (_, end), (start, _) in pairwise(sorted(lines)))


# --- growing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mib", "sections", "managed"), [(600, 1, 22528), (700, 2, 48128), (1200, 6, 176128)]
)
def test_whole_sections_are_added_and_only_what_was_asked_for_is_usable(mib, sections, managed):
    domain = Domain(xen_max_memory=None)
    assert domain.to(mib) == "ok"
    assert sum(map(len, domain.added)) == sections * SECTION
    assert domain.gained == managed
    assert domain.files.current_kb == mib * 1024
    assert domain.files.low_kb == (sections * SECTION - managed) * 4


def test_a_section_is_backed_from_its_end_down():
    domain = Domain()
    domain.to(600)
    (section,) = domain.added
    assert domain.kernel.fake_offline == PfnSet.of(PfnRange(section.start, section.start + 10240))
    assert domain.backing.backed & section == PfnSet.of(
        PfnRange(section.start + 10240, section.end)
    )


def test_the_target_is_met_to_the_page():
    domain = Domain()
    domain.to(600 + 1 / 256)
    assert domain.gained == 22528 + 1


def test_the_memmap_comes_from_existing_memory_whatever_the_parameter_says():
    domain = Domain(memmap_on_memory="on")
    domain.to(600)
    assert not domain.kernel.self_hosted


def test_hypercalls_have_as_many_extents_as_a_page_holds_frame_numbers():
    domain = Domain()
    domain.to(600)
    assert "XENMEM_populate_physmap: 44 of nr_extents=512; 22528 populated" in domain.texts()
    domain.to(599)
    assert "XENMEM_decrease_reservation: 1 of nr_extents=256; 256 returned" in domain.texts()


def test_at_its_limit_a_domain_pays_for_struct_pages_of_nothing():
    domain = Domain(xen_max_memory=Size(512 * MIB))
    free = domain.kernel.free_nr_pages()
    assert domain.to(600) == "ECANCELED"
    assert (domain.gained, domain.files.low_kb) == (0, 131072)
    # 512 pages of memmap, 64 + 1 page tables.
    assert free - domain.kernel.free_nr_pages() >= 512 + 65


def test_a_driver_that_gave_up_is_not_woken_by_the_same_target():
    domain = Domain(xen_max_memory=Size(512 * MIB))
    domain.to(600)
    assert domain.to(600) == "EAGAIN"
    assert domain.to(601) == "ECANCELED"


def test_a_block_larger_than_a_section_is_refused():
    domain = Domain(block_size=Size(256 * MIB))
    assert (domain.to(600), domain.added) == ("ECANCELED", [])


# --- blocks that wait ----------------------------------------------------------------------------


def test_nothing_is_backed_before_the_block_is_online():
    domain = Domain(auto_online_blocks="offline")
    assert domain.to(600) == "EAGAIN"
    assert (domain.gained, domain.files.current_kb, domain.files.low_kb) == (0, 524288, 0)
    # What waits will serve 630 MiB too.
    assert domain.to(630) == "EAGAIN"
    assert [len(pfns) for pfns in domain.added] == [SECTION]
    # Three sections, of which one is there: the others come in one call.
    assert domain.to(860) == "EAGAIN"
    assert [len(pfns) for pfns in domain.added] == [SECTION, 2 * SECTION]


def test_the_driver_carries_on_when_blocks_go_online():
    domain = Domain(auto_online_blocks="offline")
    domain.to(600)
    domain.model.perform(Online(id=BALLOON, to="online_movable"))
    assert (domain.gained, domain.files.current_kb) == (22528, 614400)


def test_a_block_with_a_ballooned_page_stays_online():
    domain = Domain(auto_online_blocks="online_movable")
    domain.to(600)
    outcome = domain.model.perform(Offline(id=BALLOON)).outcome
    assert (outcome.errno, outcome.function) == ("EBUSY", "scan_movable_pages")


def test_a_block_that_comes_back_is_ballooned_although_it_is_backed():
    domain = Domain(auto_online_blocks="online_movable")
    domain.to(640)
    assert domain.model.perform(Offline(id=BALLOON)).outcome
    assert domain.model.perform(Online(id=BALLOON, to="online_movable")).outcome
    assert (domain.gained, domain.files.current_kb, domain.files.low_kb) == (0, 655360, 131072)
    assert domain.to(700) == "ok"
    assert any("were backed already" in text for text in domain.texts())


def test_its_thread_does_not_run_between_blocks_that_go_online():
    """BP_WAIT: it sleeps for a second, so watermarks are those of no managed page."""
    domain = Domain(auto_online_blocks="offline")
    domain.to(860)
    domain.model.perform(Online(id=BALLOON, to="online"))
    marks = domain.kernel.zones[0, "Normal"].watermarks
    assert (marks.min, marks.low, marks.high) == (0, 0, 0)
    assert domain.kernel.zones[0, "DMA32"].watermarks.protection[2] == 0
    assert domain.gained == 348 * 256


# --- shrinking -----------------------------------------------------------------------------------


def test_what_was_given_back_last_comes_back_first():
    domain = Domain()
    domain.to(600)
    withheld = domain.kernel.fake_offline.copy()
    domain.to(550)
    given_back = domain.kernel.fake_offline - withheld
    assert len(given_back) == 50 * 256
    assert not domain.backing.backed & given_back
    domain.to(600)
    assert domain.kernel.fake_offline == withheld
    assert given_back.issubset(domain.backing.backed)


def test_a_zone_keeps_what_it_got_back_whatever_other_zone_gave_pages_after_it():
    """Measured: after 600, 500, 400 and 560 MiB zone Normal has 12288 pages (6.12 and 7.3)."""
    domain = Domain()
    for mib in (600, 500, 400, 560):
        assert domain.to(mib) == "ok"
    normal = domain.kernel.zones[0, "Normal"]
    assert domain.kernel.nr_managed(normal) == 12288


@pytest.mark.parametrize(("batch", "sizes"), [(4, [3, 7, 2]), (4, [8]), (512, [1, 1]), (4, [5, 4])])
def test_each_hypercalls_pages_are_put_on_the_list_in_reverse(batch, sizes):
    pages = list(range(sum(sizes)))
    parts, at = [], 0
    for size in sizes:
        parts.append(PfnSet.of(PfnRange(at, at + size)))
        at += size
    calls = [pages[i : i + batch][::-1] for i in range(0, len(pages), batch)]
    part_of = {pfn: nr for nr, part in enumerate(parts) for pfn in part}
    expected = [part_of[pfn] for call in calls for pfn in call]
    got = [part_of[pfn] for some in _by_hypercall(parts, batch) for pfn in some]
    assert got == expected


def test_pages_are_scrubbed_while_they_are_still_backed():
    domain = Domain()
    assert domain.to(500) == "ok"
    assert "xenmem_reservation_scrub_page writes zeros over pages" in domain.texts("write")


def test_a_domain_cannot_shrink_to_nothing():
    domain = Domain()
    assert domain.to(0) == "ECANCELED"
    assert domain.files.current_kb > 0
    assert all(domain.kernel.nr_free(zone) >= 0 for zone in domain.kernel.zones.values())


@given(st.lists(st.integers(300, 1100), min_size=1, max_size=6))
def test_the_books_agree_whatever_the_targets_are(targets):
    domain = Domain()
    for mib in targets:
        domain.to(mib)
        kernel, files = domain.kernel, domain.files
        assert not kernel.fake_offline & domain.backing.backed
        assert files.low_kb == len(kernel.fake_offline) * 4
        assert domain.gained == files.current_kb // 4 - (512 * MIB >> 12)
        assert files.current_kb <= GIB >> 10
        owned = PfnSet()
        for zone in kernel.zones.values():
            owned |= kernel.managed(zone)
        assert owned.issubset(domain.backing.backed)


@given(st.lists(st.tuples(st.booleans(), st.integers(1, 40)), max_size=30))
def test_the_list_is_a_stack_of_pages(moves):
    pages, plain, next_pfn = BalloonedPages(), [], 0
    for append, nr in moves:
        if append:
            pages.append(PfnSet.of(PfnRange(next_pfn, next_pfn + nr)))
            plain.extend(range(next_pfn, next_pfn + nr))
            next_pfn += nr + 3
        else:
            taken = {plain.pop() for _ in range(min(nr, len(plain)))}
            assert set(pages.retrieve(nr)) == taken
        assert len(pages) == len(plain)


@pytest.mark.parametrize(("release", "follows"), [("6.1", False), ("6.12", False), ("7.3", True)])
def test_reserves_follow_the_balloon_where_the_release_lets_them(release, follows):
    # Seen on real domains: DMA32 keeps nothing for Normal after a growth to 600 MiB on 6.12, and
    # 88 pages, a 256th of 22528 of them, on 7.3.
    domain = Domain(release=release, xen_max_memory=None)
    domain.to(600)
    kept = domain.kernel.zones[0, "DMA32"].watermarks.protection[2]
    assert kept == (88 if follows else 0)


# --- policies ------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["rfc-2018", "per-block"])
def test_a_paravirtual_domain_cannot_map_a_memmap_in_frames_of_the_callers_choice(policy):
    """Its page tables have no leaves of 2 MiB. Real kernels refused with the flag forced."""
    machine = Machine(
        platform="xen",
        memory=Size(512 * MIB),
        xen_max_memory=Size(GIB),
        memmap_on_memory="on",
        policy=policy,
    )
    steps = [Resize(id=BALLOON, size=Size(900 * MIB))]
    start, step = predict(Scenario(name="rfc", machine=machine, steps=steps)).steps
    assert not step.faults
    assert (step.outcome.errno, step.outcome.function) == ("ECANCELED", "vmemmap_populate")
    seen, before = step.observation, start.observation
    assert seen.meminfo["MemTotal"] == before.meminfo["MemTotal"]
    assert seen.memory.blocks.keys() == before.memory.blocks.keys()


def test_what_was_tried_in_vain_is_below_max_pfn():
    """The kernel goes block by block, and stops at the first (add_pages, the altmap of a block)."""
    machine = Machine(
        platform="xen",
        memory=Size(512 * MIB),
        xen_max_memory=Size(GIB),
        memmap_on_memory="on",
        policy="per-block",
    )
    steps = [Resize(id=BALLOON, size=Size(900 * MIB))]
    start, step = predict(Scenario(name="rfc", machine=machine, steps=steps)).steps
    ends = [
        max(run.start_pfn + run.nr_pages for run in each.observation.kpageflags)
        for each in (start, step)
    ]
    assert ends == [0x48000, 0x50000]


# --- what cannot be asked -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "step",
    [
        Plug(id="d1", size=Size(128 * MIB)),
        Unplug(id=BALLOON),
        Resize(id="other", size=Size(GIB)),
    ],
)
def test_what_no_domain_can_be_asked_is_an_error(step):
    with pytest.raises(InputError):
        Domain().model.perform(step)


@pytest.mark.parametrize(
    "changes",
    [
        {"platform": "pc"},
        {"platform": None},
        {"platform": "pc", "xen_max_memory": None, "xen_host_memory": Size(4 * GIB)},
    ],
)
def test_keys_of_xen_need_xen(changes):
    with pytest.raises(InputError, match="need the platform 'xen'"):
        Domain(**changes)


@pytest.mark.parametrize(
    ("keys", "rule"),
    [
        ('nodes = [{ memory = "1GiB" }]', "one node"),
        ('memory = "1GiB"\nxen_max_memory = "512MiB"', "machine.memory 0x40000000 at least"),
        ('memory = "4GiB"', "256 MiB for Xen"),
        ('xen_host_memory = "4097KiB"', "whole MiB"),
    ],
)
def test_a_domain_that_xen_cannot_start_is_an_error(tmp_path, keys, rule):
    path = tmp_path / "scenario.toml"
    path.write_text(f'[machine]\nplatform = "xen"\n{keys}\n')
    with pytest.raises(InputError, match=rule):
        load_scenario(path)


def test_blocks_that_were_never_online_count_in_the_total_of_a_running_domain():
    domain = Domain(auto_online_blocks="offline")
    domain.to(600)
    again = ModelMachine.start(Machine(), domain.model.observe())
    record = again.perform(Resize(id=BALLOON, size=Size(630 * MIB)))
    assert (record.outcome.errno, record.outcome.function) == (
        "EAGAIN",
        "reserve_additional_memory",
    )
    assert len(again.kernel.added_blocks) == len(domain.kernel.added_blocks)
