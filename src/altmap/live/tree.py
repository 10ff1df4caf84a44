"""The files of a live machine by their paths, found and rendered when they are used.

What a path is costs nothing that grows with the machine: memory blocks are looked up one by one,
and the numbers of ``/proc`` are rendered when one of them is read for the first time after a step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from altmap.linux import memory
from altmap.linux.observation import Observation
from altmap.linux.paths import KPAGEFLAGS, PAGE_RUNS, PAGE_USES
from altmap.linux.sysroot import Sysroot
from altmap.live.attribute import Attribute, Family
from altmap.live.blocks import BUS_FOLDER, BlockFiles
from altmap.live.core import acpi_files, core_files, parameter_files
from altmap.live.dax import dax_files, dax_links, dax_nodes
from altmap.live.drivers import balloon_files, standby_files
from altmap.live.hugepages import hugepage_files
from altmap.live.machine import LiveMachine
from altmap.live.notifier import notifier_files
from altmap.live.pages import kpageflags_bytes
from altmap.live.processors import processor_files

__all__ = ("DeviceNode", "Folder", "Link", "PagesFile", "Tree")

#: Every file that is no plain content, by the part of the kernel that it belongs to.
FAMILIES: tuple[Family, ...] = (
    core_files,
    parameter_files,
    acpi_files,
    balloon_files,
    standby_files,
    notifier_files,
    dax_files,
    hugepage_files,
    processor_files,
)
#: Folders that are there without a file in them.
_EMPTY = (memory.ROOT, BUS_FOLDER, "sys/bus/memory/drivers", "altmap/dev")
_BUDDYINFO = "proc/buddyinfo"
#: Not shown: they would no longer be true after the first step.
_DROPPED = frozenset(
    (*PAGE_USES, *PAGE_RUNS.values(), "proc/kpagecgroup.names", "proc/pagetypeinfo")
)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder; *names* are rendered when it is listed."""

    names: Callable[[], Iterable[str]]


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link."""

    target: str


@dataclass(frozen=True, slots=True)
class PagesFile:
    """A file with a word for each page frame, read at any offset."""

    read: Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class DeviceNode:
    """A character device's node, which cannot be opened."""

    major: int
    minor: int


Node = Attribute | DeviceNode | Folder | Link | PagesFile


class Tree:
    """The files of a machine.

    Parameters
    ----------
    machine : LiveMachine
    extra : mapping of str to Attribute
        Files that are not the machine's, such as its log.
    """

    def __init__(self, machine: LiveMachine, extra: Mapping[str, Attribute] | None = None) -> None:
        self._machine = machine
        self._extra = dict(extra or {})
        self._blocks = BlockFiles(machine)
        self._base = _without_blocks(machine.base, self._blocks)
        self._files = _Cache(machine, self._find_files)
        self._folders = _Cache(machine, self._find_folders)
        self._numbers = _Cache(machine, self._render_numbers)
        self._words = _Cache(machine, lambda: machine.model.observer.kpageflags())
        self._names: tuple[frozenset[int], frozenset[str]] | None = None

    def find(self, path: str) -> Node | None:
        """Return what is at a path below the root, ``None`` if nothing is."""
        found = self._blocks.find(path)
        if isinstance(found, str):
            return Link(found)
        if isinstance(found, list):
            return Folder(lambda: found)
        if found is not None:
            return found
        node = self._files.get().get(path)
        if node is not None:
            return node
        names = self._folders.get().get(path)
        if names is None:
            return None
        return Folder(lambda: [*names, *self._blocks.names(path)])

    # --- what is there ---------------------------------------------------------------------

    def _find_files(self) -> dict[str, Node]:
        made: dict[str, Node] = {name: self._number_file(name) for name in self._number_names()}
        made |= {path: Link(target) for path, target in self._base.links.items()}
        if self._machine.model.observer.has_pages:
            made[_BUDDYINFO] = Attribute(self._show_buddyinfo)
            made[KPAGEFLAGS] = PagesFile(self._read_kpageflags)
        for family in FAMILIES:
            found = family(self._machine)
            made |= {p: each for p, each in found.items() if each.store or p not in made}
        made |= {path: Link(target) for path, target in dax_links(self._machine).items()}
        made |= {path: DeviceNode(*numbers) for path, numbers in dax_nodes(self._machine).items()}
        return made | self._extra

    def _find_folders(self) -> dict[str, dict[str, None]]:
        """Return the names in each folder, without those of memory blocks."""
        folders: dict[str, dict[str, None]] = {path: {} for path in ("", *_EMPTY)}
        for path in (*self._files.get(), *_EMPTY):
            below = path
            while below:
                above, _, name = below.rpartition("/")
                known = above in folders
                folders.setdefault(above, {})[name] = None
                if known and above not in _EMPTY:
                    break
                below = above
        return folders

    # --- what the observation renders ------------------------------------------------------

    def _number_names(self) -> frozenset[str]:
        """Return the paths of rendered files; they change with the nodes only."""
        nodes = frozenset(self._machine.model.kernel.online_nodes())
        if self._names is None or self._names[0] != nodes:
            self._names = nodes, frozenset(self._numbers.get()) - _DROPPED - {KPAGEFLAGS}
        return self._names[1]

    def _number_file(self, name: str) -> Attribute:
        return Attribute(lambda: self._numbers.get()[name])

    def _render_numbers(self) -> dict[str, bytes]:
        return dict(self._machine.model.numbers().render(self._base).files)

    def _show_buddyinfo(self) -> bytes:
        look = Observation(buddyinfo=self._machine.model.observer.buddyinfo())
        return look.render().files.get(_BUDDYINFO, b"")

    def _read_kpageflags(self, size: int, offset: int) -> bytes:
        words = self._words.get()
        return b"" if words is None else kpageflags_bytes(words, size, offset)


T = TypeVar("T")


class _Cache(Generic[T]):
    """A value that is made again after a step."""

    def __init__(self, machine: LiveMachine, make: Callable[[], T]) -> None:
        self._machine = machine
        self._make = make
        self._made: tuple[int, T] | None = None

    def get(self) -> T:
        generation = self._machine.generation
        if self._made is None or self._made[0] != generation:
            self._made = generation, self._make()
        return self._made[1]


def _without_blocks(base: Sysroot | None, blocks: BlockFiles) -> Sysroot:
    """Return captured files without those of memory blocks, which are looked up one by one."""
    if base is None:
        return Sysroot()
    return Sysroot(
        {path: raw for path, raw in base.files.items() if not blocks.owns(path)},
        {path: target for path, target in base.links.items() if not blocks.owns(path)},
    )
