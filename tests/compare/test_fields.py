"""For each field of the table: one altered value is flagged, on either side, on any machine."""

from dataclasses import replace

import pytest
from alterations import (
    ALTERATIONS,
    COMPARED,
    HWPOISON,
    OFFLINE,
    OWNER_PRIVATE,
    PREDICTABLE,
    reflag,
    see,
)
from pairs import PAGE_KIB, all_pairs, compared, differing, layout

from altmap.compare import FIELDS, Verdict
from altmap.compare.tolerance import FREE_PAGES, SHARE_PAGES
from altmap.pfn import PfnRange, PfnSet
from altmap.protocol.hyperv_messages import (
    BalloonRequest,
    BalloonResponse,
    PageRange,
    StatusReport,
    UnballoonRequest,
    encode,
)
from altmap.trace import Event, Outcome

KEYS = [(field.file.path, field.name) for field in FIELDS]
#: All others are exact.
TOLERATED = [
    ("proc/zoneinfo (layout)", "node <node> <zone> spanned"),
    ("proc/zoneinfo (layout)", "node <node> <zone> present"),
    ("messages of the driver", "pages given down to the floor"),
    ("proc/meminfo", "Shmem"),
    ("proc/meminfo", "Cached"),
    *(
        ("proc/meminfo", f"{name} and per-CPU lists{more}")
        for name in ("MemFree", "MemAvailable")
        for more in ("", ", and pages of a balloon at the floor")
    ),
    ("proc/vmstat", "nr_free_pages and per-CPU lists"),
    ("proc/vmstat", "nr_free_pages and per-CPU lists, and pages of a balloon at the floor"),
    ("proc/zoneinfo", "node <node> <zone> managed beside a balloon"),
    ("proc/zoneinfo", "<watermark> of all zones beside a balloon"),
    ("proc/zoneinfo", "node <node> <zone> free and per-CPU lists"),
    ("proc/zoneinfo", "node <node> <zone> free and per-CPU lists beside a balloon"),
    ("proc/buddyinfo", "node <node> <zone> pages in chunks and per-CPU lists"),
    ("proc/buddyinfo", "node <node> <zone> pages in chunks and per-CPU lists beside a balloon"),
    ("sys/devices/system/node", "node<node> MemFree and per-CPU lists"),
]
WHOLE = (*("meminfo", "vmstat", "zoneinfo", "buddyinfo", "nodes", "kpageflags", "iomem", "memory"),)


@pytest.fixture(scope="module")
def pairs():
    return all_pairs()


def id_of(key):
    return ": ".join(key)


def both_ways(one, other):
    return (one, other), (other, one)


def files_of(key, start, mine, other):
    return layout(mine, other) if "(layout)" in key[0] else compared(start, mine, other)


