"""Architectures as hypervisors name them, as ``uname -m`` has them."""

from __future__ import annotations

__all__ = ("USUAL", "arch_named")

#: What a definition that names no architecture most probably has.
USUAL = "x86_64"

#: Other names. A definition does not say whether a guest on ppc64 is little-endian; it is today.
_OTHER = (
    ("amd64", USUAL),
    ("arm64", "aarch64"),
    ("ppc64", "ppc64le"),
    ("powerpc64le", "ppc64le"),
    ("i386", "i686"),
    ("arm", "armv7l"),
)


def arch_named(name: str | None) -> str:
    """Return the architecture, :data:`USUAL` where the definition names none."""
    if not name:
        return USUAL
    return dict(_OTHER).get(name, name)
