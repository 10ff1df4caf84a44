"""A guest's memory as its kernel's own files tell it, read in one command.

Effects: archives.
"""

from __future__ import annotations

import base64
import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import takewhile
from operator import ne

from altmap.errors import LabError
from altmap.lab.guest import Guest
from altmap.linux.sysroot import Sysroot

__all__ = ("capture", "page_runs", "parse_capture")

RUNS_HEADER = "# start_pfn nr_pages flags (of consecutive pages in /proc/kpageflags)"
#: By the shell alone, before a counter is read: the file is there since 6.1.
_READ_ARCH = (
    "{ read -r arch </proc/sys/kernel/arch; } 2>/dev/null && echo proc/sys/kernel/arch:$arch"
)
_ENTRY_BYTES = 8  # of /proc/kpageflags: one u64 per page
_LINK = re.compile(r"'(?P<path>.+)' -> '(?P<target>.+)'")


def capture(guest: Guest, limit_seconds: float = 120.0, *, uses: bool = False) -> Sysroot:
    """Return the files of a guest that describe its memory.

    Counters are made exact before (``/proc/sys/vm/stat_refresh``); nothing else is disturbed.
    ``/proc/kpageflags`` is run-length encoded as ``proc/kpageflags.runs``; with *uses* so are
    ``/proc/kpagecount`` and ``/proc/kpagecgroup``.

    Raises
    ------
    LabError
        If the guest is dead or does not answer in time.
    """
    script = f"{_READ_ARCH}; uses={'yes' if uses else ''}; . /lab/capture"
    # Each byte costs a trap of the guest and a wakeup of ours, far more than packing it.
    command = f"({script}) | gzip -c"
    # Xen's console is no channel for any bytes.
    as_text = guest.hypervisor is not None
    result = guest.run(f"{command} | base64" if as_text else command, limit_seconds)
    if result.status:
        raise LabError(f"capture failed in the guest: {result.text[-200:]}", guest.console())
    try:
        packed = base64.b64decode(result.output) if as_text else result.output
        text = gzip.decompress(packed).decode(errors="surrogateescape")
        return parse_capture(text)
    # Something in the guest wrote to the shell's port, or a program of it failed.
    except (ValueError, OSError, EOFError, zlib.error) as error:
        raise LabError("capture: the guest garbles its answers", guest.console()) from error


def parse_capture(text: str) -> Sysroot:
    """Return the files and links in what ``capture.sh`` printed."""
    lines = iter(text.splitlines())
    files: dict[str, list[str]] = {}
    for line in iter(lines.__next__, "links"):
        path, _, content = line.partition(":")
        files.setdefault(path, []).append(content)
    matches = (_LINK.fullmatch(line) for line in iter(lines.__next__, "pages"))
    links = {match["path"]: match["target"] for match in matches if match}
    for name, end in (("kpageflags", "counts"), ("kpagecount", "charges"), ("kpagecgroup", "")):
        runs = list(page_runs(takewhile(partial(ne, end), lines)))
        if runs:
            files[f"proc/{name}.runs"] = [RUNS_HEADER, *runs]
    return Sysroot({path: _content(of) for path, of in files.items()}, links)


def _content(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")


def page_runs(dump: Iterable[str]) -> Iterator[str]:
    """Yield one line per run of equal flags: first pfn, number of pages, flags.

    Parameters
    ----------
    dump : iterable of str
        What ``od -A x -t x8`` prints of /proc/kpageflags, with any number of entries in a row:
        rows with their byte offset, a star where rows repeat, the size at the
        end.
    """
    start_pfn, flags = 0, ""
    for pfn, value in _changes(dump):
        if value != flags:
            if flags:
                yield f"{start_pfn:#x} {pfn - start_pfn} {int(flags, 16):#x}"
            start_pfn, flags = pfn, value


def _changes(dump: Iterable[str]) -> Iterator[tuple[int, str]]:
    """Yield pfns at which flags may change, with the flags from there on; none at the end."""
    row: list[str] = []
    row_pfn, starred = 0, False
    for line in dump:
        if line == "*":
            starred = True
            continue
        offset, *entries = line.split()
        pfn = int(offset, 16) // _ENTRY_BYTES
        if starred and len(set(row)) > 1:
            for again in range(row_pfn + len(row), pfn, len(row)):
                yield from enumerate(row, again)
        yield from enumerate(entries or [""], pfn)
        row, row_pfn, starred = entries, pfn, False
