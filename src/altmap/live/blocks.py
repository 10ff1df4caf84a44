"""The files of memory blocks, each found and rendered by itself: a machine may have millions.

Source: ``drivers/base/memory.c``; ``drivers/base/core.c: online_store``; ``drivers/base/node.c:
do_register_memory_block_under_node`` for the links.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import partial

from altmap.linux import memory, node
from altmap.linux.memory import Block
from altmap.live.attribute import Attribute, uevent_file
from altmap.live.machine import LiveMachine
from altmap.model.control_files import store_online, store_state
from altmap.pfn import PfnSet
from altmap.trace import Outcome

__all__ = ("BUS_FOLDER", "BlockFiles")

BUS_FOLDER = "sys/bus/memory/devices"
_ID = "(0|[1-9][0-9]{0,8})"
_BLOCK = re.compile(f"{memory.ROOT}/memory{_ID}(?:/(.+))?")
_LINK = re.compile(f"(?:{BUS_FOLDER}|{node.ROOT}/node{_ID})/memory{_ID}")
_NODE_FOLDER = re.compile(f"{node.ROOT}/node{_ID}")


#: A file, the target of a link, or the names in a folder.
_Found = Attribute | str | list[str]


class BlockFiles:
    """The folders of memory blocks, and the links to them.

    Parameters
    ----------
    machine : LiveMachine
    """

    def __init__(self, machine: LiveMachine) -> None:
        self._machine = machine
        #: The block that was looked at last, as it is in a generation: programs read all its files.
        self._last: tuple[int, int, Block | None, dict[str | None, _Found]] = (-1, -1, None, {})
        #: Names in a node's folder, and the blocks that existed when they were listed.
        self._listed: dict[str, tuple[PfnSet, list[str]]] = {}

    def owns(self, path: str) -> bool:
        """Tell whether a path is one of a memory block, whether the block exists or not."""
        return bool(_BLOCK.fullmatch(path) or _LINK.fullmatch(path))

    def find(self, path: str) -> _Found | None:
        """Return the file, the target of the link or the names in the folder at a path."""
        match = _BLOCK.fullmatch(path)
        if match is not None:
            self._block(int(match[1]))
            return self._last[3].get(match[2])
        match = _LINK.fullmatch(path)
        return None if match is None else self._link(match)

    def names(self, folder: str) -> Iterable[str]:
        """Return the names of blocks in a folder: of all, or of those of a node."""
        added = self._machine.model.kernel.added_blocks
        if folder in (memory.ROOT, BUS_FOLDER):
            return (f"memory{block}" for block in added)
        match = _NODE_FOLDER.fullmatch(folder)
        if match is None:
            return ()
        known, names = self._listed.get(folder, (None, []))
        if known != added:
            names = [f"memory{block}" for block in added if self._has_node(block, int(match[1]))]
            self._listed[folder] = added.copy(), names
        return names

    def _has_node(self, id_: int, number: int) -> bool:
        block = self._block(id_)
        return block is not None and number in block.nodes

    def _link(self, match: re.Match[str]) -> str | None:
        block = self._block(int(match[2]))
        if block is None:
            return None
        if match[1] is None:
            return f"../../../devices/system/memory/memory{match[2]}"
        return f"../../memory/memory{match[2]}" if int(match[1]) in block.nodes else None

    def _block(self, id_: int) -> Block | None:
        machine = self._machine
        if self._last[:2] != (machine.generation, id_):
            exists = id_ in machine.model.kernel.added_blocks
            block = machine.model.observer.block(id_) if exists else None
            files = {} if block is None else self._files(id_, block)
            self._last = machine.generation, id_, block, files
        return self._last[2]

    def _files(self, id_: int, block: Block) -> dict[str | None, _Found]:
        """Return what is in a block's folder, by name, and the folder itself by ``None``."""
        stores = {"state": self._store_state, "online": self._store_online}
        made: dict[str | None, _Found] = {
            name: Attribute(
                f"{text}\n".encode,
                partial(stores[name], id_) if name in stores else None,
            )
            for name, text in memory.block_files(id_, block)
        }
        made["uevent"] = uevent_file(self._machine, f"{memory.ROOT}/memory{id_}")
        made["subsystem"] = "../../../../bus/memory"
        made |= {f"node{number}": f"../../node/node{number}" for number in block.nodes}
        made[None] = [name for name in made if name is not None]
        return made

    def _store_state(self, block: int, text: str) -> Outcome:
        return self._machine.carry_out(store_state(block, text))

    def _store_online(self, block: int, text: str) -> Outcome:
        machine = self._machine
        return machine.carry_out(store_online(machine.model.kernel, block, text))
