"""What guests can be had here: architectures, releases, what is cached, what is missing.

Effects: files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from altmap.errors import InputError
from altmap.lab.arches import GUESTS, GuestArch
from altmap.lab.designs import DESIGNS
from altmap.lab.kernel_build import built_folder
from altmap.lab.kernels import cache_folder, kernel_folder
from altmap.lab.process import missing_programs
from altmap.storage.json_files import read_json

__all__ = ("Available", "inventory")


@dataclass(frozen=True, slots=True)
class Available:
    """One guest that could be booted.

    Attributes
    ----------
    arch, release : str
    kernel : str
        The cached package and its version; empty if it would have to be fetched, or built.
    missing : tuple of str
        Programs that are not here, each with what installs it.
    is_built : bool
        The kernel carries a design, and is built here from the package of a source.
    """

    arch: str
    release: str
    kernel: str
    missing: tuple[str, ...]
    is_built: bool = False


def inventory(confirmed: Sequence[str], cache: Path | None = None) -> list[Available]:
    """Return every architecture with the releases that are cached, or *confirmed*; then designs.

    Nothing is asked of any archive: whether Debian still has a kernel shows when it is fetched.
    """
    cache = cache_folder() if cache is None else cache
    debian = [
        Available(guest.name, release, _cached(release, guest, cache), _missing(guest))
        for guest in GUESTS.values()
        for release in _releases(guest, confirmed, cache)
    ]
    built = [
        Available(
            design.arch,
            design.release,
            _package_in(built_folder(design, cache)),
            _missing(GUESTS[design.arch]),
            is_built=True,
        )
        for design in DESIGNS.values()
    ]
    return debian + built


def _releases(guest: GuestArch, confirmed: Sequence[str], cache: Path) -> Iterator[str]:
    yield from confirmed
    folder = kernel_folder("x", guest.name, cache).parent
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if re.fullmatch(r"[0-9.]+", path.name) and path.is_dir() and path.name not in confirmed:
            yield path.name


def _cached(release: str, guest: GuestArch, cache: Path) -> str:
    return _package_in(kernel_folder(release, guest.name, cache))


def _package_in(folder: Path | None) -> str:
    if folder is None:
        return ""
    try:
        versions = read_json(folder / "packages.json", dict[str, str])
    except InputError:
        return ""  # not there, or damaged: it would be fetched
    return " ".join(next(iter(versions.items()), ()))


def _missing(guest: GuestArch) -> tuple[str, ...]:
    return tuple(f"{name}: apt install {pkg}" for name, pkg in missing_programs(guest).items())
