"""What `make docs` does beyond MkDocs: the pages at the top of the repository, and the menu.

Pages are written to be read in the repository, where links lead to sources as well. In the site
such a link becomes plain text, a link that shows a file's name shows the page's title, and
README.md is the first page.
"""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Section

ROOT = Path(__file__).parents[1]
#: Pages outside docs/, by the name that each has in the site.
_TOP = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
#: The groups of the menu, and their pages in order; README.md is the first page of all.
_GROUPS = {
    "Start": ("index.md", "start.md", "misconceptions.md"),
    "Scenarios": (
        *("scenario.md", "cookbook.md", "output.md", "report.md", "sysroots.md", "json.md"),
        *("commands.md", "mistakes.md", "api.md"),
    ),
    "Hosts and guests": ("host.md", "live.md", "vm.md", "vm-formats.md"),
    "Studies": ("policies.md", "explore.md", "sweep.md", "claims.md", "matrix.md", "bugs.md"),
    "Real kernels": (
        *("lab.md", "conformance.md", "fidelity.md", "hunt.md", "check.md", "findings.md"),
    ),
    "Reference": ("drivers.md", "releases.md", "struct-page.md"),
    "Development": (
        *("architecture.md", "pages.md", "testing.md", "contributing.md", "releasing.md"),
        "changelog.md",
    ),
}
_OTHERS = "Development"  # of a page that no group names
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)
_LINK = re.compile(r"(!?)\[([^\]]+)\]\(([^)#\s]*)(#[^)\s]+)?\)")
_MARKED = re.compile(r"(?<=✖) | (?=†)")  # a mark stays on the line of what it marks
_FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, config: Any) -> Files:
    """Put in the pages at the top of the repository."""
    for name, source in _TOP.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=text))
    return files


def on_nav(nav: Any, config: Any, files: Files) -> Any:  # noqa: ARG001
    """Put the pages in groups."""
    pages = {page.file.src_uri: page for page in nav.pages}
    groups = {
        name: [pages.pop(uri) for uri in uris if uri in pages] for name, uris in _GROUPS.items()
    }
    groups[_OTHERS] += pages.values()
    nav.items = [Section(name, items) for name, items in groups.items() if items]
    ordered = [page for items in groups.values() for page in items]
    for section in nav.items:
        for page in section.children:
            page.parent = section
    nav.pages[:] = ordered
    for before, after in pairwise([None, *ordered, None]):
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
        part
        if part.startswith("```")
        else _MARKED.sub("&nbsp;", _LINK.sub(lambda match: _link(match, here), part))
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
    if not image and text.endswith(".md"):
        text = _title(ROOT / source)
    return f"{image}[{text}]({target}{anchor or ''})"


def _title(page: Path) -> str:
    """Return the heading of a page, which says more than the name of its file."""
    match = _TITLE.search(page.read_text(encoding="utf-8"))
    return match[1] if match else page.stem
