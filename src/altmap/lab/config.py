"""What a kernel's configuration lacks: read out of the image itself, or from the file beside it.

Effects: archives, files.
"""

from __future__ import annotations

import gzip
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import Path

from altmap.errors import LabError
from altmap.lab.arches import GuestArch

__all__ = ("check_config", "kernel_config", "lacking")

#: Without these no guest comes up: options, and what they are for.
_TO_BOOT = {
    "BLK_DEV_INITRD": "it has no file system",
    "RD_GZIP": "it cannot unpack its file system",
    "BINFMT_ELF": "it runs no program",
    "BINFMT_SCRIPT": "it runs no script",
    "DEVTMPFS": "it finds no device to be asked on",
    "PROC_FS": "it has no /proc",
    "SYSFS": "it has no /sys",
}
#: Without these a guest comes up and cannot do, or show, everything.
_TO_MEASURE = {
    "MEMORY_HOTPLUG": "no memory can be added",
    "MEMORY_HOTREMOVE": "no memory can be unplugged, and blocks of it not be taken offline",
    "MHP_MEMMAP_ON_MEMORY": "memmap_on_memory has no effect",
    "PROC_PAGE_MONITOR": "there is no /proc/kpageflags, so no page is compared",
    "TMPFS": "the step fill has nowhere to write",
    "DYNAMIC_DEBUG": "the log does not say why a block refuses to go offline",
}
_LINE = re.compile(r"^CONFIG_(\w+)=(.+)$", re.MULTILINE)
_EMBEDDED, _EMBEDDED_END = b"IKCFG_ST", b"IKCFG_ED"
_GZIP, _XZ = b"\x1f\x8b\x08", b"\xfd7zXZ\x00"
_BOOT_FOLDERS = 3  # from a source tree's arch/ARCH/boot/IMAGE up to its .config


def kernel_config(image: Path) -> dict[str, str] | None:
    """Return a kernel's options by name without ``CONFIG_``, ``None`` if nothing tells them.

    Looked at, in this order: what CONFIG_IKCONFIG put into the image, be it compressed with gzip or
    xz; a file ``config-VERSION`` or ``config`` beside ``vmlinuz-VERSION``; the ``.config`` of a
    source tree that the image lies in.

    Raises
    ------
    LabError
        If the image cannot be read.
    """
    try:
        raw = image.read_bytes()
    except OSError as error:
        raise LabError(f"kernel {image}: {error.strerror or error}") from error
    for part in _uncompressed(raw):
        start = part.find(_EMBEDDED)
        if start >= 0:
            end = part.find(_EMBEDDED_END, start)
            return _options(gzip.decompress(part[start + len(_EMBEDDED) : end]).decode())
    for path in _files_beside(image):
        if path.is_file():
            return _options(path.read_text(errors="replace"))
    return None


def lacking(config: dict[str, str], guest: GuestArch) -> tuple[list[str], list[str]]:
    """Return what the configuration lacks: for any boot in such a guest, and for all it can do.

    Only what is built in counts, since the guest's init loads no module before it is asked to.
    """
    dimms = dict.fromkeys(guest.dimm_config, "DIMMs are not noticed")
    to_boot = _TO_BOOT | dict.fromkeys(guest.port_config, "its console or command port is dead")
    return _missing(config, to_boot), _missing(config, _TO_MEASURE | dimms)


def check_config(image: Path, guest: GuestArch) -> list[str]:
    """Return what a user's kernel cannot do, one line each.

    Raises
    ------
    LabError
        If it could not even boot in a guest here; the message says all that is missing.
    """
    config = kernel_config(image)
    if config is None:
        return [
            f"{image.name}: its configuration is unknown: no CONFIG_IKCONFIG, no file beside it"
        ]
    fatal, others = lacking(config, guest)
    if fatal:
        raise LabError(f"kernel {image}: cannot be a guest: {'; '.join(fatal)}")
    return others


def _missing(config: dict[str, str], wanted: dict[str, str]) -> list[str]:
    return [
        f"CONFIG_{name} is {'a module' if config.get(name) == 'm' else 'not set'}: {why}"
        for name, why in wanted.items()
        if config.get(name) != "y"
    ]


def _options(text: str) -> dict[str, str]:
    return dict(_LINE.findall(text))


def _uncompressed(raw: bytes) -> Iterator[bytes]:
    """Yield the image, then what unpacks out of it: a boot image holds the kernel compressed."""
    yield raw
    for magic, unpack in ((_GZIP, _gunzip), (_XZ, _unxz)):
        at = raw.find(magic)
        while at >= 0:
            try:
                yield unpack(raw[at:])
                break
            except (zlib.error, lzma.LZMAError):
                at = raw.find(magic, at + 1)  # bytes that only look like it


def _gunzip(raw: bytes) -> bytes:
    return zlib.decompressobj(wbits=31).decompress(raw)


def _unxz(raw: bytes) -> bytes:
    return lzma.LZMADecompressor().decompress(raw)


def _files_beside(image: Path) -> Iterator[Path]:
    image = image.absolute()
    version = image.name.partition("-")[2]
    if version:
        yield image.with_name(f"config-{version}")
    yield image.with_name("config")
    yield image.with_name(".config")
    yield from (parent / ".config" for parent in image.parents[1 : 1 + _BOOT_FOLDERS])
