"""``/proc/iomem``: the physical address space, as a tree of named resources."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from altmap.errors import InputError
from altmap.linux.lines import lines

__all__ = ("Resource", "addresses_hidden", "parse", "render", "require_addresses")

_LINE = re.compile(r"((?:  )*)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.*)")


class Resource(NamedTuple):
    """One line of ``/proc/iomem``: bytes ``[start, end)`` (the file shows an inclusive end)."""

    depth: int
    start: int
    end: int
    name: str


def parse(text: str) -> tuple[Resource, ...]:
    """Return the resources in file order; ``depth`` tells which earlier one holds each."""
    resources: list[Resource] = []
    deepest = 0
    for line in lines(text):
        match = _LINE.fullmatch(line.text)
        if match is None:
            raise line.error("need 'start-end : name' in hex, indented by two per level")
        depth, start, last = len(match[1]) // 2, int(match[2], 16), int(match[3], 16)
        if depth > deepest:
            raise line.error("need a line one level up before it")
        if last < start:
            raise line.error("need start <= end")
        resources.append(Resource(depth, start, last + 1, match[4]))
        deepest = depth + 1
    return tuple(resources)


def render(resources: Sequence[Resource]) -> str:
    """Return the file."""
    return "".join(
        f"{'  ' * depth}{start:08x}-{end - 1:08x} : {name}\n"
        for depth, start, end, name in resources
    )


def addresses_hidden(resources: Sequence[Resource]) -> bool:
    """Tell whether every address is zero, as a reader without ``CAP_SYS_ADMIN`` sees them."""
    return bool(resources) and all(r.start == 0 and r.end == 1 for r in resources)


def require_addresses(resources: Sequence[Resource]) -> None:
    """Raise ``InputError`` if the kernel hid the addresses."""
    if addresses_hidden(resources):
        raise InputError(
            "proc/iomem: every address is 0: the kernel hides them without CAP_SYS_ADMIN; "
            "record the file as root"
        )
