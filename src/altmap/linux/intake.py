"""What one reading of a folder or archive takes in, within limits."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from altmap.errors import InputError
from altmap.linux.paths import (
    PAGE_RUNS,
    check_link,
    check_tree,
    is_configuration,
    leads_on,
)

if TYPE_CHECKING:
    from altmap.linux.pagewords import PageWords

__all__ = (
    "MAX_FILE_BYTES",
    "MAX_LINES",
    "MAX_MEMBERS",
    "MAX_RAW_BYTES",
    "MAX_SMALL_BYTES",
    "MAX_TOTAL_BYTES",
    "Intake",
)

MAX_MEMBERS = 8_000_000  # 64 TiB in blocks of 128 MiB have about 5 million
MAX_SMALL_BYTES = 1 << 16  # sysfs has a page at most for a file, of 64 KiB on some machines
MAX_FILE_BYTES = 64 << 20  # proc/zoneinfo of 64 nodes and 2000 CPUs has some 25 MB
MAX_TOTAL_BYTES = 256 << 20
#: What is parsed of a line takes up to 400 bytes. The first line of each file is not counted.
MAX_LINES = 2_000_000
MAX_RAW_BYTES = 16 << 30  # proc/kpageflags of 8 TiB; it is made compact while it is read

_SMALL = re.compile(r"sys/|proc/sys/|proc/(?:cmdline|version)$")

_CHUNK = 1 << 16
_RAW_CHUNK = 1 << 22


@dataclass(slots=True)
class _Taken:
    """How much was taken in so far, of one folder or archive."""

    nr_members: int = 0
    nr_bytes: int = 0
    nr_lines: int = 0


class Intake:
    """Collects files and links; refuses what breaks a limit or a rule.

    Parameters
    ----------
    source : str
        The folder or archive, which starts every message.

    Attributes
    ----------
    files, links, pages : dict
        As in :class:`altmap.linux.sysroot.Sysroot`.
    unreadable : list of str
        Paths that are there but could not be read.
    notes : dict of str to str
        What is wrong with files that were left out, by path.
    skips : frozenset of str
        Paths that are not asked for.
    lazy : bool
        Files with a word for each page frame stay on disk until they are asked for.
    """

    def __init__(
        self, source: str, skips: frozenset[str] = frozenset(), *, lazy: bool = False
    ) -> None:
        self.source = source
        self.skips = skips
        self.lazy = lazy
        self.files: dict[str, bytes] = {}
        self.links: dict[str, str] = {}
        self.pages: dict[str, PageWords] = {}
        self.unreadable: list[str] = []
        self.notes: dict[str, str] = {}
        self._taken = _Taken()

    def for_another(self, source: str) -> Intake:
        """Return what collects another sysroot of the same archive, within the same limits."""
        made = Intake(source, self.skips, lazy=self.lazy)
        made._taken = self._taken
        return made

    def error(self, name: str, rule: str) -> InputError:
        """Return the error that member *name* breaks *rule*."""
        return InputError(f"{self.source}: member {name!r}: {rule}")

    def count(self, name: str) -> None:
        """Count one more member, kept or not."""
        self._taken.nr_members += 1
        if self._taken.nr_members > MAX_MEMBERS:
            raise self.error(name, f"need at most {MAX_MEMBERS} members")

    def link(self, path: str, target: str) -> None:
        """Take in a symbolic link; of udev's rules only what masks a file, as an empty one."""
        if is_configuration(path):
            if target == "/dev/null" and not leads_on(path):
                self.file(path, lambda _: b"")
            return
        self._require_new(path)
        try:
            check_link(path, target)
        except InputError as error:
            raise InputError(f"{self.source}: member {error}") from error
        self._add_bytes(path, len(target))
        self.links[path] = target

    def file(self, path: str, read: Callable[[int], bytes]) -> None:
        """Take in a file's content; *read* returns the next bytes, empty at the end."""
        self._require_new(path)
        if path in PAGE_RUNS:
            self._read_words(path, read)
            return
        limit = MAX_SMALL_BYTES if _SMALL.match(path) else MAX_FILE_BYTES
        content = b"".join(self._chunks(path, read, _CHUNK, min(limit, MAX_FILE_BYTES)))
        self._add_bytes(path, len(content))
        self._add_lines(path, content.count(b"\n"))
        self.files[path] = content

    def finish(self) -> None:
        """Raise ``InputError`` unless what was taken in is a sysroot."""
        if not self.files and not self.pages:
            raise InputError(f"{self.source}: need a file of a sysroot, such as proc/meminfo")
        try:
            check_tree(self.files, self.links)
        except InputError as error:
            raise InputError(f"{self.source}: member {error}") from error

    def _read_words(self, path: str, read: Callable[[int], bytes]) -> None:
        # NumPy, which most folders of memory blocks are read without.
        from altmap.linux.pagewords import PageWords

        chunks = self._chunks(path, read, _RAW_CHUNK, MAX_RAW_BYTES)
        try:
            self.pages[path] = PageWords.from_raw(chunks)
        except InputError as error:
            if str(error).startswith(self.source):
                raise
            self.notes[path] = f"{path}: {error}"

    def _chunks(
        self, path: str, read: Callable[[int], bytes], nr_bytes: int, limit: int
    ) -> Iterator[bytes]:
        total = 0
        while chunk := read(nr_bytes):
            total += len(chunk)
            if total > limit:
                raise self.error(path, f"need at most {limit} bytes")
            yield chunk

    def _add_bytes(self, path: str, nr_bytes: int) -> None:
        self._taken.nr_bytes += nr_bytes
        if self._taken.nr_bytes > MAX_TOTAL_BYTES:
            raise self.error(path, f"need at most {MAX_TOTAL_BYTES} bytes in all")

    def _add_lines(self, path: str, nr_lines: int) -> None:
        self._taken.nr_lines += max(0, nr_lines - 1)
        if self._taken.nr_lines > MAX_LINES:
            raise self.error(path, f"need at most {MAX_LINES} lines in all")

    def _require_new(self, path: str) -> None:
        if path in self.files or path in self.links or path in self.pages:
            raise self.error(path, "is there twice")
