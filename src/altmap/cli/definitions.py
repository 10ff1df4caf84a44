"""Definitions of virtual machines as several commands read them.

Effects: files, terminal.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from altmap.vm.definition import Definition

__all__ = ("read_definition_file",)


def read_definition_file(
    path: Path, machine: str | None = None, arch: str | None = None
) -> Definition:
    """Return the definition in a file, ``-`` for standard input.

    Parameters
    ----------
    path : Path
    machine : str, optional
        The machine, if the file has several.
    arch : str, optional
        The guest's architecture, instead of the file's.

    Raises
    ------
    InputError
        If the file is of no format that is read, or has several machines and none is named.
    """
    from dataclasses import replace

    from altmap.model.arch import arch_named
    from altmap.storage.files import read_file
    from altmap.vm.readers import MOST_BYTES, read_definition

    if str(path) == "-":
        raw, name = sys.stdin.buffer.read(MOST_BYTES + 1), "standard input"
    else:
        raw, name = read_file(path, MOST_BYTES), str(path)
    made = read_definition(raw, name, machine)
    return made if arch is None else replace(made, arch=arch_named(arch).name, arch_given=True)
