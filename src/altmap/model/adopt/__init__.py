"""A kernel adopted from the files of a real one: the model continues from the state they show."""

from __future__ import annotations

from dataclasses import dataclass

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.model.adopt.additions import (
    device_pfns,
    take_device,
    take_region,
    with_requested_size,
)
from altmap.model.adopt.devices import plugged_devices
from altmap.model.adopt.domain import take_domain
from altmap.model.adopt.pages import take_pages
from altmap.model.adopt.reclaim import take_reclaimable
from altmap.model.adopt.rules import (
    adopted_arch,
    adopted_block_size_bytes,
    adopted_release,
    adopted_tunables,
    whole_files,
)
from altmap.model.adopt.zones import (
    cpu_nodes,
    empty_zones,
    online_nodes,
    system_ram,
    take_blocks,
    take_watermarks,
    take_zones,
)
from altmap.model.arch import with_sections, with_struct_pages
from altmap.model.boot.layout import firmware_end_address
from altmap.model.kernel.accounting import Policy, chosen_policy
from altmap.model.kernel.addition import Addition
from altmap.model.kernel.hvo import adopt_optimized
from altmap.model.kernel.initial_state import adopt_boot_ram, adopt_metadata
from altmap.model.kernel.state import Kernel
from altmap.model.platform.backing import Backing
from altmap.model.releases import Release
from altmap.scenario import Device, Machine

__all__ = ("Adopted", "adopt")

#: Drivers whose fake-offline pages the platform does not back.
_UNBACKED_WHEN_OFFLINE = ("hyperv", "virtio-mem")


@dataclass(frozen=True, slots=True)
class Adopted:
    """A kernel that starts where a real one was observed.

    Attributes
    ----------
    kernel : Kernel
    backing : Backing
    devices : dict of str to Addition
        Devices that are plugged already, by id.
    drivers : dict of str to str
        The driver of each, as a scenario names it.
    regions : list of Device
        Devices with a region in which memory is plugged and unplugged (virtio-mem), each with its
        requested size.
    notes : list of str
        Files that are missing, and the assumptions made instead.
    """

    kernel: Kernel
    backing: Backing
    devices: dict[str, Addition]
    drivers: dict[str, str]
    regions: list[Device]
    notes: list[str]


def adopt(
    seen: Observation,
    machine: Machine,
    policy: Policy | None = None,
    record: Release | None = None,
) -> Adopted:
    """Return the kernel that shows these files.

    The scenario's machine overrides what the files say. Page sets that the files do not show
    (without kpageflags) are assumed so that every counter agrees, with a note.

    Parameters
    ----------
    seen : Observation
    machine : Machine
    policy : Policy, optional
        The memmap policy instead of the built-in one that the machine names.
    record : Release, optional
        Behaviours of the kernel, instead of the record of its release.

    Raises
    ------
    InputError
        If the files lack what no assumption can replace: zones, memory blocks, RAM ranges.
    """
    notes: list[str] = []
    seen = whole_files(seen, notes)
    kernel, backing = _without_memory(seen, machine, policy, record, notes)
    given = plugged_devices(seen, machine, notes)
    devices = [device for device in given if device.driver != "virtio-mem"]
    regions = [device for device in given if device.driver == "virtio-mem"]
    ram = backing.backed.copy()
    take_blocks(kernel, seen)
    plugged = {device.id: take_device(kernel, seen, device) for device in devices}
    for region in regions:
        take_region(kernel, region)
    adopt_boot_ram(kernel, ram)
    if not kernel.boot_ram:
        raise InputError("machine.devices: they cover all RAM, no boot memory is left")
    take_zones(kernel, seen, ram)
    take_pages(kernel, seen, notes)
    take_reclaimable(kernel, seen)
    take_domain(kernel, seen, backing)
    for device in given:
        if device.driver in _UNBACKED_WHEN_OFFLINE:
            backing.backed -= kernel.fake_offline & device_pfns(kernel, device)
    regions = [with_requested_size(kernel, region, notes) for region in regions]
    take_watermarks(kernel, seen)
    adopt_metadata(kernel)
    for pool in kernel.pools():
        adopt_optimized(kernel, pool)
    drivers: dict[str, str] = {device.id: device.driver for device in devices}
    return Adopted(kernel, backing, plugged, drivers, regions, notes)


def _without_memory(
    seen: Observation,
    machine: Machine,
    policy: Policy | None,
    record: Release | None,
    notes: list[str],
) -> tuple[Kernel, Backing]:
    """Return the kernel with its rules and empty zones, and a platform that backs all RAM."""
    arch = adopted_arch(seen, machine, notes)
    release = record or adopted_release(seen, machine, notes)
    arch = with_sections(arch, release.section_size_bytes.get(arch.family))
    arch = with_struct_pages(arch, machine.struct_page_bytes)
    if machine.memory is not None or machine.nodes:
        notes.append("machine.memory and machine.nodes are ignored: the sysroot has its own")
    if machine.cpus is not None or machine.platform is not None:
        notes.append("machine.cpus and machine.platform are ignored: the sysroot has its own")
    if machine.max_memory is not None or machine.cmdline is not None:
        notes.append("machine.max_memory and machine.cmdline count at a synthetic boot only")
    block_bytes = adopted_block_size_bytes(seen, machine, arch)
    tunables = adopted_tunables(seen, machine, arch, release, notes)
    ram = system_ram(seen, arch)
    backing = Backing(ram, machine.unbacked_reads, arch.write_fault)
    kernel = Kernel(
        arch,
        release,
        chosen_policy(policy, machine.policy),
        tunables,
        block_bytes // arch.page_size_bytes,
        backing.check_access,
        zones=empty_zones(seen, machine),
        # No file shows RAM that mem= leaves unused.
        firmware_end_address=firmware_end_address(machine, arch) if machine.memory else 0,
        max_pfn=max(seen.kpageflags.nr_pages if seen.kpageflags else 0, ram.max() + 1),
        boot_nodes=online_nodes(seen),
        cpu_nodes=cpu_nodes(seen),
    )
    return kernel, backing
