"""Which paths below a machine's root belong to a sysroot, and which names are never accepted."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from altmap.errors import InputError

__all__ = (
    "BLOCKS",
    "KPAGEFLAGS",
    "KPAGEFLAGS_RUNS",
    "OF_COPIES",
    "PADDED",
    "PAGE_RUNS",
    "PAGE_USES",
    "UNAME",
    "UNAME_OF_SOS",
    "check_link",
    "check_tree",
    "is_configuration",
    "is_lsmem",
    "is_padded",
    "leads_on",
    "matters",
    "normalise",
    "text_of",
    "without_padding",
)

#: The folder of memory blocks.
BLOCKS = "sys/devices/system/memory"
KPAGEFLAGS = "proc/kpageflags"
KPAGEFLAGS_RUNS = "proc/kpageflags.runs"
#: Files that say who uses each page; few questions need them.
PAGE_USES = ("proc/kpagecount", "proc/kpagecgroup")
#: The kernel's files with a word for each page frame, and what they are kept as.
PAGE_RUNS = {path: f"{path}.runs" for path in (KPAGEFLAGS, *PAGE_USES)}

_DEVICE_TREE = "sys/firmware/devicetree/"
#: The note for padded files, with how many they are.
PADDED = "{} files below sys/ are padded with NUL bytes, which are cut off"

#: Ours: release, machine and page size of the host, a line each.
UNAME = "proc/uname"
#: What ``uname -a`` printed, as an archive of sos holds it.
UNAME_OF_SOS = "sos_commands/kernel/uname_-a"

_FILES = frozenset(
    {
        UNAME,
        UNAME_OF_SOS,
        "proc/1/auxv",
        "proc/1/smaps",
        "proc/config.gz",
        "proc/cpuinfo",
        "proc/device-tree/compatible",
        "proc/device-tree/model",
        "proc/ppc64/lparcfg",
        "proc/self/auxv",
        "proc/self/smaps",
        "proc/sysinfo",
        "sos_commands/processor/lscpu",
        "sys/devices/virtual/dmi/id/bios_vendor",
        "sys/devices/virtual/dmi/id/chassis_asset_tag",
        "sys/firmware/devicetree/base/compatible",
        "sys/firmware/devicetree/base/model",
        "sys/hypervisor/guest_type",
        "proc/buddyinfo",
        "proc/cmdline",
        "proc/iomem",
        "proc/kpagecgroup.names",
        *PAGE_RUNS,
        *PAGE_RUNS.values(),
        "proc/meminfo",
        "proc/pagetypeinfo",
        "proc/sys/kernel/arch",
        "proc/sys/kernel/osrelease",
        "proc/sys/vm/lowmem_reserve_ratio",
        "proc/sys/vm/min_free_kbytes",
        "proc/sys/vm/watermark_boost_factor",
        "proc/sys/vm/watermark_scale_factor",
        "proc/version",
        "proc/vmstat",
        "proc/zoneinfo",
        "sys/devices/virtual/dmi/id/product_name",
        "sys/devices/virtual/dmi/id/sys_vendor",
        "sys/hypervisor/type",
    }
)
_FOLDERS = (
    BLOCKS,
    "sys/devices/system/node",
    "sys/devices/system/xen_memory",
    "sys/firmware/memmap",
    "sys/kernel/mm/hugepages",
    "sys/module/memory_hotplug/parameters",
)
#: Who else onlines memory: rules of udev, under the names that distributions give them.
_RULES_FOLDERS = (
    "etc/udev/rules.d",
    "lib/udev/rules.d",
    "run/udev/rules.d",
    "usr/lib/udev/rules.d",
)
_RULES = re.compile(f"(?:{'|'.join(_RULES_FOLDERS)})/[^/]*(?:mem|hotadd|redhat)[^/]*[.]rules")
_CONFIGURATION = re.compile("(?:boot|etc|lib|proc/(?:device-tree|self)|run|usr)(?:/|$)")
#: What :data:`UNAME` says better of a running machine, or takes long to read there.
OF_COPIES = frozenset(
    f"proc/{name}"
    for name in ("cpuinfo", "1/auxv", "1/smaps", "self/auxv", "self/smaps", "device-tree")
)
_KERNEL_CONFIG = re.compile("boot/config-[0-9][^/]*")
#: What sos has instead of the folder of memory blocks: a command's output, named after it.
_LSMEM_FOLDER = "sos_commands/memory"
_LSMEM = re.compile(rf"{_LSMEM_FOLDER}/lsmem_-a_[A-Za-z0-9_.,+-]*")
_INSIDE = re.compile(f"(?:{'|'.join(_FOLDERS)})/.")
# Of every device in sysfs; they say nothing about memory.
_NEVER = re.compile(r"/(?:driver|power|subsystem|uevent)(?:/|$)")


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


_ABOVE = frozenset((*_FOLDERS, *_RULES_FOLDERS, _LSMEM_FOLDER, "boot")).union(
    *map(_parents, (*_FILES, *_FOLDERS, *_RULES_FOLDERS, _LSMEM_FOLDER))
)


def matters(path: str) -> bool:
    """Tell whether a sysroot keeps the file or symbolic link at *path*."""
    if path in _FILES or (_INSIDE.match(path) and not _NEVER.search(path)):
        return True
    return bool(_RULES.fullmatch(path) or _KERNEL_CONFIG.fullmatch(path)) or is_lsmem(path)


def is_lsmem(path: str) -> bool:
    """Tell whether *path* is what lsmem printed, as an archive of sos holds it."""
    return bool(_LSMEM.fullmatch(path))


def is_configuration(path: str) -> bool:
    """Tell whether *path* is not the kernel's: there links may lead anywhere, and are not kept."""
    return bool(_CONFIGURATION.match(path))


