"""Single steps that a hunt draws, each made by the function of its name.

A step that does not fit the machine is dropped by the drawing, so these functions need not know
what a driver or an architecture allows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from altmap.model.kernel.hugetlb import hugepage_sizes_bytes
from altmap.verify.hunt.drawing import ONLINE_TYPES, Drawing, DrawnStep, mib

__all__ = ("STEPS", "Maker", "free_address", "hugetlb_size")

#: Makes a step, or several, each of which is drawn when the one before was tried.
#: ``None`` if there is nothing to make them for.
Maker = Callable[[Drawing], DrawnStep | Iterable[DrawnStep] | None]

_VETO_ERRNOS = ("EPERM", "EBUSY", "ENOMEM", "EINVAL", "none")


# --- devices -------------------------------------------------------------------------------


def _plug(drawing: Drawing) -> DrawnStep:
    chance, unit = drawing.chance, drawing.family.unit_mib
    size = unit * chance.choice((1, 1, 2, 3, 4, 5, 8, 12))
    if chance.random() < 0.1 and unit == 128:
        size += 2 * chance.randrange(1, 64)
    step = drawing.new("plug", "d") | {"size": f"{size}MiB"} | drawing.node(0.7)
    if chance.random() < 0.25 and drawing.family.name == "pc":
        step["address"] = f"{0x1_4000_0000 + (chance.randrange(64) << 27):#x}"
    return step


def _plug_again(drawing: Drawing) -> DrawnStep | None:
    """Bind a device again whose memory was there at boot."""
    gone = [step for step in drawing.there if step["id"] not in drawing.devices()]
    if not gone:
        return None
    return drawing.chance.choice(gone) | {"memmap_on_memory": drawing.chance.choice((True, False))}


def _plug_virtio_mem(drawing: Drawing) -> DrawnStep:
    size = drawing.chance.choice((256, 512, 1024, 1280, 2048))
    step = drawing.new("plug", "v") | {"driver": "virtio-mem", "size": f"{size}MiB"}
    step["requested"] = f"{_part_of(drawing, size)}MiB"
    if drawing.chance.random() < 0.4:
        step["block"] = f"{drawing.chance.choice((4, 16, 128, 256, 256, 512))}MiB"
    return step | drawing.node(1.0)


def _plug_hyperv(drawing: Drawing) -> DrawnStep:
    size = drawing.chance.choice((2, 32, 64, 66, 128, 130, 192, 256, 320))
    step = drawing.new("plug", "h") | {"driver": "hyperv", "size": f"{size}MiB"}
    return step | free_address(drawing, (0, 0, 2, 64))


def _plug_probe(drawing: Drawing) -> DrawnStep:
    size = drawing.chance.choice((2, 64, 128))
    step = drawing.new("plug", "p") | {"driver": "probe", "size": f"{size}MiB"}
    return step | free_address(drawing, (0, 0, 0, 128, 64))


def _unplug(drawing: Drawing) -> DrawnStep | None:
    return drawing.of_device("unplug")


def _resize(drawing: Drawing) -> DrawnStep | None:
    step = drawing.of_device("resize", "virtio-mem")
    if step is None:
        return None
    plug = next(each for each in drawing.steps if each.get("id") == step["id"])
    return step | {"size": f"{_part_of(drawing, mib(plug['size']))}MiB"}


def _balloon(drawing: Drawing) -> DrawnStep:
    size = drawing.boot_mib() + drawing.chance.choice(drawing.family.balloon_mib)
    return {"do": "resize", "id": "balloon", "size": f"{size}MiB"}


def _dax_state(drawing: Drawing) -> DrawnStep | None:
    if not drawing.there:
        return None
    file = f"/sys/bus/dax/devices/{drawing.chance.choice(drawing.there)['id']}/state"
    word = drawing.chance.choice(("unplugged", "unplugged", *ONLINE_TYPES, "offline"))
    return {"do": "write", "file": file, "word": word}


# --- blocks --------------------------------------------------------------------------------


def _online(drawing: Drawing) -> DrawnStep | None:
    step = drawing.of_device("online")
    return step and step | drawing.part() | {"to": drawing.online_type()}


def _offline(drawing: Drawing) -> DrawnStep | None:
    if drawing.chance.random() < 0.15:
        # Of boot memory: some below the first block and the last, which never go.
        return {"do": "offline", "blocks": drawing.chance.randrange(4)}
    step = drawing.of_device("offline")
    return step and step | drawing.part()


def _write(drawing: Drawing) -> DrawnStep:
    block = drawing.chance.choice((0, 1, 2, 7, 31, 32, 33, 40, 999))
    file, words = drawing.chance.choice(
        (
            (f"memory{block}/state", ("offline", *ONLINE_TYPES, "maybe", "")),
            (f"memory{block}/online", ("0", "1", "2")),
            ("auto_online_blocks", ("offline", "online", "sometimes")),
        )
    )
    path = f"/sys/devices/system/memory/{file}"
    return {"do": "write", "file": path, "word": drawing.chance.choice(words)}


def _set_tunables(drawing: Drawing) -> DrawnStep:
    tunables: list[tuple[str, tuple[object, ...]]] = [
        ("auto_online_blocks", ("offline", *ONLINE_TYPES)),
        ("online_policy", ("contig-zones", "auto-movable")),
        ("auto_movable_ratio", (0, 100, 301, 1000)),
    ]
    if "nodes" in drawing.machine:  # without CONFIG_NUMA there is no such file
        tunables.append(("auto_movable_numa_aware", (True, False)))
    key, words = drawing.chance.choice(tunables)
    return {"do": "set", key: drawing.chance.choice(words)}


def _set_acpi(drawing: Drawing) -> DrawnStep:
    return {"do": "set", "acpi_memory_hotplug": drawing.chance.choice((True, False))}


def _veto(drawing: Drawing) -> DrawnStep:
    on = drawing.chance.choice(("going_online", "going_offline"))
    step: DrawnStep = {"do": "veto", "on": on, "errno": drawing.chance.choice(_VETO_ERRNOS)}
    if drawing.family.injects and drawing.chance.random() < 0.4:
        step["times"] = drawing.chance.randrange(1, 4)
    return step


# --- pages in use --------------------------------------------------------------------------


def _fill(drawing: Drawing) -> DrawnStep:
    return drawing.new("fill", "f") | {"size": f"{drawing.chance.choice((4, 64, 200))}MiB"}


def _held(drawing: Drawing) -> DrawnStep:
    return drawing.new("fill", "f") | {"kind": "held", "size": "4MiB"}


def _kernel_pages(drawing: Drawing) -> DrawnStep:
    return drawing.new("fill", "f") | {"kind": "kernel", "size": "16MiB"}


def _huge_pages(drawing: Drawing) -> DrawnStep:
    page = hugetlb_size(drawing)
    size = max(page, drawing.chance.choice((16, 64, 128)))
    kind = drawing.chance.choice(("hugetlb", "hugetlb-file"))
    step = drawing.new("fill", "f") | {"kind": kind, "page_size": f"{page}MiB"}
    return step | {"size": f"{size}MiB"} | drawing.node(0.5)


def _pool(drawing: Drawing) -> DrawnStep:
    page = hugetlb_size(drawing)
    number = drawing.chance.choice((0, 0, 1, 64, 200)) // page or drawing.chance.randrange(2)
    step = {"do": "hugepages", "nr_hugepages": number, "page_size": f"{page}MiB"}
    return step | drawing.node(0.5)


def _free(drawing: Drawing) -> DrawnStep | None:
    return {"do": "free", "id": drawing.chance.choice(drawing.fills)} if drawing.fills else None


# --- parts of them -------------------------------------------------------------------------


def free_address(drawing: Drawing, offsets_mib: tuple[int, ...]) -> DrawnStep:
    """Return an address of its own for memory of which Linux is not told."""
    start = 0x2_0000_0000 + (len(drawing.steps) << 29)
    return {"address": f"{start + (drawing.chance.choice(offsets_mib) << 20):#x}"}


def hugetlb_size(drawing: Drawing) -> int:
    """Return a size of huge pages in MiB; seldom of those of 1 GiB."""
    sizes = [size >> 20 for size in hugepage_sizes_bytes(drawing.model.kernel.arch)]
    return sizes[-1] if drawing.chance.random() < 0.1 else sizes[0]


def _part_of(drawing: Drawing, size: int) -> int:
    return drawing.chance.choice((0, 2, 64, 130, 256, 300, size // 2, size - 2, size))


STEPS: Mapping[str, Maker] = {
    "plug": _plug,
    "plug_again": _plug_again,
    "plug_virtio_mem": _plug_virtio_mem,
    "plug_hyperv": _plug_hyperv,
    "plug_probe": _plug_probe,
    "unplug": _unplug,
    "resize": _resize,
    "balloon": _balloon,
    "dax_state": _dax_state,
    "online": _online,
    "offline": _offline,
    "write": _write,
    "set_tunables": _set_tunables,
    "set_acpi": _set_acpi,
    "veto": _veto,
    "fill": _fill,
    "held": _held,
    "kernel_pages": _kernel_pages,
    "huge_pages": _huge_pages,
    "pool": _pool,
    "free": _free,
}
