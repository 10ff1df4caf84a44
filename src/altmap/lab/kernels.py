"""Kernels to boot: Debian's own packages, unpacked once into a cache folder.

Effects: archives, files, terminal.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import json
import logging
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from altmap.errors import LabError
from altmap.lab.apt import Archive
from altmap.lab.arches import GuestArch, guest_arch
from altmap.lab.digests import damage_of, seal
from altmap.lab.packages import download_newest, kernel_candidates, version_candidates
from altmap.lab.tools import extract_first, run_tool
from altmap.storage.files import sync_folder
from altmap.storage.json_files import read_json
from altmap.storage.locks import locked

__all__ = (
    "HypervisorFiles",
    "KernelFiles",
    "cache_folder",
    "cached",
    "disk_errors",
    "fetch",
    "fetch_headers",
    "fetch_xen",
    "kernel_folder",
    "source_archive",
)

_LOG = logging.getLogger(__name__)
VMLINUZ = ("./boot/vmlinu[xz]-*", "./usr/lib/modules/*/vmlinu[xz]")
CONFIG = ("./boot/config-*", "./usr/lib/modules/*/config")
BUSYBOX = ("*/bin/busybox",)
RELEASES = ("bookworm", "trixie")
BUSYBOX_PACKAGE = "busybox-static"
XEN_PACKAGE = "xen-hypervisor-4.17-amd64"
XEN_IMAGE = ("./boot/xen-*-amd64.gz",)
_RELEASE = re.compile(r"\d+\.\d+")
_COMMON = re.compile(r"(linux-headers-\S+-common) \(= ")


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
        Debian package with the kernel's modules; of a user's own kernel the folder that holds them,
        ``/dev/null`` if there is none.
    tree : Path or None
        A folder that the guest gets as ``/lib/modules``, whole.
    built : tuple of (str, Path)
        Names and files of modules that were built here; they stand in for those of the package.
    headers : Path or None
        The headers of a kernel that was built here; those of a package are downloaded.
    versions : dict of str to str
        Version of each Debian package used, by its name.
    arch : str
        As in a scenario's ``machine.arch``.
    modules : tuple of str
        Names of modules that a guest has at hand, besides those that they depend on.
    """

    release: str
    vmlinuz: Path
    busybox: Path
    modules_deb: Path
    versions: dict[str, str]
    arch: str = "x86_64"
    modules: tuple[str, ...] = ()
    tree: Path | None = None
    built: tuple[tuple[str, Path], ...] = ()
    headers: Path | None = None


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


def kernel_folder(release: str, arch: str, cache: Path) -> Path:
    """Return where the cache keeps a kernel."""
    folder = cache / "kernels"
    return (folder if guest_arch(arch).shares_cache else folder / arch) / release


def fetch(release: str, cache: Path | None = None, *, arch: str = "x86_64") -> KernelFiles:
    """Return Debian's newest kernel of a release, downloaded if it is not in the cache.

    Parameters
    ----------
    release : str
        Major and minor number, such as ``6.12``.
    cache : Path, optional
        Defaults to :func:`cache_folder`.
    arch : str
        As in a scenario's ``machine.arch``.

    Raises
    ------
    InputError
        If no guest has that architecture.
    LabError
        If Debian has no such kernel, its archive cannot be asked, or the disk is full. Nothing
        half-done stays in the cache.
    """
    if not _RELEASE.fullmatch(release):
        raise LabError(f"kernel release {release!r}: need major.minor, such as '6.12'")
    guest = guest_arch(arch)
    cache = cache_folder() if cache is None else cache
    folder = kernel_folder(release, arch, cache)
    versions = cached(folder, guest, cache, lambda a, new: _kernel(release, guest, a, new))
    return KernelFiles(
        release, folder / "vmlinuz", folder / "busybox", folder / "modules.deb", versions, arch
    )


def fetch_headers(kernel: KernelFiles, cache: Path | None = None) -> tuple[Path, Path]:
    """Return the folders of a kernel's headers, the architecture's and the common ones.

    They are downloaded if they are not in the cache, and are of the kernel's own version.

    Raises
    ------
    LabError
        As :func:`fetch`, or if Debian's archive has no headers of that version any more.
    """
    if kernel.headers is not None:
        return kernel.headers, kernel.headers
    cache = cache_folder() if cache is None else cache
    image = next((name for name in kernel.versions if name.startswith("linux-image-")), None)
    if image is None:
        raise LabError("modules can be built for Debian's kernels only: this one has no package")
    folder = cache / "headers" / f"{image.removeprefix('linux-image-')}_{kernel.versions[image]}"
    guest = guest_arch(kernel.arch)
    versions = cached(
        folder,
        guest,
        cache,
        lambda archive, new: _headers(
            image,
            kernel.versions[image],
            kernel_folder(kernel.release, kernel.arch, cache),
            archive,
            new,
        ),
    )
    package = image.replace("linux-image-", "linux-headers-")
    common = next(name for name in versions if name != package)
    return folder / "usr/src" / package, folder / "usr/src" / common


def fetch_xen(cache: Path | None = None) -> HypervisorFiles:
    """Return Debian's Xen, downloaded if it is not in the cache.

    Raises
    ------
    LabError
        As :func:`fetch`.
    """
    cache = cache_folder() if cache is None else cache
    folder = kernel_folder("xen", "x86_64", cache)
    return HypervisorFiles(folder / "xen", cached(folder, guest_arch("x86_64"), cache, _xen))


#: Downloads and unpacks into a folder, and returns the versions of what it took.
Fill = Callable[[Archive, Path], dict[str, str]]


