"""The memory notifier chain: listeners that are called when memory changes, and may veto it.

Source: ``drivers/base/memory.c: memory_notify``; ``kernel/notifier.c: notifier_call_chain``;
``drivers/base/node.c: node_notify`` for the chain of nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from altmap.pfn import PfnRange, PfnSet

__all__ = ("VETOABLE", "Chain", "Listener", "NamedVeto", "Notification", "NotifierVeto")

#: Actions that a listener may veto; of others it is only notified.
VETOABLE = (
    "MEM_PREPARE_ONLINE",
    "MEM_GOING_ONLINE",
    "MEM_GOING_OFFLINE",
    "NODE_ADDING_FIRST_MEMORY",
    "NODE_REMOVING_LAST_MEMORY",
)


@dataclass(frozen=True, slots=True)
class Notification:
    """A call of the chain.

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
    """A listener's veto.

    Attributes
    ----------
    errno : int or str
        ``NOTIFY_BAD`` is EPERM (``include/linux/notifier.h: notifier_to_errno``).
    function : str
        The listener.
    why : str
        One sentence.
    """

    errno: int | str
    function: str
    why: str


#: Actions that an injected veto can name, and the attribute of the chain for it.
_NAMED = {
    "MEM_PREPARE_ONLINE": "prepare_online",
    "MEM_GOING_ONLINE": "going_online",
    "MEM_GOING_OFFLINE": "going_offline",
}

#: Called with a notification; may change the kernel's state as a driver's callback does.
Listener = Callable[[Notification], NotifierVeto | None]


@dataclass(frozen=True, slots=True)
class NamedVeto:
    """A listener that vetoes one action, for some memory blocks or for all.

    Source: ``lib/notifier-error-inject.c``, which does so for all of them.

    Attributes
    ----------
    action, errno : str
    blocks : PfnSet or None
        Ids of memory blocks.
    block_nr_pages : int
    times : int or None
        How many vetoes are left; ``None``: as many as there are requests.
    """

    action: str
    errno: str
    blocks: PfnSet | None
    block_nr_pages: int
    times: int | None = None

    def __call__(self, notification: Notification) -> NotifierVeto | None:
        """Return the veto of a notification that it names."""
        block = notification.pfns.start // self.block_nr_pages
        if notification.action != self.action:
            return None
        if self.blocks is not None and block not in self.blocks:
            return None
        return NotifierVeto(self.errno, "notifier_err_inject_callback", "a listener vetoes it")


@dataclass(slots=True)
class Chain:
    """Listeners in the order of their priority, and behind them injected vetoes.

    Attributes
    ----------
    listeners : list of Listener
    prepare_online, going_online, going_offline : NamedVeto or None
        Injected vetoes of ``MEM_PREPARE_ONLINE``, ``MEM_GOING_ONLINE``, ``MEM_GOING_OFFLINE``.
    """

    listeners: list[Listener] = field(default_factory=list)
    prepare_online: NamedVeto | None = None
    going_online: NamedVeto | None = None
    going_offline: NamedVeto | None = None

    def __bool__(self) -> bool:
        return bool(self.listeners or self.prepare_online or self.going_online)

    def register(self, listener: Listener) -> None:
        """Append a listener (``drivers/base/memory.c: register_memory_notifier``)."""
        self.listeners.append(listener)

    def inject_veto(self, name: str, veto: NamedVeto | None) -> None:
        """Set or clear the injected veto of an action, by the name of its attribute."""
        setattr(self, name, veto)

    def call(self, notification: Notification) -> NotifierVeto | None:
        """Call the listeners, up to the first veto of an action that can be vetoed."""
        action = notification.action
        for listener in self.listeners:
            veto = listener(notification)
            if veto is not None and action in VETOABLE:
                return veto
        named: NamedVeto | None = getattr(self, _NAMED[action]) if action in _NAMED else None
        veto = None if named is None else named(notification)
        if veto is not None and named is not None and named.times is not None:
            left = replace(named, times=named.times - 1) if named.times > 1 else None
            setattr(self, _NAMED[action], left)
        return veto
