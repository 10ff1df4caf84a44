"""Names of a guest kernel's functions, by address.

Addresses of the kernel itself are the same in each guest of one kernel, as its placement is not
random here; those of modules are read from each guest.

Effects: archives, files.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from bisect import bisect_right
from pathlib import Path

from altmap.lab.guest import Guest
from altmap.lab.kernels import cache_folder
from altmap.storage.files import write_file

__all__ = ("Symbols", "parse_kallsyms", "read_symbols")

_LINE = re.compile(r"^([0-9a-f]{8,16}) [tTwW] ([^\s.]+)", re.MULTILINE)
_READ_SECONDS = 120.0


class Symbols:
    """Functions by address.

    Parameters
    ----------
    starts : dict of int to str
        Name of each function by its first address. What the compiler made of one function, such as
        ``name.cold`` or ``name.isra.0``, has the name of the function.
    """

    def __init__(self, starts: dict[int, str]) -> None:
        self._starts = sorted(starts)
        self._names = starts

    def name_of(self, address: int) -> str:
        """Return the function that an address is in; empty before the first."""
        at = bisect_right(self._starts, address)
        return self._names[self._starts[at - 1]] if at else ""


def parse_kallsyms(text: str) -> dict[int, str]:
    """Return the functions of a file ``/proc/kallsyms`` by address; of equal ones the first."""
    found: dict[int, str] = {}
    for start, name in _LINE.findall(text):
        found.setdefault(int(start, 16), name)
    return found


def read_symbols(guest: Guest, cache: Path | None = None) -> Symbols:
    """Return the functions of a guest's kernel and of the modules that it has loaded.

    Raises
    ------
    LabError
        If the guest does not answer.
    """
    cache = cache_folder() if cache is None else cache
    digest = hashlib.sha256(repr((guest.kernel.arch, guest.kernel.versions)).encode()).hexdigest()
    kept = cache / "symbols" / f"{digest[:24]}.gz"
    if not kept.is_file():
        command = "grep -v '\\[' /proc/kallsyms | gzip -1"
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_file(kept, guest.run(command, _READ_SECONDS).output)
    starts = parse_kallsyms(gzip.decompress(kept.read_bytes()).decode())
    modules = guest.run("grep '\\[' /proc/kallsyms | gzip -1", _READ_SECONDS).output
    return Symbols(starts | parse_kallsyms(gzip.decompress(modules).decode()))
