"""Where this machine takes its packages from: apt's source lists, as values.

Effects: files, network.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from altmap.lab.tools import run_tool

__all__ = ("Source", "machine_sources", "parse_deb822", "parse_one_line")

_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^]]*)\]\s*)?(?P<uri>\S+)\s+(?P<rest>.+)")
# The last part of an archive's path, or of a list of its mirrors, says which archive it is.
_POCKETS = {"debian": ("", "-backports"), "debian-security": ("-security",)}


@dataclass(frozen=True, slots=True)
class Source:
    """Where packages come from: one stanza of a deb822 ``.sources`` file, without its suites."""

    uri: str
    components: tuple[str, ...]
    signed_by: str = ""

    def suites(self, releases: Iterable[str]) -> list[str]:
        """Return the suites of Debian releases that are here; none if this is not Debian."""
        if "main" not in self.components:
            return []
        names = (PurePosixPath(part).stem for part in urlsplit(self.uri).path.split("/"))
        pockets = [pocket for name in names for pocket in _POCKETS.get(name, ())]
        return [release + pocket for release in releases for pocket in pockets]

    def stanza(self, suite: str) -> str:
        """Return deb822 text that takes the component ``main`` of another suite from here."""
        signed_by = f"Signed-By: {self.signed_by}\n" if self.signed_by else ""
        return f"Types: deb\nURIs: {self.uri}\nSuites: {suite}\nComponents: main\n{signed_by}"


def parse_deb822(text: str) -> Iterator[Source]:
    """Yield the enabled binary sources of a ``.sources`` file, see sources.list(5)."""
    kept = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    for stanza in re.split(r"\n\s*\n", kept):
        # A line that starts with a blank continues the field, as an inline key does.
        fields = {
            name.strip().lower(): value.strip()
            for name, _, value in (
                field.partition(":") for field in re.split(r"\n(?=\S)", stanza.strip())
            )
        }
        if "deb" not in fields.get("types", "").split() or fields.get("enabled") == "no":
            continue
        for uri in fields.get("uris", "").split():
            yield Source(
                uri, tuple(fields.get("components", "").split()), fields.get("signed-by", "")
            )


def parse_one_line(text: str) -> Iterator[Source]:
    """Yield the binary sources of a ``.list`` file, see sources.list(5)."""
    for line in text.splitlines():
        match = _ONE_LINE.match(line.partition("#")[0].strip())
        if match is None:
            continue
        options = dict(option.partition("=")[::2] for option in (match["options"] or "").split())
        _suite, *components = match["rest"].split()
        yield Source(match["uri"], tuple(components), options.get("signed-by", ""))


def machine_sources() -> list[Source]:
    """Return the package sources of this machine, each address once."""
    answer = run_tool(
        "apt-config", "shell", "LIST", "Dir::Etc::sourcelist/f", "PARTS", "Dir::Etc::sourceparts/d"
    )
    places = dict(word.split("=", 1) for word in shlex.split(answer))
    files = [Path(places["LIST"]), *sorted(Path(places["PARTS"]).glob("*"))]
    found: dict[str, Source] = {}
    for path in files:
        parse = {".list": parse_one_line, ".sources": parse_deb822}.get(path.suffix)
        if parse is not None and path.is_file():
            found |= {source.uri: source for source in parse(path.read_text())}
    return list(found.values())
