"""``/sys/module/memory_hotplug/parameters``: how the kernel was told to hotplug memory."""

from __future__ import annotations

from altmap.linux.reading import Reader
from altmap.linux.sysroot import Sysroot

__all__ = ("ROOT", "parse", "render")

ROOT = "sys/module/memory_hotplug/parameters"


def parse(sysroot: Reader) -> dict[str, str]:
    """Return the parameters' values by name, none if the release has no such folder."""
    prefix = f"{ROOT}/"
    return {
        path.removeprefix(prefix): (sysroot.text(path) or "").removesuffix("\n")
        for path in sorted(sysroot.files)
        if path.startswith(prefix)
    }


def render(parameters: dict[str, str]) -> Sysroot:
    """Return the folder's files."""
    return Sysroot({f"{ROOT}/{name}": f"{text}\n".encode() for name, text in parameters.items()})
