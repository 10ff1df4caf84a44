"""Kernels that a user names by a file: an image with its modules, or a package of Debian's.

Effects: files.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from altmap.errors import LabError
from altmap.lab.arches import guest_arch
from altmap.lab.config import check_config
from altmap.lab.kernels import VMLINUZ, KernelFiles, fetch
from altmap.lab.tools import extract_first
from altmap.scenario import DEFAULT_RELEASE

__all__ = ("own_kernel", "package_kernel")


def own_kernel(
    image: Path,
    modules: Path | None = None,
    *,
    arch: str = "x86_64",
    release: str = DEFAULT_RELEASE,
    cache: Path | None = None,
) -> tuple[KernelFiles, list[str]]:
    """Return a user's own kernel to boot, and what its configuration lacks.

    Parameters
    ----------
    image : Path
        What the architecture's QEMU boots: a bzImage, Image, ELF file.
    modules : Path, optional
        A folder as ``make modules_install`` fills it; the guest gets it as ``/lib/modules``.
    arch, release : str
        The architecture, and the release whose busybox is taken from Debian.

    Raises
    ------
    LabError
        If image or modules are not there, or no guest could come up with this configuration.
    """
    if modules is not None and not modules.is_dir():
        raise LabError(f"modules {modules}: no such folder")
    lacks = check_config(image, guest_arch(arch))
    debian = fetch(release, cache, arch=arch)
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    kernel = KernelFiles(
        release,
        image.absolute(),
        debian.busybox,
        modules or Path(os.devnull),
        {image.name: f"a user's kernel, sha256 {digest}"},
        arch,
        tree=modules,
    )
    return kernel, lacks


def package_kernel(
    package: Path, folder: Path, modules: Path | None = None, *, arch: str = "x86_64"
) -> KernelFiles:
    """Return the kernel of one of Debian's package files.

    Parameters
    ----------
    package : Path
        ``linux-image-*.deb``; since 7.2 ``linux-binary-*.deb``.
    folder : Path
        Gets the image.
    modules : Path, optional
        The package with its modules, if that is another one: ``linux-modules-*.deb``.
    arch : str

    Raises
    ------
    LabError
        If it has no kernel image.
    """
    image = folder / "vmlinuz"
    extract_first(package, VMLINUZ, image)
    busybox = fetch(DEFAULT_RELEASE, arch=arch).busybox
    digest = hashlib.sha256(image.read_bytes()).hexdigest()
    versions = {package.name: f"a package file, its image has sha256 {digest}"}
    return KernelFiles(DEFAULT_RELEASE, image, busybox, modules or package, versions, arch)
