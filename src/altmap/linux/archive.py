"""A sysroot in a tar archive, plain or compressed: read in one pass, never unpacked.

Effects: archives, files.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Self, cast

from altmap.errors import AltmapError, InputError
from altmap.linux.contents import Content, chunks, nr_bytes
from altmap.linux.intake import Intake
from altmap.linux.paths import check_tree, is_configuration, leads_on, matters, normalise

__all__ = ("read", "read_several", "write")

_OPENERS: dict[bytes, Callable[[Path], IO[bytes]]] = {
    b"\x1f\x8b": lambda path: cast("IO[bytes]", gzip.GzipFile(path)),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
#: Endings of names, and how :mod:`tarfile` compresses for each.
_WRITERS = {
    ".tar": "",
    ".tar.gz": "gz",
    ".tgz": "gz",
    ".tar.bz2": "bz2",
    ".tar.xz": "xz",
    ".txz": "xz",
}
_BROKEN = (
    *(tarfile.TarError, zlib.error, lzma.LZMAError, EOFError, OSError),
    # What tarfile raises for headers that make no sense, or for a long chain of them.
    *(ValueError, LookupError, ArithmeticError, RecursionError),
)
_EXTENSIONS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_MAX_EXTENSION_BYTES = 1 << 20
_CHUNK = 1 << 20


class _Member(tarfile.TarInfo):
    """A member whose header must be whole: ``tarfile`` takes a broken one for the end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        if len(buf) < tarfile.BLOCKSIZE:
            raise tarfile.ReadError("it ends before its end-of-archive mark")
        if not any(buf):
            return super().frombuf(buf, encoding, errors)
        try:
            member = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error
        if member.type in _EXTENSIONS and member.size > _MAX_EXTENSION_BYTES:
            raise tarfile.ReadError(
                f"need extended headers of at most {_MAX_EXTENSION_BYTES} bytes"
            )
        return member


def read(source: Path) -> Intake:
    """Return what matters of the archive.

    Raises
    ------
    InputError
        If it is not a whole archive, or a member breaks a rule: absolute names and ``..`` anywhere;
        links that leave the sysroot, hard links and special files where a sysroot's files belong.
    """
    intake = Intake(str(source))
    with _whole(source) as tar:
        _read_members(intake, tar)
    intake.finish()
    return intake


def read_several(source: Path) -> tuple[dict[str, Intake], dict[str, bytes]]:
    """Return the sysroots of an archive by the folder that each is in, and the files beside them.

    Raises
    ------
    InputError
        As :func:`read` does.
    """
    several: dict[str, Intake] = {}
    beside = Intake(str(source))
    with _whole(source) as tar:
        for member in _members(beside, tar):
            folder, _, path = _name(beside, member).partition("/")
            if path and matters(path):
                intake = several.setdefault(folder, Intake(f"{source}: {folder}"))
                _read_member(intake, tar, member, path)
            elif not path:
                _read_member(beside, tar, member, folder)
    for intake in several.values():
        intake.finish()
    return several, beside.files


