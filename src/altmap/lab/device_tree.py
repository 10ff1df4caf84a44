"""A flattened device tree with one more node below its root.

Source: Devicetree Specification 0.4, chapter 5 "Flattened Devicetree (DTB) Format".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from altmap.errors import LabError

__all__ = ("cells_of", "with_node")

_MAGIC = 0xD00DFEED
_HEADER = struct.Struct(">10I")
_BEGIN_NODE, _END_NODE, _PROP, _END = 1, 2, 3, 9


def cells_of(*numbers: int) -> bytes:
    """Return the value of a property whose numbers have two cells each, as addresses have here."""
    return b"".join(struct.pack(">Q", number) for number in numbers)


def with_node(tree: bytes, name: str, properties: Mapping[str, bytes]) -> bytes:
    """Return the tree with a node at the end of its root.

    Parameters
    ----------
    tree : bytes
        As QEMU writes it: header, memory reservations, structure, strings, in any order.
    name : str
        With its unit address: ``pmem@d0000000``.
    properties : mapping of str to bytes

    Raises
    ------
    LabError
        If these bytes are no device tree.
    """
    head = _HEADER.unpack_from(tree) if len(tree) >= _HEADER.size else (0,) * 10
    magic, total, at_struct, at_strings, at_reserved, *versions, strings_size, struct_size = head
    if magic != _MAGIC or total > len(tree):
        raise LabError("QEMU's device tree: no flattened device tree")
    structure = tree[at_struct : at_struct + struct_size]
    strings = tree[at_strings : at_strings + strings_size]
    reserved = tree[at_reserved : min(at for at in (at_struct, at_strings) if at > at_reserved)]
    ending = struct.pack(">2I", _END_NODE, _END)
    at_end = structure.rfind(ending)
    if at_end < 0:
        raise LabError("QEMU's device tree: its root has no end")
    node = struct.pack(">I", _BEGIN_NODE) + _padded(name.encode() + b"\0")
    for key, value in properties.items():
        node += struct.pack(">3I", _PROP, len(value), len(strings)) + _padded(value)
        strings += key.encode() + b"\0"
    node += struct.pack(">I", _END_NODE)
    structure = structure[:at_end] + node + ending
    # Reservations need eight bytes of alignment, the structure four.
    reserved_at = _HEADER.size
    struct_at = reserved_at + len(reserved)
    strings_at = struct_at + len(structure)
    header = _HEADER.pack(
        *(magic, strings_at + len(strings), struct_at, strings_at, reserved_at),
        *(*versions, len(strings), len(structure)),
    )
    return header + reserved + structure + strings


def _padded(value: bytes) -> bytes:
    return value + bytes(-len(value) % 4)
