"""Parameters of the kernel: those of the scenario, defaults for the rest, and their files."""

from __future__ import annotations

from altmap.model.arch import Arch
from altmap.model.kernel.params import Tunables, VirtioMemTunables
from altmap.model.releases import Release
from altmap.scenario import Machine

__all__ = ("build_without", "default_tunables", "parameters_shown")

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
    config = machine.config
    default = config.MHP_DEFAULT_ONLINE_TYPE or release.debian_default_online.get(arch.family)
    tunables = Tunables(
        **{
            "auto_online_blocks": default or "offline",
            "debug_vm": bool(config.DEBUG_VM),
            **{name: value for name, value in given.items() if value is not None},
        }
    )
    unset = [name for name in config.__struct_fields__ if getattr(config, name) is False]
    build_without(tunables, frozenset(unset))
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


def build_without(tunables: Tunables, unset: frozenset[str]) -> None:
    """Take out of the parameters what a kernel without these options does not have."""
    tunables.unset = unset
    if "MHP_MEMMAP_ON_MEMORY" in unset:
        tunables.memmap_on_memory = "off"
    if "HUGETLB_PAGE_OPTIMIZE_VMEMMAP" in unset:
        tunables.hugetlb_free_vmemmap = False
    if "DEBUG_VM" in unset:
        tunables.debug_vm = False


def parameters_shown(tunables: Tunables) -> dict[str, str]:
    """Return the files of ``/sys/module/memory_hotplug/parameters``."""
    shown = {
        "auto_movable_numa_aware": "Y" if tunables.auto_movable_numa_aware else "N",
        "auto_movable_ratio": str(tunables.auto_movable_ratio),
        "memmap_on_memory": {"off": "N", "on": "Y", "force": "force"}[tunables.memmap_on_memory],
        "online_policy": tunables.online_policy,
    }
    if "MHP_MEMMAP_ON_MEMORY" in tunables.unset:
        del shown["memmap_on_memory"]
    return shown
