"""What a machine's files say about its memory, as values.

The model makes these and a real kernel's files are read into them, so that both can be compared
field by field. A file that a machine does not have is ``None`` here, never a guess.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from math import log2

from altmap.errors import InputError
from altmap.linux import (
    buddyinfo,
    iomem,
    meminfo,
    memory,
    node,
    pageuse,
    parameters,
    version,
    vmstat,
    xen,
    zoneinfo,
)
from altmap.linux.evidence import (
    NOTHING_GIVEN,
    PAGE_SIZES,
    Evidence,
    Given,
    Indication,
    agreed,
    evidence_of,
)
from altmap.linux.iomem import Resource
from altmap.linux.memory import Block, MemoryFolder
from altmap.linux.node import NodeFolder
from altmap.linux.pagewords import PageRun, PageWords
from altmap.linux.paths import KPAGEFLAGS, PAGE_RUNS, PAGE_USES
from altmap.linux.reading import Reader
from altmap.linux.sysroot import Sysroot
from altmap.linux.xen import BalloonFolder
from altmap.linux.zoneinfo import ZoneInfo

__all__ = (
    "BalloonFolder",
    "Block",
    "MemoryFolder",
    "NodeFolder",
    "Observation",
    "PageRun",
    "Resource",
    "ZoneInfo",
    "page_size_bytes",
    "page_size_found",
)


@dataclass(frozen=True, slots=True)
class Observation:
    """All that one look at a machine showed.

    Attributes
    ----------
    version, cmdline : str or None
        ``/proc/version``, ``/proc/cmdline``, without the newline.
    machine : str or None
        As ``uname -m``, if the files tell.
    meminfo : dict or None
        Name to number as in the file (kB where the file says kB, else a count), in file order.
    vmstat : dict or None
        Name to number, in file order.
    zoneinfo : tuple of ZoneInfo or None
    buddyinfo : dict or None
        ``(node, zone)`` to free chunks by order.
    iomem : tuple of Resource or None
        In file order; nesting by depth.
    kpageflags : PageWords or None
        Flags by page frame.
    kpagecount, kpagecgroup : PageWords or None
        How often processes map a page, and the inode of the cgroup it is charged to.
    cgroups : dict
        Paths of cgroups by inode.
    memory : MemoryFolder or None
    nodes : NodeFolder or None
    parameters : dict
        ``/sys/module/memory_hotplug/parameters``: ``memmap_on_memory``, ``online_policy``, ...
    balloon : BalloonFolder or None
        The Xen balloon driver's counters; ``None`` on what is no Xen domain.
    problems : dict of str to str
        What was not understood: a note by path. Not part of equality.
    evidence : Evidence
        What machine it is, and by which files. Not part of equality.
    arch_file : str or None
        ``/proc/sys/kernel/arch``, which kernels have since 6.1.
    """

    version: str | None = None
    machine: str | None = None
    cmdline: str | None = None
    meminfo: dict[str, int] | None = None
    vmstat: dict[str, int] | None = None
    zoneinfo: tuple[ZoneInfo, ...] | None = None
    buddyinfo: dict[tuple[int, str], tuple[int, ...]] | None = None
    iomem: tuple[Resource, ...] | None = None
    kpageflags: PageWords | None = None
    kpagecount: PageWords | None = None
    kpagecgroup: PageWords | None = None
    cgroups: dict[int, str] = field(default_factory=dict)
    memory: MemoryFolder | None = None
    nodes: NodeFolder | None = None
    parameters: dict[str, str] = field(default_factory=dict)
    balloon: BalloonFolder | None = None
    problems: dict[str, str] = field(default_factory=dict, compare=False)
    evidence: Evidence = field(default=Evidence(), compare=False)
    arch_file: str | None = None

    @classmethod
    def read(cls, sysroot: Sysroot, given: Given = NOTHING_GIVEN) -> Observation:
        """Return what the sysroot's files say, as far as they are understood.

        *given* replaces what they tell of the machine itself.

        A file that is not understood is ``None``, as one that is missing; a line that is not
        understood is left out. ``problems`` has a note of each.
        """
        reader = Reader(sysroot)
        evidence = evidence_of(sysroot.files, given)
        reader.parse("proc/version", version.parse)  # what is no release is noted
        seen = cls(
            version=reader.parse("proc/version", _parse_line),
            machine=evidence.machine,
            evidence=evidence,
            arch_file=(reader.text("proc/sys/kernel/arch") or "").strip() or None,
            cmdline=reader.parse("proc/cmdline", _parse_line),
            meminfo=reader.parse("proc/meminfo", meminfo.parse),
            vmstat=reader.parse("proc/vmstat", vmstat.parse),
            zoneinfo=reader.parse("proc/zoneinfo", zoneinfo.parse),
            buddyinfo=reader.parse("proc/buddyinfo", buddyinfo.parse),
            iomem=reader.parse("proc/iomem", iomem.parse),
            kpageflags=_page_words(reader, sysroot, KPAGEFLAGS),
            kpagecount=_page_words(reader, sysroot, PAGE_USES[0]),
            kpagecgroup=_page_words(reader, sysroot, PAGE_USES[1]),
            cgroups=reader.parse("proc/kpagecgroup.names", pageuse.parse_cgroups) or {},
            memory=reader.attempt(memory.ROOT, lambda: memory.parse(reader)),
            nodes=reader.attempt(node.ROOT, lambda: node.parse(reader)),
            parameters=parameters.parse(reader),
            balloon=reader.attempt(xen.ROOT, lambda: xen.parse(reader)),
        )
        return replace(seen, problems=sysroot.notes | reader.problems.by_path())

    def require(self, who: str, *names: str) -> None:
        """Check that the files show what a question needs.

        Parameters
        ----------
        who : str
            What asks, which starts the message.
        names : str
            Attributes, such as ``zoneinfo``.

        Raises
        ------
        InputError
            If one is missing or was not understood; the message says which.
        """
        for name in names:
            if not getattr(self, name):
                path = _PATHS[name]
                about = [text for at, text in self.problems.items() if at.startswith(path)]
                raise InputError(f"{who}: needs {path}: {about[0] if about else 'it is missing'}")

    def __repr__(self) -> str:
        words = (self.version or "").split()
        shown = [f"Linux {words[2]}"] if len(words) > 2 else []
        if self.memory is not None:
            size = self.memory.block_size_bytes >> 20
            shown.append(f"{len(self.memory.blocks)} memory blocks of {size} MiB")
        if self.meminfo:
            shown.append(f"MemTotal {self.meminfo.get('MemTotal', 0)} kB")
        return f"<Observation: {', '.join(shown) or 'no files'}>"

    def _repr_html_(self) -> str:
        from altmap import _html

        return _html(self)

    @property
    def release(self) -> str | None:
        """The release as ``uname -r``, ``None`` if no file tells.

        Raises
        ------
        InputError
            If ``/proc/version`` has none.
        """
        if self.evidence.releases:
            return str(self.evidence.releases[0].value)
        return None if self.version is None else version.parse(self.version).full

    @property
    def missing(self) -> tuple[str, ...]:
        """The files and folders that the machine did not show, by path."""
        return tuple(path for name, path in _PATHS.items() if _is_absent(getattr(self, name)))

    def render(self, base: Sysroot | None = None) -> Sysroot:
        """Return a sysroot whose files say this, and for the rest what *base* says.

        What is ``None`` here stays as in *base*. Memory blocks that are not here are dropped with
        their links.
        """
        made = Sysroot()
        for path, text in _rendered_files(self):
            made.files[path] = text.encode()
        if self.kpageflags is not None:
            if self.kpageflags.is_compact:
                made.files[PAGE_RUNS[KPAGEFLAGS]] = self.kpageflags.render().encode()
            else:
                made.pages[KPAGEFLAGS] = self.kpageflags
        for part in _rendered_folders(self):
            made.files |= part.files
            made.links |= part.links
        if base is None:
            return made
        return Sysroot(
            {path: raw for path, raw in base.files.items() if not _owns(self, path)} | made.files,
            {path: to for path, to in base.links.items() if not _owns(self, path)} | made.links,
            tuple(path for path in base.unreadable if path not in made.files),
            {path: words for path, words in base.pages.items() if not _owns(self, path)}
            | made.pages,
        )


_PAGE_FILES = frozenset((*PAGE_RUNS, *PAGE_RUNS.values(), "proc/kpagecgroup.names"))
_PATHS = {
    "version": "proc/version",
    "cmdline": "proc/cmdline",
    "meminfo": "proc/meminfo",
    "vmstat": "proc/vmstat",
    "zoneinfo": "proc/zoneinfo",
    "buddyinfo": "proc/buddyinfo",
    "iomem": "proc/iomem",
    "kpageflags": KPAGEFLAGS,
    "memory": memory.ROOT,
    "nodes": node.ROOT,
    "parameters": parameters.ROOT,
}


def _is_absent(value: object) -> bool:
    return value in (None, (), {}) or (isinstance(value, PageWords) and not value)


def _page_words(reader: Reader, sysroot: Sysroot, path: str) -> PageWords | None:
    return reader.attempt(path, lambda: sysroot.page_words(path))


def _parse_line(text: str) -> str:
    return text.removesuffix("\n")


def _rendered_files(seen: Observation) -> Iterator[tuple[str, str]]:
    if seen.version is not None:
        yield "proc/version", f"{seen.version}\n"
    if seen.arch_file is not None:
        yield "proc/sys/kernel/arch", f"{seen.arch_file}\n"
    if seen.cmdline is not None:
        yield "proc/cmdline", f"{seen.cmdline}\n"
    if seen.meminfo is not None:
        yield "proc/meminfo", meminfo.render(seen.meminfo)
    if seen.vmstat is not None:
        yield "proc/vmstat", vmstat.render(seen.vmstat)
    if seen.zoneinfo is not None:
        yield "proc/zoneinfo", zoneinfo.render(seen.zoneinfo)
    if seen.buddyinfo is not None:
        yield "proc/buddyinfo", buddyinfo.render(seen.buddyinfo)
    if seen.iomem is not None:
        yield "proc/iomem", iomem.render(seen.iomem)


def _rendered_folders(seen: Observation) -> Iterator[Sysroot]:
    if seen.memory is not None:
        yield memory.render(seen.memory)
    if seen.nodes is not None:
        yield node.render(seen.nodes)
    yield parameters.render(seen.parameters)
    if seen.balloon is not None:
        yield xen.render(seen.balloon)


def _owns(seen: Observation, path: str) -> bool:
    """Tell whether the observation replaces what a base has at *path*."""
    if path in _PAGE_FILES:
        return seen.kpageflags is not None  # who uses pages is dropped: it would no longer be true
    return bool(
        (seen.memory is not None and memory.owns(path, seen.memory))
        or (seen.nodes is not None and node.owns(path, seen.nodes))
    )


def page_size_bytes(seen: Observation) -> int | None:
    """Return the page size, ``None`` if the files do not tell.

    Most architectures have one. Else what names it decides, or what follows from the machine's own
    numbers: the zones end where the last online block does. MemTotal need not be the sum of managed
    pages, so it decides last.

    Raises
    ------
    InputError
        If the files contradict each other on the machine or its page size.
    """
    found = page_size_found(seen)
    return None if found is None else int(found.value)


def page_size_found(seen: Observation) -> Indication | None:
    """Return the page size with its ground; as :func:`page_size_bytes`."""
    machine = agreed("the machine", seen.evidence.machines)
    name = seen.machine if machine is None else machine.value
    sizes = dict(PAGE_SIZES).get(str(name), _PAGE_SIZES)
    shown = agreed("the page size", seen.evidence.page_sizes)
    if len(sizes) == 1:
        if shown is not None and shown.value != sizes[0]:
            ground = Indication(sizes[0], f"the machine, {name}")
            agreed("the page size", (ground, shown))
        return Indication(sizes[0], f"the machine, {name}")
    return shown or next(_page_sizes_implied(seen, sizes), None)


#: What Linux is built with.
_PAGE_SIZES = (4 << 10, 16 << 10, 64 << 10)
#: Sizes are factors of 4 apart, so that a quotient within a factor of 2 tells them apart.
_MOST_LOG2 = 1.0


def _page_sizes_implied(seen: Observation, sizes: Sequence[int]) -> Iterator[Indication]:
    zones = [zone for zone in seen.zoneinfo or () if zone.name != "Device"]
    online = [
        nr for nr, b in (seen.memory.blocks if seen.memory else {}).items() if b.state != "offline"
    ]
    block = seen.memory.block_size_bytes if seen.memory else 0
    ram = [line for line in seen.iomem or () if line.name.startswith("System RAM")]
    present, managed = (sum(z.pages.get(n, 0) for z in zones) for n in ("present", "managed"))
    for size_bytes, nr_pages, ground in (
        (
            (max(online, default=-1) + 1) * block,
            max((zone.span[1] for zone in zones if zone.span), default=0),
            "where zones (proc/zoneinfo) and memory blocks end",
        ),
        (len(online) * block, present, "present pages (proc/zoneinfo) and online memory blocks"),
        ((seen.meminfo or {}).get("MemTotal", 0) * 1024, managed, "MemTotal and managed pages"),
        (sum(line.end - line.start for line in ram), present, "System RAM and present pages"),
        (
            max((line.end for line in ram), default=0),
            seen.kpageflags.nr_pages if seen.kpageflags else 0,
            "where System RAM and proc/kpageflags end",
        ),
    ):
        if not nr_pages or size_bytes < nr_pages:
            continue
        size = min(sizes, key=lambda page: abs(log2(size_bytes / nr_pages / page)))
        if abs(log2(size_bytes / nr_pages / size)) < _MOST_LOG2:
            yield Indication(size, ground, inferred=True)
