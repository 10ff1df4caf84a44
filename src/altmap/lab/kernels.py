"""Kernels to boot: Debian's own packages, unpacked once into a cache folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from altmap.errors import LabError
from altmap.lab.apt import ARCHITECTURE, Archive
from altmap.lab.tools import extract_first

__all__ = ("KernelFiles", "cache_folder", "disk_errors", "fetch", "locked")

VMLINUZ = ("./boot/vmlinuz-*", "./usr/lib/modules/*/vmlinuz")
BUSYBOX = ("*/bin/busybox",)
RELEASES = ("bookworm", "trixie")
_RELEASE = re.compile(r"\d+\.\d+")
# From Linux 7.2 on, Debian splits the image package: kernel and modules are in packages of the
# same version that the image package depends on.
_SPLIT = re.compile(r"(linux-(?:binary|modules)-\S+) \(= ")


@dataclass(frozen=True, slots=True)
class KernelFiles:
    """One kernel and what a guest needs besides it.

    Attributes
    ----------
    release : str
        As asked for, such as ``6.12``.
    vmlinuz, busybox : Path
        Kernel image; static busybox of the same architecture.
    modules_deb : Path
        Debian package with the kernel's modules.
    versions : dict of str to str
        Version of each Debian package used, by its name.
    modules : tuple of str
        Names of modules that a guest has at hand, besides those that they depend on.
    """

    release: str
    vmlinuz: Path
    busybox: Path
    modules_deb: Path
    versions: dict[str, str]
    modules: tuple[str, ...] = ()


def cache_folder() -> Path:
    """Return the folder for files that can be had again: ``$XDG_CACHE_HOME/altmap``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification wants relative paths to be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "altmap"


def fetch(release: str, cache: Path | None = None) -> KernelFiles:
    """Return Debian's newest kernel of a release, downloaded if it is not in the cache.

    Parameters
    ----------
    release : str
        Major and minor number, such as ``6.12``.
    cache : Path, optional
        Defaults to :func:`cache_folder`.

    Raises
    ------
    LabError
        If Debian has no such kernel, its archive cannot be asked, or the disk is full. Nothing
        half-done stays in the cache.
    """
    if not _RELEASE.fullmatch(release):
        raise LabError(f"kernel release {release!r}: need major.minor, such as '6.12'")
    cache = cache_folder() if cache is None else cache
    folder = cache / "kernels" / release
    with disk_errors(cache, "a kernel (about 200 MB)"):
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(cache / "kernels/lock"):
                if not folder.is_dir():
                    _fill(release, folder, cache / "apt")
        versions = json.loads((folder / "packages.json").read_text())
    return KernelFiles(
        release, folder / "vmlinuz", folder / "busybox", folder / "modules.deb", versions
    )


@contextlib.contextmanager
def disk_errors(cache: Path, what: str) -> Iterator[None]:
    """Turn errors of the disk into a ``LabError`` that says for what there was no space."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LabError(f"no space left for {what} in {cache}") from error
        raise LabError(f"kernel cache {cache}: {error.strerror or error}") from error


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock file, against other processes that fill the cache."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fill(release: str, folder: Path, apt: Path) -> None:
    """Download and unpack into a folder beside, which is renamed when it is complete."""
    new = folder.parent / "new"
    archive = Archive(apt, RELEASES)
    shutil.rmtree(new, ignore_errors=True)  # left by a run that was killed
    try:
        new.mkdir()
        archive.update()
        image = _newest_image(release, archive)
        parts = _SPLIT.findall(archive.fields(image).get("Depends", ""))
        packages = [image, *parts, "busybox-static"]
        versions = {package: archive.fields(package)["Version"] for package in packages}
        archive.download(packages, new)
        _unpack(new)
        (new / "packages.json").write_text(json.dumps(versions, indent=1))
        new.rename(folder)
    except BaseException:
        shutil.rmtree(apt, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _newest_image(release: str, archive: Archive) -> str:
    pattern = re.compile(
        rf"linux-image-{re.escape(release)}\.[^a-z]*(\+deb[0-9.]+)?-{ARCHITECTURE}"
    )
    found = [n for n in archive.names(f"linux-image-{release}.") if pattern.fullmatch(n)]
    if not found:
        where = f"{ARCHITECTURE} in Debian {', '.join(RELEASES)}"
        raise LabError(f"kernel release {release!r}: no such image for {where}")
    return max(found, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])


def _unpack(new: Path) -> None:
    """Leave ``vmlinuz``, ``busybox`` and ``modules.deb`` in the folder, nothing else."""
    debs = {deb.name.partition("_")[0]: deb for deb in new.glob("*.deb")}
    by_role = {name.split("-")[1]: deb for name, deb in debs.items()}
    image = by_role["image"]
    extract_first(by_role.get("binary", image), VMLINUZ, new / "vmlinuz")
    extract_first(by_role["static"], BUSYBOX, new / "busybox")
    by_role.get("modules", image).rename(new / "modules.deb")
    for deb in new.glob("*_*.deb"):
        deb.unlink()
