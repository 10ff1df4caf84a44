"""Files by which drivers take requests: Xen's balloon, and standby memory of s390x.

Source: ``drivers/xen/xen-balloon.c: target_kb_store, target_store``;
``drivers/s390/char/sclp_mem.c: sclp_config_mem_store, sclp_memmap_on_memory_store`` (since 6.19).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial

from altmap.linux import xen
from altmap.live.attribute import Attribute
from altmap.live.machine import LiveMachine
from altmap.model.control_files import invalid
from altmap.model.words import boolean
from altmap.scenario import Configure, Resize, Size
from altmap.trace import OK, Outcome

__all__ = ("balloon_files", "standby_files")

_PREFIX = re.compile(r"0[xX][0-9a-fA-F]+|[0-9]+")
_SUFFIXES = {letter: 10 * (power + 1) for power, letter in enumerate("KMGTPE")}
_STANDBY = "sys/firmware/memory"


def balloon_files(machine: LiveMachine) -> Mapping[str, Attribute]:
    """Return ``target_kb`` and ``target`` (bytes) of a Xen domain."""
    balloon = machine.model.balloon
    if balloon is None:
        return {}

    def target_bytes() -> int:
        return balloon.sizes("balloon")[0]

    return {
        f"{xen.ROOT}/target_kb": Attribute(
            lambda: b"%d\n" % (target_bytes() >> 10), partial(_store_target, machine, 1024)
        ),
        f"{xen.ROOT}/target": Attribute(
            lambda: b"%d\n" % target_bytes(), partial(_store_target, machine, 1)
        ),
    }


def _store_target(machine: LiveMachine, unit: int, text: str) -> Outcome:
    """Set the target; the write succeeds whatever is written, and the driver gets as far as it can.

    ``simple_strtoull`` and ``memparse`` end at the first character that belongs to no number, so a
    word is 0. Only ``target`` knows suffixes.
    """
    found = _PREFIX.match(text)
    word = found[0] if found else "0"
    octal = word.startswith("0") and word.isdigit() and set(word) <= set("01234567")
    value = int(word, 8) if octal else int(word, 0) if not word.isdigit() else int(word)
    if unit == 1 and found:
        value <<= _SUFFIXES.get(text[found.end() : found.end() + 1].upper(), 0)
    machine.perform(Resize(id=_balloon_id(machine), size=Size(value * unit % (1 << 64))))
    return OK


def _balloon_id(machine: LiveMachine) -> str:
    return next(iter(machine.model.device_ids("xen")))


def standby_files(machine: LiveMachine) -> Mapping[str, Attribute]:
    """Return ``config`` and ``memmap_on_memory`` of each block of standby memory."""
    driver = machine.model.standby
    release = machine.model.kernel.release
    if driver is None or release.standby_added == "boot":
        return {}
    made = {}
    for block in driver.usable_blocks:
        folder = f"{_STANDBY}/memory{block}"
        made[f"{folder}/config"] = Attribute(
            partial(_show_config, machine, block), partial(_store_config, machine, block)
        )
        made[f"{folder}/memmap_on_memory"] = Attribute(
            partial(_show_self_hosted, machine, block),
            partial(_store_self_hosted, machine, block),
        )
    return made


def _show_config(machine: LiveMachine, block: int) -> bytes:
    return b"%d\n" % (block in machine.model.kernel.added_blocks)


def _store_config(machine: LiveMachine, block: int, text: str) -> Outcome:
    value = boolean(text)
    if value is None:
        return invalid("sclp_config_mem_store", text, "a truth value such as 0 or 1")
    return machine.perform(Configure(blocks=block, config=value))


def _show_self_hosted(machine: LiveMachine, block: int) -> bytes:
    driver = machine.model.standby
    return b"%d\n" % (driver is not None and driver.is_self_hosted(block))


def _store_self_hosted(machine: LiveMachine, block: int, text: str) -> Outcome:
    """Set the flag; where the block stays as it is, the step writes it without configuring."""
    value = boolean(text)
    if value is None:
        return invalid("sclp_memmap_on_memory_store", text, "a truth value such as 0 or 1")
    configured = block in machine.model.kernel.added_blocks
    return machine.perform(Configure(blocks=block, config=configured, memmap_on_memory=value))