def cached(
    folder: Path,
    guest: GuestArch,
    cache: Path,
    fill: Fill,
    *,
    what: str = "a kernel (about 200 MB)",
    releases: tuple[str, ...] = RELEASES,
) -> dict[str, str]:
    """Return the versions of what a folder of the cache holds.

    It is filled first if it is not there, or is not as it was filled.

    Parameters
    ----------
    folder : Path
    guest : GuestArch
        Of which architecture the packages are.
    cache : Path
    fill : callable
        Downloads and unpacks into a folder, and returns the versions of what it took.
    what : str
        What it is and how large, for a disk that is full.
    releases : tuple of str
        Debian releases to take it from.

    Raises
    ------
    LabError
        If it cannot be had, or the disk refuses.
    """
    with disk_errors(cache, what):
        if not folder.is_dir() or damage_of(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            (cache / "kernels").mkdir(exist_ok=True)
            with locked(cache / "kernels/lock"):
                damage = damage_of(folder) if folder.is_dir() else None
                if damage:
                    _LOG.warning("altmap: %s: %s: it is fetched anew", folder, damage)
                if damage or not folder.is_dir():
                    archive = Archive(_apt_folder(guest, cache), guest.debian, releases)
                    _fill(folder, archive, _apt_folder(guest, cache), fill)
        return read_json(folder / "packages.json", dict[str, str])


@contextlib.contextmanager
def source_archive(cache: Path) -> Iterator[Archive]:
    """Yield Debian's archive for packages of source; no other run asks it at the same time."""
    guest = guest_arch("x86_64")
    (cache / "kernels").mkdir(parents=True, exist_ok=True)
    with locked(cache / "kernels/lock"):
        yield Archive(_apt_folder(guest, cache), guest.debian, RELEASES)


def _apt_folder(guest: GuestArch, cache: Path) -> Path:
    return cache / ("apt" if guest.shares_cache else f"apt-{guest.debian}")


@contextlib.contextmanager
def disk_errors(cache: Path, what: str) -> Iterator[None]:
    """Turn errors of the disk into a ``LabError`` that says for what there was no space."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise LabError(f"no space left for {what} in {cache}") from error
        raise LabError(f"kernel cache {cache}: {error.strerror or error}") from error


def _fill(folder: Path, archive: Archive, apt: Path, fill: Fill) -> None:
    """Download and unpack into a folder beside, which is renamed when it is complete."""
    new = folder.parent / "new"
    shutil.rmtree(new, ignore_errors=True)  # left by a run that was killed
    try:
        new.mkdir()
        archive.update()
        versions = fill(archive, new)
        (new / "packages.json").write_text(json.dumps(versions, indent=1))
        seal(new)
        shutil.rmtree(folder, ignore_errors=True)  # what was damaged
        new.rename(folder)
        sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(apt, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _kernel(release: str, guest: GuestArch, archive: Archive, new: Path) -> dict[str, str]:
    kernel = download_newest(archive, lambda: kernel_candidates(release, guest, archive), new)
    busybox = download_newest(archive, lambda: version_candidates(BUSYBOX_PACKAGE, archive), new)
    _unpack(new, guest)
    return kernel | busybox


def _xen(archive: Archive, new: Path) -> dict[str, str]:
    versions = download_newest(archive, lambda: version_candidates(XEN_PACKAGE, archive), new)
    (deb,) = new.glob("*.deb")
    packed = new / "xen.gz"
    extract_first(deb, XEN_IMAGE, packed)
    (new / "xen").write_bytes(gzip.decompress(packed.read_bytes()))
    packed.unlink()
    deb.unlink()
    return versions


def _headers(image: str, version: str, kernel: Path, archive: Archive, new: Path) -> dict[str, str]:
    package = image.replace("linux-image-", "linux-headers-")
    known = archive.versions(package) if package in archive.names(package) else []
    depends = archive.fields(package, version).get("Depends", "") if version in known else ""
    common = _COMMON.search(depends)
    if common is None:
        raise LabError(
            f"{package} {version}: Debian's archive has no headers of this kernel any more; "
            f"remove {kernel} to have a newer one"
        )
    versions = {package: version, common[1]: version}
    archive.download(versions, new)
    for deb in list(new.glob("*.deb")):
        run_tool("dpkg-deb", "-x", str(deb), str(new))
        deb.unlink()
    return versions


def _check_config(image: Path, guest: GuestArch, config: Path) -> None:
    """Check that a flavour is of the page size asked for, which its name does not tell."""
    extract_first(image, CONFIG, config)
    if guest.config not in config.read_text().splitlines():
        name = image.name.partition("_")[0]
        raise LabError(f"{name}: not a kernel for {guest.name}, which needs {guest.config}")


def _unpack(new: Path, guest: GuestArch) -> None:
    """Leave ``vmlinuz``, ``busybox`` and ``modules.deb`` in the folder, and what was checked."""
    debs = {deb.name.partition("_")[0]: deb for deb in new.glob("*.deb")}
    by_role = {name.split("-")[1]: deb for name, deb in debs.items()}
    image = by_role["image"]
    binary = by_role.get("binary", image)
    extract_first(binary, VMLINUZ, new / "vmlinuz")
    if guest.config:
        _check_config(binary, guest, new / "config")
    extract_first(by_role["static"], BUSYBOX, new / "busybox")
    by_role.get("modules", image).rename(new / "modules.deb")
    for deb in new.glob("*_*.deb"):
        deb.unlink()
