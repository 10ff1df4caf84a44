"""QEMU's options and their values: ``key=value,...``, JSON, and files for ``-readconfig``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from altmap.errors import InputError
from altmap.vm.readers.words import Word

__all__ = ("FLAGS", "Option", "Properties", "options_of", "properties", "sections_of", "switch")

#: Options that take no value (QEMU 10.0, qemu-options.hx), and those that older releases had.
FLAGS = frozenset(
    (
        *("help", "h", "version", "mem-prealloc", "snapshot", "usb", "nographic", "full-screen"),
        *("win2k-hack", "no-fd-bootchk", "preconfig", "S", "s", "enable-kvm", "xen-attach"),
        *("xen-domid-restrict", "no-reboot", "no-shutdown", "daemonize", "only-migratable"),
        *("nodefaults", "semihosting", "old-param", "no-user-config", "enable-sync-profile"),
        *("perfmap", "jitdump", "no-acpi", "no-hpet", "no-kvm", "no-kvm-irqchip", "no-kvm-pit"),
        *("no-kvm-pit-reinjection", "nodefconfig", "localtime", "rtc-td-hack", "tdf", "sdl"),
        *("curses", "no-frame", "no-quit", "alt-grab", "ctrl-grab", "portrait", "std-vga"),
        *("singlestep", "enable-fips", "one-insn-per-tb", "no-kqemu", "kernel-kqemu"),
    )
)
_SWITCH = {"on": True, "yes": True, "true": True, "y": True}
_SWITCH |= {"off": False, "no": False, "false": False, "n": False}
_KERNEL_PARAMETER = re.compile(r"[A-Za-z_][\w.\-]*(?:=\S*)?|--")
#: util/qemu-config.c: qemu_config_foreach. What follows the last quote or bracket is not read.
_SECTION = re.compile(r'\[\s*([\w-]+)(?:\s+"([^"]*)")?\s*\]')
_ASSIGNED = re.compile(r'([\w.-]+)\s*=\s*"([^"]*)"')
#: The option that a section of a configuration stands for, where the names differ.
_GROUPS = {"memory": "m", "smp-opts": "smp", "boot-opts": "boot", "rtc": "rtc"}
_MOST_PROPERTIES = 4096


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a command line, without its dashes."""

    name: str
    value: str
    line: int


@dataclass(frozen=True, slots=True)
class Properties:
    """The properties of an option, in order; a later one of the same name wins."""

    pairs: tuple[tuple[str, Any], ...]

    def get(self, *names: str) -> Any:
        """Return the last value of any of the names, ``None`` without one."""
        return next((value for key, value in reversed(self.pairs) if key in names), None)

    def text(self, *names: str) -> str | None:
        """Return the last value of any of the names if it is text."""
        value = self.get(*names)
        return value if isinstance(value, str) else None

    def all(self, name: str) -> list[Any]:
        """Return every value of a name."""
        return [value for key, value in self.pairs if key == name]


def options_of(words: Iterable[Word]) -> Iterator[Option]:
    """Yield the options of a command, from the words after the program.

    Words that follow ``-append`` and are parameters of a kernel belong to it: ``ps`` prints no
    quotes.
    """
    left = list(words)[::-1]
    while left:
        word = left.pop()
        if not word.text.startswith("-") or word.text == "-":
            continue
        name = word.text.lstrip("-")
        if name in FLAGS or not left:
            yield Option(name, "", word.line)
            continue
        value = left.pop().text
        if name == "append":
            while left and _KERNEL_PARAMETER.fullmatch(left[-1].text):
                value += f" {left.pop().text}"
        yield Option(name, value, word.line)


def properties(value: str, implied: str = "") -> Properties:
    """Return the properties of an option's value.

    ``,,`` is a comma in a value. A word without ``=`` is the value of *implied* where it comes
    first, else it is ``on``, and ``no`` before it makes it ``off`` (util/qemu-option.c). A value
    that starts with ``{`` is JSON.

    Raises
    ------
    InputError
        If JSON is none, or there are too many properties.
    """
    if value.startswith("{"):
        try:
            decoded = msgspec.json.decode(value, type=dict[str, Any])
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError) as error:
            raise InputError(f"{value[:40]!r}: is no JSON object: {error}") from error
        return Properties(tuple(decoded.items()))
    made: list[tuple[str, Any]] = []
    parts = value.replace(",,", "\0").split(",")
    if len(parts) > _MOST_PROPERTIES:
        raise InputError(f"has {len(parts)} properties: need at most {_MOST_PROPERTIES}")
    for number, part in enumerate(parts):
        key, equals, words = part.replace("\0", ",").partition("=")
        if equals:
            made.append((key, words))
        elif not number and implied:
            made.append((implied, key))
        elif key.startswith("no") and key not in ("node", "nodeid"):
            made += [(key, "on"), (key[2:], "off")]
        elif key:
            made.append((key, "on"))
    return Properties(tuple(made))


def switch(value: Any) -> bool | None:
    """Return what a switch is set to, ``None`` where it is not said."""
    if isinstance(value, bool) or value is None:
        return value
    return _SWITCH.get(value) if isinstance(value, str) else None


def sections_of(text: str) -> list[Option] | None:
    """Return the options that a file for ``-readconfig`` stands for, ``None`` of another file."""
    made: list[tuple[str, int, list[str]]] = []
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        section, assigned = _SECTION.match(line), _ASSIGNED.match(line)
        if section is not None:
            group, name = section[1], section[2]
            made.append((_GROUPS.get(group, group), number, [] if name is None else [f"id={name}"]))
        elif assigned is not None and made:
            made[-1][2].append(f"{assigned[1]}={assigned[2].replace(',', ',,')}")
        else:
            return None
    return [Option(name, ",".join(pairs), line) for name, line, pairs in made] or None
