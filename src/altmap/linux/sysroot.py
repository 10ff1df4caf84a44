"""The files of one machine, as they lie under its root: the input and the output of everything.

Effects: files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from altmap.errors import InputError
from altmap.linux import archive, folder
from altmap.linux.pageuse import render_cgroups
from altmap.linux.paths import PAGE_USES, text_of

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
    """

    files: dict[str, bytes] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<Sysroot: {len(self.files)} files, {len(self.links)} links>"

    @classmethod
    def read(cls, source: str | Path, *, uses: bool = False) -> Sysroot:
        """Return the sysroot in a folder (``/`` is this machine) or a tar archive.

        Files that say nothing about memory are left out. Everything may lie below one leading
        folder. ``proc/kpageflags`` is kept as ``proc/kpageflags.runs``.

        Parameters
        ----------
        source : str or Path
        uses : bool
            Read from a machine also who uses each page (``proc/kpagecount``,
            ``proc/kpagecgroup``), which takes as long again.

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
            taken = archive.read(source)
        else:
            taken = folder.read(source, frozenset() if uses else frozenset(PAGE_USES))
            if uses and (found := folder.find_cgroups(source)):
                taken.files[_CGROUPS] = render_cgroups(found).encode()
        return cls(taken.files, taken.links, tuple(taken.unreadable))

    def write(self, target: Path) -> None:
        """Write the files and links below *target*, a new or empty folder, all or nothing.

        Raises
        ------
        InputError
            If the folder is not empty, or a name or link would leave it.
        """
        folder.write(self.files, self.links, Path(target))

    def pack(self, target: Path) -> None:
        """Write the files and links as one tar archive, compressed as its name's ending says.

        Raises
        ------
        InputError
            If the file exists, or its name has no such ending.
        """
        archive.write(self.files, self.links, Path(target))

    def text(self, path: str) -> str | None:
        """Return a file's text, ``None`` if it is not there."""
        raw = self.files.get(path)
        return None if raw is None else text_of(raw)

    def parse(self, path: str, parser: Callable[[str], T]) -> T | None:
        """Return what *parser* makes of a file's text, ``None`` if the file is not there.

        Raises
        ------
        InputError
            As the parser does, with the path in front.
        """
        text = self.text(path)
        try:
            return None if text is None else parser(text)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
