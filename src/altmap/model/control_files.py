"""Writes to the files of memory hotplug: the step that a write is, or how the kernel refuses it.

Each function takes what was written, as the kernel's own of the same name does.

A shell opens with O_CREAT, which sysfs refuses for a file that is not there as it does for one that
is read-only, for root too. Source: ``fs/kernfs/file.c: kernfs_fop_open``, ``fs/kernfs/dir.c``;
``drivers/base/memory.c``; ``drivers/base/core.c: online_store``; ``mm/memory_hotplug.c:
online_policy_ops``; ``kernel/params.c: param_set_bool, param_set_uint``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

from altmap.errors import InputError
from altmap.model.kernel.state import Kernel
from altmap.model.words import boolean, number, one_of
from altmap.scenario import Address, AutoOnline, Offline, Online, Poison, SetTunables, Step, Write
from altmap.trace import OK, Outcome

__all__ = (
    "ONLINE_TYPES",
    "PARAMETERS",
    "invalid",
    "meaning_of_write",
    "store_auto_online_blocks",
    "store_online",
    "store_soft_offline_page",
    "store_state",
)

#: ``drivers/base/memory.c: online_type_to_str``.
ONLINE_TYPES: tuple[AutoOnline, ...] = ("offline", "online", "online_kernel", "online_movable")
_POLICIES: tuple[Literal["contig-zones", "auto-movable"], ...] = ("contig-zones", "auto-movable")
_UINT_BITS, _ANY_BITS, _ADDRESS_BITS = 32, 320, 52
_BLOCK = re.compile(r"memory([0-9]{1,9})")
#: Files that the model does not have, though the kernel does.
_NOT_MODELLED = ("hard_offline_page", "probe", "uevent")


def meaning_of_write(kernel: Kernel, step: Write) -> Step | Outcome:
    """Return the step that a write is, or its outcome.

    Raises
    ------
    InputError
        If the model does not have the file.
    """
    parts = step.file.split("/")
    if parts[2] == "module":
        return _parameter(kernel, parts[-1] if len(parts) == 6 else "", step.word)
    if parts[-1] in _NOT_MODELLED:
        raise InputError(f"write: file {step.file!r}: is not modelled")
    match = _BLOCK.fullmatch(parts[5])
    if match is not None and int(match[1]) not in kernel.added_blocks:
        return _not_there(f"{parts[5]}: there is no such memory block")
    if match is not None and len(parts) == 7:
        return _of_block(kernel, int(match[1]), parts[6], step.word)
    if len(parts) == 7:
        return _not_there(f"{parts[5]}: there is no such folder")
    if parts[5] == "auto_online_blocks":
        return store_auto_online_blocks(step.word)
    if parts[5] == "soft_offline_page":
        return store_soft_offline_page(step.word)
    return _no_permission(parts[5])


def _of_block(kernel: Kernel, block: int, name: str, word: str) -> Step | Outcome:
    if name == "state":
        return store_state(block, word)
    return store_online(kernel, block, word) if name == "online" else _no_permission(name)


def _parameter(kernel: Kernel, name: str, word: str) -> Step | Outcome:
    release = kernel.release
    if not release.has_auto_movable and release.memmap_scope == "none":
        return _not_there("the kernel has no parameters of memory_hotplug")
    if not release.has_auto_movable or name not in PARAMETERS:
        return _no_permission(name)
    return PARAMETERS[name](word)


def store_state(block: int, text: str) -> Step | Outcome:
    """Return what ``state_store`` makes of a word."""
    word = one_of(text, ONLINE_TYPES)
    if word is None:
        return invalid("state_store", text, f"one of {', '.join(ONLINE_TYPES)}")
    return Offline(blocks=block) if word == "offline" else Online(blocks=block, to=word)


def store_online(kernel: Kernel, block: int, text: str) -> Step | Outcome:
    """Return what ``online_store`` makes of a truth value.

    Unlike for ``state``, what the block is already is no error: ``device_online`` and
    ``device_offline`` return 1.
    """
    wanted = boolean(text)
    if wanted is None:
        return invalid("online_store", text, "a truth value such as 0 or 1")
    if wanted == (block in kernel.online_blocks):
        return OK
    return Online(blocks=block) if wanted else Offline(blocks=block)


def store_auto_online_blocks(text: str) -> Step | Outcome:
    """Return what ``auto_online_blocks_store`` makes of a word."""
    word = one_of(text, ONLINE_TYPES)
    if word is None:
        return invalid("auto_online_blocks_store", text, f"one of {', '.join(ONLINE_TYPES)}")
    return SetTunables(auto_online_blocks=word)


def store_soft_offline_page(text: str) -> Step | Outcome:
    """Return what ``soft_offline_page_store`` makes of an address."""
    address = number(text)
    if address is None:
        return invalid("soft_offline_page_store", text, "an address")
    if address >> _ADDRESS_BITS:
        return Outcome.refused("ENXIO", "soft_offline_page", f"{address:#x}: no page frame")
    return Poison(address=Address(address))


def _store_policy(text: str) -> Step | Outcome:
    word = one_of(text, _POLICIES)
    if word is None:
        return invalid("set_online_policy", text, f"one of {', '.join(_POLICIES)}")
    return SetTunables(online_policy=word)


def _store_ratio(text: str) -> Step | Outcome:
    value = number(text, bits=_ANY_BITS)
    if value is None:
        return invalid("param_set_uint", text, "a number of 32 bits")
    if value >> _UINT_BITS:
        return Outcome.refused("ERANGE", "param_set_uint", f"{text} does not fit in 32 bits")
    return SetTunables(auto_movable_ratio=value)


def _store_numa_aware(text: str) -> Step | Outcome:
    value = boolean(text)
    if value is None:
        return invalid("param_set_bool", text, "a truth value such as Y or N")
    return SetTunables(auto_movable_numa_aware=value)


#: Parameters of the module ``memory_hotplug`` that can be written, and what a write is.
PARAMETERS: Mapping[str, Callable[[str], Step | Outcome]] = {
    "auto_movable_numa_aware": _store_numa_aware,
    "auto_movable_ratio": _store_ratio,
    "online_policy": _store_policy,
}


def invalid(function: str, text: str, need: str) -> Outcome:
    """Return EINVAL for a word or number that the kernel does not know."""
    return Outcome.refused("EINVAL", function, f"{text[:80]!r}: need {need}")


def _not_there(why: str) -> Outcome:
    return Outcome.refused("ENOENT", "open", why)


def _no_permission(name: str) -> Outcome:
    return Outcome.refused(
        "EACCES", "kernfs_fop_open", f"{name}: the file is read-only, or is not there"
    )
