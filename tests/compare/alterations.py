"""For each field that is compared: how to alter one value of it in a step, and how to remove it.

The alterations are made in what was read of the files, and know nothing of the table of fields.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from altmap.linux.pagewords import PageRun, PageWords
from altmap.pfn import PfnRange, PfnSet
from altmap.protocol.hyperv_messages import PageRange, decode, encode
from altmap.trace import Event, Fault

# include/uapi/linux/kernel-page-flags.h, include/linux/kernel-page-flags.h
HUGE, HWPOISON, NOPAGE, OFFLINE, OWNER_PRIVATE = (1 << bit for bit in (17, 19, 20, 23, 37))
COMPARED = HUGE | HWPOISON | NOPAGE | OFFLINE | OWNER_PRIVATE


@dataclass(frozen=True)
class Alteration:
    """How one field is altered.

    Both callables take a step and return another, or None where the step does not show the field.

    Attributes
    ----------
    label : callable or str
        The label of the field that is altered, of the step.
    change : callable
        Takes the number by which a number changes as well.
    remove : callable or None
        None where a side that shows the file always has a value.
    also : tuple of str
        Labels that the alteration cannot help to alter as well, those of other files with the file.
    """

    label: Callable | str
    change: Callable
    remove: Callable | None = None
    also: tuple = ()

    def label_of(self, step):
        return self.label if isinstance(self.label, str) else self.label(step)


def see(step, **changes):
    """Return the step with other files."""
    return replace(step, observation=replace(step.observation, **changes))


def without(table, key):
    return {name: value for name, value in table.items() if name != key}


# --- meminfo, vmstat, zones, nodes -----------------------------------------------------------


def line(attribute, name, label=None, only=lambda step: True):
    """Alter one line of a file that is a table."""

    def table(step):
        found = getattr(step.observation, attribute)
        return found if name in found and only(step) else None

    def change(step, by):
        found = table(step)
        return found and see(step, **{attribute: {**found, name: found[name] + by}})

    def remove(step):
        found = table(step)
        return found and see(step, **{attribute: without(found, name)})

    return Alteration(label or name, change, remove)


def largest(step):
    """Return the zone with most pages."""
    return max(step.observation.zoneinfo, key=lambda zone: zone.pages["spanned"])


def put_zone(step, new):
    zones = step.observation.zoneinfo
    return see(step, zoneinfo=tuple(new if zone.key == new.key else zone for zone in zones))


def zone_label(text):
    return lambda step: f"node {largest(step).node} {largest(step).name} {text}"


def shares_zones(step):
    """Tell whether a Hyper-V balloon has pages, of zones that are not predicted."""
    ballooned = any(event.kind == "ballooned" and event.pfns for event in step.events)
    return ballooned and not is_xen(step)


#: The kind of an event that marks a step whose host asked for more pages than the guest gave.
AT_FLOOR = "at-floor"


def at_floor(step):
    return any(event.kind == AT_FLOOR for event in step.events)


def not_at_floor(step):
    return not at_floor(step)


def one_zone(step):
    return not shares_zones(step)


def only(where, alteration):
    """Return the alteration for those steps that a condition accepts."""
    return replace(
        alteration,
        change=lambda step, by: alteration.change(step, by) if where(step) else None,
        remove=alteration.remove and (lambda step: where(step) and alteration.remove(step)),
    )


def beside(label):
    """Return the labels that a zone's pages have beside a balloon."""
    return f"{label} beside a balloon"


def zone_pages(name, label=None):
    def change(step, by):
        pages = largest(step).pages
        if name in pages:
            return put_zone(step, replace(largest(step), pages={**pages, name: pages[name] + by}))
        return None

    def remove(step):
        pages = largest(step).pages
        return name in pages and put_zone(step, replace(largest(step), pages=without(pages, name)))

    return Alteration(zone_label(label or name), change, remove)


def other_start(step, by):
    zone = largest(step)
    return put_zone(step, replace(zone, tail={**zone.tail, "start_pfn": zone.start_pfn + by}))


