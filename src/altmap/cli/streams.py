"""Standard output and error of a command: nothing that is shown acts on the terminal.

Texts come from files of other machines, from guests and from plans. So control characters, and
those that change the direction of text, are written escaped, as JSON escapes them. Characters that
the terminal's encoding lacks are written in ASCII, ``->`` for an arrow, or replaced.

Effects: environment, files, terminal.
"""

from __future__ import annotations

import codecs
import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any, TextIO, cast

from altmap.cli.colour import coloured, has_colour
from altmap.cli.fit import fitted, width_of

__all__ = ("discard", "show", "standard_streams", "tell", "terminal_of")

#: C0 but tab and newline, DEL, C1, line and paragraph separators, marks of direction.
_ACTING = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
_ACTING_BYTES = bytes(code for code in range(128) if _ACTING.match(chr(code)))
#: What stands for the characters that altmap prints, where the encoding lacks them.
_IN_ASCII = {
    "→": "->", "…": "...", "×": "x", "·": "|", "±": "+-", "−": "-", "–": "-", "─": "-", "━": "-",
    "│": "|", "≤": "<=", "≥": ">=",
}  # fmt: skip
_SIZES = ("COLUMNS", "LINES")
_SIZE = re.compile(r"[1-9][0-9]{0,3}", re.ASCII)


class _Shown(io.TextIOBase):
    """A stream in which control characters are escaped."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str, /) -> int:
        """Write text, escaped."""
        return self._write(_escaped(text))

    def write_coloured(self, text: str) -> None:
        """Write text, escaped, with its verdicts in colour."""
        self._write(coloured(_escaped(text)))

    def _write(self, text: str) -> int:
        try:
            return self.stream.write(text)
        except OSError as error:
            self.error = error  # argparse drops it
            raise

    def flush(self) -> None:
        """Flush what was written, or raise why it could not be written."""
        if self.error is not None:
            raise self.error
        self.stream.flush()

    def isatty(self) -> bool:
        """Tell whether a terminal shows it."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream."""
        return self.stream.encoding


def _escaped(text: str) -> str:
    if text.isascii() and len((raw := text.encode()).translate(None, _ACTING_BYTES)) == len(raw):
        return text  # most texts, and the long ones
    return _ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


@contextlib.contextmanager
def standard_streams() -> Iterator[None]:
    """Make standard output and error safe to write to while inside."""
    if sys.stdout is None or sys.stderr is None:
        _fill_descriptors()
    for name in _SIZES:
        # A width of terabytes is taken for the terminal's own by all that lay out text.
        if not _SIZE.fullmatch(os.environ.get(name, "80")):
            del os.environ[name]
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(_shown, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def _shown(stream: TextIO | None) -> Any:
    if stream is None:
        return os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", encoding="utf-8")
    if isinstance(stream, io.TextIOWrapper):
        codecs.register_error("altmap.in_ascii", _in_ascii)
        stream.reconfigure(errors="altmap.in_ascii")
    return _Shown(stream)


def _in_ascii(error: UnicodeError) -> tuple[str, int]:
    """Write the characters that an encoding lacks with those of ASCII."""
    assert isinstance(error, UnicodeEncodeError)
    lacking = error.object[error.start : error.end]
    return "".join(_IN_ASCII.get(char, "?") for char in lacking), error.end


def _fill_descriptors() -> None:
    """Let no file that is opened later be taken for a standard stream that is closed."""
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(file)


def terminal_of(stream: TextIO) -> TextIO:
    """Return the stream itself, for what moves the cursor and escapes its texts on its own."""
    return stream.stream if isinstance(stream, _Shown) else stream


def show(text: str, end: str = "\n") -> None:
    """Print a text to standard output: on a terminal within its width, with verdicts in colour."""
    stream = sys.stdout
    width = width_of(stream)
    if width is not None:
        text = fitted(text, width)
    if isinstance(stream, _Shown) and has_colour(stream.stream):
        stream.write_coloured(text + end)
    else:
        print(text, end=end)


def discard(stream: TextIO) -> None:
    """Send the rest of a stream nowhere, so that Python's exit does not fail on it."""
    if isinstance(stream, _Shown):
        stream.error = None
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def tell(text: str) -> None:
    """Print a line to standard error; that it cannot be shown ends nothing."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        discard(cast("TextIO", sys.stderr))
