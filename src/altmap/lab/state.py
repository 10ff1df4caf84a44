"""Writes to a guest's memory blocks, and the errno when the kernel refuses."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from math import ceil

from altmap.errors import LabError
from altmap.lab.guest import Guest
from altmap.lab.shell import CommandResult

__all__ = (
    "LONG_SECONDS",
    "must_read",
    "must_write",
    "write_block_state",
    "write_block_states",
    "write_file",
)

_MEMORY = "/sys/devices/system/memory"
EHWPOISON = 133  # Python's errno lacks it
# As the C library of busybox words them; ours could be set to another language.
_ERRNO = {
    "Cannot allocate memory": errno.ENOMEM,
    "Device or resource busy": errno.EBUSY,
    "File exists": errno.EEXIST,
    "Input/output error": errno.EIO,
    "Interrupted system call": errno.EINTR,
    "Invalid argument": errno.EINVAL,
    "Memory page has hardware error": EHWPOISON,
    "No such device": errno.ENODEV,
    "No such device or address": errno.ENXIO,
    "No such file or directory": errno.ENOENT,
    "nonexistent directory": errno.ENOENT,  # ash's own words
    "Numerical result out of range": errno.ERANGE,
    "Operation not permitted": errno.EPERM,
    "Operation not supported": errno.EOPNOTSUPP,
    "Permission denied": errno.EACCES,
    "Resource temporarily unavailable": errno.EAGAIN,
}
_COMPLAINT = re.compile(r": ([^:]+)$")
_TIMED_OUT = 124
_KILLED = 128
#: A device's blocks go online, or offline, within one write.
LONG_SECONDS = 180.0
# What the guest may take longer than the limit until we give up on it.
_GRACE_SECONDS = 20.0


def write_block_state(guest: Guest, block_id: int, word: str, limit_seconds: float = 30.0) -> int:
    """Write ``online``, ``online_movable``, ``offline``, ... to a memory block's state.

    Returns
    -------
    int
        0, or the errno; ``EINTR`` if the kernel was still trying at the time limit, as offlining
        does indefinitely.
    """
    return write_file(guest, f"{_MEMORY}/memory{block_id}/state", word, limit_seconds)


def write_block_states(
    guest: Guest, block_ids: Sequence[int], word: str, first: str, limit_seconds: float = 30.0
) -> tuple[int, int]:
    """Write to one memory block after the other by one command, so that little time passes between.

    *first* are shell commands before the first write.

    Returns
    -------
    (int, int)
        0 or the errno of the first write that is refused, and the block it is about.
    """
    ids = " ".join(map(str, block_ids))
    loop = f"for b in {ids}; do echo {word} >{_MEMORY}/memory$b/state || exit; echo $b; done"
    result = guest.run(f"{first}; {loop}", limit_seconds * len(block_ids) + _GRACE_SECONDS)
    written = [line for line in result.text.split() if line.isdigit()]
    if result.status == 0:
        return 0, block_ids[-1]
    refused = block_ids[len(written)]
    return _errno_of(result, word, f"memory{refused}"), refused


def write_file(guest: Guest, path: str, word: str, limit_seconds: float = 30.0) -> int:
    """Write a word to one of the guest's control files; return 0 or the errno.

    Raises
    ------
    LabError
        If the guest is dead, or the write does not end although it was interrupted.
    """
    write = f"timeout -s INT {ceil(limit_seconds)} sh -c 'echo {word} >{path}'"
    result = guest.run(write, limit_seconds + _GRACE_SECONDS)
    return 0 if result.status == 0 else _errno_of(result, word, path)


def must_read(guest: Guest, path: str) -> str:
    """Return the text of a file that the guest has, without the end of its line.

    Raises
    ------
    LabError
        If it has none.
    """
    result = guest.run(f"cat {path}")
    if result.status:
        raise LabError(f"{path}: {result.text.strip()}", guest.console())
    return result.text.strip()


def must_write(guest: Guest, path: str, word: str) -> None:
    """Write a word to a file that takes it.

    Raises
    ------
    LabError
        If the kernel refuses.
    """
    if number := write_file(guest, path, word, LONG_SECONDS):
        raise LabError(f"{word!r} to {path}: {errno.errorcode.get(number, number)}")


def _errno_of(result: CommandResult, word: str, path: str) -> int:
    """Return the errno that a shell's complaint about a write names."""
    complaint = _COMPLAINT.search(result.text.strip())
    if complaint and complaint[1] in _ERRNO:
        return _ERRNO[complaint[1]]
    if result.status in (_TIMED_OUT, _KILLED + 2, _KILLED + 15):
        return errno.EINTR
    raise LabError(f"write of {word!r} to {path}: {result.text.strip() or result.status}")