def no_start(step):
    zone = largest(step)
    return put_zone(step, replace(zone, tail=without(zone.tail, "start_pfn")))


START = Alteration(zone_label("start_pfn"), other_start, no_start)


def other_protection(step, by):
    *before, last = largest(step).protection
    return put_zone(step, replace(largest(step), protection=(*before, last + by)))


def no_zone(step):
    gone = largest(step)
    return see(step, zoneinfo=tuple(z for z in step.observation.zoneinfo if z.key != gone.key))


def other_share(step, by):
    """Let the largest zone have given less to a balloon, and another zone as much more."""
    other = next(zone for zone in step.observation.zoneinfo if zone.name == "Normal")
    pages = {**other.pages, "managed": other.pages["managed"] - by}
    return zone_pages("managed").change(put_zone(step, replace(other, pages=pages)), by)


def other_chunks(step, by):
    key = largest(step).key
    order_0, *more = step.observation.buddyinfo[key]
    return see(step, buddyinfo={**step.observation.buddyinfo, key: (order_0 + by, *more)})


def no_chunks(step):
    return see(step, buddyinfo=without(step.observation.buddyinfo, largest(step).key))


def see_node(step, table):
    nodes = step.observation.nodes
    return see(step, nodes=replace(nodes, meminfo={**nodes.meminfo, 0: table}))


def node_line(name, label=None):
    def table(step):
        nodes = step.observation.nodes
        return nodes.meminfo[0] if nodes and name in nodes.meminfo[0] else None

    def change(step, by):
        found = table(step)
        return found and see_node(step, {**found, name: found[name] + by})

    def remove(step):
        found = table(step)
        return found and see_node(step, without(found, name))

    return Alteration(f"node0 {label or name}", change, remove)


HUGE_FILE = "hugepages-2048kB/free_hugepages"


def see_huge_pages(step, change):
    nodes = step.observation.nodes
    if nodes is None or HUGE_FILE not in nodes.huge_pages.get(0, {}):
        return None
    return see(step, nodes=replace(nodes, huge_pages={0: change(nodes.huge_pages[0])}))


def other_huge_pages(step, by):
    return see_huge_pages(step, lambda files: {**files, HUGE_FILE: files[HUGE_FILE] + by})


def no_huge_pages(step):
    return see_huge_pages(step, lambda files: without(files, HUGE_FILE))


def see_list(step, lists):
    return see(step, nodes=replace(step.observation.nodes, lists=lists))


def other_list(step, by):
    nodes = step.observation.nodes
    return nodes and see_list(step, {**nodes.lists, "online": (0, 9)})


def no_list(step):
    nodes = step.observation.nodes
    return nodes and see_list(step, without(nodes.lists, "online"))


# --- kpageflags ------------------------------------------------------------------------------


def reflag(step, old, new):
    """Give one page the flags *new*: the last page of the first long run that *old* accepts."""
    runs = list(step.observation.kpageflags)
    for at, (start, nr, flags) in enumerate(runs):
        if nr > 1 and old(flags):
            runs[at : at + 1] = [PageRun(start, nr - 1, flags), PageRun(start + nr - 1, 1, new)]
            return see(step, kpageflags=PageWords.of(runs))
    return None


def ordinary(flags):
    return not flags & COMPARED


def becomes(flags, where=lambda step: True):
    """Alter an ordinary page of kernel or processes into one of a kind that is compared."""
    return lambda step, by: reflag(step, ordinary, flags) if where(step) else None


def is_xen(step):
    return step.observation.balloon is not None


def is_no_xen(step):
    return not is_xen(step)


def has_no_balloon(step):
    return is_no_xen(step) and one_zone(step)


def moves_an_offline_page(step, by):
    if not is_xen(step):
        return None
    return reflag(reflag(step, lambda flags: flags & OFFLINE, 0), ordinary, OFFLINE)


def no_balloon(step):
    return is_xen(step) and see(step, balloon=None)


