"""What runs in a new mount namespace before a command: binds, their checks, dropped capabilities.

Run as a module, with the mounted machine's folder, a descriptor for the answer and the command.
Nothing here trusts that a mount did what it was asked: each path is looked at again.

Effects: environment, files, processes, terminal.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

__all__ = ("BindError", "enter", "main")

_LIBC = ctypes.CDLL(None, use_errno=True)
_MS_RDONLY, _MS_NOSUID, _MS_NOEXEC, _MS_REMOUNT = 0x1, 0x2, 0x8, 0x20
_MS_BIND, _MS_REC = 0x1000, 0x4000
_PR_CAPBSET_DROP = 24
#: ``include/uapi/linux/capability.h``: what would undo the binds, or reach memory past them.
_DROPPED_CAPABILITIES = {
    "CAP_SYS_MODULE": 16,
    "CAP_SYS_RAWIO": 17,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_MKNOD": 27,
    "CAP_PERFMON": 38,
    "CAP_BPF": 39,
}
#: Files about memory that are hidden where the machine has none.
_HOST_FILES = (
    *("buddyinfo", "cmdline", "iomem", "kpagecgroup", "kpagecount", "kpageflags", "meminfo"),
    *("pagetypeinfo", "slabinfo", "version", "vmallocinfo", "vmstat", "zoneinfo"),
)
_DAX_NODE = re.compile(r"dax[0-9.]+")
#: What takes writes beside ``/proc/sys``, as container runtimes have it.
_READ_ONLY = ("sys", "sysrq-trigger", "irq", "fs", "bus", "acpi", "mtrr")


class BindError(Exception):
    """A bind that failed, or is not what it should be."""


def enter(root: Path) -> None:
    """Bind the machine's files over the host's, and check each.

    Raises
    ------
    BindError
        Naming the path.
    """
    made: dict[str, Path] = {}
    _show_debugfs()
    nodes = list((root / "dev").iterdir()) if (root / "dev").exists() else []
    if nodes:
        _show_nodes(root / "altmap/dev", [node.name for node in nodes])
    for node in nodes:
        made[f"/dev/{node.name}"] = node
        _bind(node, f"/dev/{node.name}")
    for folder in ("/sys", *_other_mounts("sysfs")):
        made[folder] = root / "sys"
        _bind(root / "sys", folder)
    read_only = [f"/proc/{name}" for name in _READ_ONLY if Path("/proc", name).exists()]
    for path in (*read_only, *_other_mounts("proc", but="/proc")):
        _bind(Path(path), path)
        _make_read_only(path)
    for name in _HOST_FILES:
        if Path("/proc", name).exists():
            source = root / "proc" / name
            made[f"/proc/{name}"] = source if source.exists() else root / "altmap/absent"
    for source in (root / "proc").rglob("*"):
        target = f"/proc/{source.relative_to(root / 'proc')}"
        if source.is_file() and Path(target).exists():
            made[target] = source
    for target, source in made.items():
        if target.startswith("/proc/"):
            _bind(source, target)
    for target, source in made.items():
        _check_same(source, target)
    for path in read_only:
        if not os.statvfs(path).f_flag & os.ST_RDONLY:
            raise BindError(f"{path} is not read-only")
    if Path("/sys/altmap").read_bytes() != (root / "altmap/token").read_bytes():
        raise BindError("/sys is not the machine's")


def _show_nodes(place: Path, names: Sequence[str]) -> None:
    """Cover /dev by a file system that has the host's entries but dax devices, and new names."""
    if _LIBC.mount(b"altmap", os.fsencode(place), b"tmpfs", _MS_NOSUID | _MS_NOEXEC, b"mode=755"):
        raise BindError(f"{place}: tmpfs: {os.strerror(ctypes.get_errno())}")
    for entry in Path("/dev").iterdir():
        copy = place / entry.name
        if _DAX_NODE.fullmatch(entry.name):
            continue
        if entry.is_symlink():
            copy.symlink_to(entry.readlink())
            continue
        if entry.is_dir():
            copy.mkdir()
        else:
            copy.touch()
        _bind(entry, str(copy), _MS_REC)
    for name in names:
        (place / name).touch()
    _bind(place, "/dev", _MS_REC)


def _bind(source: Path, target: str, flags: int = 0) -> None:
    if _LIBC.mount(os.fsencode(source), os.fsencode(target), None, _MS_BIND | flags, None):
        raise BindError(f"{target}: bind: {os.strerror(ctypes.get_errno())}")


def _make_read_only(target: str) -> None:
    """Remount a bind; flags that it has already may be locked, so they stay."""
    kept = os.statvfs(target).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC)
    flags = _MS_REMOUNT | _MS_BIND | _MS_RDONLY | kept
    if _LIBC.mount(None, os.fsencode(target), None, flags, None):
        raise BindError(f"{target}: remount read-only: {os.strerror(ctypes.get_errno())}")


def _show_debugfs() -> None:
    """Have debugfs in the list of mounts, where programs look for it; it is covered then.

    Without root, or without debugfs in the host's kernel, programs do not find it.
    """
    if not any(True for _ in _mount_points("debugfs")):
        _LIBC.mount(b"debugfs", b"/sys/kernel/debug", b"debugfs", _MS_RDONLY, None)


def _check_same(source: Path, target: str) -> None:
    there, here = source.stat(), Path(target).stat()
    if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
        raise BindError(f"{target} is not the machine's")


def _mount_points(kind: str) -> Iterator[str]:
    """Yield where file systems of a kind are mounted (proc_pid_mountinfo(5))."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        fields, _, rest = line.partition(" - ")
        if rest.split()[0] == kind:
            yield fields.split()[4].encode().decode("unicode_escape")


def _other_mounts(kind: str, but: str = "/sys") -> list[str]:
    """Return further mounts of a kind that can still be reached."""
    others = [path for path in _mount_points(kind) if path != but]
    return [path for path in others if Path(path).is_dir()]


def _drop_capabilities() -> None:
    """Drop from the bounding set what would undo the binds; the command's exec takes it away."""
    for number in _DROPPED_CAPABILITIES.values():
        _LIBC.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)  # one that the kernel lacks is EINVAL


def main() -> NoReturn:
    """Enter the machine and run the command, or say why not and end."""
    root, answer, command = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
    try:
        enter(root)
        _drop_capabilities()
        os.environ["ALTMAP_MACHINE"] = str(root)
    except (BindError, OSError) as error:
        os.write(answer, str(error).encode())
        sys.exit(125)
    os.write(answer, b"started")
    os.close(answer)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"altmap: {command[0]}: {error.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
