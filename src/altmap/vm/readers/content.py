"""A definition's bytes as text, within a size."""

from __future__ import annotations

from altmap.errors import InputError

__all__ = ("MOST_BYTES", "MOST_PARTS", "text_of")

#: Definitions have some kilobytes; what ``ps`` prints of a large host has some hundred.
MOST_BYTES = 4 << 20
#: Devices, nodes and machines in one file, each: no hypervisor allows as many.
MOST_PARTS = 10_000

_MARKS = (
    (b"\xef\xbb\xbf", "utf-8"),
    (b"\xff\xfe", "utf-16-le"),
    (b"\xfe\xff", "utf-16-be"),
)


def text_of(raw: bytes) -> str:
    """Return the text of a file: UTF-8, or UTF-16 as Windows PowerShell writes it.

    Arguments separated by zero bytes (``/proc/PID/cmdline``) become lines, each quoted.

    Raises
    ------
    InputError
        If it is too large, empty, or no text.
    """
    if len(raw) > MOST_BYTES:
        raise InputError(f"{len(raw)} bytes: need at most {MOST_BYTES}")
    text = _decoded(raw).replace("\r\n", "\n")
    if "\0" in text:
        text = _arguments(text)
    if not text.strip():
        raise InputError("is empty: need the definition of a virtual machine")
    return text


def _decoded(raw: bytes) -> str:
    mark, encoding = next((known for known in _MARKS if raw.startswith(known[0])), (b"", "utf-8"))
    if not mark and raw[1::2][:8] == bytes(len(raw[1::2][:8])) and raw[:1] in (b"{", b"[", b"<"):
        encoding = "utf-16-le"
    try:
        return raw[len(mark) :].decode(encoding)
    except UnicodeDecodeError:
        pass
    if any(byte < 9 or 13 < byte < 27 for byte in raw):
        raise InputError("is no text: need the definition of a virtual machine")
    return raw.decode("latin-1")


def _arguments(text: str) -> str:
    words = text.rstrip("\0\n").split("\0")
    if len(words) > MOST_PARTS or any(
        not char.isprintable() and char not in "\t\n" for word in words for char in word
    ):
        raise InputError("is no text: need the definition of a virtual machine")
    return " \\\n".join("'" + word.replace("'", "'\\''") + "'" for word in words)