def leads_on(path: str) -> bool:
    """Tell whether *path* is a folder that must be entered to find what matters."""
    return path in _ABOVE


def normalise(name: str) -> str:
    """Return *name* without ``.`` and doubled or trailing slashes.

    Raises
    ------
    InputError
        If the name is absolute or has a ``..``.
    """
    if name.startswith("/"):
        raise InputError(f"{name!r}: need a relative name")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InputError(f"{name!r}: need a name without '..'")
    return "/".join(parts)


def check_link(path: str, target: str) -> None:
    """Raise ``InputError`` unless the link at *path* stays below the root without passing it."""
    if target.startswith("/"):
        raise InputError(f"{path!r}: symbolic link to {target!r}: need a relative target")
    depth = path.count("/")
    for part in target.split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            raise InputError(f"{path!r}: symbolic link to {target!r} leaves the sysroot")


def check_tree(files: Collection[str], links: Mapping[str, str]) -> None:
    """Raise ``InputError`` unless files and links can lie in one folder without passing a link."""
    for path in (*files, *links):
        if not path or normalise(path) != path:
            raise InputError(f"{path!r}: need a name such as 'proc/meminfo'")
    for path, target in links.items():
        check_link(path, target)
    folders = {path.rpartition("/")[0] for path in (*files, *links)}
    above = {parent for folder in folders for parent in (*_parents(folder), folder)}
    for path in (*files, *links):
        if path in above:
            raise InputError(f"{path!r}: need a folder, since other names lie below it")
        if path in links and path in files:
            raise InputError(f"{path!r}: is both a file and a symbolic link")


def text_of(raw: bytes) -> str:
    r"""Return the file's text; a byte that is not UTF-8 becomes ``\xNN``."""
    return raw.decode("utf-8", "backslashreplace")


def is_padded(path: str, raw: bytes) -> bool:
    """Tell whether a file has NUL where no kernel prints one: below ``sys/``, filled up by ``tar``.

    The words of the device tree are separated by NUL.
    """
    return path.startswith("sys/") and not path.startswith(_DEVICE_TREE) and b"\0" in raw


def without_padding(raw: bytes) -> bytes:
    """Return a file of sysfs up to its first NUL: ``sysfs_emit`` prints none."""
    return raw.partition(b"\0")[0]
