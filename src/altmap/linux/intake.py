"""What one reading of a folder or archive takes in, within limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Literal

from altmap.errors import InputError
from altmap.linux.paths import (
    PAGE_RUNS,
    check_link,
    check_tree,
    is_configuration,
    leads_on,
)

if TYPE_CHECKING:
    from altmap.linux.memory import Block
    from altmap.linux.pagewords import PageWords

__all__ = ("MAX_FILE_BYTES", "MAX_MEMBERS", "MAX_RAW_BYTES", "MAX_TOTAL_BYTES", "Intake", "Leave")

MAX_MEMBERS = 8_000_000  # 64 TiB in blocks of 128 MiB have about 5 million
MAX_FILE_BYTES = 256 << 20
MAX_TOTAL_BYTES = 1 << 30
MAX_RAW_BYTES = 16 << 30  # proc/kpageflags of 8 TiB; it is made compact while it is read

#: What a reader leaves on disk until it is asked for.
Leave = Literal["nothing", "pages", "files"]

_CHUNK = 1 << 16
_RAW_CHUNK = 1 << 22


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
    skips : frozenset of str
        Paths that are not asked for.
    leave : str
        What stays on disk until it is asked for: ``nothing``, ``pages`` (files with a word for each
        page frame) or ``files`` (all).
    unread : set of str
        Paths of files that are still on disk only.
    contents : MutableMapping of str to bytes
        The files, those that are still on disk too.
    blocks : dict of int to Block
        Memory blocks whose files stay on disk.
    """

    def __init__(
        self, source: str, skips: frozenset[str] = frozenset(), *, leave: Leave = "nothing"
    ) -> None:
        self.source = source
        self.skips = skips
        self.leave = leave
        self.files: dict[str, bytes] = {}
        self.contents: MutableMapping[str, bytes] = self.files
        self.links: dict[str, str] = {}
        self.pages: dict[str, PageWords] = {}
        self.unreadable: list[str] = []
        self.unread: set[str] = set()
        self.blocks: dict[int, Block] = {}
        self._members = self._bytes = 0

    def error(self, name: str, rule: str) -> InputError:
        """Return the error that member *name* breaks *rule*."""
        return InputError(f"{self.source}: member {name!r}: {rule}")

    def count(self, name: str) -> None:
        """Count one more member, kept or not."""
        self._members += 1
        if self._members > MAX_MEMBERS:
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
            self.pages[path] = self._read_words(path, read)
            return
        content = b"".join(self._chunks(path, read, _CHUNK, MAX_FILE_BYTES))
        self._add_bytes(path, len(content))
        self.files[path] = content

    def finish(self) -> None:
        """Raise ``InputError`` unless what was taken in is a sysroot."""
        if not (self.files or self.pages or self.unread):
            raise InputError(f"{self.source}: need a file of a sysroot, such as proc/meminfo")
        try:
            check_tree(self.files.keys() | self.unread, self.links)
        except InputError as error:
            raise InputError(f"{self.source}: member {error}") from error

    def _read_words(self, path: str, read: Callable[[int], bytes]) -> PageWords:
        # NumPy, which most folders of memory blocks are read without.
        from altmap.linux.pagewords import PageWords

        chunks = self._chunks(path, read, _RAW_CHUNK, MAX_RAW_BYTES)
        try:
            return PageWords.from_raw(chunks)
        except InputError as error:
            if str(error).startswith(self.source):
                raise
            raise self.error(path, str(error)) from error

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
        self._bytes += nr_bytes
        if self._bytes > MAX_TOTAL_BYTES:
            raise self.error(path, f"need at most {MAX_TOTAL_BYTES} bytes in all")

    def _require_new(self, path: str) -> None:
        if path in self.files or path in self.links or path in self.pages:
            raise self.error(path, "is there twice")
