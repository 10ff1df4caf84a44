"""Designs that no release of Linux has: code of the lab, inserted into one release's source.

``6.12+rfc-2018`` is a release with a design, and can be named wherever a release can. The sources
are in a folder beside this module, under GPL-2.0: code, the places where it is called from, and a
kernel configuration.

Effects: files.
"""

from __future__ import annotations

import hashlib
import importlib.resources as resources
from dataclasses import dataclass, field

from altmap.errors import InputError, one_of

__all__ = ("DESIGNS", "Design", "design_named", "design_of")


@dataclass(frozen=True, slots=True)
class Design:
    """One design.

    Attributes
    ----------
    name : str
    base : str
        The release that carries it.
    arch : str
    folder : str
        Of the sources.
    headers : tuple of str
        Files of the folder that are put beside the file that includes them.
    policies : dict of str to dict of str to str
        Memmap policies that the kernel can follow: the values of parameters of
        ``memory_hotplug``, which can be written while it runs.
    """

    name: str
    base: str
    arch: str
    folder: str
    headers: tuple[str, ...]
    policies: dict[str, dict[str, str]] = field(hash=False)

    @property
    def release(self) -> str:
        """How scenarios and commands name the kernel."""
        return f"{self.base}+{self.name}"

    def text(self, file: str) -> str:
        """Return one of the sources."""
        place = resources.files(__package__).joinpath(self.folder, file)
        return place.read_text(encoding="utf-8")

    def digest(self) -> str:
        """Return what tells these sources from later ones."""
        texts = [self.text(file) for file in ("insertions.toml", "kernel.config", *self.headers)]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _counted(number: int) -> dict[str, str]:
    return {"memmap_from_range": "Y", "memmap_counted": str(number)}


_RFC_2018 = Design(
    name="rfc-2018",
    base="6.12",
    arch="x86_64",
    folder="rfc_2018",
    headers=("memmap_from_range.h",),
    policies={
        "opt-in": {"memmap_from_range": "N"},
        "rfc-2018": _counted(0),
        "rfc-2018+hidden": _counted(0),
        "rfc-2018+merged": _counted(1),
        "rfc-2018+total": _counted(2),
    },
)

#: Every design by name.
DESIGNS: dict[str, Design] = {_RFC_2018.name: _RFC_2018}


def design_named(name: str) -> Design:
    """Return a design by its name, or by the release that carries it.

    Raises
    ------
    InputError
        If there is none; the message lists those there are.
    """
    for design in DESIGNS.values():
        if name in (design.name, design.release):
            return design
    raise InputError(f"design {name!r}: {one_of(name, DESIGNS)}")


def design_of(release: str) -> Design | None:
    """Return the design of a release such as ``6.12+rfc-2018``; ``None`` of a plain one.

    Raises
    ------
    InputError
        If there is no such design, or another release carries it.
    """
    _, plus, _ = release.partition("+")
    if not plus:
        return None
    known = {design.release: design for design in DESIGNS.values()}
    if release not in known:
        raise InputError(f"release {release!r}: of those with a design there is {', '.join(known)}")
    return known[release]
