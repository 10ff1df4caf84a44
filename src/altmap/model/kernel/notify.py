"""Calls of the notifier chains.

Source: ``drivers/base/memory.c: memory_notify``; ``drivers/base/node.c: node_notify``.
"""

from __future__ import annotations

from altmap.model.kernel.arch_notifier import prevent_memory_remove
from altmap.model.kernel.notifier import Notification, NotifierVeto
from altmap.model.kernel.state import Kernel
from altmap.pfn import PfnRange
from altmap.trace import Outcome

__all__ = ("memory_notify", "vetoed")


def memory_notify(kernel: Kernel, action: str, pfns: PfnRange, node: int) -> NotifierVeto | None:
    """Call the notifier chain, record it, and return a listener's veto.

    Actions that the release does not have are skipped. Listeners get no pages that hold the memmap
    of their own block (``drivers/base/memory.c: memory_block_online``, since 5.13); the design of
    2018 left ``online_pages`` the whole block.
    """
    if action.startswith("NODE_") and not kernel.release.node_notifier:
        return None
    if action in ("MEM_PREPARE_ONLINE", "MEM_FINISH_OFFLINE") and not (
        kernel.release.prepare_notifier
    ):
        return None
    log = kernel.log
    if log.enabled:
        function = "node_notify" if action.startswith("NODE_") else "memory_notify"
        log.note("notified", f"{action} for {pfns}", pfns, function)
    hosted = 0 if kernel.policy.placement.written_at_add else kernel.self_hosted.count(pfns)
    notification = Notification(action, pfns, node, hosted)
    veto = prevent_memory_remove(kernel, notification) or kernel.notifier.call(notification)
    if veto is not None:
        text = f"{action}: vetoed by {veto.function}: {veto.why}"
        log.note("veto", text, pfns, veto.function)
    return veto


def vetoed(veto: NotifierVeto, action: str) -> Outcome:
    """Return the refusal of a step that a listener vetoed."""
    return Outcome.refused(veto.errno, veto.function, f"{action}: {veto.why}", kind="veto")
