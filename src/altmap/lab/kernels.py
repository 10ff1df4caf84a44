"""Kernels to boot: Debian's own packages, unpacked once into a cache folder."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gzip
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from altmap.errors import LabError
from altmap.lab.apt import ARCHITECTURE, Archive
from altmap.lab.tools import extract_first

__all__ = (
    "HypervisorFiles",
    "KernelFiles",
    "cache_folder",
    "disk_errors",
    "fetch",
    "fetch_xen",
    "locked",
)

VMLINUZ = ("./boot/vmlinuz-*", "./usr/lib/modules/*/vmlinuz")
BUSYBOX = ("*/bin/busybox",)
RELEASES = ("bookworm", "trixie")
XEN_PACKAGE = "xen-hypervisor-4.17-amd64"
XEN_IMAGE = ("./boot/xen-*-amd64.gz",)
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


@dataclass(frozen=True, slots=True)
class HypervisorFiles:
    """Xen, as QEMU boots it.

    Attributes
    ----------
    image : Path
        An uncompressed ELF file that starts by multiboot.
    versions : dict of str to str
        Version of the Debian package, by its name.
    """

    image: Path
    versions: dict[str, str]


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
    folder, versions = _cached(release, cache, lambda archive, new: _kernel(release, archive, new))
    return KernelFiles(
        release, folder / "vmlinuz", folder / "busybox", folder / "modules.deb", versions
    )


def fetch_xen(cache: Path | None = None) -> HypervisorFiles:
    """Return Debian's Xen, downloaded if it is not in the cache.

    Raises
    ------
    LabError
        As :func:`fetch`.
    """
    folder, versions = _cached("xen", cache, _xen)
    return HypervisorFiles(folder / "xen", versions)


#: Downloads and unpacks into a folder, and returns the versions of what it took.
_Fill = Callable[[Archive, Path], dict[str, str]]


def _cached(name: str, cache: Path | None, fill: _Fill) -> tuple[Path, dict[str, str]]:
    """Return a folder of the cache and the versions in it, filled first if it is not there."""
    cache = cache_folder() if cache is None else cache
    folder = cache / "kernels" / name
    with disk_errors(cache, "a kernel (about 200 MB)"):
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(cache / "kernels/lock"):
                if not folder.is_dir():
                    _fill(folder, cache / "apt", fill)
        return folder, json.loads((folder / "packages.json").read_text())


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


def _fill(folder: Path, apt: Path, fill: _Fill) -> None:
    """Download and unpack into a folder beside, which is renamed when it is complete."""
    new = folder.parent / "new"
    archive = Archive(apt, RELEASES)
    shutil.rmtree(new, ignore_errors=True)  # left by a run that was killed
    try:
        new.mkdir()
        archive.update()
        versions = fill(archive, new)
        (new / "packages.json").write_text(json.dumps(versions, indent=1))
        new.rename(folder)
    except BaseException:
        shutil.rmtree(apt, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _kernel(release: str, archive: Archive, new: Path) -> dict[str, str]:
    image = _newest_image(release, archive)
    parts = _SPLIT.findall(archive.fields(image).get("Depends", ""))
    packages = [image, *parts, "busybox-static"]
    versions = {package: archive.fields(package)["Version"] for package in packages}
    archive.download(packages, new)
    _unpack(new)
    return versions


def _xen(archive: Archive, new: Path) -> dict[str, str]:
    if XEN_PACKAGE not in archive.names(XEN_PACKAGE):
        raise LabError(f"{XEN_PACKAGE}: no such package in Debian {', '.join(RELEASES)}")
    versions = {XEN_PACKAGE: archive.fields(XEN_PACKAGE)["Version"]}
    archive.download([XEN_PACKAGE], new)
    (deb,) = new.glob("*.deb")
    packed = new / "xen.gz"
    extract_first(deb, XEN_IMAGE, packed)
    (new / "xen").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    deb.unlink()
    return versions


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