MEMMAP, WITHHELD = "memmap pages and their flags", "PageOffline pages and their flags"
NR_OFFLINE, PREDICTABLE = "number of PageOffline pages", "PageOffline pages that are predictable"
PAGES = {
    MEMMAP: Alteration(MEMMAP, becomes(OWNER_PRIVATE, is_no_xen)),
    "pages without an online memmap": Alteration("pages without an online memmap", becomes(NOPAGE)),
    "HWPoison pages": Alteration("HWPoison pages", becomes(HWPOISON)),
    "number of pages in huge pages": Alteration("number of pages in huge pages", becomes(HUGE)),
    WITHHELD: Alteration(WITHHELD, becomes(OFFLINE, has_no_balloon)),
    NR_OFFLINE: Alteration(
        NR_OFFLINE,
        becomes(OFFLINE, lambda step: not has_no_balloon(step) and not_at_floor(step)),
        no_balloon,
        (PREDICTABLE,),
    ),
    PREDICTABLE: Alteration(PREDICTABLE, moves_an_offline_page, no_balloon),
}


# --- folders ---------------------------------------------------------------------------------


def first_ram(step):
    return next(item for item in step.observation.iomem if item.name == "System RAM")


def rename_ram(step, by):
    ram = first_ram(step)
    new = ram._replace(name="System RAM (other)")
    return see(step, iomem=tuple(new if i == ram else i for i in step.observation.iomem))


def no_ram(step):
    ram = first_ram(step)
    return see(step, iomem=tuple(item for item in step.observation.iomem if item != ram))


RAM = Alteration(
    lambda step: f"{first_ram(step).start:#x}-{first_ram(step).end - 1:#x}", rename_ram, no_ram
)


def see_memory(step, **changes):
    return see(step, memory=replace(step.observation.memory, **changes))


def last_block(step):
    return max(step.observation.memory.blocks)


def block(name, value):
    """Alter one attribute of the last memory block; another block is removed as a whole."""

    def change(step, by):
        blocks, id_ = step.observation.memory.blocks, last_block(step)
        return see_memory(step, blocks={**blocks, id_: replace(blocks[id_], **{name: value})})

    def remove(step):
        return see_memory(step, blocks=without(step.observation.memory.blocks, last_block(step)))

    sign = " " if name == "nodes" else "/"
    return Alteration(lambda step: f"memory{last_block(step)}{sign}{name}", change, remove)


def other_parameter(step, by):
    found = step.observation.parameters
    return "online_policy" in found and see(step, parameters={**found, "online_policy": "other"})


def no_parameter(step):
    found = step.observation.parameters
    return "online_policy" in found and see(step, parameters=without(found, "online_policy"))


def counter(name):
    def change(step, by):
        balloon = step.observation.balloon
        return balloon and see(
            step, balloon=replace(balloon, **{name: getattr(balloon, name) + by})
        )

    return Alteration(name, change, no_balloon)


# --- what a step did -------------------------------------------------------------------------


def other_errno(step, by):
    if step.outcome.errno is None:
        return None
    return replace(step, outcome=replace(step.outcome, errno="ENOTSUP"))


def no_errno(step):
    return step.outcome.errno and replace(step, outcome=replace(step.outcome, errno=None))


def last_request(step):
    found = [at for at, event in enumerate(step.events) if "PLUG 0x" in event.text]
    return found[-1] if found else None


def other_request(step, by):
    at = last_request(step)
    if at is None:
        return None
    new = Event("driver", f"{step.events[at].text}0")
    return replace(step, events=[*step.events[:at], new, *step.events[at + 1 :]])


def no_request(step):
    at = last_request(step)
    return at is not None and replace(step, events=step.events[:at] + step.events[at + 1 :])


def request_label(step):
    return f"request {sum('PLUG 0x' in event.text for event in step.events)}"


