"""Kernels that are built without CONFIG_MEMORY_HOTREMOVE: no block ever goes offline."""

from __future__ import annotations

import re

from altmap.linux.observation import Observation

__all__ = ("lacks_hot_remove",)


def lacks_hot_remove(seen: Observation) -> bool:
    """Tell whether the files show a kernel that cannot offline memory.

    Since 5.8 ``removable`` says whether the kernel is built with CONFIG_MEMORY_HOTREMOVE, the same
    for every block (``drivers/base/memory.c: removable_show``). Only with that option there is a
    file ``valid_zones``, so that one of these shows the opposite. Before 5.8 ``removable`` was
    about the block.
    """
    blocks = {} if seen.memory is None else seen.memory.blocks
    release = re.search(r"\bversion (\d{1,3})\.(\d{1,3})", seen.version or "")
    if release is None or (int(release[1]), int(release[2])) < (5, 8):
        return False
    return bool(blocks) and all(
        blocks[nr].removable is False and blocks[nr].valid_zones is None
        for nr in blocks  # mostly the first one decides; no other file is read then
    )
