"""What a hunt draws from: kernels, machines, sizes and steps that the lab can perform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from altmap.errors import InputError, one_of

__all__ = ("FAMILIES", "Family", "family_of")


@dataclass(frozen=True, slots=True)
class Family:
    """Machines of one kind, and the drivers and steps that their guests can be asked for.

    Attributes
    ----------
    name : str
        As the option ``--kind`` takes it.
    arch : str
    releases : tuple of str
        Of Debian's kernels that the lab has, the default first.
    platforms : tuple of str
    memory_mib : tuple of int
        Boot memory.
    unit_mib : int
        Sizes of plugged memory are multiples of it.
    steps : mapping of str to int
        Names of :data:`~altmap.verify.hunt.steps.STEPS` and
        :data:`~altmap.verify.hunt.situations.SITUATIONS`, and their weights.
    nodes : bool
        Whether machines have several nodes now and then.
    keys : mapping of str to sequence
        Further keys of the machine, each with the values that are drawn; ``None`` is left out.
    settings : mapping of str to sequence
        Such keys of which a guest is told when it has booted, so that each scenario has its own.
    words : tuple of str
        Words of the kernel's command line, of which a machine has one now and then. ``{end}`` is 1
        MiB less than the end of RAM as the word counts it, ``{half}`` and ``{quarter}`` are parts
        of boot memory, all in MiB.
    balloon_mib : tuple of int
        How far a balloon goes from boot memory.
    dax : str
        What creates dax devices, which are there at boot; empty without any.
    dax_mib : int
        Address of the first CXL window; boot memory and this lie below PMEM.
    boot_dimm : bool
        Whether a DIMM is there at boot now and then.
    injects : bool
        Whether the lab's module for failures can be loaded: vetoes that end, adds that fail.
    unplugs_once : bool
        Whether QEMU takes no second request for a device whose guest did not let go.
    forces_memmap : bool
        Whether every driver is made to ask for a memmap on memory now and then.
    """

    name: str
    arch: str
    releases: tuple[str, ...]
    platforms: tuple[str, ...]
    memory_mib: tuple[int, ...]
    unit_mib: int
    steps: Mapping[str, int]
    nodes: bool = True
    keys: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    settings: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    balloon_mib: tuple[int, ...] = ()
    dax: str = ""
    dax_mib: int = 0
    boot_dimm: bool = False
    injects: bool = False
    unplugs_once: bool = False
    forces_memmap: bool = False


_BLOCK_STEPS = {"online": 5, "offline": 7, "write": 2, "set_tunables": 3, "veto": 2}
_USE_STEPS = {
    **dict.fromkeys(("held", "huge_pages", "free", "round_trip"), 2),
    **dict.fromkeys(("kernel_pages", "pool"), 1),
    "fill": 4,
}
_DIMM_STEPS = {"plug": 6, "unplug": 4, "refused_unplug": 2, "extend_boot_zone": 1}
_DIMM_STEPS |= {"gap": 2, "memmap_does_not_fit": 1, "ratio_bound": 2, "poison": 2}
_FAILURES = {"veto_that_ends": 3, "failed_add": 1}
_COMMON = {**_BLOCK_STEPS, **_USE_STEPS, **_DIMM_STEPS}
_VIRTIO_MEM = {"plug_virtio_mem": 5, "resize": 8, "stays_offline": 1, "half_taken_back": 1}
_DAX_STEPS = {"unplug": 4, "plug_again": 4, "dax_state": 4, "poison": 1, "refused_unplug": 2}
_Values = Mapping[str, Sequence[Any]]
_ONLINE: _Values = {
    "auto_online_blocks": ("offline", "online", "online_kernel", "online_movable"),
    "online_policy": (None, "auto-movable"),
    "auto_movable_ratio": (None, 50, 100, 301),
}
_VIRTIO_MEM_MODES: _Values = {
    "virtio_mem": (
        *(None, None, None),
        {"bbm_safe_unplug": False},
        {"force_bbm": True, "bbm_block_size": "256MiB"},
        {"unplug_online": False},
    )
}
_BOOT: _Values = {"movable_node": (None, None, None, True), "cpus": (None, None, 2)}
_MEMMAP: _Values = {"memmap_on_memory": ("off", "on", "on", "force"), **_BOOT}
_CORE_WORDS = ("kernelcore={half}M", "movablecore={quarter}M")
_WORDS = ("mem={end}M", *_CORE_WORDS, "cma=64M", "hugepages=20")
_X86_WORDS = (*_WORDS, "memmap=3M$0x10000000", "crashkernel=64M")

_ARM64 = Family(
    "arm64",
    "aarch64",
    ("6.12", "7.3"),
    ("virt",),
    (512, 1024, 2048, 4096),
    128,
    _BLOCK_STEPS | _USE_STEPS | _VIRTIO_MEM | {"unplug": 2},
    nodes=False,
    keys=_MEMMAP,
    settings={**_ONLINE, **_VIRTIO_MEM_MODES},
    words=_WORDS,
)
_KMEM = Family(
    "kmem",
    "x86_64",
    ("6.12", "7.3", "6.1"),
    ("pc", "q35"),
    (1024, 1536),
    128,
    _BLOCK_STEPS | _USE_STEPS | _DAX_STEPS | {"veto_that_ends": 2},
    keys=_MEMMAP,
    settings=_ONLINE,
    words=_X86_WORDS,
    injects=True,
    dax="pmem",
    dax_mib=4096,
)
_KMEM_ARM64 = replace(
    _KMEM, name="kmem-arm64", arch="aarch64", platforms=("virt",), dax_mib=1024, injects=False
)
_KMEM_ARM64 = replace(_KMEM_ARM64, releases=("6.12", "7.3"), nodes=False, words=_CORE_WORDS)
_PPC64LE = Family(
    "ppc64le",
    "ppc64le",
    ("6.12",),
    ("pseries",),
    (1024, 1536, 2048),
    256,
    _COMMON,
    keys={**_MEMMAP, "mmu": (None, None, None, "hash")},
    settings=_ONLINE,
    words=(*_CORE_WORDS, "hugepages=20"),
    unplugs_once=True,
)
FAMILIES = (
    Family(
        "pc",
        "x86_64",
        ("6.12", "7.3", "6.1"),
        ("pc", "q35"),
        (256, 512, 768, 1000, 1024, 1536, 2048, 3072, 3074, 4096),
        128,
        _COMMON | _VIRTIO_MEM | _FAILURES | {"set_acpi": 1},
        keys={**_MEMMAP, "hugetlb_free_vmemmap": (None, None, None, True)},
        settings={**_ONLINE, **_VIRTIO_MEM_MODES},
        words=_X86_WORDS,
        boot_dimm=True,
        injects=True,
        forces_memmap=True,
    ),
    Family(
        "hyperv",
        "x86_64",
        ("6.12", "7.3", "6.1"),
        ("pc", "q35"),
        (1024, 2048, 4096),
        128,
        _BLOCK_STEPS
        | _USE_STEPS
        | {"plug_hyperv": 8, "half_backed": 2, "region_goes_on": 2, "balloon": 2, "plug_probe": 1},
        keys={**_MEMMAP, "balloon": ("hyperv",)},
        settings={**_ONLINE, "auto_online_blocks": ("online", "online_movable")},
        words=_X86_WORDS,
        injects=True,
        balloon_mib=(-512, -256, -130, -1, 0, 1, 128, 200, 512, 1024),
    ),
    Family(
        "xen",
        "x86_64",
        ("6.12", "7.3", "6.1"),
        ("xen",),
        (512, 768, 1024),
        128,
        _BLOCK_STEPS | {"balloon": 10, "fill": 1, "free": 1},
        nodes=False,
        keys={**_BOOT, "xen_max_memory": (None, None, "1280MiB")},
        settings=_ONLINE,
        balloon_mib=(-128, -64, -33, -1, 0, 1, 64, 128, 192, 256, 384),
    ),
    _ARM64,
    replace(_ARM64, name="arm64-16k", arch="aarch64-16k", memory_mib=(1024, 2048)),
    _KMEM,
    replace(
        _KMEM,
        name="kmem-cxl",
        releases=("6.12", "7.3"),
        platforms=("q35",),
        memory_mib=(1024,),
        nodes=False,
        dax="cxl",
        dax_mib=0x1100,
    ),
    _KMEM_ARM64,
    replace(_KMEM_ARM64, name="kmem-arm64-16k", arch="aarch64-16k"),
    _PPC64LE,
    replace(_PPC64LE, name="ppc64le-64k", arch="ppc64le-64k", releases=("6.12", "6.1")),
    Family(
        "s390x",
        "s390x",
        ("6.12", "6.1"),
        ("s390-ccw",),
        (1024, 2048),
        256,
        _BLOCK_STEPS | _USE_STEPS,
        nodes=False,
        keys=_BOOT,
        settings=_ONLINE,
        words=(*_CORE_WORDS, "mem={end}M"),
    ),
)


def family_of(name: str) -> Family:
    """Return a family by name.

    Raises
    ------
    InputError
        Naming the families.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    raise InputError(f"kind {name!r}: {one_of(name, (each.name for each in FAMILIES))}")