def last_message(step):
    """Return where the last message is that a host and its guest exchanged, None without one.

    Reports of memory pressure are no part of a step (drivers/hv/hv_balloon.c: type 5).
    """
    found = [at for at, event in enumerate(step.events) if event.message and event.message[0] != 5]
    return found[-1] if found and not at_floor(step) else None


def other_message(step, by):
    at = last_message(step)
    if at is None:
        return None
    event = step.events[at]
    # The last byte of a hot-add response is part of its result, a word.
    new = replace(event, message=event.message[:-1] + bytes([event.message[-1] ^ 1]))
    return replace(step, events=[*step.events[:at], new, *step.events[at + 1 :]])


def no_message(step):
    at = last_message(step)
    return at is not None and replace(step, events=step.events[:at] + step.events[at + 1 :])


def fewer_pages(step, by):
    """Let a guest at its floor give more pages in its last response."""
    if not at_floor(step):
        return None
    at = max(n for n, e in enumerate(step.events) if e.message and e.message[0] == 7)
    message = decode(step.events[at].message)
    *ranges, last = message.ranges
    more = PageRange(last.start_page, last.page_cnt + by)
    event = replace(step.events[at], message=encode(replace(message, ranges=(*ranges, more))))
    return replace(step, events=[*step.events[:at], event, *step.events[at + 1 :]])


def message_label(step):
    return f"message {sum(bool(e.message) and e.message[0] != 5 for e in step.events)}"


def touch(access, first, end):
    pfns = PfnSet([PfnRange(first, end)])
    return Fault(first, access, "memset", pfns, "general protection fault")


def other_frames(step, by):
    if not step.faults:
        return None
    fault = step.faults[0]
    return replace(step, faults=[replace(fault, pfn=fault.pfn + 1), *step.faults[1:]])


def frames_apart(step, by):
    """Alter the frames of a fault but the first, so that neither set has all of the other."""
    if not step.faults:
        return None
    fault = step.faults[0]
    first = PfnRange(fault.pfn, fault.pfn + 1)
    pfns = PfnSet.of(first, PfnRange(fault.pfn + 0x100, fault.pfn + 0x110))
    return replace(step, faults=[replace(fault, pfns=pfns), *step.faults[1:]])


def shifted(kind, number):
    """Alter the frames of an event, so that neither set has all frames of the other."""

    def change(step, by):
        at = [at for at, event in enumerate(step.events) if event.kind == kind and event.function]
        if len(at) <= number or not any(event.kind == "touched" for event in step.events):
            return None
        event = step.events[at[number]]
        span = event.pfns.span()
        pfns = PfnSet([PfnRange(span.start + 1, span.end + 1)])
        events = list(step.events)
        events[at[number]] = replace(event, pfns=pfns)
        return replace(step, events=events)

    return change


def larger_blocks(step, by):
    if any(event.kind == "touched" for event in step.events):
        return None  # which frames are in online blocks would change as well
    size = step.observation.memory.block_size_bytes * 2
    return see_memory(step, block_size_bytes=size)


def no_frames(step):
    return step.faults and replace(step, faults=step.faults[1:])


