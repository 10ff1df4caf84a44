"""What a compressed file unpacks to, in one pass and within bounds.

A few bytes of bzip2 or xz can stand for gigabytes. So what is unpacked is bounded by the size of
the file itself, whatever its members are said to be and whether they are kept, skipped or padding.

Effects: archives, files.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Protocol, cast

from altmap.errors import InputError

__all__ = ("FREE_BYTES", "MOST_RATIO", "ByteReader", "Unpacked", "joined_reader", "unpacking")

#: What a file of any size may unpack to: a few seconds of work.
FREE_BYTES = 1 << 30
#: And so many bytes more for each of its own. Logs and page flags have ratios of 10 to 100, the
#: files of memory blocks, most of which is padding, of 480.
MOST_RATIO = 512
#: ``xz -9`` needs 65 MiB to decompress.
_XZ_BYTES = 128 << 20
_CHUNK = 1 << 16
#: Reads beyond the end that :mod:`tarfile` does before it says that a header is cut off.
_MOST_ENDS = 2


class ByteReader(Protocol):
    """What is read from its start to its end."""

    def read(self, nr_bytes: int, /) -> bytes:
        """Return the next bytes, so many unless the end is reached."""


class _Joined:
    """Pieces as one file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = memoryview(b"")

    def read(self, nr_bytes: int, /) -> bytes:
        made: list[memoryview] = []
        missing = nr_bytes
        while missing > 0:
            if not self._held:
                self._held = memoryview(next(self._pieces, b""))
                if not self._held:
                    break
            made.append(self._held[:missing])
            self._held = self._held[missing:]
            missing -= len(made[-1])
        return b"".join(made)


def joined_reader(pieces: Iterator[bytes]) -> ByteReader:
    """Return a reader of pieces, none of them empty, as of one file."""
    return _Joined(pieces)


class Unpacked:
    """The unpacked bytes of a file.

    Parameters
    ----------
    stream : ByteReader
    name : str
        Starts the message of an error.
    packed_bytes : int
        The size of the file itself.
    is_packed : bool
        It is compressed, so that its size does not bound what it unpacks to.
    """

    def __init__(
        self, stream: ByteReader, name: str, packed_bytes: int, *, is_packed: bool = False
    ) -> None:
        self.packed_bytes = packed_bytes
        self._is_packed = is_packed
        self._stream = stream
        self._name = name
        self._left_bytes = FREE_BYTES + MOST_RATIO * packed_bytes
        self._nr_ends = 0
        self._window_bytes: int | None = None

    def read(self, nr_bytes: int, /) -> bytes:
        """Return the next bytes.

        Raises
        ------
        InputError
            If the file unpacks to more than one of its size may.
        EOFError
            If the end was reached before.
        ValueError
            If it is more than :meth:`at_most` allows.
        """
        raw = self._stream.read(nr_bytes)
        self.count(len(raw))
        if self._window_bytes is not None:
            self._window_bytes -= len(raw)
            if self._window_bytes < 0:
                raise ValueError("need shorter headers")
        if not raw:
            self._nr_ends += 1
            if self._nr_ends > _MOST_ENDS:
                raise EOFError("it ends in the middle of a member")
        return raw

    def count(self, nr_bytes: int) -> None:
        """Count bytes that were made from the file.

        Raises
        ------
        InputError
            As :meth:`read` does.
        """
        self._left_bytes -= nr_bytes
        if self._left_bytes < 0:
            raise self._too_much()

    def expect(self, nr_bytes: int) -> None:
        """Refuse at once what a compressed file says that it unpacks to, instead of after seconds.

        Raises
        ------
        InputError
            As :meth:`read` would in the end.
        """
        if self._is_packed and nr_bytes > self._left_bytes:
            raise self._too_much()

    def _too_much(self) -> InputError:
        return InputError(
            f"{self._name}: its {self.packed_bytes} bytes unpack to more than "
            f"{FREE_BYTES + MOST_RATIO * self.packed_bytes}: need at most {FREE_BYTES}, and "
            f"{MOST_RATIO} more for each byte"
        )

    @contextlib.contextmanager
    def at_most(self, nr_bytes: int) -> Iterator[None]:
        """Allow only so many bytes to be read while inside, besides what is read ahead."""
        self._window_bytes = nr_bytes
        try:
            yield
        finally:
            self._window_bytes = None

    def read_rest(self) -> None:
        """Read to the end, where compressed formats have their checksums."""
        while self.read(_CHUNK):
            pass


def _xz_pieces(file: IO[bytes]) -> Iterator[bytes]:
    """Yield what is unpacked from one or more streams of xz; what follows them is ignored."""
    raw = file.read(_CHUNK)
    nr_streams = 0
    while raw:
        decompressor = lzma.LZMADecompressor(memlimit=_XZ_BYTES)
        while not decompressor.eof:
            try:
                piece = decompressor.decompress(raw, _CHUNK)
            except lzma.LZMAError:
                if nr_streams:
                    return
                raise
            if piece:
                yield piece
            raw = file.read(_CHUNK) if decompressor.needs_input else b""
            if not raw and decompressor.needs_input and not decompressor.eof:
                raise EOFError("it ends before its end-of-stream mark")
        # Zeros may follow a stream.
        raw = (decompressor.unused_data or file.read(_CHUNK)).lstrip(b"\0")
        nr_streams += 1


_OPENERS: dict[bytes, Callable[[IO[bytes]], ByteReader]] = {
    b"\x1f\x8b": lambda file: cast("IO[bytes]", gzip.GzipFile(fileobj=file)),
    b"BZh": lambda file: bz2.BZ2File(file),
    b"\xfd7zXZ\x00": lambda file: joined_reader(_xz_pieces(file)),
}


@contextlib.contextmanager
def unpacking(source: Path) -> Iterator[Unpacked]:
    """Open a file that may be compressed with gzip, bzip2 or xz, as its first bytes say.

    Raises
    ------
    InputError
        If it is no regular file.
    OSError
        If it cannot be read.
    """
    with open(source, "rb", opener=_without_waiting) as file:
        facts = os.fstat(file.fileno())
        if not stat.S_ISREG(facts.st_mode):
            raise InputError(f"{source}: need a regular file or a folder")
        start = file.read(6)
        file.seek(0)
        opener = next((made for magic, made in _OPENERS.items() if start.startswith(magic)), None)
        yield Unpacked(
            opener(file) if opener else file,
            str(source),
            facts.st_size,
            is_packed=opener is not None,
        )


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC)
