"""Shell lines, scripts and what ``ps`` prints as commands: words, each with its line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from altmap.errors import InputError

__all__ = ("MOST_WORDS", "Word", "commands")


class Word(NamedTuple):
    """A word of a command, without its quotes."""

    text: str
    line: int


#: A word ends a command, also without spaces around it.
_ENDS = ";&|\n"
_SPACES = " \t\r\f\v"
_JSON_START = re.compile(r'[{]\s*"')
_JSON_STRING = re.compile(r'"(?:[^"\\\n]|\\.)*"')
#: Substitutions that stay in their word, whatever spaces are in them.
_SUBSTITUTION = re.compile(r"\$\([^()\n$`]{0,200}\)|`[^`\n$]{0,200}`|\$\{[^}\n$`]{0,200}\}")
_PLAIN = re.compile(r"[^\s'\"\\`$;&|]+")
#: A redirection of output, or of a file descriptor; what follows is a file. ``<`` alone is more
#: often part of a placeholder.
_REDIRECTION = re.compile(r"\d*(?:<>|>>|>&|>\||<<<|>)[ \t]*")
MOST_WORDS = 150_000


def commands(text: str) -> Iterator[list[Word]]:
    """Yield the commands of a text, one after the other.

    Quotes, backslashes and redirections are those of a shell; a comment ends with its line. An
    unquoted JSON object is one word, with its quotes: so ``ps`` prints it, and a shell would break
    it.

    Raises
    ------
    InputError
        If there are too many words.
    """
    reader = _Reader(text)
    while reader.more():
        command = reader.command()
        if command:
            yield command


class _Reader:
    """Reads words from a position on."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0
        self.line = 1
        self._no_json_before = 0
        self._nr_words = 0

    def more(self) -> bool:
        return self.at < len(self.text)

    def command(self) -> list[Word]:
        """Return the words up to the end of the command, which is skipped."""
        made: list[Word] = []
        while self.more():
            char = self.text[self.at]
            if char in _SPACES:
                self.at += 1
            elif self.text.startswith(("\\\n", "\\\r\n"), self.at):
                self._skip(self.text.index("\n", self.at) + 1)
            elif char in _ENDS:
                self._skip(self.at + 1)
                self._count()
                return made
            elif char == "#":
                end = self.text.find("\n", self.at)
                self.at = len(self.text) if end < 0 else end
            elif redirection := _REDIRECTION.match(self.text, self.at):
                self.at = redirection.end()
                self._word()
                self._count()
            else:
                line = self.line
                made.append(Word(self._json() or self._word(), line))
                self._count()
        return made

    def _count(self) -> None:
        self._nr_words += 1
        if self._nr_words > MOST_WORDS:
            raise InputError(f"has more than {MOST_WORDS} words: need at most {MOST_WORDS}")

    def _skip(self, to: int) -> None:
        self.line += self.text.count("\n", self.at, to)
        self.at = to

    def _json(self) -> str | None:
        """Return the JSON object at this place, ``None`` without one."""
        if self.at < self._no_json_before or not _JSON_START.match(self.text, self.at):
            return None
        depth, place = 0, self.at
        while place < len(self.text) and self.text[place] != "\n":
            char = self.text[place]
            if char == '"':
                string = _JSON_STRING.match(self.text, place)
                if string is None:
                    break
                place = string.end()
                continue
            depth += char in "{["
            depth -= char in "}]"
            place += 1
            if not depth:
                found = self.text[self.at : place]
                self.at = place
                return found
        self._no_json_before = place
        return None

    def _word(self) -> str:
        made: list[str] = []
        while self.more():
            char = self.text[self.at]
            if char in _SPACES or char in _ENDS:
                break
            whole = _SUBSTITUTION.match(self.text, self.at)
            plain = _PLAIN.match(self.text, self.at)
            if plain is not None:
                made.append(plain[0])
                self.at = plain.end()
            elif whole is not None:
                made.append(whole[0])
                self.at = whole.end()
            elif char in "'\"":
                made.append(self._quoted(char))
            elif char == "\\":
                after = self.text[self.at + 1 : self.at + 2]
                self._skip(self.at + 2)
                if after != "\n":
                    made.append(after)
            else:
                made.append(char)
                self.at += 1
        return "".join(made)

    def _quoted(self, quote: str) -> str:
        """Return what is between two quotes; a quote without its end is a character."""
        place, made = self.at + 1, []
        while place < len(self.text) and self.text[place] != quote:
            char = self.text[place]
            if char == "\\" and quote == '"' and self.text[place + 1 : place + 2] in '"\\$`\n':
                place += 1
                char = self.text[place : place + 1].replace("\n", "")
            made.append(char)
            place += 1
        if place >= len(self.text):
            self.at += 1
            return quote
        self._skip(place + 1)
        return "".join(made)
