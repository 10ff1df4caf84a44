"""XML as a tree of elements with their lines: no entities, no DTD, no other file, no network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from altmap.errors import InputError

__all__ = ("Element", "parse_xml")

#: Starts and ends of elements. A domain with every device that QEMU can have has ten thousand.
_MOST_TAGS = 200_000
#: The text is decoded already, so that the encoding that a file declares says nothing any more.
_DECLARATION = re.compile(r"^\s*<\?xml\s[^>]*\?>")


@dataclass(slots=True)
class Element:
    """An element: its name without a namespace, its text, its attributes, and its line."""

    name: str
    text: str
    line: int
    attributes: dict[str, str] = field(default_factory=dict)
    children: list[Element] = field(default_factory=list)

    def all(self, path: str) -> Iterator[Element]:
        """Yield every element below, by names with ``/`` between them."""
        name, _, rest = path.partition("/")
        for child in self.children:
            if child.name == name:
                if rest:
                    yield from child.all(rest)
                else:
                    yield child

    def first(self, path: str) -> Element | None:
        """Return the first element of :meth:`all`, ``None`` without one."""
        return next(self.all(path), None)

    def get(self, path: str, attribute: str) -> str | None:
        """Return an attribute of the first element of :meth:`all`, ``None`` without one."""
        found = self.first(path)
        return None if found is None else found.attributes.get(attribute)

    def words(self, path: str) -> str | None:
        """Return the text of the first element of :meth:`all`, ``None`` without one."""
        found = self.first(path)
        return None if found is None else found.text


def parse_xml(text: str) -> Element:
    """Return the root element.

    Raises
    ------
    InputError
        If the text is no XML, declares a document type (the way to entities and to other files),
        is nested too deeply, or has too many elements.
    """
    if text.count("<") > _MOST_TAGS:
        raise InputError(f"has {text.count('<')} tags: need at most {_MOST_TAGS}")
    etree = _library()
    parser = etree.XMLParser(
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        huge_tree=False,
        remove_comments=True,
        remove_pis=True,
    )
    try:
        root = etree.fromstring(_DECLARATION.sub(_blank, text).encode(), parser)
    except (etree.XMLSyntaxError, ValueError) as error:
        raise InputError(f"is no XML: {' '.join(str(error).split())[:200]}") from error
    if root.getroottree().docinfo.doctype:
        raise InputError("declares a document type, which is not read: need XML without one")
    return _element(root, etree.QName)


def _library() -> Any:
    try:
        from lxml import etree  # type: ignore[import-untyped]
    except ImportError as error:
        raise InputError("is XML, which needs lxml: pip install altmap[vm]") from error
    return etree


def _blank(declaration: re.Match[str]) -> str:
    return "\n" * declaration[0].count("\n")


def _element(node: Any, named: Any) -> Element:
    made = Element(
        name=named(node).localname,
        text=(node.text or "").strip(),
        line=node.sourceline,
        attributes={str(named(key).localname): str(node.get(key)) for key in node.attrib},
    )
    # The parser ends at a depth of 256.
    made.children = [_element(child, named) for child in node if isinstance(child.tag, str)]
    return made
