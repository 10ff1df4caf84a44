"""What is written of a file: its bytes, or its size and how to make them piece by piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

__all__ = ("Content", "Streamed", "chunks", "nr_bytes")


@dataclass(frozen=True, slots=True)
class Streamed:
    """A content that is made while it is written.

    Attributes
    ----------
    nr_bytes : int
    make : callable
        Yields the bytes in pieces.
    """

    nr_bytes: int
    make: Callable[[], Iterator[bytes]]


Content = bytes | Streamed


def nr_bytes(content: Content) -> int:
    """Return the size of a content."""
    return len(content) if isinstance(content, bytes) else content.nr_bytes


def chunks(content: Content) -> Iterator[bytes]:
    """Yield the bytes of a content."""
    return iter((content,)) if isinstance(content, bytes) else content.make()
