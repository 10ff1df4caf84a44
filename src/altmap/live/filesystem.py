"""The machine's files as a file system: what each request of a program is answered with.

Access follows sysfs, not the file's owner: a file that has no store cannot be opened for writing
even by root (``fs/kernfs/file.c: kernfs_fop_open``), a write takes one page at most
(``kernfs_fop_write_iter``), and nothing can be made, removed or renamed. Where in a file is read or
written matters in ``/proc/sys`` only: a number is read from its start, and written there
(``kernel/sysctl.c: do_proc_doulongvec_minmax, proc_first_pos_non_zero_ignore``).

Effects: files, processes.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, Protocol

from altmap.errors import InputError
from altmap.live.attribute import Attribute
from altmap.live.machine import LiveMachine, outcome_text
from altmap.live.pages import WORD_BYTES
from altmap.live.tree import DeviceNode, Folder, Link, Node, PagesFile, Tree
from altmap.model.words import c_string
from altmap.trace import OK, Outcome

__all__ = ("LiveFiles", "Recorder", "errno_number")

#: ``PAGE_SIZE`` of the host: what sysfs takes of one write, and the size that it shows.
PAGE_BYTES = 4096
#: Contents of open files, so that a file read in pieces is of one moment.
_MOST_OPEN = 4096
#: Names and targets do not change what they mean; whether a path exists is asked each time.
ENTRY_TIMEOUT_SECONDS = 3600.0
_DEBUGFS, _SYSCTL = "/sys/kernel/debug/", "/proc/sys/"
_EHWPOISON = 133  # Python lacks the name
#: ``FUSE_CAP_READDIRPLUS`` and ``..._AUTO``: a list of names looks at no file.
_READDIRPLUS = 3 << 13


class Recorder(Protocol):
    """What is given each read and write with its answer."""

    def __call__(self, operation: str, path: str, data: bytes, answer: int | str) -> None:
        """Take one of them."""


def errno_number(outcome: Outcome) -> int:
    """Return what the kernel answers: 0, or the number of an errno.

    A write that would never return is interrupted at once.
    """
    if outcome:
        return 0
    if outcome.status == "does_not_end":
        return errno.EINTR
    if outcome.status != "refused" or outcome.errno is None:
        return errno.EIO
    if outcome.errno == "EHWPOISON":
        return _EHWPOISON
    return int(getattr(errno, outcome.errno, errno.EIO))


class LiveFiles:
    """Answers requests one by one: the operations that mfusepy calls.

    Parameters
    ----------
    machine : LiveMachine
    tree : Tree
    lock : lock
        Held while the machine is read or changed.
    record : Recorder, optional
    ready : callable, optional
        Called once, when requests are answered.

    Attributes
    ----------
    is_ready : bool
        Whether the file system was mounted.
    """

    use_ns = True

    def __init__(
        self,
        machine: LiveMachine,
        tree: Tree,
        lock: threading.RLock,
        record: Recorder | None = None,
        ready: Callable[[], None] = lambda: None,
    ) -> None:
        self._machine = machine
        self._tree = tree
        self._lock = lock
        self._record = record
        self._ready = ready
        self.is_ready = False
        self._owner = {"st_uid": os.geteuid(), "st_gid": os.getegid()}
        self._handle = 0
        #: What an open file showed, and where the next read of it goes on.
        self._contents: OrderedDict[int, tuple[bytes, int]] = OrderedDict()

    def init_with_config(self, conn_info: Any, config_3: Any) -> None:
        """Tell libfuse what the kernel may keep."""
        conn_info.want &= ~_READDIRPLUS
        if config_3 is not None:
            config_3.direct_io = 1
            config_3.entry_timeout = ENTRY_TIMEOUT_SECONDS
            config_3.attr_timeout = 0.0
            config_3.negative_timeout = 0.0
        self.is_ready = True
        self._ready()

    # --- looking ---------------------------------------------------------------------------

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        """Return kind, permission bits and size; sysfs shows a page, proc nothing."""
        del fh
        with self._lock:
            node = self._node(path)
            match node:
                case Folder():
                    return {"st_mode": stat.S_IFDIR | 0o755, "st_nlink": 2, **self._owner}
                case Link(target):
                    mode, size = stat.S_IFLNK | 0o777, len(target)
                case DeviceNode(major, minor):
                    device = {"st_rdev": os.makedev(major, minor), "st_size": 0}
                    return {"st_mode": stat.S_IFCHR | 0o600, "st_nlink": 1, **device, **self._owner}
                case PagesFile():
                    mode, size = stat.S_IFREG | 0o400, 0
                case Attribute():
                    is_debug = path.startswith(_DEBUGFS)
                    mode = stat.S_IFREG | node.mode & (0o600 if is_debug else 0o666)
                    size = PAGE_BYTES if path.startswith("/sys/") and not is_debug else 0
            return {"st_mode": mode, "st_nlink": 1, "st_size": size, **self._owner}

    def readdir(self, path: str, fh: int) -> Iterator[str]:
        """Return the names in a folder."""
        del fh
        with self._lock:
            node = self._node(path)
            if not isinstance(node, Folder):
                raise _error(errno.ENOTDIR)
            names = list(node.names())
        return iter([".", "..", *names])

    def readlink(self, path: str) -> str:
        """Return the target of a link."""
        with self._lock:
            node = self._node(path)
        if not isinstance(node, Link):
            raise _error(errno.EINVAL)
        return node.target

    def access(self, path: str, amode: int) -> int:
        """Check what ``test -w`` and the like ask, by the permission bits."""
        with self._lock:
            node = self._node(path)
        if isinstance(node, Attribute):
            _check_mode(node, reads=bool(amode & os.R_OK), writes=bool(amode & os.W_OK))
            if amode & os.X_OK:
                raise _error(errno.EACCES)
        return 0

    def statfs(self, path: str) -> dict[str, int]:
        """Return what sysfs shows of itself: no blocks."""
        del path
        return {"f_bsize": PAGE_BYTES, "f_namemax": 255}

    # --- reading and writing ---------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        """Check the permission bits and return a handle."""
        with self._lock:
            node = self._node(path)
            if isinstance(node, Attribute) and not path.startswith("/proc/"):
                how = flags & os.O_ACCMODE
                _check_mode(node, reads=how != os.O_WRONLY, writes=how != os.O_RDONLY)
            self._handle += 1
            return self._handle

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        """Return a part of a file's content; a read that goes on shows what the one before did."""
        with self._lock:
            node = self._node(path)
            if isinstance(node, PagesFile):
                if size % WORD_BYTES or offset % WORD_BYTES:
                    raise _error(errno.EINVAL)
                content = node.read(size, offset)
            else:
                if not isinstance(node, Attribute) or node.show is None:
                    raise _error(errno.EACCES)
                if offset and path.startswith(_SYSCTL):
                    content = b""
                else:
                    content = self._content(fh, node.show, size, offset)
            if self._record is not None and (content or not offset):  # no end of a file
                self._record("read", path, content, 0)
            return content

    def _content(self, handle: int, show: Callable[[], bytes], size: int, offset: int) -> bytes:
        """Return a part of what is shown (``fs/seq_file.c: seq_read_iter``)."""
        content, position = self._contents.get(handle, (b"", 0))
        if not offset or offset != position:
            content = show()
        part = content[offset : offset + size]
        self._contents[handle] = content, offset + len(part)
        if len(self._contents) > _MOST_OPEN:
            self._contents.popitem(last=False)
        return part

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        """Write to the machine; what is behind a page is left for another write."""
        del fh
        with self._lock:
            node = self._node(path)
            taken = data[:PAGE_BYTES]
            is_ignored = bool(offset) and path.startswith(_SYSCTL)
            outcome = OK if is_ignored else self._store(node, c_string(taken))
            number = errno_number(outcome)
            self._machine.note(f"write {path} {_shown(taken)}: {outcome_text(outcome)}")
            if self._record is not None:
                self._record("write", path, taken, outcome_text(outcome))
        if number:
            raise _error(number)
        return len(taken)

    def _store(self, node: Node, text: str) -> Outcome:
        if not isinstance(node, Attribute) or node.store is None:
            return Outcome.refused("EIO", "proc_reg_write", "this file takes no writes")
        try:
            return node.store(text)
        except InputError as error:
            return Outcome.refused("EINVAL", "altmap", str(error))

    def truncate(self, path: str, length: int, fh: int | None = None) -> int:
        """Do nothing, as sysfs does when a shell opens a file with ``>``."""
        del length, fh
        with self._lock:
            self._node(path)
        return 0

    def utimens(self, path: str, times: tuple[int, int] | None = None) -> int:
        """Do nothing; touch succeeds as in sysfs."""
        del times
        return self.truncate(path, 0)

    def _node(self, path: str) -> Node:
        """Return what is at a path, or raise: EIO after a crash, ENOENT, ENAMETOOLONG."""
        if self._machine.crashed and not path.startswith("/altmap"):
            raise _error(errno.EIO)
        node = self._tree.find(path[1:])
        if node is None:
            raise _error(errno.ENOENT)
        return node

    # --- what sysfs refuses ----------------------------------------------------------------

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        """Refuse: a new name cannot be made in sysfs (``may_create``)."""
        del path, mode, fi
        raise _error(errno.EACCES)

    def _refuse(self, *_: object) -> NoReturn:
        raise _error(errno.EPERM)

    chmod = chown = link = mkdir = mknod = rename = rmdir = symlink = unlink = _refuse


def _error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def _check_mode(node: Attribute, *, reads: bool, writes: bool) -> None:
    if (reads and node.show is None) or (writes and node.store is None):
        raise _error(errno.EACCES)


def _shown(data: bytes) -> str:
    return repr(data[:80].decode("latin-1")) + ("..." if len(data) > 80 else "")
