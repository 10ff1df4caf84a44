"""What `make docs` does beyond MkDocs: the pages at the top of the repository, and the order.

Pages are written to be read in the repository, where links lead to sources as well. In the site
such a link becomes plain text, and README.md is the first page. A page that this file does not
know comes after those that it does.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
#: Pages outside docs/, by the name that each has in the site.
_TOP = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
_FIRST = (
    *("index.md", "start.md", "commands.md", "scenario.md", "cookbook.md", "output.md"),
    *("sysroots.md", "report.md", "json.md", "host.md", "vm.md", "vm-formats.md", "policies.md"),
    *("api.md", "explore.md", "sweep.md", "lab.md", "fidelity.md", "conformance.md"),
    *("hunt.md", "check.md", "findings.md", "misconceptions.md", "drivers.md"),
    *("releases.md", "struct-page.md", "claims.md", "matrix.md", "bugs.md", "architecture.md"),
)
_LAST = tuple(_TOP)[1:]
_LINK = re.compile(r"(!?)\[([^\]]+)\]\(([^)#\s]*)(#[^)\s]+)?\)")
_FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Put in the pages at the top of the repository."""
    for name, source in _TOP.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_nav(nav: Any, config: Any, files: Files) -> Any:  # noqa: ARG001
    """Order the pages: those that are known first, the rest as MkDocs found them."""

    def place(item: Any) -> int:
        name = item.file.src_uri if getattr(item, "file", None) else ""
        if name in _FIRST:
            return _FIRST.index(name)
        return len(_FIRST) + (1 + _LAST.index(name) if name in _LAST else 0)

    nav.items.sort(key=place)
    for before, after in zip([None, *nav.pages], [*nav.pages, None], strict=True):
        if before is not None:
            before.next_page = after
        if after is not None:
            after.previous_page = before
    return nav


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:  # noqa: ARG001
    """Make each link one of the site, or plain text if it leads to a source."""
    here = PurePosixPath(_TOP.get(page.file.src_uri, f"docs/{page.file.src_uri}")).parent
    parts = _FENCE.split(markdown)
    return "".join(
        part if part.startswith("```") else _LINK.sub(lambda match: _link(match, here), part)
        for part in parts
    )


def _link(match: re.Match[str], here: PurePosixPath) -> str:
    image, text, target, anchor = match.groups()
    if not target or "://" in target:
        return match[0]
    source = (ROOT / here / target).resolve().relative_to(ROOT).as_posix()
    names = {top: name for name, top in _TOP.items()}
    if source in names:
        target = names[source]
    elif source.startswith("docs/"):
        target = source.removeprefix("docs/")
    else:
        return text
    return f"{image}[{text}]({target}{anchor or ''})"
