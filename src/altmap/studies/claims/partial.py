"""How each driver brings memory that is backed only in part: the rows of the matrix.

A driver appears in the matrix by a record here; ``tests/test_matrix.py`` asks for one of each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from altmap.model.arch import Arch

__all__ = ("PARTIAL", "Partial", "Steps")

#: Steps as a scenario's TOML has them.
Steps = list[Mapping[str, Any]]
_GIB = 1 << 30
#: Above boot memory and at the start of a block on every architecture.
_BASE = 64 * _GIB


@dataclass(frozen=True, slots=True)
class Partial:
    """One driver, and what it does that leaves part of a memory block without backing.

    Attributes
    ----------
    driver : str
        As a scenario names it.
    arches : tuple of str
        Architectures that can have it.
    cases : tuple of (str, callable)
        What the case is, in words, and its steps on an architecture with a block size in bytes. The
        simplest comes first; a driver that always backs everything has the one case of a whole
        block. The steps must leave the block online, by the machine's default.
    machine : mapping
        Keys of ``[machine]`` that the driver needs.
    """

    driver: str
    arches: tuple[str, ...]
    cases: tuple[tuple[str, Callable[[Arch, int], Steps]], ...]
    machine: Mapping[str, Any] | None = None


def _dimm(arch: Arch, block_bytes: int) -> Steps:
    del arch
    return [{"do": "plug", "id": "m1", "size": _size(block_bytes)}]


def _hyperv_page(arch: Arch, block_bytes: int) -> Steps:
    del block_bytes
    return _hyperv(0, arch.page_size_bytes)


def _hyperv_second_half(arch: Arch, block_bytes: int) -> Steps:
    del arch
    return _hyperv(block_bytes // 2, block_bytes // 2)


def _hyperv_first_half(arch: Arch, block_bytes: int) -> Steps:
    del arch
    return _hyperv(0, block_bytes // 2)


def _hyperv(at_bytes: int, size_bytes: int) -> Steps:
    return [
        {
            "do": "plug",
            "id": "m1",
            "driver": "hyperv",
            "address": hex(_BASE + at_bytes),
            "size": _size(size_bytes),
        }
    ]


def _kmem(arch: Arch, block_bytes: int) -> Steps:
    del arch
    size = _size(block_bytes)
    return [{"do": "plug", "id": "m1", "driver": "kmem", "address": hex(_BASE), "size": size}]


def _standby(arch: Arch, block_bytes: int) -> Steps:
    del arch
    return [
        {"do": "plug", "id": "m1", "driver": "standby", "size": _size(block_bytes)},
    ]


def _probe(arch: Arch, block_bytes: int) -> Steps:
    del arch
    size = _size(block_bytes // 2)
    return [{"do": "plug", "id": "m1", "driver": "probe", "address": hex(_BASE), "size": size}]


def _virtio_mem(arch: Arch, block_bytes: int) -> Steps:
    sub_block = _size(arch.pageblock_nr_pages * arch.page_size_bytes)
    return [
        {
            "do": "plug",
            "id": "m1",
            "driver": "virtio-mem",
            "size": _size(4 * block_bytes),
            "block": sub_block,
            "requested": sub_block,
        }
    ]


def _xen(arch: Arch, block_bytes: int) -> Steps:
    del arch, block_bytes
    return [{"do": "resize", "id": "balloon", "size": "600MiB"}]


def _size(size_bytes: int) -> str:
    return f"{size_bytes >> 10}KiB"


_ARM64 = ("aarch64", "aarch64-16k", "aarch64-64k")

#: Every driver that has a record, in the order in which they are shown.
PARTIAL: dict[str, Partial] = {
    each.driver: each
    for each in (
        Partial(
            "dimm",
            ("x86_64", *_ARM64, "ppc64le", "ppc64le-64k"),
            (("a whole block, as a DIMM always is", _dimm),),
        ),
        Partial(
            "hyperv",
            ("x86_64",),  # a guest on arm64 says that it adds no memory
            (
                ("one page at the start of a block", _hyperv_page),
                ("the second half of a block", _hyperv_second_half),
                ("the first half of a block", _hyperv_first_half),
            ),
        ),
        Partial("kmem", ("x86_64", *_ARM64), (("whole blocks, as kmem adds", _kmem),)),
        Partial("standby", ("s390x",), (("a block that is there since boot", _standby),)),
        Partial("probe", ("x86_64",), (("half of a block", _probe),)),
        # With smaller blocks the first sub-block holds a whole memmap.
        Partial(
            "virtio-mem",
            ("x86_64", "aarch64", "aarch64-16k"),
            (("the first sub-block of a block of 256 MiB", _virtio_mem),),
            {"block_size": "256MiB"},
        ),
        Partial(
            "xen",
            ("x86_64",),
            (("the end of a section, for a domain that grows by 88 MiB", _xen),),
            {"platform": "xen", "memory": "512MiB", "xen_max_memory": "1GiB"},
        ),
    )
}
