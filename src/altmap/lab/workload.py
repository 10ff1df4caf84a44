"""Pages that come into use in a guest and are given back: the steps ``fill`` and ``free``.

Everything is done with what a kernel and busybox offer; pages that stay pinned for long would need
a program of its own.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass

from altmap.errors import InputError, LabError
from altmap.lab.guest import Guest
from altmap.lab.state import write_file
from altmap.scenario import Fill, HugePages
from altmap.trace import OK, Outcome

__all__ = ("GuestUsage",)

_FILES, _HUGE, _TRACING = "/files", "/huge", "/sys/kernel/tracing"
_MOUNT = f"mount -t tmpfs -o size=100% files {_FILES}"
_FILL_SECONDS = 120.0
_2_MIB = 2 << 20
#: The ring buffer has a header of 16 bytes in each page (kernel/trace/ring_buffer.c).
_RING_PAGE_BYTES = 4080
_SMALLEST_RING_KIB = 8


@dataclass(slots=True)
class _Used:
    """What a fill brought into use, as far as giving it back needs it."""

    kind: str
    size_bytes: int
    checksum: str = ""
    page_kib: int = 0
    node: int = 0


class GuestUsage:
    """Who uses which pages of a guest, by the names that a scenario gives.

    Parameters
    ----------
    guest : Guest
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self._used: dict[str, _Used] = {}
        self._refused: set[str] = set()

    def fill(self, step: Fill) -> Outcome:
        """Bring pages into use.

        Raises
        ------
        InputError
            If the name is taken, or no guest can be made to use pages in that way.
        """
        if step.id in self._used:
            raise InputError(f"fill {step.id!r}: a file of that id is there already")
        outcome = self._fill(step)
        if not outcome:
            self._used.pop(step.id, None)
            self._refused.add(step.id)
        return outcome

    def _fill(self, step: Fill) -> Outcome:
        if step.kind in ("file", "held"):
            return self._write_file(step)
        if step.kind == "kernel":
            self._used[step.id] = _Used(step.kind, int(step.size))
            return self._resize_ring()
        if step.kind == "pinned":
            raise InputError(
                f"fill {step.id!r}: no program in a guest pins pages for long; kind 'held' has "
                "a pipe hold some"
            )
        return self._fill_hugetlb(step)

    def free(self, name: str) -> Outcome:
        """Give back what a fill brought into use; a file must still be what it was.

        Of a fill that was refused there is nothing (ENOENT).

        Raises
        ------
        InputError
            If there was no such fill, or a guest gives back another one first.
        LabError
            If the file has changed.
        """
        used = self._used.get(name)
        if used is None and name in self._refused:
            return Outcome.refused("ENOENT", "", f"fill {name!r} was refused")
        if used is None:
            raise InputError(f"free {name!r}: no such file")
        # A trace buffer gives back the pages that it has had longest.
        first = next((id_ for id_, each in self._used.items() if each.kind == "kernel"), name)
        if used.kind == "kernel" and name != first:
            raise InputError(f"free {name!r}: of pages of the kernel a guest frees {first!r} first")
        del self._used[name]
        if used.kind == "kernel":
            return self._resize_ring()
        if used.kind in ("hugetlb", "hugetlb-file"):
            self._guest.run(f"rm -f {_HUGE}*/{name}")
            return self._add_huge(used, -used.size_bytes)
        if used.kind == "held":
            self._guest.run(f"kill $(cat /tmp/{name}); rm /tmp/{name}; sleep 1")
        if self._checksum(name) != used.checksum:
            raise LabError(f"free {name!r}: the file's pages changed since it was written")
        self._guest.run(f"rm {_FILES}/{name}")
        return OK

    def _write_file(self, step: Fill) -> Outcome:
        mounted = f"mkdir -p {_FILES} && (mountpoint -q {_FILES} || {_MOUNT})"
        # head copies byte by byte, which takes five times as long.
        count = f"bs=64k count={int(step.size)} iflag=count_bytes"
        write = f"dd if=/dev/urandom of={_FILES}/{step.id} {count}"
        if self._guest.run(f"{mounted} && {write}", _FILL_SECONDS).status:
            self._guest.run(f"rm -f {_FILES}/{step.id}")
            return Outcome.refused("ENOMEM", "", "the file could not be written")
        self._used[step.id] = _Used(step.kind, int(step.size), self._checksum(step.id))
        if step.kind == "held":
            # sendfile hands the file's own pages to the pipe, whose reader never reads.
            reader = f"sh -c 'echo $$ >/tmp/{step.id}; exec sleep 99999'"
            self._guest.run(
                f"(cat {_FILES}/{step.id} | {reader}) >/dev/null 2>&1 & sleep 1", _FILL_SECONDS
            )
        return OK

    def _checksum(self, name: str) -> str:
        return self._guest.run(f"md5sum {_FILES}/{name}", _FILL_SECONDS).text

    def _resize_ring(self) -> Outcome:
        """Give the trace buffer of CPU 0 the size of all fills: unmovable pages of the kernel.

        Each page of it has an object of slab besides, a cache line long (``struct buffer_page``).

        Raises
        ------
        InputError
            If the buffer refuses what the kernel has room for: it takes no more than MemAvailable
            (``kernel/trace/ring_buffer.c: __rb_allocate_pages``).
        """
        mounted = f"mountpoint -q {_TRACING} || mount -t tracefs tracing {_TRACING}"
        cost_bytes = 4096 + self._guest.hardware.guest.cache_line_bytes
        nr_pages = (
            sum(u.size_bytes for u in self._used.values() if u.kind == "kernel") // cost_bytes
        )
        kib = max(nr_pages * _RING_PAGE_BYTES // 1024, _SMALLEST_RING_KIB)
        size = f"{_TRACING}/per_cpu/cpu0/buffer_size_kb"
        self._guest.run(mounted)
        number = write_file(self._guest, size, str(kib), _FILL_SECONDS)
        if number == errno.ENOMEM and self._kib_of("MemAvailable") < kib < self._kib_of("MemFree"):
            raise InputError(f"fill: a guest's trace buffer of {kib} KiB exceeds MemAvailable")
        if number:
            return Outcome.refused(number, "", f"the trace buffer cannot have {kib} KiB")
        return OK

    def _kib_of(self, field: str) -> int:
        return int(self._guest.run(f"grep ^{field}: /proc/meminfo").text.split()[1])

    def _fill_hugetlb(self, step: Fill) -> Outcome:
        page_bytes = _2_MIB if step.page_size is None else int(step.page_size)
        used = _Used(step.kind, int(step.size), page_kib=page_bytes >> 10, node=step.node or 0)
        if step.size % page_bytes or self._guest.run(f"test -f {self._pool(used)}").status:
            raise InputError(
                f"fill {step.id!r}: node {used.node} of this guest has no huge pages of "
                f"{used.page_kib} KiB, or the size is no multiple of it"
            )
        self._add_huge(used, used.size_bytes)
        self._used[step.id] = used
        if step.kind == "hugetlb":
            return OK
        folder = f"{_HUGE}{used.page_kib}"
        mount = f"mount -t hugetlbfs -o pagesize={used.page_kib}K huge {folder}"
        mounted = f"mkdir -p {folder} && (mountpoint -q {folder} || {mount})"
        fill = f"{mounted} && fallocate -l {used.size_bytes} {folder}/{step.id}"
        if self._guest.run(fill, _FILL_SECONDS).status:
            self.free(step.id)
            return Outcome.refused("ENOSPC", "", "the pool has too few free huge pages")
        return OK

    def set_pool(self, step: HugePages) -> Outcome:
        """Write a number to ``nr_hugepages`` of a node.

        Raises
        ------
        InputError
            If the node has no huge pages of that size.
        """
        page_bytes = _2_MIB if step.page_size is None else int(step.page_size)
        pool = self._pool(_Used("hugetlb", 0, page_kib=page_bytes >> 10, node=step.node or 0))
        if self._guest.run(f"test -f {pool}").status:
            raise InputError(f"hugepages: this guest has no {pool}")
        self._guest.run(f"echo {step.nr_hugepages} >{pool}", _FILL_SECONDS)
        return OK

    def _pool(self, used: _Used) -> str:
        folder = f"/sys/devices/system/node/node{used.node}/hugepages"
        return f"{folder}/hugepages-{used.page_kib}kB/nr_hugepages"

    def _add_huge(self, used: _Used, size_bytes: int) -> Outcome:
        pool = self._pool(used)
        now = int(self._guest.run(f"cat {pool}").text)
        wanted = max(0, now + size_bytes // (used.page_kib << 10))
        self._guest.run(f"echo {wanted} >{pool}", _FILL_SECONDS)
        return OK
