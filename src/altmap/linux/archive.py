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
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO, Self, cast

from altmap.errors import AltmapError, InputError
from altmap.linux.contents import Content, chunks, nr_bytes
from altmap.linux.intake import Intake
from altmap.linux.paths import check_tree, is_configuration, leads_on, matters, normalise
from altmap.linux.unpacking import Unpacked, joined_reader, unpacking

__all__ = ("Contents", "read", "read_several", "write")

_CHUNK = 1 << 17
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
#: A byte of an extended header takes as long to read as so many bytes of a member.
_EXTENSION_COST = 32
#: Of one member with all its extended headers, and the list of its parts if it is sparse.
_MAX_HEADER_BYTES = 3 << 20
#: Members of an archive of any size, and how many of its bytes each one more needs. Files of memory
#: blocks take 2.1 bytes each in an archive of xz.
_FREE_MEMBERS = 200_000
_LEAST_MEMBER_BYTES = 2
_BUFFER_BYTES = 1 << 16


class _Member(tarfile.TarInfo):
    """A member whose header must be whole: ``tarfile`` takes a broken one for the end."""

    unpacked: Unpacked

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
        if member.type in _EXTENSIONS:
            if member.size > _MAX_EXTENSION_BYTES:
                raise tarfile.ReadError(
                    f"need extended headers of at most {_MAX_EXTENSION_BYTES} bytes"
                )
            cls.unpacked.count(_EXTENSION_COST * max(0, member.size))
        cls.unpacked.expect(member.size)
        return member


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive of several sysroots holds.

    Attributes
    ----------
    sysroots : dict of str to Intake
        By the folder that each is in, ``""`` for one at the top.
    beside : dict of str to bytes
        The files beside these folders.
    """

    sysroots: dict[str, Intake]
    beside: dict[str, bytes]


def read(source: Path) -> Intake:
    """Return what matters of the archive.

    Raises
    ------
    InputError
        If it is not a whole archive, or a member breaks a rule: absolute names and ``..`` anywhere;
        links that leave the sysroot, hard links and special files where a sysroot's files belong.
        If it unpacks to more than a file of its size may.
    """
    intake = Intake(str(source))
    with _whole(source) as (tar, unpacked):
        _read_members(intake, tar, unpacked)
    intake.finish()
    return intake


def read_several(source: Path) -> Contents:
    """Return the sysroots of an archive, and the files beside their folders.

    Raises
    ------
    InputError
        As :func:`read` does. Limits are those of one archive, however many sysroots it holds.
    """
    several: dict[str, Intake] = {}
    beside = Intake(str(source))
    with _whole(source) as (tar, unpacked):
        for member in _members(beside, tar, unpacked):
            name = _name(beside, member)
            folder, path = _below_top(name)
            if path and matters(path):
                if folder not in several:
                    label = f"{source}: {folder}" if folder else str(source)
                    several[folder] = beside.for_another(label)
                _read_member(several[folder], tar, unpacked, member, path)
            elif "/" not in name and not leads_on(name):
                _read_member(beside, tar, unpacked, member, name)
    for intake in several.values():
        intake.finish()
    return Contents(several, beside.files)


@contextlib.contextmanager
def _whole(source: Path) -> Iterator[tuple[tarfile.TarFile, Unpacked]]:
    """Open an archive for reading in one pass; what is broken in it becomes ``InputError``."""
    try:
        with unpacking(source) as unpacked:
            with _opened(unpacked) as tar:
                yield tar, unpacked
            unpacked.read_rest()
    except _BROKEN as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(f"{source}: need a whole tar archive or a folder: {reason}") from error


def _opened(unpacked: Unpacked) -> tarfile.TarFile:
    """Return the archive in a stream, its first header read."""
    with unpacked.at_most(_MAX_HEADER_BYTES):
        return tarfile.open(
            fileobj=cast("IO[bytes]", unpacked),
            mode="r|",
            bufsize=_BUFFER_BYTES,
            tarinfo=type("Member", (_Member,), {"unpacked": unpacked}),
        )


def _members(intake: Intake, tar: tarfile.TarFile, unpacked: Unpacked) -> Iterator[tarfile.TarInfo]:
    most = _FREE_MEMBERS + unpacked.packed_bytes // _LEAST_MEMBER_BYTES
    for nr in count():
        if nr:  # the first member was read when the archive was opened
            _skip_to(tar, tar.offset - 1)
        with unpacked.at_most(_MAX_HEADER_BYTES):
            member = tar.next()
        if member is None:
            return
        # Else the object keeps every header it saw.
        tar.members.clear()  # type: ignore[attr-defined]  # typeshed has not got it
        intake.count(member.name)
        if nr >= most:
            raise intake.error(
                member.name, f"need at most {most} members in {unpacked.packed_bytes} bytes"
            )
        yield member


def _skip_to(tar: tarfile.TarFile, offset: int) -> None:
    """Read up to the byte before the next header: :mod:`tarfile` would do both at once."""
    stream = cast("IO[bytes]", tar.fileobj)
    while (left := offset - stream.tell()) > 0:
        if not stream.read(min(left, _BUFFER_BYTES)):
            raise tarfile.ReadError("it ends in the middle of a member")


def _name(intake: Intake, member: tarfile.TarInfo) -> str:
    try:
        return normalise(member.name)
    except InputError as error:
        raise InputError(f"{intake.source}: member {error}") from error


def _read_members(intake: Intake, tar: tarfile.TarFile, unpacked: Unpacked) -> None:
    top: str | None = None
    for member in _members(intake, tar, unpacked):
        name = _name(intake, member)
        found, path = _below_top(name)
        if not path:
            continue
        if matters(path) or not member.isdir():
            top = found if top is None else top
            if found != top:
                raise intake.error(name, f"is of a second sysroot, the first is {top or '.'!r}")
            _read_member(intake, tar, unpacked, member, path)


def _below_top(name: str) -> tuple[str, str]:
    """Return the leading folder, empty if there is none, and the path below if it matters."""
    if matters(name) or leads_on(name):
        return "", name
    top, _, path = name.partition("/")
    return (top, path) if matters(path) or leads_on(path) else ("", "")


def _read_member(
    intake: Intake, tar: tarfile.TarFile, unpacked: Unpacked, member: tarfile.TarInfo, path: str
) -> None:
    if member.isdir():
        return
    if leads_on(path) and not (member.issym() and is_configuration(path)):
        raise intake.error(member.name, "need a folder")
    if member.issym():
        intake.link(path, member.linkname)
    elif member.isreg() and (content := tar.extractfile(member)) is not None:
        intake.file(path, _counted(content, unpacked) if member.issparse() else content.read)
    else:
        raise intake.error(member.name, "need a regular file, folder or symbolic link")


def _counted(content: IO[bytes], unpacked: Unpacked) -> Callable[[int], bytes]:
    """Return the reader of a sparse member: its holes are in no byte of the file."""

    def read(nr_bytes: int) -> bytes:
        raw = content.read(nr_bytes)
        unpacked.count(len(raw))
        return raw

    return read


def write(files: Mapping[str, Content], links: Mapping[str, str], target: Path) -> None:
    """Write files and symbolic links as one archive, which appears whole or not at all.

    The name's ending chooses the compression. The same files give the same bytes. Only the owner
    may read it.

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
                open(draft, "xb", opener=_for_owner) as raw,
                _compressor(raw, form) as stream,
                tarfile.TarFile(
                    fileobj=stream, mode="w", format=tarfile.GNU_FORMAT, copybufsize=_CHUNK
                ) as tar,
            ):
                _write_members(tar, files, links)
            os.link(draft, target)  # unlike a rename, fails where something has come to be
    except OSError as error:
        raise AltmapError(f"{target}: cannot be written: {error.strerror}") from error


def _for_owner(path: str, flags: int) -> int:
    """Open a file that only its owner may read: some of the kernel's are shown to root alone."""
    return os.open(path, flags | os.O_CLOEXEC, 0o600)


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
            tar.addfile(member, cast("IO[bytes]", joined_reader(chunks(files[path]))))
        tar.members.clear()  # type: ignore[attr-defined]  # typeshed has not got it
