"""Writes to the files of memory hotplug: the step that a write is, or how the kernel refuses it.

A shell opens with O_CREAT, which sysfs refuses for a file that is not there as it does for one that
is read-only, for root too. Source: ``fs/kernfs/file.c: kernfs_fop_open``, ``fs/kernfs/dir.c``;
``drivers/base/memory.c``; ``mm/memory_hotplug.c``; ``kernel/params.c``; ``lib/kstrtox.c``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from altmap.errors import InputError
from altmap.model.kernel.state import Kernel
from altmap.scenario import Address, Offline, Online, Poison, SetTunables, Write
from altmap.trace import OK, Outcome

if TYPE_CHECKING:
    from altmap.scenario import AutoOnline, OnlineType

__all__ = ("meaning_of_write",)

_ONLINE_TYPES = ("online", "online_kernel", "online_movable")
_MOST_UINT = (1 << 32) - 1
_NUMBER = re.compile(
    r"\+?(?:0[xX](?P<hex>[0-9a-fA-F]+)|(?P<octal>0[0-7]*)|(?P<decimal>[1-9][0-9]*))"
)
_BLOCK = re.compile(r"memory([0-9]{1,9})")
#: Files that the model does not have, though the kernel does.
_NOT_MODELLED = ("hard_offline_page", "probe", "uevent")


def meaning_of_write(
    kernel: Kernel, step: Write
) -> Online | Offline | SetTunables | Poison | Outcome:
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
        if step.word in ("offline", *_ONLINE_TYPES):
            return SetTunables(auto_online_blocks=cast("AutoOnline", step.word))
        return _wrong_word("auto_online_blocks_store", step.word)
    if parts[5] == "soft_offline_page":
        address = _number(step.word)
        if address is None or address >= 1 << 52:
            return _wrong_word("soft_offline_page_store", step.word)
        return Poison(address=Address(address))
    return _no_permission(parts[5])


def _of_block(kernel: Kernel, nr: int, name: str, word: str) -> Online | Offline | Outcome:
    if name == "state":
        if word == "offline":
            return Offline(blocks=nr)
        if word in _ONLINE_TYPES:
            return Online(blocks=nr, to=cast("OnlineType", word))
        return _wrong_word("state_store", word)
    if name != "online":
        return _no_permission(name)
    wanted = _boolean(word)
    if wanted is None:
        return _wrong_word("online_store", word)
    if wanted == (nr in kernel.online_blocks):
        return OK  # device_online() and device_offline() return 1, which is no error
    return Online(blocks=nr) if wanted else Offline(blocks=nr)


def _parameter(kernel: Kernel, name: str, word: str) -> SetTunables | Outcome:
    release = kernel.release
    if not release.has_auto_movable and release.memmap_scope == "none":
        return _not_there("the kernel has no parameters of memory_hotplug")
    if not release.has_auto_movable or name not in _PARAMETERS:
        return _no_permission(name)
    value = _PARAMETERS[name](word)
    if value is None:
        return _wrong_word(_SETTERS[name], word)
    if isinstance(value, Outcome):
        return value
    return SetTunables(**{name: value})


def _policy(word: str) -> str | None:
    return word if word in ("contig-zones", "auto-movable") else None


def _ratio(word: str) -> int | Outcome | None:
    number = _number(word)
    if number is None or number <= _MOST_UINT:
        return number
    return Outcome.refused("ERANGE", "param_set_uint", f"{word} does not fit in 32 bits")


def _boolean(word: str) -> bool | None:
    """Return what ``kstrtobool`` makes of a word: it looks at the first one or two characters."""
    if word[:1] in ("y", "Y", "1", "t", "T"):
        return True
    if word[:1] in ("n", "N", "0", "f", "F"):
        return False
    if word[:1] in ("o", "O"):
        return {"n": True, "f": False}.get(word[1:2].lower())
    return None


_PARAMETERS: dict[str, Callable[[str], Any]] = {
    "online_policy": _policy,
    "auto_movable_ratio": _ratio,
    "auto_movable_numa_aware": _boolean,
}
_SETTERS = {
    "online_policy": "set_online_policy",
    "auto_movable_ratio": "param_set_uint",
    "auto_movable_numa_aware": "param_set_bool",
}


def _number(word: str) -> int | None:
    """Return what ``kstrtoull`` with base 0 makes of a word."""
    match = _NUMBER.fullmatch(word)
    if match is None:
        return None
    if match["hex"]:
        return int(match["hex"], 16)
    return int(match["octal"], 8) if match["octal"] else int(match["decimal"])


def _wrong_word(function: str, word: str) -> Outcome:
    return Outcome.refused("EINVAL", function, f"the word {word!r} is none that the file takes")


def _not_there(why: str) -> Outcome:
    return Outcome.refused("ENOENT", "open", why)


def _no_permission(name: str) -> Outcome:
    return Outcome.refused(
        "EACCES", "kernfs_fop_open", f"{name}: the file is read-only, or is not there"
    )
