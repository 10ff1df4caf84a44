"""The dump of a page in the kernel's log: which page, and what it was.

The formats of 4.9 to 7.3 differ in the first line: ``page:ffffea0004200000 count:1 mapcount:0``
(to 5.2), ``page:... refcount:1 ... pfn:0x108000`` (5.9), ``page: refcount:1`` (6.10).
Source: ``mm/debug.c: __dump_page, __dump_folio``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from altmap.host.blocking_pages import KINDS, BlockingKind

__all__ = ("DumpReader", "PageDump")

_FIRST = re.compile(r"page: ?\S* ?(?:ref)?count:-?\d+ .*?(?:pfn:(?P<pfn>0x[0-9a-f]{1,16}))?$")
_FLAGS = re.compile(
    r"(?P<type>anon |ksm )?flags: 0x[0-9a-f]{1,16}\((?P<flags>[^)]{0,400})\)(?P<cma> CMA)?"
)
_TYPE = re.compile(r"page_type: (?:f[0-9a-f]|0x[0-9a-f]{1,8}|[0-9a-f]{8})\((?P<type>[^)]{0,80})\)")
_MAPPING = re.compile(r"aops:(?P<aops>\w{1,80})(?P<rest>.{0,200})")
#: A word of the dump, and the kind that the page is of; the first that is there decides.
_KINDS = (
    ("reserved", "reserved"),
    ("slab", "slab"),
    ("table", "page-tables"),
    ("pgtable", "page-tables"),
    ("offline", "fake-offline"),
    ("hugetlb", "hugetlb"),
)
_MOVING = frozenset({"anon", "ksm", "lru", "swapbacked", "active", "unevictable"})


@dataclass(frozen=True, slots=True)
class PageDump:
    """One page as the kernel dumped it.

    Attributes
    ----------
    pfn : int or None
        ``None`` before 5.9, where the log has the address of the struct page only.
    words : tuple of str
        Its flags, its type, and ``anon`` or ``ksm``, as the log names them.
    mapping : str
        The file system and file of a page of a file, as the log names them.
    """

    pfn: int | None
    words: tuple[str, ...] = ()
    mapping: str = ""

    @property
    def kind(self) -> BlockingKind | None:
        """The kind of page, ``None`` for one that moves unless it is pinned."""
        for word, kind in _KINDS:
            if word in self.words:
                return KINDS[kind]
        if self.mapping or not _MOVING.isdisjoint(self.words):
            return None
        return KINDS["compound" if "head" in self.words else "kernel"]

    @property
    def what(self) -> str:
        """What the page was, for people."""
        kind = self.kind
        if kind is not None:
            return kind.what
        if "anon" in self.words or "ksm" in self.words:
            return "a page of a process, which moves unless it is pinned"
        if self.mapping:
            return f"a page of a file ({self.mapping}), which moves unless it is pinned"
        return "a page on an LRU list, which moves unless it is pinned"


class DumpReader:
    """Collects the lines of a dump until the line that says why the page was dumped."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._seen = False
        self._pfn: int | None = None
        self._words: list[str] = []
        self._mapping = ""

    def feed(self, text: str) -> None:
        """Take the next line of the log; one that is no part of a dump is ignored."""
        if (match := _FIRST.match(text)) is not None:
            self._clear()
            self._seen = True
            self._pfn = int(match["pfn"], 16) if match["pfn"] else None
        elif not self._seen:
            return
        elif (match := _FLAGS.match(text)) is not None:
            self._words += list(_words_of(match["flags"]))
            self._words += [match["type"].strip()] if match["type"] else []
            self._words += ["CMA"] if match["cma"] else []
        elif (match := _TYPE.match(text)) is not None:
            self._words += list(_words_of(match["type"]))
        elif (match := _MAPPING.match(text)) is not None:
            name = re.search(r'dentry name(?:\(\?\))?:"([^"]{0,80})"', match["rest"])
            self._mapping = match["aops"] + (f" {name[1]}" if name else "")
        elif text.startswith("head:") and "order:" in text:
            self._words.append("head")

    def take(self) -> PageDump | None:
        """Return the page whose lines came since the last call, ``None`` without any."""
        made = PageDump(self._pfn, tuple(self._words), self._mapping) if self._seen else None
        self._clear()
        return made


def _words_of(text: str) -> Iterator[str]:
    """Yield the names of flags: ``workingset|slab|node=0|zone=2`` without what has a value."""
    for word in text.replace(",", "|").split("|"):
        if word and "=" not in word:
            yield word.strip().lower().removeprefix("pg_")
