"""Whatever is done to the modelled machine, its books agree with its pages and with its files."""

import pytest
from hypothesis import note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from altmap.errors import InputError
from altmap.model.kernel.accounting import POLICIES
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import (
    Address,
    Fill,
    Free,
    Machine,
    Node,
    Offline,
    Online,
    Plug,
    Poison,
    Region,
    Resize,
    SetTunables,
    Size,
    Unplug,
    Veto,
    VirtioMemParameters,
)

MIB, GIB = 1 << 20, 1 << 30
DIRTY = 1 << 4
BUDDY, LRU, OFFLINE, RESERVED, NOPAGE = (1 << bit for bit in (10, 5, 23, 32, 20))
HWPOISON, HUGE_HEAD, HUGE_TAIL = 1 << 19, 1 << 15 | 1 << 17, 1 << 16 | 1 << 17

online_types = st.sampled_from(["online", "online_kernel", "online_movable"])
parts = st.sampled_from(["all", "first", "middle", "last"])
names = st.sampled_from(["a", "b", "c", "d", "e", "f", "g", "h"])


@st.composite
def machines(draw, policies=tuple(POLICIES), memory=(128, 6144)):
    size = draw(st.integers(memory[0] // 2, memory[1] // 2)) * 2 * MIB
    if draw(st.booleans()):
        size = max(size // GIB, 1) * GIB
    nodes = []
    if size >= 512 * MIB and draw(st.booleans()):
        first = draw(st.integers(1, size // (128 * MIB) - 1)) * 128 * MIB
        nodes = [Node(memory=Size(first)), Node(memory=Size(size - first))]
    return Machine(
        memory=Size(size),
        platform=draw(st.sampled_from(["pc", "q35"])),
        nodes=nodes,
        release=draw(st.sampled_from(["6.1", "6.12", "7.3"])),
        policy=draw(st.sampled_from(policies)),
        memmap_on_memory=draw(st.sampled_from(["off", "on", "force"])),
        auto_online_blocks=draw(
            st.sampled_from(["offline", "online", "online_kernel", "online_movable"])
        ),
        online_policy=draw(st.sampled_from(["contig-zones", "auto-movable"])),
        auto_movable_ratio=draw(st.sampled_from([0, 50, 301, 1000])),
        auto_movable_numa_aware=draw(st.booleans()),
        movable_node=draw(st.booleans()),
    )


def counted(kernel):
    """Return the pages of MemTotal."""
    pages = PfnSet.of(*(kernel.managed(zone) for zone in kernel.zones.values()))
    if kernel.policy.accounting.total:
        pages |= kernel.self_hosted & kernel.pages_of(kernel.online_blocks)
    return pages


def state_of(kernel):
    """Return what a refused step must leave as it was."""
    return {
        "MemTotal": kernel.total_ram_nr_pages(),
        "blocks": (kernel.added_blocks.copy(), kernel.online_blocks.copy()),
        "zones": {
            key: (zone.span, zone.present.copy(), kernel.nr_managed(zone))
            for key, zone in kernel.zones.items()
        },
    }


class Steps(RuleBasedStateMachine):
    """Random steps on a random machine; subclasses say which steps there are."""

    @initialize(machine=machines())
    def start(self, machine):
        self.machine = ModelMachine.start(machine)
        #: The guest's driver was told less than the truth, and may hand out what is not backed.
        self.driver_misled = False

    @property
    def kernel(self):
        return self.machine.kernel

    def perform(self, step):
        """Perform a step, and prove that saying no changes nothing."""
        if self.machine.crashed:
            assert self.machine.perform(step).outcome.status == "not_reached"
            return None
        before, backed = state_of(self.kernel), self.machine.backing.backed.copy()
        pages = counted(self.kernel)
        try:
            outcome = self.machine.perform(step).outcome
        except InputError as error:
            note(f"{step}: {error}")
            assert state_of(self.kernel) == before
            assert self.machine.backing.backed == backed
            return None
        note(f"{step}: {outcome.status} {outcome.errno} {outcome.why}")
        if outcome.status == "refused":
            self.check_refusal(step, before, pages)
        if outcome.status == "fault":
            assert self.machine.crashed
        return outcome

    def check_refusal(self, step, before, pages):
        now = state_of(self.kernel)
        if isinstance(step, Unplug):
            self.check_refused_unplug(before, pages)
        elif isinstance(step, Resize) or getattr(step, "driver", "") == "virtio-mem":
            pass  # what was done towards the size stays
        elif not isinstance(step, Online | Offline) or len(self.machine.blocks_of(step)) == 1:
            assert now == before

    def check_refused_unplug(self, before, pages):
        """Blocks that went offline are onlined again, each to the zone that is chosen then.

        A block that cannot be onlined stays offline: drivers/acpi/scan.c: acpi_bus_online ignores
        the result of device_online, which a notifier may veto and which fails for HWPoison pages.
        """
        kernel, (added, online) = self.kernel, before["blocks"]
        left_offline = online - kernel.online_blocks
        assert kernel.added_blocks == added
        assert kernel.online_blocks.issubset(online)
        if not (kernel.notifier.prepare_online or kernel.notifier.going_online):
            assert all(kernel.poisoned.count(kernel.block_pfns(block)) for block in left_offline)
        if kernel.online_page_callback is None:
            lost = pages & kernel.pages_of(left_offline)
            assert kernel.total_ram_nr_pages() == before["MemTotal"] - len(lost)

    # --- steps that every machine knows ----------------------------------------------------

    def some_id(self, data):
        return data.draw(st.sampled_from([*sorted(self.machine._devices.by_id)] * 4 + ["absent"]))

    @rule(data=st.data(), part=parts, to=online_types)
    def online(self, data, part, to):
        self.perform(Online(id=self.some_id(data), part=part, to=to))

    @rule(data=st.data(), part=parts)
    def offline(self, data, part):
        self.perform(Offline(id=self.some_id(data), part=part))

    @rule(data=st.data(), nr_pages=st.sampled_from([1, 100, 5000]))
    def use_memory(self, data, nr_pages):
        """Let a program use some pages of a zone, which can be migrated."""
        if not self.machine.crashed:
            zone = data.draw(st.sampled_from(list(self.kernel.zones.values())))
            taken = self.kernel.free(zone).highest(nr_pages)
            self.kernel.used |= taken
            self.kernel.movable |= taken

    @rule(
        id_=names,
        kind=st.sampled_from(["file", "held", "pinned", "kernel", "hugetlb", "hugetlb-file"]),
        mib=st.sampled_from([2, 16, 200]),
        node=st.sampled_from([0, 0, 1]),
    )
    def fill(self, id_, kind, mib, node):
        where = node if kind.startswith("hugetlb") else None
        self.perform(Fill(id=f"f{id_}", size=Size(mib * MIB), kind=kind, node=where))

    @rule(id_=names)
    def fill_gigantic(self, id_):
        self.perform(Fill(id=f"f{id_}", size=Size(GIB), kind="hugetlb", page_size=Size(GIB)))

    @rule(id_=names)
    def free(self, id_):
        self.perform(Free(id=f"f{id_}"))

    @rule(data=st.data(), offset=st.integers(0, 0x7FFF))
    def poison(self, data, offset):
        block = data.draw(st.sampled_from(sorted(self.kernel.added_blocks)))
        self.perform(Poison(address=Address((block * self.kernel.block_nr_pages + offset) << 12)))

    @rule(
        on=st.sampled_from(["prepare_online", "going_online", "going_offline"]),
        errno=st.sampled_from(["EBUSY", "none", "none"]),
    )
    def veto(self, on, errno):
        self.perform(Veto(on=on, errno=errno))

    @rule(data=st.data(), to=online_types)
    def online_blocks(self, data, to):
        self.perform(Online(blocks=self.some_blocks(data), to=to))

    @rule(data=st.data())
    def offline_blocks(self, data):
        self.perform(Offline(blocks=self.some_blocks(data)))

    def some_blocks(self, data):
        there = sorted(self.kernel.added_blocks)
        block = st.sampled_from(there) | st.integers(0, there[-1] + 2)
        return data.draw(st.lists(block, min_size=1, max_size=3, unique=True))

    @rule(
        auto=st.sampled_from([None, "offline", "online", "online_kernel", "online_movable"]),
        policy=st.sampled_from(["contig-zones", "auto-movable"]),
        ratio=st.sampled_from([None, 0, 100, 301]),
    )
    def write_parameters(self, auto, policy, ratio):
        outcome = self.perform(
            SetTunables(auto_online_blocks=auto, online_policy=policy, auto_movable_ratio=ratio)
        )
        assert outcome is None or outcome
        if outcome and auto:
            assert self.kernel.tunables.auto_online_blocks == auto

    # --- what always holds -----------------------------------------------------------------

    @invariant()
    @precondition(lambda self: hasattr(self, "machine") and not self.machine.crashed)
    def every_present_page_is_one_thing_only(self):
        kernel, whole = self.kernel, PfnSet()
        for zone in kernel.zones.values():
            assert zone.present.isdisjoint(whole), zone.key
            whole |= zone.present
            assert zone.present.issubset(PfnSet.of(zone.span)), zone.key
            kinds = [
                kernel.free(zone),
                (kernel.managed(zone) & kernel.isolated) - kernel.used,
                *(
                    pages & zone.present
                    for pages in (
                        kernel.used,
                        kernel.reserved,
                        kernel.self_hosted,
                        kernel.fake_offline,
                    )
                ),
            ]
            assert sum(map(len, kinds)) == len(zone.present)
            assert PfnSet.of(*kinds) == zone.present
        assert kernel.used.issubset(whole)
        assert kernel.movable.issubset(kernel.used)
        assert kernel.page_tables.issubset(kernel.used)
        huge = kernel.hugetlb_pages()
        kinds = [kernel.movable, huge, kernel.poisoned & whole, kernel.unmovable()]
        assert sum(map(len, kinds)) == len(kernel.used)
        assert PfnSet.of(*kinds) == kernel.used
        assert kernel.pinned.issubset(kernel.movable)
        assert kernel.page_tables.issubset(kernel.unmovable())
        for pool in kernel.pools():
            assert len(pool.pages) == sum(map(len, pool.free)) + len(pool.in_use)
            files = [p for size, p in kernel.huge_files.values() if size == pool.nr_pages]
            assert PfnSet.of(*files) == pool.in_use
            assert sum(map(len, files)) == len(pool.in_use)
            for run in pool.pages.ranges():
                assert run.start % pool.nr_pages == len(run) % pool.nr_pages == 0
        for pages in kernel.files.values():
            assert pages.issubset(kernel.movable)
        for pages in kernel.kernel_allocations.values():
            assert pages.issubset(kernel.unmovable())
        assert kernel.fake_offline.issubset(whole)
        online = kernel.pages_of(kernel.online_blocks)
        assert whole.issubset(online)
        assert kernel.online_blocks.issubset(kernel.added_blocks)
        added = PfnSet(addition.pfns for addition in kernel.additions)
        assert sum(len(addition.pfns) for addition in kernel.additions) == len(added)
        assert kernel.self_hosted.issubset(added)
        assert (added & online).issubset(whole)

    @invariant()
    @precondition(lambda self: hasattr(self, "machine") and not self.machine.crashed)
    def counters_are_cardinalities(self):
        kernel = self.kernel
        accounting = kernel.policy.accounting
        for zone in kernel.zones.values():
            hosted = kernel.self_hosted.count(zone.present)
            in_use = kernel.used.count(zone.present) + (hosted if accounting.total else 0)
            assert kernel.nr_free(zone) == len(kernel.free(zone))
            isolated = (kernel.managed(zone) & kernel.isolated) - kernel.used
            # Free pages that are isolated are no NR_FREE_PAGES, but managed.
            assert kernel.nr_managed(zone) == kernel.nr_free(zone) + len(isolated) + in_use
            assert kernel.nr_present(zone) == len(zone.present) - (
                0 if accounting.present else hosted
            )
            assert kernel.nr_present(zone) >= kernel.nr_managed(zone) >= 0
        assert kernel.total_ram_nr_pages() == sum(map(kernel.nr_managed, kernel.zones.values()))

    @invariant()
    @precondition(lambda self: hasattr(self, "machine") and not self.machine.crashed)
    def what_the_buddy_owns_is_backed(self):
        if not self.driver_misled:
            for zone in self.kernel.zones.values():
                assert self.kernel.managed(zone).issubset(self.machine.backing.backed)

    @invariant()
    @precondition(lambda self: hasattr(self, "machine") and not self.machine.crashed)
    def the_files_show_the_kernels_numbers(self):
        kernel, seen = self.kernel, self.machine.observe()
        page_kib = kernel.arch.page_size_bytes // 1024
        shown = {info.key: info for info in seen.zoneinfo}
        for key, zone in kernel.zones.items():
            if key not in shown:
                assert not zone.present
                continue
            pages = shown[key].pages
            assert pages["free"] == kernel.nr_free(zone), key
            assert pages["present"] == kernel.nr_present(zone), key
            assert pages["managed"] == kernel.nr_managed(zone), key
            assert pages["spanned"] == len(zone.span), key
            if zone.present and kernel.nr_present(zone):
                assert shown[key].tail["start_pfn"] == zone.span.start
            chunks = seen.buddyinfo.get(key, ())
            assert sum(nr << order for order, nr in enumerate(chunks)) == kernel.nr_free(zone)
        assert seen.meminfo["MemTotal"] == kernel.total_ram_nr_pages() * page_kib
        assert seen.meminfo["MemFree"] == kernel.free_nr_pages() * page_kib
        assert seen.vmstat["nr_free_pages"] == kernel.free_nr_pages()
        small = kernel.hugetlb.get(512)
        assert seen.meminfo["HugePages_Total"] == (len(small.pages) // 512 if small else 0)
        assert seen.meminfo["Hugetlb"] == len(kernel.hugetlb_pages()) * page_kib
        assert seen.meminfo["HardwareCorrupted"] == kernel.nr_poisoned() * page_kib
        for name in ("MemTotal", "MemFree", "HugePages_Total", "HugePages_Free"):
            nodes = seen.nodes.meminfo.values()
            assert sum(numbers[name] for numbers in nodes) == seen.meminfo[name]
        for node, numbers in seen.nodes.meminfo.items():
            zones = kernel.node_zones(node)
            assert numbers["MemTotal"] == sum(map(kernel.nr_managed, zones)) * page_kib
            assert numbers["MemUsed"] == numbers["MemTotal"] - numbers["MemFree"]
        self.check_blocks(seen)
        self.check_page_flags(seen)
        self.check_resources(seen)

    def check_blocks(self, seen):
        kernel = self.kernel
        assert set(seen.memory.blocks) == set(kernel.added_blocks)
        leaving = kernel.block_ids(kernel.isolated.span()) if kernel.isolated else ()
        for id_, block in seen.memory.blocks.items():
            online = "going-offline" if id_ in leaving else "online"
            assert block.state == (online if id_ in kernel.online_blocks else "offline")
        # valid_zones_show: a block that is leaving shows the zones that it could go to.
        for id_ in set(kernel.online_blocks) - set(leaving):
            zones = kernel.zones_of(kernel.block_pfns(id_))
            names = {zone.name for zone in zones}
            expected = tuple(names) if len(zones) == 1 else ("none",)
            assert seen.memory.blocks[id_].valid_zones == expected

    def check_page_flags(self, seen):
        kernel, release = self.kernel, self.kernel.release
        at, counts = 0, {}
        for run in seen.kpageflags:
            assert run.start_pfn == at
            assert run.nr_pages > 0
            at += run.nr_pages
            counts[run.flags] = counts.get(run.flags, 0) + run.nr_pages
        section = kernel.arch.section_nr_pages
        assert at == -(-kernel.max_pfn // section) * section
        present = PfnSet.of(*(zone.present for zone in kernel.zones.values()))
        heads = sum(len(pool.pages) // pool.nr_pages for pool in kernel.pools())
        managed = PfnSet.of(*map(kernel.managed, kernel.zones.values()))
        isolated = (managed & kernel.isolated) - kernel.used
        expected = {
            BUDDY: sum(map(kernel.nr_free, kernel.zones.values())) + len(isolated),
            release.memmap_page_flags: kernel.self_hosted.count(present),
            OFFLINE: len(kernel.fake_offline - kernel.never_onlined - kernel.left_reserved),
            OFFLINE | DIRTY: len(kernel.never_onlined),
            OFFLINE | RESERVED: len(kernel.left_reserved),
            RESERVED: len(kernel.reserved & present),
            LRU: len(kernel.movable),
            HWPOISON: kernel.poisoned.count(present),
            HUGE_HEAD: heads,
            HUGE_TAIL: len(kernel.hugetlb_pages()) - heads,
            0: len(kernel.unmovable()),
        }
        # 7.3 shows a page without an online memmap like one that is in use.
        nopage = release.nopage_flags
        expected[nopage] = expected.get(nopage, 0) + at - len(present)
        assert counts == {flags: nr for flags, nr in expected.items() if nr}

    def check_resources(self, seen):
        page, end = self.kernel.arch.page_size_bytes, 0
        for line in seen.iomem:
            if line.depth == 0:
                assert end <= line.start < line.end
                end = line.end
        ram = PfnSet.of(self.kernel.boot_ram, *(add.pfns for add in self.kernel.additions))
        assert ram == PfnSet(
            PfnRange(-(-line.start // page), line.end // page)
            for line in seen.iomem
            if line.name.startswith("System RAM")
        )


class DimmSteps(Steps):
    @rule(
        id_=names,
        blocks=st.sampled_from([1, 1, 2, 3, 8, 9]),
        node=st.sampled_from([None, None, 0, 1]),
        offset=st.sampled_from([None, None, None, 0, 128, 256, 1024, 64, 8192]),
    )
    def plug(self, id_, blocks, node, offset):
        address = None if offset is None else Address(8 * GIB + offset * MIB)
        self.perform(Plug(id=id_, size=Size(blocks * 128 * MIB), node=node, address=address))

    @rule(id_=names, mib=st.sampled_from([2, 64, 129, 192, 1]))
    def plug_an_odd_size(self, id_, mib):
        self.perform(Plug(id=id_, size=Size(mib * MIB)))

    @rule(data=st.data())
    def unplug(self, data):
        self.perform(Unplug(id=self.some_id(data)))


class HypervSteps(DimmSteps):
    """A Hyper-V host names ranges of pages, alone or with a region; DIMMs may come as well."""

    @initialize(machine=machines(memory=(128, 2048)))
    def start(self, machine):
        super().start(machine)
        self.regions = PfnSet()

    @rule(
        id_=names,
        base=st.sampled_from([4 * GIB, 4 * GIB, 6 * GIB]),
        mib=st.integers(0, 512),
        size=st.sampled_from([1, 32, 64, 64, 100, 128, 192, 256, 320]),
        page=st.sampled_from([0, 0, 0, 1]),
    )
    def hot_add(self, id_, base, mib, size, page):
        address = base + mib * MIB + page * 4096
        self.perform(Plug(id=id_, driver="hyperv", address=Address(address), size=Size(size * MIB)))

    @rule(
        id_=names,
        blocks=st.integers(0, 6),
        before=st.sampled_from([0, 0, 64, 128]),
        size=st.sampled_from([64, 128, 128, 256]),
        after=st.sampled_from([0, 0, 64, 192]),
    )
    def hot_add_with_region(self, id_, blocks, before, size, after):
        start = 4 * GIB + blocks * 128 * MIB
        total = -(-(before + size + after) // 128) * 128 * MIB
        pfns = self.machine._devices.pfns(start, total)
        host = self.machine._drivers.get("hyperv")
        regions = host.guest.hot_add.regions if host else ()
        if any(r.start < pfns.end and pfns.start < r.end for r in regions):
            # For a region that it knows, the driver counts coverage from where it stood, not from
            # the range: it takes page frames for backed that are not (a bug of its own).
            self.driver_misled = True
        self.perform(
            Plug(
                id=id_,
                driver="hyperv",
                address=Address(start + before * MIB),
                size=Size(size * MIB),
                region=Region(address=Address(start), size=Size(total)),
            )
        )


class VirtioMemSteps(DimmSteps):
    """virtio-mem devices that are resized while blocks go online and offline, beside DIMMs."""

    @initialize(
        machine=machines(memory=(512, 2048)),
        unplug_online=st.booleans(),
        force_bbm=st.booleans(),
        big=st.sampled_from([None, 256]),
        safe=st.booleans(),
    )
    def start(self, machine, unplug_online, force_bbm, big, safe):
        parameters = VirtioMemParameters(
            unplug_online=unplug_online,
            force_bbm=force_bbm,
            bbm_block_size=big and Size(big * MIB),
            bbm_safe_unplug=safe,
        )
        super().start(machine.replace(virtio_mem=parameters))

    @rule(
        id_=names,
        size=st.sampled_from([512, 512, 640, 1024, 2048]),
        requested=st.sampled_from([0, 64, 130, 512, 513]),
        block=st.sampled_from([None, 2, 64, 128, 256]),
        node=st.sampled_from([None, None, 1]),
        offset=st.sampled_from([None, None, None, 0, 64, 8192]),
    )
    def plug_virtio_mem(self, id_, size, requested, block, node, offset):
        self.perform(
            Plug(
                id=id_,
                driver="virtio-mem",
                size=Size(size * MIB),
                requested=Size(requested * MIB),
                block=block and Size(block * MIB),
                node=node,
                address=None if offset is None else Address(8 * GIB + offset * MIB),
            )
        )

    @rule(data=st.data(), mib=st.sampled_from([0, 2, 64, 100, 128, 256, 258, 512, 640, 1024]))
    def resize(self, data, mib):
        self.perform(Resize(id=self.some_id(data), size=Size(mib * MIB)))

    @invariant()
    @precondition(lambda self: hasattr(self, "machine") and not self.machine.crashed)
    def both_halves_agree_on_what_is_plugged(self):
        driver = self.machine._drivers.get("virtio-mem")
        backed = self.machine.backing.backed
        for id_, host in driver.hosts.items() if driver else ():
            assert backed & host.pfns == host.plugged
            assert host.plugged_bytes % host.block_bytes == 0
            if id_ in driver.guests:
                guest = driver.guests[id_]
                assert guest.plugged_nr_pages == len(host.plugged)
                added = self.kernel.added_blocks & self.kernel.blocks(guest.pfns)
                online = added & self.kernel.online_blocks
                block = self.kernel.block_nr_pages
                # The notifier names a block without the pages that hold its memmap: the driver
                # takes those for offline while the rest is online. In the design of 2018, whose
                # memmap is written at the add, it names the whole block.
                hosted = self.kernel.self_hosted.count(self.kernel.pages_of(online))
                hosted *= not self.kernel.policy.placement.written_at_add
                assert guest.offline_nr_pages == len(added - online) * block + hosted
                group = guest.group
                assert group.present_kernel_nr_pages + group.present_movable_nr_pages == (
                    len(online) * block
                )


@pytest.mark.parametrize("on", ["prepare_online", "going_online"])
def test_a_refused_unplug_leaves_offline_what_a_veto_keeps_from_coming_back(on):
    steps = DimmSteps()
    steps.start(Machine(memory=Size(GIB), release="6.12", auto_online_blocks="online_movable"))
    kernel, perform = steps.kernel, steps.machine.perform
    perform(Plug(id="a", size=Size(2 * 128 * MIB)))
    first, second = steps.machine.blocks_of(Offline(id="a"))
    zone = kernel.zones_of(kernel.block_pfns(second))[0]
    kernel.used |= (kernel.free(zone) & kernel.block_pfns(second)).highest(1)
    perform(Veto(on=on, errno="EBUSY"))
    before, pages = state_of(kernel), counted(kernel)
    outcome = perform(Unplug(id="a")).outcome
    assert (outcome.status, outcome.function) == ("refused", "acpi_scan_try_to_offline")
    assert {first, second} <= set(kernel.added_blocks)
    assert {first, second} & set(kernel.online_blocks) == {second}
    steps.check_refused_unplug(before, pages)


_settings = settings(stateful_step_count=15)
TestDimms = DimmSteps.TestCase
TestDimms.settings = _settings
TestHyperv = HypervSteps.TestCase
TestHyperv.settings = _settings
TestVirtioMem = VirtioMemSteps.TestCase
TestVirtioMem.settings = _settings
