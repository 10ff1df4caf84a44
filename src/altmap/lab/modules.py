"""Kernel modules: taken from the kernel's package or folder, in the order in which they load.

A module says itself which others it needs (``depends=`` in its section ``.modinfo``). What no
module provides is built into the kernel, or does not exist.

Effects: archives, files, processes.
"""

from __future__ import annotations

import contextlib
import gzip
import lzma
import re
import subprocess
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from altmap.errors import LabError
from altmap.lab.kernels import KernelFiles
from altmap.storage.files import write_file

__all__ = ("module_files", "module_order")

_PATH = re.compile(r".*/modules/[^/]+/(?:kernel|updates)/.*/([^/]+)\.ko(\.[a-z0-9]+)?")
_DEPENDS = re.compile(rb"(?:^|\0)depends=([A-Za-z0-9_,-]*)\0")


def module_files(kernel: KernelFiles) -> dict[str, bytes]:
    """Return the kernel's modules that a guest is to have, dependencies first.

    Those of a package are kept in the cache, beside it. One that was built here is taken instead of
    the package's.

    Raises
    ------
    LabError
        If the package cannot be read, or a module is compressed in a way that we cannot undo.
    """
    known: dict[str, bytes | None] = {name: path.read_bytes() for name, path in kernel.built}
    missing = {_plain(name) for name in kernel.modules} - set(known)
    while missing:
        known |= _from_folder(kernel.modules_deb, missing) or _from_package(kernel, missing)
        needed = {other for content in known.values() for other in _dependencies(content)}
        missing = needed - set(known)
    ordered: dict[str, bytes] = {}
    for name in kernel.modules:
        ordered |= _with_dependencies(_plain(name), known)
    return ordered


def module_order(kernel: KernelFiles, name: str) -> list[str]:
    """Return the names of a module and of those that it needs, as they load."""
    return list(_with_dependencies(_plain(name), dict(module_files(kernel))))


def _plain(name: str) -> str:
    return name.replace("-", "_")


def _dependencies(content: bytes | None) -> list[str]:
    found = _DEPENDS.search(content or b"")
    return [_plain(name) for name in found[1].decode().split(",") if name] if found else []


def _with_dependencies(name: str, known: dict[str, bytes | None]) -> dict[str, bytes]:
    """Return a module's file after those that it needs; nothing of what is built in."""
    content = known.get(name)
    if content is None:
        return {}
    ordered: dict[str, bytes] = {}
    for other in _dependencies(content):
        ordered |= _with_dependencies(other, known)
    return ordered | {name: content}


def _from_folder(folder: Path, names: Iterable[str]) -> dict[str, bytes | None]:
    """Return modules of a user's folder by name; nothing if it is a package."""
    if folder.is_file():
        return {}
    found: dict[str, bytes | None] = dict.fromkeys(names)
    for path in sorted(folder.rglob("*.ko*")) if folder.is_dir() else ():
        stem, _, suffix = path.name.partition(".ko")
        name = _plain(stem)
        if name in found and path.is_file():
            found[name] = _decompressed(str(path), suffix, path.read_bytes())
    return found


def _from_package(kernel: KernelFiles, names: Iterable[str]) -> dict[str, bytes | None]:
    """Return modules by name, ``None`` for one that the package does not have."""
    folder = kernel.modules_deb.parent / "modules"
    found: dict[str, bytes | None] = {}
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            # An empty file says that there is none.
            found[name] = (folder / f"{name}.ko").read_bytes() or None
    wanted = set(names) - set(found)
    if wanted:
        fresh = dict.fromkeys(wanted, b"") | dict(_unpacked(kernel.modules_deb, wanted))
        for name, content in fresh.items():
            _keep(folder, f"{name}.ko", content)
            found[name] = content or None
    return found


def _unpacked(deb: Path, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
    """Yield those of the modules that the package has; reads it once, up to the last of them."""
    left = set(wanted)
    command = ("dpkg-deb", "--fsys-tarfile", str(deb))
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as unpack:
        try:
            with tarfile.open(fileobj=unpack.stdout, mode="r|") as archive:
                for member in archive:
                    match = _PATH.fullmatch(member.name) if member.isreg() else None
                    name = _plain(match[1]) if match else ""
                    if match is None or name not in left:
                        continue
                    file = archive.extractfile(member)
                    assert file is not None  # it is a regular file
                    yield name, _decompressed(member.name, match[2] or "", file.read())
                    left.discard(name)
                    if not left:
                        return
        except tarfile.TarError as error:
            raise LabError(f"package {deb.name}: {error}") from error
        finally:
            unpack.kill()  # the rest of the package is not needed


def _decompressed(path: str, suffix: str, content: bytes) -> bytes:
    if not suffix:
        return content
    if suffix == ".xz":
        return lzma.decompress(content)
    if suffix == ".gz":
        return gzip.decompress(content)
    raise LabError(f"module {path}: cannot undo the compression {suffix!r}")


def _keep(folder: Path, name: str, content: bytes) -> None:
    """Write a file of the cache."""
    folder.mkdir(exist_ok=True)
    write_file(folder / name, content)
