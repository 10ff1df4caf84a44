"""Parameters of the kernel: those of the scenario, defaults for the rest, and their files."""

from __future__ import annotations

from altmap.model.arch import Arch
from altmap.model.kernel.params import Tunables, VirtioMemTunables
from altmap.model.releases import Release
from altmap.scenario import Machine

__all__ = ("default_tunables", "parameters_shown")

#: Keys of a scenario's machine that are tunables of the same name.
_KEYS = (
    "memmap_on_memory",
    "online_policy",
    "auto_movable_ratio",
    "auto_movable_numa_aware",
    "movable_node",
    "debug_vm",
    "hugetlb_free_vmemmap",
    "auto_online_blocks",
)


def default_tunables(machine: Machine, arch: Arch, release: Release) -> Tunables:
    """Return the parameters that the scenario sets, defaults for the rest."""
    given = {name: getattr(machine, name) for name in _KEYS}
    tunables = Tunables(
        **{
            "auto_online_blocks": release.debian_default_online.get(arch.family, "offline"),
            **{name: value for name, value in given.items() if value is not None},
        }
    )
    virtio_mem = machine.virtio_mem
    tunables.virtio_mem = VirtioMemTunables(
        virtio_mem.unplug_online,
        virtio_mem.force_bbm,
        virtio_mem.bbm_block_size or 0,
        virtio_mem.bbm_safe_unplug,
    )
    if not release.has_auto_movable:
        tunables.online_policy = "contig-zones"
    if tunables.memmap_on_memory == "force" and not release.memmap_force:
        # A boolean parameter rejects the word and stays off.
        tunables.memmap_on_memory = "off"
    return tunables


def parameters_shown(tunables: Tunables) -> dict[str, str]:
    """Return the files of ``/sys/module/memory_hotplug/parameters``."""
    return {
        "auto_movable_numa_aware": "Y" if tunables.auto_movable_numa_aware else "N",
        "auto_movable_ratio": str(tunables.auto_movable_ratio),
        "memmap_on_memory": {"off": "N", "on": "Y", "force": "force"}[tunables.memmap_on_memory],
        "online_policy": tunables.online_policy,
    }
