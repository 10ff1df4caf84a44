"""The drivers that a scenario names, and the keys of each; adding a driver adds a record here."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("DRIVER_KEYS", "DriverKeys")


@dataclass(frozen=True, slots=True)
class DriverKeys:
    """Keys of a ``plug`` that depend on its driver.

    Attributes
    ----------
    own : frozenset of str
        Keys that only some drivers know, this one among them.
    needs_address : bool
        The host or the user chooses the address, so the plug names it.
    names_node : bool
        The plug may name the node.
    """

    own: frozenset[str] = frozenset()
    needs_address: bool = False
    names_node: bool = True


#: Every driver by the name that a scenario has for it.
DRIVER_KEYS: dict[str, DriverKeys] = {
    "dimm": DriverKeys(frozenset({"more_ranges"})),
    "hyperv": DriverKeys(frozenset({"region"}), needs_address=True, names_node=False),
    "virtio-mem": DriverKeys(frozenset({"requested", "block"})),
    "kmem": DriverKeys(frozenset({"dax", "memmap_on_memory", "more_ranges"})),
    "standby": DriverKeys(frozenset({"increment"}), names_node=False),
    "probe": DriverKeys(needs_address=True),
}
