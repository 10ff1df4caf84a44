"""The files of one machine, as they lie under its root: the input and the output of everything.

Effects: files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from altmap.errors import InputError
from altmap.linux import folder
from altmap.linux.contents import Content, Streamed
from altmap.linux.paths import (
    OF_COPIES,
    PADDED,
    PAGE_RUNS,
    PAGE_USES,
    is_padded,
    text_of,
    without_padding,
)
from altmap.linux.thishost import is_this_host, uname_files
from altmap.linux.unread import UnreadFiles

if TYPE_CHECKING:
    from altmap.linux.intake import Leave
    from altmap.linux.memory import Block
    from altmap.linux.pagewords import PageWords
    from altmap.linux.reading import Problems

__all__ = ("Sysroot",)

T = TypeVar("T")
_CGROUPS = "proc/kpagecgroup.names"


@dataclass(slots=True)
class Sysroot:
    """Files and symbolic links by their path below ``/``, such as ``proc/meminfo``.

    Attributes
    ----------
    files : dict of str to bytes
        Contents of regular files, as the kernel shows them.
    links : dict of str to str
        Targets of symbolic links, relative to the folder that holds the link, as in sysfs.
    unreadable : tuple of str
        Paths that were there when the sysroot was read, but could not be read.
    pages : dict of str to PageWords
        The kernel's files with a word for each page frame, such as ``proc/kpageflags``. A file of
        runs (``proc/kpageflags.runs``) is among the files.
    blocks : callable or None
        Returns the memory blocks that are left in a folder, none of whose files is among the files;
        it takes what collects what is wrong with them.
    notes : dict of str to str
        What was wrong with files when they were read, a sentence by path. Not part of equality.
    """

    files: MutableMapping[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()
    pages: dict[str, PageWords] = field(default_factory=dict)
    blocks: Callable[[Problems], dict[int, Block]] | None = field(default=None, compare=False)
    notes: dict[str, str] = field(default_factory=dict, compare=False)

    def __repr__(self) -> str:
        return f"<Sysroot: {len(self.files)} files, {len(self.links)} links>"

    @classmethod
    def read(cls, source: str | Path, *, uses: bool = False, leave: Leave = "nothing") -> Sysroot:
        """Return the sysroot in a folder (``/`` is this machine) or a tar archive.

        Files that say nothing about memory are left out. Everything may lie below one leading
        folder.

        Parameters
        ----------
        source : str or Path
        uses : bool
            Read from a machine also who uses each page (``proc/kpagecount``,
            ``proc/kpagecgroup``), which takes as long again.
        leave : str
            What stays in a folder's files until it is asked for: ``pages`` are the words of page
            frames, of which then only those are read that are asked for; ``files`` are all files,
            so that none is opened yet. What a machine shows may have changed by then, and a file
            that is malformed shows when it is asked for.

        Raises
        ------
        InputError
            If the source is missing, damaged, or breaks a rule; the message names the member.
        """
        source = Path(source)
        try:
            is_folder = source.is_dir()
        except OSError as error:
            raise InputError(f"{source}: {error.strerror}") from error
        if not is_folder:
            from altmap.linux import archive  # the standard library's readers take long to load

            taken = archive.read(source)
        else:
            is_host = is_this_host(source)
            skips = frozenset(() if uses else PAGE_USES) | (OF_COPIES if is_host else set())
            taken = folder.read(source, skips, leave)
            if is_host:
                taken.contents.update(uname_files())
            if uses:
                _add_cgroups(source, taken.contents)
        _cut_padding(taken.files, taken.notes)
        return cls(
            taken.contents,
            taken.links,
            tuple(taken.unreadable),
            taken.pages,
            taken.blocks,
            taken.notes,
        )

    def write(self, target: Path) -> None:
        """Write the files and links below *target*, a new or empty folder, all or nothing.

        Raises
        ------
        InputError
            If the folder is not empty, or a name or link would leave it.
        """
        folder.write(self.contents(), self.links, Path(target))

    def pack(self, target: Path) -> None:
        """Write the files and links as one tar archive, compressed as its name's ending says.

        Raises
        ------
        InputError
            If the file exists, or its name has no such ending.
        """
        from altmap.linux import archive

        archive.write(self.contents(), self.links, Path(target))

    def contents(self) -> dict[str, Content]:
        """Return what is written of each file: its bytes, or its size and how to make them.

        Words of page frames become runs where these are few, else the kernel's own file.
        """
        made: dict[str, Content] = dict(self.files)
        for path, words in self.pages.items():
            if words.is_compact:
                made[PAGE_RUNS[path]] = words.render().encode()
            else:
                made[path] = Streamed(words.nr_bytes, words.raw)
        return made

    def page_words(self, path: str) -> PageWords | None:
        """Return the words of a file such as ``proc/kpageflags``, ``None`` if it is not there.

        Raises
        ------
        InputError
            If the file is damaged.
        """
        # NumPy, which most folders of memory blocks are read without.
        from altmap.linux.pagewords import PageWords

        if PAGE_RUNS[path] in self.files:
            return _in_file(PAGE_RUNS[path], lambda raw: PageWords.parse(text_of(raw)), self.files)
        if path in self.files:
            return _in_file(path, lambda raw: PageWords.from_raw([raw]), self.files)
        return self.pages.get(path)

    def text(self, path: str) -> str | None:
        """Return a file's text, ``None`` if it is not there."""
        raw = self.files.get(path)
        return None if raw is None else text_of(raw)


def _add_cgroups(source: Path, files: MutableMapping[str, bytes]) -> None:
    """Add the file with the names of a machine's cgroups, if it has any."""
    if isinstance(files, UnreadFiles):
        if folder.has_cgroups(source):
            files.later(_CGROUPS, lambda: _cgroups(source))
    elif names := _cgroups(source):
        files[_CGROUPS] = names


def _cgroups(source: Path) -> bytes:
    from altmap.linux.pageuse import render_cgroups

    found = folder.find_cgroups(source)
    return render_cgroups(found).encode() if found else b""


def _in_file(path: str, parser: Callable[[bytes], T], files: Mapping[str, bytes]) -> T:
    try:
        return parser(files[path])
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _cut_padding(files: dict[str, bytes], notes: dict[str, str]) -> None:
    """Cut off what follows the first NUL of files below ``sys/``, where no kernel prints one.

    sysfs says that each of its files has a page; ``tar`` fills up what it does not get.
    """
    padded = [path for path, raw in files.items() if is_padded(path, raw)]
    for path in padded:
        files[path] = without_padding(files[path])
    if padded:
        notes["sys"] = PADDED.format(len(padded))
