"""The memory notifier chain: who is told that memory changes, and who may say no.

Source: ``drivers/base/memory.c: memory_notify``; ``kernel/notifier.c: notifier_call_chain``;
``drivers/base/node.c: node_notify`` for the chain of nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from altmap.pfn import PfnRange, PfnSet

__all__ = ("VETOABLE", "Chain", "Listener", "NamedVeto", "Notification", "NotifierVeto")

#: Actions whose listeners may say no; every other one only tells them.
VETOABLE = (
    "MEM_PREPARE_ONLINE",
    "MEM_GOING_ONLINE",
    "MEM_GOING_OFFLINE",
    "NODE_ADDING_FIRST_MEMORY",
    "NODE_REMOVING_LAST_MEMORY",
)


@dataclass(frozen=True, slots=True)
class Notification:
    """What the chain is told.

    Attributes
    ----------
    action : str
        The kernel's name: ``MEM_GOING_ONLINE``, ``MEM_ONLINE``, ``MEM_CANCEL_ONLINE``, ...
    pfns : PfnRange
        The memory block, its memmap pages included.
    node : int
    altmap_nr_pages : int
        How many pages at its start hold its memmap; only the rest is in ``memory_notify``'s range.
    """

    action: str
    pfns: PfnRange
    node: int
    altmap_nr_pages: int = 0


@dataclass(frozen=True, slots=True)
class NotifierVeto:
    """A listener's no.

    Attributes
    ----------
    errno : int or str
        ``NOTIFY_BAD`` is EPERM (``include/linux/notifier.h: notifier_to_errno``).
    function : str
        The listener.
    why : str
        One sentence for people.
    """

    errno: int | str
    function: str
    why: str


#: Actions that a veto of one's own can name, and where the chain keeps it.
_NAMED = {
    "MEM_PREPARE_ONLINE": "prepare_online",
    "MEM_GOING_ONLINE": "going_online",
    "MEM_GOING_OFFLINE": "going_offline",
}

#: Hears a notification; may change the kernel's state as a driver's callback does.
Listener = Callable[[Notification], NotifierVeto | None]


@dataclass(frozen=True, slots=True)
class NamedVeto:
    """A listener that says no to one action, for some memory blocks or for all.

    Source: ``lib/notifier-error-inject.c``, which does so for all of them.

    Attributes
    ----------
    action, errno : str
    blocks : PfnSet or None
        Ids of memory blocks.
    block_nr_pages : int
    """

    action: str
    errno: str
    blocks: PfnSet | None
    block_nr_pages: int

    def __call__(self, notification: Notification) -> NotifierVeto | None:
        """Answer a notification."""
        block = notification.pfns.start // self.block_nr_pages
        if notification.action != self.action:
            return None
        if self.blocks is not None and block not in self.blocks:
            return None
        return NotifierVeto(self.errno, "notifier_err_inject_callback", "a listener vetoes it")


@dataclass(slots=True)
class Chain:
    """Listeners in the order of their priority, and behind them those that were put in to veto.

    Attributes
    ----------
    listeners : list of Listener
    prepare_online, going_online, going_offline : NamedVeto or None
        Who says no to ``MEM_PREPARE_ONLINE``, ``MEM_GOING_ONLINE``, ``MEM_GOING_OFFLINE``.
    """

    listeners: list[Listener] = field(default_factory=list)
    prepare_online: NamedVeto | None = None
    going_online: NamedVeto | None = None
    going_offline: NamedVeto | None = None

    def __bool__(self) -> bool:
        return bool(self.listeners or self.prepare_online or self.going_online)

    def call(self, notification: Notification) -> NotifierVeto | None:
        """Tell the listeners, up to the first no where one counts."""
        action = notification.action
        for listener in self.listeners:
            veto = listener(notification)
            if veto is not None and action in VETOABLE:
                return veto
        named = getattr(self, _NAMED[action]) if action in _NAMED else None
        return None if named is None else named(notification)
