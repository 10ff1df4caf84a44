"""A QEMU newer than the one here, from the backports of this machine's Debian release.

It is unpacked into the cache and never installed: its libraries are those of the QEMU here.

Effects: environment, files.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from altmap.errors import LabError
from altmap.lab.apt import Archive
from altmap.lab.arches import GuestArch
from altmap.lab.kernels import cache_folder, cached
from altmap.lab.packages import download_newest
from altmap.lab.tools import extract_first, run_tool

__all__ = ("newer_qemu",)

#: Since 8.1 QEMU's CXL devices can have volatile memory (docs/system/devices/cxl.rst).
_LEAST = (8, 1)
_FIRMWARE = ("qemu-system-data", "seabios")
_UPSTREAM = re.compile(r"(?:[0-9]+:)?([0-9]{1,4})\.([0-9]{1,4})")


def newer_qemu(guest: GuestArch, here: str, cache: Path | None = None) -> tuple[str, ...]:
    """Return QEMU's program, and the arguments with which it finds its firmware.

    Parameters
    ----------
    guest : GuestArch
    here : str
        What the QEMU here says of its version, for messages.
    cache : Path, optional
        Defaults to the user's cache folder.

    Raises
    ------
    LabError
        If this machine's Debian release and its backports have none, their archive cannot be
        asked, or the disk is full.
    """
    cache = cache_folder() if cache is None else cache
    folder = cache / "qemu" / guest.debian
    least = ".".join(map(str, _LEAST))
    try:
        cached(
            folder,
            guest,
            cache,
            lambda archive, new: _unpack(guest, archive, new),
            what="a newer QEMU (about 60 MB)",
            releases=(_debian_release(),),
        )
    except LabError as error:
        raise LabError(f"CXL memory needs QEMU {least} or newer, not {here}: {error}") from error
    shares = (f"{folder}/usr/share/{name}" for name in ("qemu", "seabios"))
    return str(folder / guest.program), *(word for share in shares for word in ("-L", share))


def _debian_release() -> str:
    """Return the name of this machine's release; packages of others have other libraries."""
    try:
        facts = platform.freedesktop_os_release()
    except OSError:
        facts = {}
    if facts.get("ID") != "debian" or "VERSION_CODENAME" not in facts:
        raise LabError("it is taken from Debian's archive, and this machine is not Debian")
    return facts["VERSION_CODENAME"]


def _unpack(guest: GuestArch, archive: Archive, new: Path) -> dict[str, str]:
    """Leave QEMU's program and the firmware in the folder."""
    versions = download_newest(archive, lambda: _candidates(guest, archive), new)
    for deb in list(new.glob("*.deb")):
        if deb.name.startswith(f"{guest.package}_"):
            extract_first(deb, (f"./usr/bin/{guest.program}",), new / guest.program)
            os.chmod(new / guest.program, 0o755)  # noqa: PTH101 -- not of a path of the user
        else:
            run_tool("dpkg-deb", "-x", str(deb), str(new))
        deb.unlink()
    return versions


def _candidates(guest: GuestArch, archive: Archive) -> Iterator[Mapping[str, str]]:
    """Yield QEMU with its firmware, newest first."""
    versions = archive.versions(guest.package) if archive.names(guest.package) else []
    new_enough = [version for version in versions if _upstream(version) >= _LEAST]
    if not new_enough:
        raise LabError(f"no newer {guest.package} in {archive.describe()} and its backports")
    firmware = {name: archive.versions(name)[0] for name in _FIRMWARE}
    for version in new_enough:
        yield {guest.package: version} | firmware


def _upstream(version: str) -> tuple[int, int]:
    """Return QEMU's own number in the version of a package: ``1:10.0.2+ds-2`` has (10, 0)."""
    match = _UPSTREAM.match(version)
    return (int(match[1]), int(match[2])) if match else (0, 0)
