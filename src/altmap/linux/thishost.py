"""What the host says of itself by system calls: release, machine and page size.

Effects: environment, files.
"""

from __future__ import annotations

import os
from pathlib import Path

from altmap.linux.paths import UNAME

__all__ = ("is_this_host", "uname_files")


def is_this_host(source: Path) -> bool:
    """Tell whether a folder is the root of the machine that this program runs on."""
    try:
        return source.samefile("/")
    except OSError:
        return False


def uname_files() -> dict[str, bytes]:
    """Return the file of ours that has release, machine and page size; no name of the host."""
    said = os.uname()
    page_size_bytes = os.sysconf("SC_PAGE_SIZE")
    text = f"release {said.release}\nmachine {said.machine}\npage_size {page_size_bytes}\n"
    return {UNAME: text.encode()}