MEMINFO = ("DirectMap1G", "Hugetlb", "HardwareCorrupted")
POOL = ("HugePages_Total", "HugePages_Free", "HugePages_Surp")
ALL_MANAGED = beside("managed of all zones")
FLOOR = "pages of a balloon at the floor"
FREE_AT_FLOOR = (("", not_at_floor), (f", and {FLOOR}", at_floor))
FREE_SUMS = (
    *(("proc/meminfo", f"{n} and per-CPU lists, and {FLOOR}") for n in ("MemFree", "MemAvailable")),
    ("proc/vmstat", f"nr_free_pages and per-CPU lists, and {FLOOR}"),
)
FLOOR_SUMS = {
    "proc/meminfo": f"MemTotal and {FLOOR}",
    "proc/zoneinfo": f"managed of all zones and {FLOOR}",
    "sys/devices/system/node": f"MemTotal of all nodes and {FLOOR}",
    "proc/kpageflags": f"{NR_OFFLINE} without those of a balloon at the floor",
}
#: By the file and the name of the field.
ALTERATIONS = {
    **{
        ("proc/meminfo", name): line("meminfo", name, only=not_at_floor)
        for name in ("MemTotal", "CommitLimit")
    },
    ("proc/meminfo", FLOOR_SUMS["proc/meminfo"]): line(
        "meminfo", "MemTotal", FLOOR_SUMS["proc/meminfo"], at_floor
    ),
    ("proc/zoneinfo", FLOOR_SUMS["proc/zoneinfo"]): only(
        at_floor,
        Alteration(
            FLOOR_SUMS["proc/zoneinfo"],
            zone_pages("managed").change,
            also=(beside("node 0 DMA32 managed"),),
        ),
    ),
    ("sys/devices/system/node", FLOOR_SUMS["sys/devices/system/node"]): only(
        at_floor, replace(node_line("MemTotal"), label=FLOOR_SUMS["sys/devices/system/node"])
    ),
    ("proc/kpageflags", FLOOR_SUMS["proc/kpageflags"]): only(
        at_floor,
        Alteration(FLOOR_SUMS["proc/kpageflags"], becomes(OFFLINE), also=(PREDICTABLE,)),
    ),
    ("messages of the driver", "pages given down to the floor"): Alteration(
        "pages given down to the floor", fewer_pages, also=(*FLOOR_SUMS.items(), *FREE_SUMS)
    ),
    **{("proc/meminfo", name): line("meminfo", name) for name in (*MEMINFO, *POOL)},
    **{("proc/meminfo", name): line("meminfo", name) for name in ("Shmem", "Cached")},
    **{
        ("proc/meminfo", f"{name} and per-CPU lists{more}"): line(
            "meminfo", name, f"{name} and per-CPU lists{more}", only=where
        )
        for name in ("MemFree", "MemAvailable")
        for more, where in FREE_AT_FLOOR
    },
    ("proc/vmstat", "nr_memmap_pages"): line("vmstat", "nr_memmap_pages"),
    ("proc/vmstat", "nr_memmap_boot_pages"): line("vmstat", "nr_memmap_boot_pages"),
    **{
        ("proc/vmstat", f"nr_free_pages and per-CPU lists{more}"): line(
            "vmstat", "nr_free_pages", f"nr_free_pages and per-CPU lists{more}", only=where
        )
        for more, where in FREE_AT_FLOOR
    },
    **{
        (f"proc/zoneinfo{where}", f"node <node> <zone> {name}"): zone_pages(name)
        for where, names in (
            ("", ("spanned", "present")),
            (" (layout)", ("spanned", "present")),
        )
        for name in names
    },
    **{
        ("proc/zoneinfo", f"node <node> <zone> {name} without boost"): only(
            one_zone, zone_pages(name, f"{name} without boost")
        )
        for name in ("min", "low", "high", "promo")
    },
    ("proc/zoneinfo", beside("<watermark> of all zones")): only(
        shares_zones, Alteration(beside("low of all zones"), zone_pages("low").change, None)
    ),
    **{
        (f"proc/zoneinfo{where}", "node <node> <zone> start_pfn"): START
        for where in ("", " (layout)")
    },
    ("proc/zoneinfo", "node <node> <zone> managed"): only(one_zone, zone_pages("managed")),
    ("proc/zoneinfo", beside("node <node> <zone> managed")): only(
        shares_zones,
        Alteration(
            zone_label(beside("managed")),
            other_share,
            zone_pages("managed").remove,
            (beside("node 0 Normal managed"),),
        ),
    ),
    ("proc/zoneinfo", ALL_MANAGED): only(
        lambda step: shares_zones(step) and not_at_floor(step),
        Alteration(
            ALL_MANAGED, zone_pages("managed").change, also=(beside("node 0 DMA32 managed"),)
        ),
    ),
    ("proc/zoneinfo", "node <node> <zone> protection"): only(
        one_zone, Alteration(zone_label("protection"), other_protection, no_zone)
    ),
    ("proc/zoneinfo", "node <node> <zone> free and per-CPU lists"): only(
        one_zone, zone_pages("free", "free and per-CPU lists")
    ),
    ("proc/zoneinfo", beside("node <node> <zone> free and per-CPU lists")): only(
        shares_zones, zone_pages("free", beside("free and per-CPU lists"))
    ),
    ("proc/buddyinfo", "node <node> <zone> pages in chunks and per-CPU lists"): only(
        one_zone,
        Alteration(zone_label("pages in chunks and per-CPU lists"), other_chunks, no_chunks),
    ),
    ("proc/buddyinfo", beside("node <node> <zone> pages in chunks and per-CPU lists")): only(
        shares_zones,
        Alteration(
            zone_label(beside("pages in chunks and per-CPU lists")), other_chunks, no_chunks
        ),
    ),
    ("sys/devices/system/node", "<list>"): Alteration("online", other_list, no_list),
    ("sys/devices/system/node", "node<node> MemTotal"): only(not_at_floor, node_line("MemTotal")),
    **{("sys/devices/system/node", f"node<node> {name}"): node_line(name) for name in POOL},
    ("sys/devices/system/node", "node<node>/hugepages/<file>"): Alteration(
        f"node0/hugepages/{HUGE_FILE}", other_huge_pages, no_huge_pages
    ),
    ("sys/devices/system/node", "node<node> MemFree and per-CPU lists"): only(
        not_at_floor, node_line("MemFree", "MemFree and per-CPU lists")
    ),
    **{("proc/kpageflags", name): alteration for name, alteration in PAGES.items()},
    ("proc/iomem", "<range>"): RAM,
    ("sys/devices/system/memory", "block_size_bytes"): Alteration(
        "block_size_bytes", larger_blocks
    ),
    ("sys/devices/system/memory", "auto_online_blocks"): Alteration(
        "auto_online_blocks",
        lambda step, by: see_memory(step, auto_online_blocks="other"),
        lambda step: see_memory(step, auto_online_blocks=None),
    ),
    ("sys/devices/system/memory", "memory<block>/state"): block("state", "going-offline"),
    ("sys/devices/system/memory", "memory<block>/valid_zones"): block(
        "valid_zones", ("DMA", "none")
    ),
    ("sys/devices/system/memory", "memory<block> nodes"): block("nodes", (9,)),
    ("sys/module/memory_hotplug/parameters", "<parameter>"): Alteration(
        "online_policy", other_parameter, no_parameter
    ),
    **{
        ("sys/devices/system/xen_memory", name): counter(name)
        for name in ("target_kb", "current_kb", "low_kb", "high_kb")
    },
    **{
        ("sys/devices/system/xen_memory", f"proc/{file} {name}"): line(
            file, name, f"proc/{file} {name}", is_xen
        )
        for file, name in (("meminfo", "Balloon"), ("vmstat", "nr_balloon_pages"))
    },
    ("result", "status"): Alteration(
        "status",
        lambda step, by: replace(step, outcome=replace(step.outcome, status="fault")),
    ),
    ("result", "errno"): Alteration("errno", other_errno, no_errno),
    ("requests of the driver", "request <number>"): Alteration(
        request_label, other_request, no_request
    ),
    ("touched frames", "first frame not backed: <access>"): Alteration(
        "first frame not backed: write", other_frames, no_frames
    ),
    ("touched frames", "frames that end the kernel: <access>"): Alteration(
        "frames that end the kernel: write", frames_apart
    ),
    ("touched frames", "frames: <access>"): Alteration("frames: write", shifted("write", 0)),
    ("touched frames", "frames in no online block: <access>"): Alteration(
        "frames in no online block: write",
        shifted("write", 1),
        also=("frames: write", "frames in no online block: read"),
    ),
    ("messages of the driver", "message <number>"): Alteration(
        message_label, other_message, no_message
    ),
}
