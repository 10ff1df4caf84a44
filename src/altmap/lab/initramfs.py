"""The guest's whole file system: busybox, an init and the scripts that the lab runs.

Effects: archives, files.
"""

from __future__ import annotations

import gzip
import importlib.resources as resources
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

__all__ = ("archive", "build_initramfs", "newc_entry")

_FOLDERS = ("bin", "dev", "lab", "lab/modules", "proc", "sys", "tmp")
_SCRIPTS = {"init": "init.sh", "lab/capture": "capture.sh"}


def newc_entry(
    name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)
) -> bytes:
    """Return one member of a cpio archive in the "new ASCII" format.

    Source: Documentation/driver-api/early-userspace/buffer-format.rst.

    Parameters
    ----------
    name : str
        Path without a leading slash.
    mode : int
        File type and permissions, as in ``st_mode``.
    device : tuple of int
        Major and minor number, for a device node.
    """
    path = name.encode() + b"\0"
    numbers = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
    header = b"070701" + b"".join(b"%08x" % number for number in numbers)
    return _padded(header + path) + _padded(content)


def _padded(part: bytes) -> bytes:
    return part + bytes(-len(part) % 4)


def build_initramfs(
    busybox: Path, modules: Mapping[str, bytes] | None = None, tree: Path | None = None
) -> bytes:
    """Return what :func:`archive` returns, compressed for the kernel.

    Little and quickly: most of it is busybox, which no level makes much smaller.
    """
    return gzip.compress(archive(busybox, modules, tree), compresslevel=1, mtime=0)


def archive(
    busybox: Path, modules: Mapping[str, bytes] | None = None, tree: Path | None = None
) -> bytes:
    """Return a cpio archive that boots into the lab's command loop.

    Parameters
    ----------
    busybox : Path
    modules : mapping of str to bytes, optional
        Kernel modules by name, for ``/lab/modules``.
    tree : Path, optional
        A folder that holds ``lib/modules``, or is it; the guest gets it as ``/lib/modules``.
    """
    entries = [newc_entry(folder, stat.S_IFDIR | 0o755) for folder in _FOLDERS]
    # The kernel opens the console before init can mount devtmpfs.
    entries.append(newc_entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1)))
    entries.append(newc_entry("bin/busybox", stat.S_IFREG | 0o755, busybox.read_bytes()))
    for name, script in _SCRIPTS.items():
        content = resources.files(__package__).joinpath(script).read_bytes()
        entries.append(newc_entry(name, stat.S_IFREG | 0o755, content))
    for name, content in (modules or {}).items():
        entries.append(newc_entry(f"lab/modules/{name}.ko", stat.S_IFREG | 0o644, content))
    if tree is not None:
        entries.extend(_modules(tree))
    entries.append(newc_entry("TRAILER!!!", 0))
    return b"".join(entries)


def _modules(folder: Path) -> Iterator[bytes]:
    """Yield a tree of modules, without the links to where they were built."""
    inner = folder / "lib" / "modules"
    root = inner if inner.is_dir() else folder
    yield newc_entry("lib", stat.S_IFDIR | 0o755)
    yield newc_entry("lib/modules", stat.S_IFDIR | 0o755)
    for path in sorted(root.rglob("*")):
        name = f"lib/modules/{path.relative_to(root)}"
        if path.is_symlink():
            continue
        if path.is_dir():
            yield newc_entry(name, stat.S_IFDIR | 0o755)
        elif path.is_file():
            yield newc_entry(name, stat.S_IFREG | 0o644, path.read_bytes())
