"""Which of Debian's packages hold a kernel, and the newest of them that the mirror still has.

An index may name a file that the mirror has dropped: another index is newer, or a cache between
the two answered. So a download that the mirror refuses leads to one new index, then to older
versions.

Effects: files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path

from altmap.errors import LabError
from altmap.lab.apt import Archive, MissingPackageError
from altmap.lab.arches import GuestArch

__all__ = ("download_newest", "kernel_candidates", "version_candidates")

#: Candidates that are tried with the second index; each costs a look-up and a request.
_MOST_CANDIDATES = 4
# From Linux 7.2 on, Debian splits the image package: kernel and modules are in packages of the
# same version that the image package depends on.
_SPLIT = re.compile(r"(linux-(?:binary|modules)-\S+) \(= ([^)\s]+)\)")


def kernel_candidates(
    release: str, guest: GuestArch, archive: Archive
) -> Iterator[Mapping[str, str]]:
    """Yield what to download for a kernel, newest first: versions of packages, by name.

    Raises
    ------
    LabError
        If no index names a kernel of the release.
    """
    for image in _images(release, guest, archive):
        for version in archive.versions(image):
            depends = archive.fields(image, version).get("Depends", "")
            yield {image: version} | dict(_SPLIT.findall(depends))


def _images(release: str, guest: GuestArch, archive: Archive) -> list[str]:
    """Return the names of image packages of the first flavour that has any, newest first."""
    names = archive.names(f"linux-image-{release}.")
    for flavour in guest.flavours:
        pattern = re.compile(rf"linux-image-{re.escape(release)}\.[^a-z]*(\+deb[0-9.]+)?-{flavour}")
        found = [name for name in names if pattern.fullmatch(name)]
        if found:
            numbers = re.compile(r"\d+")
            return sorted(found, key=lambda name: [*map(int, numbers.findall(name))], reverse=True)
    raise LabError(
        f"kernel release {release!r}: no such image for {guest.name} ({guest.debian}) in "
        f"{archive.describe()}{_which_there_are(guest, archive)}"
    )


def _which_there_are(guest: GuestArch, archive: Archive) -> str:
    """Return the end of a message: the releases of which the archive has an image."""
    flavours = "|".join(map(re.escape, guest.flavours))
    pattern = re.compile(
        rf"linux-image-([0-9]+)\.([0-9]+)\.[^a-z]*(?:\+deb[0-9.]+)?-(?:{flavours})"
    )
    found = filter(None, map(pattern.fullmatch, archive.names("linux-image-")))
    releases = sorted({(int(match[1]), int(match[2])) for match in found})
    return f": need one of {', '.join(f'{a}.{b}' for a, b in releases)}" if releases else ""


def version_candidates(package: str, archive: Archive) -> Iterator[Mapping[str, str]]:
    """Yield the versions of a package, newest first.

    Raises
    ------
    LabError
        If no index names the package.
    """
    versions = archive.versions(package) if package in archive.names(package) else []
    if not versions:
        raise LabError(f"{package}: no such package in {archive.describe()}")
    for version in versions:
        yield {package: version}


def download_newest(
    archive: Archive, candidates: Callable[[], Iterator[Mapping[str, str]]], into: Path
) -> dict[str, str]:
    """Download the first candidate that the mirror has, and return its versions by package.

    Parameters
    ----------
    archive : Archive
        Updated.
    candidates : callable
        Returns what can be downloaded, newest first; asked again after the second update.
    into : Path
        Gets the packages.

    Raises
    ------
    LabError
        If the mirror has none of the newest ones, or does not answer.
    """
    tried: dict[str, str] = {}
    for candidate in _attempts(archive, candidates):
        try:
            archive.download(candidate, into)
        except MissingPackageError as error:
            for package in candidate:
                for part in into.glob(f"{package}_*"):
                    part.unlink()
            tried[" + ".join(map("=".join, candidate.items()))] = str(error)
        else:
            return dict(candidate)
    if not tried:
        raise LabError(f"no package to download in {archive.describe()}")
    *_, reason = tried.values()
    raise LabError(
        "the mirror lacks what its index names, also after a second update; tried "
        f"{', '.join(tried)}; the last answer: {reason}"
    )


def _attempts(
    archive: Archive, candidates: Callable[[], Iterator[Mapping[str, str]]]
) -> Iterator[Mapping[str, str]]:
    yield from islice(candidates(), 1)
    archive.update(past_caches=True)
    yield from islice(candidates(), _MOST_CANDIDATES)