def bound(key, start, last, page_kib):
    """Return the tolerance of a field in its own unit, as the documentation derives it."""
    file, name = key
    if file == "proc/zoneinfo (layout)":
        return 16
    if name.startswith("<watermark>"):
        return 2 * len(last.observation.zoneinfo)
    if name in ("Shmem", "Cached"):
        return 512
    looks = start.observation, last.observation
    nr_blocks = max(len(look.memory.blocks) for look in looks)
    before, after = (
        (look.meminfo["KernelStack"] + look.meminfo["PageTables"]) // page_kib for look in looks
    )
    mapped = abs(looks[1].meminfo["VmallocUsed"] - looks[0].meminfo["VmallocUsed"]) // page_kib
    pages = 16 * nr_blocks + 512 + abs(after - before) + mapped
    if name == "pages given down to the floor":
        listed = [sum(z.nr_on_cpu_lists for z in look.zoneinfo or ()) for look in looks]
        return -(-(pages + max(listed)) * 4 // 3)
    if name.endswith("beside a balloon"):
        units = -(-pages // 512) * 512
        return units if "managed" in name else units + pages
    huge = looks[1].meminfo.get("Hugepagesize", 0) // page_kib
    if name.startswith("node <node> <zone>"):
        pages += sum(
            zone.nr_on_cpu_lists
            for zone in looks[1].zoneinfo
            if 0 < zone.pages["free"] <= zone.pages["low"]
        )
    if looks[1].meminfo.get("HugePages_Total") and name.startswith("node <node> <zone>"):
        return -(-pages // huge) * huge
    return pages * page_kib if "Mem" in name else pages


def test_every_field_of_the_table_is_altered_here_and_no_other_is_compared():
    assert set(ALTERATIONS) == set(KEYS)
    assert len(set(KEYS)) == len(KEYS)


def test_only_free_memory_files_and_the_layout_have_a_tolerance():
    assert [(f.file.path, f.name) for f in FIELDS if f.tolerance is not None] == TOLERATED


def test_equal_traces_are_equal_in_every_file(pairs):
    for name, (start, last) in pairs.items():
        files = compared(start, last, last) + layout(last, last)
        assert not differing(files), name
        assert {file.verdict for file in files} <= {Verdict.EQUAL, Verdict.MISSING}, name


@pytest.mark.parametrize("key", KEYS, ids=id_of)
def test_one_altered_value_is_flagged_and_nothing_else(key, pairs):
    file, alteration = key[0], ALTERATIONS[key]
    shown = 0
    for name, (start, last) in pairs.items():
        by = 1 + bound(key, start, last, PAGE_KIB.get(name, 4)) if key in TOLERATED else 1
        altered = alteration.change(last, by)
        if not altered:
            continue
        shown += 1
        wanted = (file, alteration.label_of(last))
        also = (at if isinstance(at, tuple) else (file, at) for at in alteration.also)
        permitted = {wanted, *also}
        for mine, other in both_ways(last, altered):
            found = differing(files_of(key, start, mine, other))
            assert wanted in found, name
            assert set(found) <= permitted, name
            assert not found[wanted].within, name
            assert found[wanted].source, name
    assert shown, "no recording shows the field"


@pytest.mark.parametrize("key", TOLERATED, ids=id_of)
def test_a_difference_is_tolerated_up_to_the_bound_and_not_by_one_more(key, pairs):
    file, alteration = key[0], ALTERATIONS[key]
    for name, (start, last) in pairs.items():
        most = bound(key, start, last, PAGE_KIB.get(name, 4))
        for by, within in ((most, True), (most + 1, False), (1, True)):
            altered = alteration.change(last, by)
            if not altered:
                continue
            for mine, other in both_ways(last, altered):
                files = files_of(key, start, mine, other)
                found = differing(files)[file, alteration.label_of(last)]
                assert found.within == within, (name, by)
                assert found.tolerance.startswith(f"±{most} "), name
                (verdict,) = {each.verdict for each in files if each.file == file}
                assert verdict is (Verdict.TOLERATED if within else Verdict.DIFFERENT), name


@pytest.mark.parametrize(
    "key", [key for key in KEYS if ALTERATIONS[key].remove is not None], ids=id_of
)
def test_a_value_that_one_side_lacks_is_flagged_whatever_the_tolerance(key, pairs):
    file, alteration = key[0], ALTERATIONS[key]
    shown = 0
    for name, (start, last) in pairs.items():
        removed = alteration.remove(last)
        if not removed:
            continue
        shown += 1
        label = alteration.label_of(last)
        one = differing(files_of(key, start, last, removed))[file, label]
        other = differing(files_of(key, start, removed, last))[file, label]
        assert (one.observed, other.predicted) == ("absent", "absent"), name
        assert "absent" not in (one.predicted, other.observed), name
        assert not one.within, name
        assert not other.within, name
    assert shown, "no recording shows the field"


@pytest.mark.parametrize("attribute", WHOLE)
def test_a_file_that_one_side_does_not_show_is_said_not_to_be_compared(attribute, pairs):
    (path,) = {f.file.path for f in FIELDS if f.file.shows == attribute and f.file.of == "machine"}
    start, last = pairs["x86_64"]
    lacks = see(last, **{attribute: None})
    for mine, other in both_ways(last, lacks):
        files = compared(start, mine, other)
        (verdict,) = (each for each in files if each.file == path)
        assert (verdict.verdict, verdict.nr_fields) == (Verdict.MISSING, 0)
        assert path not in {file for file, _ in differing(files)}


def test_a_domain_that_is_taken_for_another_machine_differs(pairs):
    """The balloon's folder is no file that may be missing: it says what the machine is."""
    start, last = pairs["xen"]
    for mine, other in both_ways(last, see(last, balloon=None)):
        found = differing(compared(start, mine, other))
        assert ("sys/devices/system/xen_memory", "current_kb") in found


@pytest.mark.parametrize(
    ("name", "optional"),
    [
        ("x86_64", set()),
        ("virtio-mem", {"requests of the driver"}),  # 7.3 has a line Balloon everywhere
        ("xen", {"sys/devices/system/xen_memory"}),
        ("faults", {"touched frames"}),
        ("touched", {"touched frames"}),
    ],
)
def test_a_part_that_a_machine_lacks_has_no_verdict(name, optional, pairs):
    start, last = pairs[name]
    paths = {file.file for file in compared(start, last, last)}
    parts = {"sys/devices/system/xen_memory", "requests of the driver", "touched frames"}
    assert paths & parts == optional


# --- rules of single fields ------------------------------------------------------------------


def test_an_errno_is_flagged_where_none_is_predicted(pairs):
    start, last = pairs["x86_64"]
    refused = replace(last, outcome=Outcome("refused", None, "f", "why"))
    with_errno = replace(last, outcome=Outcome("refused", "EBUSY", "f", "why"))
    for mine, other in both_ways(refused, with_errno):
        assert set(differing(compared(start, mine, other))) == {("result", "errno")}


def test_an_errno_that_the_kernel_does_not_report_is_not_compared(pairs):
    start, last = pairs["x86_64"]
    for errno in ("EBUSY", None):
        mine = replace(last, outcome=Outcome("refused", errno, "f", "why"))
        other = replace(last, outcome=Outcome("refused", "?", "", "the last line of the log"))
        assert not differing(compared(start, mine, other))


def test_a_refusal_is_shown_with_its_function_and_reason(pairs):
    start, last = pairs["x86_64"]
    refused = replace(last, outcome=Outcome("refused", "EBUSY", "has_unmovable_pages", "a page"))
    found = differing(compared(start, refused, last))["result", "status"]
    assert found.predicted == "refused (has_unmovable_pages: a page)"
    assert found.observed == "ok"


def test_the_reason_of_a_refusal_is_not_compared(pairs):
    start, last = pairs["x86_64"]
    one, other = (
        replace(last, outcome=Outcome("refused", "EBUSY", *why)) for why in (("f", "a"), ("", "b"))
    )
    assert not differing(compared(start, one, other))


def test_requests_are_compared_in_their_order(pairs):
    start, last = pairs["virtio-mem"]
    backwards = replace(last, events=last.events[::-1])
    assert {file for file, _ in differing(compared(start, last, backwards))} == {
        "requests of the driver"
    }


@pytest.mark.parametrize(
    "event",
    [
        Event("driver", "host→guest: RESIZE 0x10000000"),
        Event("driver", "guest→host: STATE 0x10000000"),
        Event("driver", "later: guest→host: PLUG 0x0 - 0x1"),
        Event("kernel-log", "guest→host: PLUG 0x0 - 0x1"),
    ],
)
def test_only_requests_to_plug_and_unplug_are_compared(event, pairs):
    start, last = pairs["virtio-mem"]
    more = replace(last, events=[event, *last.events])
    for mine, other in both_ways(last, more):
        assert not differing(compared(start, mine, other))


@pytest.mark.parametrize(
    ("name", "of_ram"),
    [("virtio-mem", {"System RAM", "virtio0"}), ("kmem", {"System RAM", "System RAM (kmem)"})],
)
def test_a_resource_of_ram_that_only_one_kernel_has_is_flagged_and_no_other(name, of_ram, pairs):
    start, last = pairs[name]
    flagged = set()
    for resource in last.observation.iomem:
        less = see(last, iomem=tuple(r for r in last.observation.iomem if r != resource))
        found = [differing(compared(start, *both)) for both in both_ways(last, less)]
        if any(found):
            label = f"{resource.start:#x}-{resource.end - 1:#x}"
            assert [set(each) for each in found] == [{("proc/iomem", label)}] * 2
            flagged.add(resource.name)
    assert flagged == of_ram


def test_two_resources_of_one_range_are_both_compared(pairs):
    start, last = pairs["x86_64"]
    ram = next(r for r in last.observation.iomem if r.name == "System RAM")
    inner = ram._replace(depth=1, name="System RAM (kmem)")
    nested = see(last, iomem=(*last.observation.iomem, inner))
    found = differing(compared(start, last, nested))
    assert [item.observed for item in found.values()] == ["System RAM / System RAM (kmem)"]


def test_a_boost_of_watermarks_is_not_compared(pairs):
    start, last = pairs["x86_64"]

    def boosted(zone):
        marks = {name: zone.pages[name] + 7 for name in ("min", "low", "high", "promo")}
        return replace(zone, pages={**zone.pages, **marks, "boost": zone.pages["boost"] + 7})

    other = see(last, zoneinfo=tuple(map(boosted, last.observation.zoneinfo)))
    assert not differing(compared(start, last, other))


def on_a_list(step, nr_pages, page_kib):
    """Move free pages from the buddy allocator to a per-CPU list, in every file."""
    seen = step.observation
    zone = max(seen.zoneinfo, key=lambda zone: zone.pages["free"])
    first, *others = zone.pagesets
    lists = ({**first, "count": first["count"] + nr_pages}, *others)
    new = replace(zone, pages=less(zone.pages, "free", nr_pages), pagesets=lists)
    order_0, *more = seen.buddyinfo[zone.key]
    kib = nr_pages * page_kib
    changes = {
        "zoneinfo": tuple(new if z.key == zone.key else z for z in seen.zoneinfo),
        "vmstat": less(seen.vmstat, "nr_free_pages", nr_pages),
        "meminfo": less(less(seen.meminfo, "MemFree", kib), "MemAvailable", kib),
        "buddyinfo": {**seen.buddyinfo, zone.key: (order_0 - nr_pages, *more)},
    }
    if seen.nodes is not None:
        table = less(seen.nodes.meminfo[zone.node], "MemFree", kib)
        meminfo = {**seen.nodes.meminfo, zone.node: table}
        changes["nodes"] = replace(seen.nodes, meminfo=meminfo)
    return see(step, **changes)


def less(table, name, by):
    return {**table, name: table[name] - by}


def test_pages_on_per_cpu_lists_count_as_free(pairs):
    for name, (start, last) in pairs.items():
        moved = on_a_list(last, 5, PAGE_KIB.get(name, 4))
        for mine, other in both_ways(last, moved):
            assert not differing(compared(start, mine, other)), name


def test_a_chunk_of_buddyinfo_counts_with_all_its_pages(pairs):
    """Two chunks of order 2 merge into one of order 3; half of it gone is a difference of 4."""
    start, last = pairs["x86_64"]
    key = max(last.observation.zoneinfo, key=lambda zone: zone.pages["free"]).key
    counts = last.observation.buddyinfo[key]

    def chunks(order_2, order_3):
        new = (*counts[:2], order_2, order_3, *counts[4:])
        return see(last, buddyinfo={**last.observation.buddyinfo, key: new})

    split, merged, half = chunks(12, 5), chunks(10, 6), chunks(11, 5)
    assert not differing(compared(start, split, merged))
    (item,) = differing(compared(start, split, half)).values()
    assert int(item.predicted) - int(item.observed) == 4


def test_lists_of_another_node_do_not_count_as_free_of_a_node(pairs):
    start, last = pairs["x86_64"]
    zones = last.observation.zoneinfo
    away = max(zones, key=lambda zone: zone.pages["free"])
    moved = see(last, zoneinfo=(*zones, replace(away, node=7)))
    labels = {label for _, label in differing(compared(start, last, moved))}
    assert "MemFree and per-CPU lists" in labels
    assert "node0 MemFree and per-CPU lists" not in labels


def test_a_wrong_number_of_managed_pages_changes_no_other_field(pairs):
    """The page size follows from MemTotal and managed pages: those of the observation."""
    key = ("proc/zoneinfo", "node <node> <zone> managed")
    for name, (start, last) in pairs.items():
        page_kib = PAGE_KIB.get(name, 4)
        wrong = ALTERATIONS[key].change(on_a_list(last, 5, page_kib), 1_000_000)
        if wrong is None:  # a balloon has pages
            continue
        found = differing(compared(start, wrong, last))
        assert set(found) == {(key[0], ALTERATIONS[key].label_of(last))}, name


def test_a_zone_that_spans_no_page_is_no_part_of_the_layout(pairs):
    start, last = pairs["x86_64"]
    empty = next(z for z in last.observation.zoneinfo if not z.pages["spanned"])
    fewer = see(last, zoneinfo=tuple(z for z in last.observation.zoneinfo if z != empty))
    assert not differing(layout(last, fewer))
    assert {file for file, _ in differing(compared(start, last, fewer))} == {"proc/zoneinfo"}


def test_flags_of_memmap_pages_are_compared(pairs):
    """6.1 has them RESERVED as well, later releases do not."""
    start, last = pairs["ppc64le"]
    reserved = reflag(last, lambda flags: flags & OWNER_PRIVATE, OWNER_PRIVATE | 1 << 32)
    found = differing(compared(start, last, reserved))
    assert set(found) == {("proc/kpageflags", "memmap pages and their flags")}


def test_page_tables_of_a_xen_domain_are_not_compared_as_memmap_pages(pairs):
    start, last = pairs["xen"]
    other = reflag(last, lambda flags: not flags & COMPARED, OWNER_PRIVATE)
    assert not differing(compared(start, last, other))


def test_flags_of_offline_pages_are_compared_but_in_a_xen_domain(pairs):
    for name, expected in (("virtio-mem", {"PageOffline pages and their flags"}), ("xen", set())):
        start, last = pairs[name]
        one, other = (
            reflag(last, lambda flags: not flags & COMPARED, OFFLINE | more) for more in (0, 1 << 4)
        )
        found = differing(compared(start, one, other))
        assert {label for _, label in found} == expected


def test_a_page_that_is_offline_and_has_a_memory_error_is_compared_as_offline(pairs):
    """virtio-mem keeps such pages offline."""
    start, last = pairs["virtio-mem"]
    both = reflag(last, lambda flags: not flags & COMPARED, OFFLINE | HWPOISON)
    assert {label for _, label in differing(compared(start, last, both))} == {
        "PageOffline pages and their flags"
    }


def test_flags_of_pages_in_use_are_not_compared(pairs):
    start, last = pairs["x86_64"]
    other = reflag(last, lambda flags: not flags & COMPARED, 0x868)
    assert not differing(compared(start, last, other))


def test_frames_that_the_buddy_chose_for_a_balloon_may_lie_elsewhere(pairs):
    start, last = pairs["xen"]

    def offline(step):
        runs = step.observation.kpageflags
        return PfnSet.of_runs((r.start_pfn, r.nr_pages) for r in runs if r.flags & OFFLINE)

    moved = reflag(reflag(last, lambda f: f & OFFLINE, 0), lambda f: not f & COMPARED, OFFLINE)
    chosen = Event("ballooned", "", offline(last) - offline(moved))
    returned = Event("populated", "", chosen.pfns)
    assert not differing(compared(start, replace(last, events=[chosen]), moved))
    found = differing(compared(start, replace(last, events=[chosen, returned]), moved))
    assert {label for _, label in found} == {PREDICTABLE}


def test_touched_frames_are_compared_where_both_sides_can_tell_them(pairs):
    start, last = pairs["faults"]
    silent = replace(last, faults=[])  # knows what is backed, and saw no such touch
    cannot = replace(last, faults=[], backed=None)
    file = "touched frames"
    for mine, other in both_ways(last, silent):
        assert set(differing(compared(start, mine, other))) == {
            (file, "first frame not backed: write"),
            (file, "first frame not backed: read"),
        }
    for mine, other in both_ways(last, cannot):
        assert file not in {each.file for each in compared(start, mine, other)}


def test_of_several_faults_the_first_frame_counts(pairs):
    start, last = pairs["faults"]
    write, read = last.faults
    later = replace(write, pfn=write.pfn + 64)
    more = replace(last, faults=[write, later, read], backed=None)
    assert not differing(compared(start, last, more))
    other = replace(last, faults=[later, write, read], backed=None)
    labels = {label for _, label in differing(compared(start, last, other))}
    assert "first frame not backed: write" in labels


def test_a_side_with_a_fault_has_no_others(pairs):
    start, last = pairs["faults"]
    write = replace(last, faults=last.faults[:1], backed=None)
    for mine, other in both_ways(last, write):
        (item,) = differing(compared(start, mine, other)).values()
        assert item.field.endswith(": read")


def test_how_many_more_frames_are_touched_before_a_machine_check_is_chance(pairs):
    start, last = pairs["faults"]
    write, read = last.faults
    more = replace(write, pfns=write.pfns | PfnRange(0x100100, 0x100180))
    seen = replace(last, faults=[more, read], backed=None)
    assert not differing(compared(start, last, seen))
    # A side that tells every touch got farther, or less far; other frames are a difference.
    every = replace(seen, events=[Event("touched", "")])
    for mine, other in both_ways(last, every):
        assert not differing(compared(start, mine, other))
    apart = PfnSet.of(PfnRange(write.pfn, write.pfn + 1), PfnRange(0x100100, 0x100180))
    others = replace(every, faults=[replace(write, pfns=apart), read])
    assert {label for _, label in differing(compared(start, last, others))} == {
        "frames that end the kernel: write"
    }


def test_frames_that_a_step_is_said_to_touch_are_among_the_touched(pairs):
    start, last = pairs["touched"]
    less = replace(last, events=[last.events[0], *last.events[2:]])
    assert not differing(compared(start, less, last))
    assert {label for _, label in differing(compared(start, last, less))} == {"frames: write"}


def test_frames_that_a_step_is_said_to_read_are_read_or_written(pairs):
    start, last = pairs["touched"]
    frames = PfnSet([PfnRange(0x107000, 0x107010)])
    offline = replace(last, action={"do": "offline"})  # which reads more than is said of it
    read, written = (
        replace(offline, events=[*offline.events, Event(access, "", frames, "scan")])
        for access in ("read", "write")
    )
    assert {label for _, label in differing(compared(start, read, offline))} == {"frames: read"}
    assert not differing(compared(start, read, read))
    assert not differing(compared(start, read, written))


def test_what_is_in_no_online_block_is_touched_exactly_as_said(pairs):
    start, last = pairs["touched"]
    for at, access in ((3, "write"), (4, "read")):
        less = replace(last, events=[*last.events[:at], *last.events[at + 1 :]])
        for mine, other in both_ways(less, last):
            labels = {label for _, label in differing(compared(start, mine, other))}
            assert f"frames in no online block: {access}" in labels
        # Going offline, the kernel reads what it may: nothing exact is said of it.
        mine, other = (replace(step, action={"do": "offline"}) for step in (less, last))
        assert not differing(compared(start, mine, other))


def test_boot_memory_is_touched_by_anything(pairs):
    start, last = pairs["touched"]
    more = Event("write", "", PfnSet([PfnRange(0x1000, 0x1100)]), "memset")
    for mine, other in both_ways(last, replace(last, events=[*last.events, more])):
        assert not differing(compared(start, mine, other))


def test_a_real_kernel_without_the_plugin_tells_no_touches(pairs):
    start, last = pairs["touched"]
    unknown = replace(last, events=last.events[1:])
    for mine, other in both_ways(last, unknown):
        assert not differing(compared(start, mine, other))


# --- messages between a Hyper-V host and its guest ---------------------------------------------


def test_a_guests_number_of_a_message_is_chance_and_the_hosts_is_not(pairs):
    start, last = pairs["hyperv"]
    for direction, differs in (("guest→host", False), ("host→guest", True)):
        at, event = next(
            (at, e) for at, e in enumerate(last.events) if e.message and direction in e.text
        )
        # struct dm_header: type, size, number of 32 bits.
        raw = event.message[:4] + (77).to_bytes(4, "little") + event.message[8:]
        events = [*last.events[:at], replace(event, message=raw), *last.events[at + 1 :]]
        found = differing(compared(start, last, replace(last, events=events)))
        assert bool(found) is differs


def test_bytes_of_virtio_mem_messages_are_not_compared(pairs):
    """A real kernel does not show them; its requests are compared."""
    start, last = pairs["virtio-mem"]
    function = "virtio_mem_send_plug_request"
    shown = Event("driver", "", function=function, message=bytes(24))
    assert not differing(compared(start, replace(last, events=[shown, *last.events]), last))


def balloon_events(*messages):
    return [Event("driver", "", message=encode(message)) for message in messages]


def given(start, *counts, more=False):
    ranges = tuple(PageRange(start + 1024 * at, count) for at, count in enumerate(counts))
    return BalloonResponse(trans_id=1, more_pages=more, ranges=ranges)


def returned(*counts, more=False):
    ranges = tuple(PageRange(1024 * at, count) for at, count in enumerate(counts))
    return UnballoonRequest(trans_id=1, more_pages=more, ranges=ranges)


@pytest.mark.parametrize(
    ("mine", "other", "equal"),
    [
        ([given(0, 512, 512)], [given(4096, 512, 512)], True),
        ([given(0, 512, 512)], [given(0, 512, 511)], False),
        ([given(0, 512, more=True)], [given(0, 512)], False),
        ([returned(1024)], [returned(512, 512)], True),
        ([returned(1024)], [returned(512, more=True), returned(512)], True),
        ([returned(1024)], [returned(512, 511)], False),
    ],
)
def test_which_pages_a_balloon_has_is_chance_and_their_number_is_not(pairs, mine, other, equal):
    start, last = pairs["x86_64"]
    steps = (replace(last, events=balloon_events(*messages)) for messages in (mine, other))
    assert (not differing(compared(start, *steps))) is equal


def asked(nr_pages):
    return BalloonRequest(trans_id=1, num_pages=nr_pages)


@pytest.mark.parametrize(
    ("other", "equal"),
    [
        ([asked(4096), given(0, 512), asked(3584), given(0, more=False)], True),
        ([asked(4096), given(0, 256, more=True), given(0, 256)], True),
        ([asked(4097), given(0, 512)], False),
        ([asked(4096), given(0, *8 * [512])], False),
    ],
)
def test_of_a_guest_at_its_floor_the_first_request_and_the_sum_count(pairs, other, equal):
    start, last = pairs["x86_64"]
    mine = [asked(4096), given(0, 512)]
    steps = (replace(last, events=balloon_events(*messages)) for messages in (mine, other))
    assert (not differing(compared(start, *steps))) is equal


def test_reports_of_pressure_are_not_compared_and_bytes_that_are_no_message_are(pairs):
    start, last = pairs["x86_64"]
    report = balloon_events(StatusReport(trans_id=1, num_avail=1, num_committed=2))
    assert not differing(compared(start, last, replace(last, events=report)))
    one, other = (replace(last, events=[Event("driver", "", message=raw)]) for raw in (b"a", b"b"))
    assert len(differing(compared(start, one, other))) == 1


def test_pages_that_a_balloon_returned_are_no_longer_chance(pairs):
    start, last = pairs["balloon"]
    taken = last.events[-1]
    back = replace(last, events=[*last.events, replace(taken, kind="deflated")])
    wrong = ALTERATIONS["proc/zoneinfo", "node <node> <zone> managed beside a balloon"].change(
        last, 1
    )
    assert all(item.within for item in differing(compared(start, last, wrong)).values())
    wrong = replace(wrong, events=back.events)
    found = differing(compared(start, back, wrong))
    assert ("proc/zoneinfo", "node 0 DMA32 managed") in found


def xen_step(last, *runs):
    """Return the step of a Xen domain whose balloon took page frames."""
    taken = Event("ballooned", "", PfnSet([PfnRange(*run) for run in runs]))
    return replace(last, events=[taken])


def with_free(step, name, nr_pages):
    zones = tuple(
        replace(zone, pages=zone.pages | {"free": nr_pages}) if zone.name == name else zone
        for zone in step.observation.zoneinfo
    )
    return see(step, zoneinfo=zones)


@pytest.mark.parametrize(
    ("runs", "free", "chance"),
    [
        ([(0x10000, 0x10010)], 1024, False),
        ([(0x10000, 0x10010)], 1023, True),
        ([(0x800, 0x810), (0x10000, 0x10010)], 1024, True),
    ],
)
def test_which_zone_a_xen_balloon_emptied_is_chance_if_it_went_on_to_the_next(
    pairs, runs, free, chance
):
    """Its first pages are certain: it takes all that the highest zone can give before others."""
    start, last = pairs["xen"]
    step = xen_step(with_free(last, "DMA32", free), *runs)
    wrong = ALTERATIONS["proc/zoneinfo", "node <node> <zone> managed"].change(step, 1)
    found = [label for _, label in differing(compared(start, step, wrong)) if "managed" in label]
    assert any("beside a balloon" in label for label in found) is chance
    assert any("beside a balloon" not in label for label in found) is not chance


@pytest.mark.parametrize(
    ("chunks", "kept"),
    [
        ((0,) * 11, 1024),
        ((2, 2, 13, 16, 16, 14, 14, 15, 16, 0, 0), 7802),
        ((0,) * 9 + (9, 9), 1024),
    ],
)
def test_beside_a_xen_balloon_a_zone_may_keep_the_pageblocks_that_processes_share(
    pairs, chunks, kept
):
    """The second row is of 6.12 after a shrink: 15 pageblocks have a page in use."""
    start, last = pairs["xen"]
    seen = replace(last.observation, buddyinfo={(0, "Normal"): chunks})
    bound, why = SHARE_PAGES.derive(start.observation, seen)
    free, _ = FREE_PAGES.derive(start.observation, seen)
    assert (bound - free, f"{kept} in pageblocks" in why) == (kept, True)
