"""Commands of QEMU in shell lines, scripts, what ``ps`` prints, and files of options."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from altmap.errors import InputError
from altmap.vm.readers.notes import bounded_parts
from altmap.vm.readers.qemu_options import Option, options_of
from altmap.vm.readers.words import MOST_WORDS, Word, commands

__all__ = ("QemuCommand", "qemu_commands")


_PROGRAM = re.compile(
    r"(?:.*[/=\"'])?(?:qemu[-_]system(?:[-_](?P<arch>[a-z0-9_]+?))?(?:-spice|-uefi|\.exe|w\.exe)?"
    r"|qemu-kvm(?:-[a-z]+)?|kvm|qemu"
    r"|\$\{?[A-Za-z_]*(?:qemu|kvm)[A-Za-z_]*\}?|\$\{?[A-Z_]*(?:QEMU|KVM)[A-Z0-9_]*\}?)",
)
#: Names after ``qemu-system-`` that are a package's, or none of an architecture.
_ANY_ARCH = {"x86", "misc", "common", "system", "arm64"}
#: One of these makes a line a command of QEMU, and prose none.
_TELLING = {
    *("m", "machine", "M", "kernel", "drive", "hda", "cdrom", "smp", "cpu", "device", "enable-kvm"),
    *("nographic", "accel", "name", "object", "netdev", "numa", "append", "bios", "readconfig"),
    *(
        "nodefaults",
        "display",
        "vnc",
        "serial",
        "boot",
        "net",
        "blockdev",
        "pflash",
        "S",
        "monitor",
    ),
}
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:([A-Za-z_]\w*)|\{([A-Za-z_]\w*)(?::?-([^{}]*))?\})")
#: How QEMU's documentation writes the program.
_MACRO = re.compile(r"\|(qemu_system\w*)\|")
_LONGEST_VALUE = 1024
#: A text without it has no command, unless an option comes first.
_MAYBE = re.compile(r"qemu|kvm", re.IGNORECASE)
_SAYS = re.compile(r"\s*[^\s#]")


@dataclass(frozen=True, slots=True)
class QemuCommand:
    """A command of QEMU: its options, and the architecture that the program's name has."""

    options: list[Option]
    arch: str | None
    line: int


def qemu_commands(text: str) -> list[QemuCommand]:
    """Return the commands of QEMU in a text; a text of options alone is one.

    Variables of a script that are set to plain words before are replaced.
    """
    first = next((line for line in text.split("\n") if _SAYS.match(line)), "")
    if not (_MAYBE.search(text) or first.lstrip().startswith("-")):
        return []
    return bounded_parts("commands", _found(_MACRO.sub(r"\1", text)))


def _found(text: str) -> Iterator[QemuCommand]:
    variables = _Variables()
    options_alone: list[Word] | None = []
    for number, command in enumerate(commands(text)):
        variables.remember(command)
        words = variables.expanded(command)
        if options_alone is not None:
            first = words[0].text if words else ""
            alone = first.startswith("-") and (number == 0 or bool(options_alone))
            options_alone = [*options_alone, *words] if alone else None
        made = _command(words)
        if made is not None:
            yield made
    if options_alone:
        options = list(options_of(options_alone))
        if any(option.name in _TELLING for option in options):
            yield QemuCommand(options, None, options_alone[0].line)


def _command(words: list[Word]) -> QemuCommand | None:
    for place, word in enumerate(words):
        match = _PROGRAM.fullmatch(word.text)
        if match is None:
            continue
        options = list(options_of(words[place + 1 :]))
        if any(option.name in _TELLING for option in options):
            arch = match["arch"]
            return QemuCommand(options, None if arch in _ANY_ARCH else arch, word.line)
    return None


class _Variables:
    """Variables that a script sets to plain words."""

    def __init__(self) -> None:
        self._known: dict[str, str] = {}
        self._nr_words = 0

    def remember(self, command: list[Word]) -> None:
        """Keep the variables that a command starts with, or only sets."""
        for word in command:
            match = _ASSIGNMENT.fullmatch(word.text)
            if match is None:
                if word.text not in ("export", "local", "readonly", "declare", "set"):
                    return
            elif len(match[2]) <= _LONGEST_VALUE:
                self._known[match[1]] = self._replaced(match[2])

    def expanded(self, command: list[Word]) -> list[Word]:
        """Return the words of a command with their variables replaced."""
        made: list[Word] = []
        for word in command:
            if "$" not in word.text:
                made.append(word)
                continue
            text = self._replaced(word.text)
            if _VARIABLE.fullmatch(word.text) and " " in text:
                before = len(made)
                made += (Word(part.text, word.line) for each in commands(text) for part in each)
                self._nr_words += len(made) - before
                if self._nr_words > MOST_WORDS:
                    raise InputError(f"has more than {MOST_WORDS} words in its variables")
            elif text:
                made.append(Word(text, word.line))
        return made

    def _replaced(self, text: str) -> str:
        def value(match: re.Match[str]) -> str:
            name = match[1] or match[2]
            return self._known.get(name, match[0] if match[3] is None else match[3])

        if len(text) > _LONGEST_VALUE:
            return text
        return _VARIABLE.sub(value, text)[:_LONGEST_VALUE]
