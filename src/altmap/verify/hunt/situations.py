"""Situations: steps that reach a state which single steps seldom reach.

Each is a rule of its own: pages that prevent a step, sizes at a bound, memory beside other memory.
None names what it is to find.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from altmap.verify.hunt.drawing import Drawing, DrawnStep
from altmap.verify.hunt.steps import Maker, free_address

__all__ = ("SITUATIONS",)

_Steps = tuple[DrawnStep, ...]


def _round_trip(drawing: Drawing) -> _Steps | None:
    """Take blocks offline and online again."""
    step = drawing.of_device("offline")
    if step is None:
        return None
    step |= drawing.part()
    return step, step | {"do": "online", "to": drawing.online_type()}


def _poison(drawing: Drawing) -> _Steps | None:
    """Poison a page of a device, whose blocks then go offline and online again."""
    ranges = {id_: each.pfns for id_, each in drawing.devices().items() if each.pfns}
    if not ranges:
        return None
    name, pfns = drawing.chance.choice(list(ranges.items()))
    pfn = drawing.chance.randrange(pfns.start, pfns.end)
    address = pfn * drawing.model.kernel.arch.page_size_bytes
    offline = {"do": "offline", "id": name}
    online = {"do": "online", "id": name, "to": drawing.online_type()}
    return {"do": "poison", "address": f"{address:#x}"}, offline, online


def _ratio_bound(drawing: Drawing) -> _Steps:
    """Plug as much as the ratio of auto-movable allows, or a memory block more or less."""
    chance, unit = drawing.chance, drawing.family.unit_mib
    nodes = drawing.machine.get("nodes") or [{}]
    node = chance.randrange(len(nodes))
    ratio = chance.choice((25, 50, 100, 301))
    most = drawing.boot_mib(node) * ratio // 100 // unit * unit
    size = max(unit, min(most, 12 * unit) + chance.choice((0, 0, -unit, unit)))
    tunables = {
        "do": "set",
        "auto_online_blocks": "online",
        "online_policy": "auto-movable",
        "auto_movable_ratio": ratio,
    }
    plug = drawing.new("plug", "d", 1) | {"size": f"{size}MiB"}
    return tunables, plug | ({"node": node} if len(nodes) > 1 else {})


def _gap(drawing: Drawing) -> _Steps:
    """Leave a gap between two devices, whose zones go on beyond it; then fill it or shrink them."""
    chance, unit = drawing.chance, drawing.family.unit_mib
    low, gap, high = (unit * chance.choice((1, 1, 2, 3)) for _ in range(3))
    start = 0x2_8000_0000 + (len(drawing.steps) << 31)
    first, second, third = (drawing.new("plug", "d", 1 + n) for n in range(3))
    node = drawing.node(0.7)
    addresses = (start, start + (low + gap << 20), start + (low << 20))
    plugs = [
        step | {"size": f"{size}MiB", "address": f"{address:#x}"} | node
        for step, size, address in zip(
            (first, second, third), (low, high, gap), addresses, strict=True
        )
    ]
    chance.shuffle(plugs)
    onlines = [
        {"do": "online", "id": step["id"], "to": drawing.online_type()} for step in plugs[:2]
    ]
    last = chance.choice((first, second))["id"]
    return (
        {"do": "set", "auto_online_blocks": "offline"},
        *plugs[:2],
        *onlines,
        *chance.choice(
            (
                (),
                (plugs[2], {"do": "online", "id": plugs[2]["id"], "to": "online"}),
            )
        ),
        {"do": chance.choice(("offline", "unplug")), "id": last},
    )


def _extend_boot_zone(drawing: Drawing) -> _Steps:
    """Add memory to a zone that began at boot, and take it away again: its end is that of boot."""
    chance, unit = drawing.chance, drawing.family.unit_mib
    plug = drawing.new("plug", "d", 1) | {"size": f"{unit * chance.choice((1, 2))}MiB"}
    return (
        {"do": "set", "auto_online_blocks": "offline"},
        plug | drawing.node(1.0),
        {
            "do": "online",
            "id": plug["id"],
            "to": chance.choice(("online_kernel", "online_movable")),
        },
        {"do": "offline", "id": plug["id"]},
    )


def _refused_unplug(drawing: Drawing) -> Iterator[DrawnStep]:
    """Remove a device of which one block refuses, with other blocks online in other zones."""
    chance, unit = drawing.chance, drawing.family.unit_mib
    if drawing.there:
        name = chance.choice(drawing.there)["id"]
        yield {"do": "offline", "id": name}
    else:
        plug = drawing.new("plug", "d", 1) | {"size": f"{unit * chance.choice((3, 4))}MiB"}
        name = plug["id"]
        yield {"do": "set", "auto_online_blocks": "offline"}
        yield plug | drawing.node(0.7)
    if name not in drawing.devices():
        return
    online = {"do": "online", "id": name}
    low, high = _two_kinds(drawing)
    yield online | {"part": "first"} | low
    yield online | {"part": "last"} | high
    yield online | {"part": "middle"} | high
    fill = drawing.new("fill", "f") | {"kind": "kernel", "size": "16MiB"}
    yield chance.choice((fill, _refusal(drawing, name)))
    yield {"do": "unplug", "id": name}
    yield {"do": "free", "id": fill["id"]}
    yield {"do": "veto", "on": "going_offline", "errno": "none"}
    yield {"do": "unplug", "id": name}


def _veto_that_ends(drawing: Drawing) -> Iterator[DrawnStep]:
    """Have a device that goes refused some times, so that a second attempt may succeed."""
    chance = drawing.chance
    if not drawing.family.injects or not drawing.devices():
        return
    name, device = chance.choice(list(drawing.devices().items()))
    going = {"virtio-mem": {"do": "resize", "id": name, "size": "0MiB"}}
    go = going.get(
        device.driver, {"do": chance.choice(("unplug", "unplug", "offline")), "id": name}
    )
    yield {"do": "set", "online_policy": chance.choice(("contig-zones", "auto-movable"))}
    yield {"do": "offline", "id": name}
    yield {"do": "online", "id": name, "to": "online_movable"}
    yield _refusal(drawing, name, ends=True)
    yield go
    yield go


def _refusal(drawing: Drawing, name: str, *, ends: bool = False) -> DrawnStep:
    """Return a veto of going offline: of all blocks, or of some of a device.

    One that ends does so in the first or the second of two attempts that ask each block once.
    """
    chance = drawing.chance
    veto = {"do": "veto", "on": "going_offline", "errno": chance.choice(("EBUSY", "ENOMEM"))}
    blocks = drawing.model.kernel.block_ids(drawing.devices()[name].pfns)
    if drawing.family.injects and chance.random() < 0.5:
        first = chance.choice(blocks)
        blocks = range(first, min(first + chance.choice((1, 1, 2)), blocks.stop))
        veto["blocks"] = f"{blocks[0]}-{blocks[-1]}"
    return veto | ({"times": chance.randrange(1, 2 * len(blocks) + 1)} if ends else {})


def _failed_add(drawing: Drawing) -> _Steps | None:
    """Plug a device whose memory blocks cannot be created, and take it away."""
    if not drawing.family.injects:
        return None
    size = drawing.family.unit_mib * drawing.chance.choice((1, 2, 3))
    plug = drawing.new("plug", "d", 1) | {"size": f"{size}MiB"} | drawing.node(0.7)
    return {"do": "set", "fail_block_devices": True}, plug, {"do": "unplug", "id": plug["id"]}


def _two_kinds(drawing: Drawing) -> tuple[DrawnStep, DrawnStep]:
    """Return to which zones the low and the high blocks of a device go."""
    kernel, movable = {"to": "online_kernel"}, {"to": "online_movable"}
    return drawing.chance.choice(((kernel, movable), (movable, kernel), (kernel, kernel)))


def _memmap_does_not_fit(drawing: Drawing) -> _Steps | None:
    """Plug so much that a small machine has no memory for its memmap."""
    if drawing.machine["memmap_on_memory"] != "off" or drawing.boot_mib() > 512:
        return None
    size = drawing.boot_mib() * drawing.chance.choice((60, 64, 70))
    offline = {"do": "set", "auto_online_blocks": "offline"}
    return offline, drawing.new("plug", "d", 1) | {"size": f"{size}MiB"}


def _stays_offline(drawing: Drawing) -> _Steps:
    """Plug so much by virtio-mem that its limit of memory that is not online matters."""
    size = drawing.chance.choice((1280, 1536, 2048))
    plug = drawing.new("plug", "v", 1) | {"driver": "virtio-mem", "size": f"{size}MiB"}
    offline = {"do": "set", "auto_online_blocks": "offline"}
    return offline, plug | {"requested": f"{size}MiB"} | drawing.node(1.0)


def _half_taken_back(drawing: Drawing) -> Iterator[DrawnStep]:
    """Shrink a device whose block is two memory blocks of several kinds, of which one refuses."""
    plug = drawing.new("plug", "v", 1) | {"driver": "virtio-mem", "size": "512MiB"}
    plug |= {"requested": "256MiB", "block": "256MiB"}
    name = plug["id"]
    yield {"do": "set", "auto_online_blocks": "offline"}
    yield plug | drawing.node(1.0)
    if name not in drawing.devices():
        return
    low, high = _two_kinds(drawing)
    yield {"do": "online", "id": name, "part": "first"} | low
    yield {"do": "online", "id": name, "part": "last"} | high
    fill = drawing.new("fill", "f")
    held, kernel = {"kind": "held", "size": "4MiB"}, {"kind": "kernel", "size": "16MiB"}
    yield drawing.chance.choice((fill | held, fill | kernel, _refusal(drawing, name)))
    yield {"do": "resize", "id": name, "size": "0MiB"}


def _half_backed(drawing: Drawing) -> _Steps:
    """Offline a block of which the host backs one half, with pages in flight."""
    plug = drawing.new("plug", "h", 1) | {"driver": "hyperv", "size": "64MiB"}
    return (
        {"do": "set", "auto_online_blocks": "online_movable"},
        plug | free_address(drawing, (0, 64)),
        drawing.new("fill", "f", 2) | {"kind": "held", "size": "4MiB"},
        {"do": "offline", "id": plug["id"]},
    )


def _region_goes_on(drawing: Drawing) -> _Steps:
    """Have a Hyper-V host back a region in two requests, with or without a gap."""
    chance = drawing.chance
    start = int(free_address(drawing, (0,))["address"], 16)
    first, gap, second = chance.choice((64, 66, 128, 192)), chance.choice((0, 0, 2)), 62
    region = {"region": {"address": f"{start:#x}", "size": "384MiB"}}
    begin = drawing.new("plug", "h") | region
    go_on = drawing.new("plug", "h", 1) | region
    return (
        begin | {"driver": "hyperv", "address": f"{start:#x}", "size": f"{first}MiB"},
        go_on
        | {
            "driver": "hyperv",
            "address": f"{start + (first + gap << 20):#x}",
            "size": f"{second}MiB",
        },
    )


SITUATIONS: Mapping[str, Maker] = {
    "round_trip": _round_trip,
    "poison": _poison,
    "ratio_bound": _ratio_bound,
    "gap": _gap,
    "extend_boot_zone": _extend_boot_zone,
    "refused_unplug": _refused_unplug,
    "veto_that_ends": _veto_that_ends,
    "failed_add": _failed_add,
    "memmap_does_not_fit": _memmap_does_not_fit,
    "stays_offline": _stays_offline,
    "half_taken_back": _half_taken_back,
    "half_backed": _half_backed,
    "region_goes_on": _region_goes_on,
}