@contextlib.contextmanager
def _whole(source: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive for reading in one pass; what is broken in it becomes ``InputError``."""
    try:
        with _open(source) as stream:
            with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
                yield tar
            # The compressed formats check their sums at their very end.
            while stream.read(_CHUNK):
                pass
    except _BROKEN as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{source}: need a whole tar archive or a folder: {reason}") from error


def _open(source: Path) -> IO[bytes]:
    with source.open("rb") as plain:
        magic = plain.read(6)
    for start, opener in _OPENERS.items():
        if magic.startswith(start):
            return opener(source)
    return source.open("rb")


def _members(intake: Intake, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    while (member := tar.next()) is not None:
        # Else the object keeps every header it saw.
        tar.members.clear()  # type: ignore[attr-defined]  # typeshed has not got it
        intake.count(member.name)
        yield member


def _name(intake: Intake, member: tarfile.TarInfo) -> str:
    try:
        return normalise(member.name)
    except InputError as error:
        raise InputError(f"{intake.source}: member {error}") from error


def _read_members(intake: Intake, tar: tarfile.TarFile) -> None:
    top: str | None = None
    for member in _members(intake, tar):
        name = _name(intake, member)
        found, path = _below_top(name)
        if not path:
            continue
        if matters(path) or not member.isdir():
            top = found if top is None else top
            if found != top:
                raise intake.error(name, f"is of a second sysroot, the first is {top or '.'!r}")
            _read_member(intake, tar, member, path)


def _below_top(name: str) -> tuple[str, str]:
    """Return the leading folder, empty if there is none, and the path below if it matters."""
    if matters(name) or leads_on(name):
        return "", name
    top, _, path = name.partition("/")
    return (top, path) if matters(path) or leads_on(path) else ("", "")


def _read_member(intake: Intake, tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    if member.isdir():
        return
    if leads_on(path) and not (member.issym() and is_configuration(path)):
        raise intake.error(member.name, "need a folder")
    if member.issym():
        intake.link(path, member.linkname)
    elif member.isreg() and (content := tar.extractfile(member)) is not None:
        intake.file(path, content.read)
    else:
        raise intake.error(member.name, "need a regular file, folder or symbolic link")


def write(files: Mapping[str, Content], links: Mapping[str, str], target: Path) -> None:
    """Write files and symbolic links as one archive, which appears whole or not at all.

    The name's ending chooses the compression. The same files give the same bytes.

    Raises
    ------
    InputError
        If the ending is unknown, the target exists, or a name is not one of a sysroot.
    AltmapError
        If the disk refuses.
    """
    check_tree(files, links)
    form = next((form for end, form in _WRITERS.items() if target.name.endswith(end)), None)
    if form is None:
        raise InputError(f"{target}: need a name that ends in {', '.join(_WRITERS)}")
    if os.path.lexists(target):
        raise InputError(f"{target}: is there already")
    try:
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as folder:
            draft = Path(folder, "archive")
            with (
                draft.open("xb") as raw,
                _compressor(raw, form) as stream,
                tarfile.TarFile(
                    fileobj=stream, mode="w", format=tarfile.GNU_FORMAT, copybufsize=_CHUNK
                ) as tar,
            ):
                _write_members(tar, files, links)
            os.link(draft, target)  # unlike a rename, fails where something has come to be
    except OSError as error:
        raise AltmapError(f"{target}: cannot be written: {error.strerror}") from error


class _Reader:
    """Pieces of a content, read in the lengths that :mod:`tarfile` asks for."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = memoryview(b"")

    def read(self, nr_bytes: int) -> bytes | memoryview:
        if not self._held:
            self._held = memoryview(next(self._pieces, b""))
        made = self._held[:nr_bytes]
        self._held = self._held[nr_bytes:]
        if len(made) == nr_bytes or not made:
            return made
        return b"".join((made, self.read(nr_bytes - len(made))))


@contextlib.contextmanager
def _compressor(raw: IO[bytes], form: str) -> Iterator[IO[bytes]]:
    if not form:
        yield raw
        return
    makers: dict[str, Callable[[], IO[bytes]]] = {
        "gz": lambda: cast("IO[bytes]", gzip.GzipFile("", "wb", 6, raw, mtime=0)),
        "bz2": lambda: bz2.BZ2File(raw, "wb"),
        "xz": lambda: lzma.LZMAFile(raw, "wb", preset=2),  # noqa: SIM115  # entered below
    }
    with makers[form]() as stream:
        yield stream


def _write_members(
    tar: tarfile.TarFile, files: Mapping[str, Content], links: Mapping[str, str]
) -> None:
    for path in sorted((*files, *links)):
        member = tarfile.TarInfo(path)
        if path in links:
            member.type, member.linkname = tarfile.SYMTYPE, links[path]
            tar.addfile(member)
        else:
            member.size = nr_bytes(files[path])
            tar.addfile(member, cast("IO[bytes]", _Reader(chunks(files[path]))))
        tar.members.clear()  # type: ignore[attr-defined]  # typeshed has not got it
