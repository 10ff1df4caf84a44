"""The guest's hardware and kernel parameters, for a scenario's machine."""

from __future__ import annotations

from altmap.errors import InputError
from altmap.lab.arches import GuestArch, guest_arch
from altmap.lab.designs import DESIGNS, design_of
from altmap.lab.forced import FORCED_POLICY
from altmap.lab.qemu import BootDimm, Hardware
from altmap.scenario import DEFAULT_RELEASE, XEN_HOST_BYTES, Device, Machine

__all__ = ("cmdline_of", "hardware_of", "parameter_word")

_DEFAULT_MEMORY = 1 << 30
#: Slots for DIMMs where there is room for them.
_SLOTS = 32


def hardware_of(machine: Machine, *, hidden_dimms: bool = False) -> Hardware:
    """Return the guest's hardware for a scenario's machine.

    Parameters
    ----------
    machine : Machine
    hidden_dimms : bool
        DIMMs only back page frames: a Hyper-V host names them to the guest.

    Raises
    ------
    InputError
        If the machine asks for what these guests cannot be.
    """
    guest = guest_arch("x86_64" if machine.arch is None else machine.arch)
    machines = dict(guest.platforms)
    _check_policy(machine)
    for key, value, allowed in (
        ("block_size", machine.block_size, (None,)),
        ("debug_vm", machine.debug_vm, (None, False)),
        (
            "hugetlb_free_vmemmap",
            machine.hugetlb_free_vmemmap,
            (None, False, True)[: 2 + guest.optimizes_hugetlb],
        ),
        ("mmu", machine.mmu, (None, *guest.mmus)),
        ("unbacked_reads", machine.unbacked_reads, ("fault", "allowed")[: 1 + hidden_dimms]),
    ):
        if value not in allowed:
            raise InputError(f"machine.{key} {value!r}: a real kernel cannot be given another one")
    if machine.platform not in (None, *machines):
        raise InputError(
            f"machine.platform {machine.platform!r}: {guest.name} has {', '.join(machines)}"
        )
    nodes = tuple(int(node.memory) for node in machine.nodes)
    memory = int(machine.memory or sum(nodes) or _DEFAULT_MEMORY)
    if machine.platform == "xen":
        if machine.devices:
            raise InputError("machine.devices: a Xen domain here has none")
        return Hardware(
            memory_bytes=int(machine.xen_host_memory or XEN_HOST_BYTES),
            slots=0,
            smp=machine.cpus or 1,
            machine="q35",
            dom0_bytes=memory,
            dom0_max_bytes=int(machine.xen_max_memory or 0),
        )
    most = 2 * memory + (64 << 30) if machine.max_memory is None else int(machine.max_memory)
    return Hardware(
        memory_bytes=memory,
        dimms=tuple(_boot_dimm(device, guest) for device in machine.devices),
        slots=_SLOTS if most > memory else 0,
        maxmem_bytes=most,
        smp=machine.cpus or 1,
        machine=machines[machine.platform] if machine.platform else "",
        node_bytes=nodes,
        hidden_dimms=hidden_dimms,
        arch=guest.name,
    )


def _check_policy(machine: Machine) -> None:
    """Refuse a memmap policy that the machine's kernel cannot follow."""
    release = DEFAULT_RELEASE if machine.release is None else machine.release
    design = design_of(release)
    possible = ("opt-in", FORCED_POLICY, *(design.policies if design else ()))
    if machine.memmap_on_memory == "off":
        possible = (*possible, "existing")
    if machine.policy is None or machine.policy in possible:
        return
    others = [each.release for each in DESIGNS.values() if machine.policy in each.policies]
    cure = f"; --release {others[0]} has it" if others else ""
    raise InputError(
        f"machine.policy {machine.policy!r}: the kernel of {release} follows "
        f"{', '.join(dict.fromkeys(possible))} only{cure}"
    )


def _boot_dimm(device: Device, guest: GuestArch) -> BootDimm:
    """Return a DIMM for QEMU's command line."""
    if device.driver != "dimm" or guest.dimm != "acpi":
        raise InputError(
            f"machine.devices {device.id!r}: only DIMMs of x86_64 are there when a guest boots"
        )
    if device.self_hosted is not None:
        raise InputError(f"machine.devices {device.id!r}: self_hosted: the kernel decides it")
    return BootDimm(device.id, int(device.address), int(device.size), device.node)


def cmdline_of(machine: Machine, *, reboots: bool = False) -> str:
    """Return the kernel parameters that a scenario's machine sets and a running kernel cannot.

    Parameters
    ----------
    machine : Machine
    reboots : bool
        It boots again, with devices that were plugged.
    """
    mode = {"off": "0", "on": "1", "force": "force"}
    words: dict[str, object] = {
        "memory_hotplug.memmap_on_memory": mode.get(machine.memmap_on_memory or "")
    }
    if machine.devices or reboots:
        # What is written into the files when the guest has booted is too late for its devices.
        words |= {
            "memhp_default_state": machine.auto_online_blocks,
            "memory_hotplug.online_policy": machine.online_policy,
            "memory_hotplug.auto_movable_ratio": machine.auto_movable_ratio,
            "memory_hotplug.auto_movable_numa_aware": machine.auto_movable_numa_aware,
        }
    text = [f"{name}={parameter_word(value)}" for name, value in words.items() if value is not None]
    text += ["movable_node"] if machine.movable_node else []
    text += ["hugetlb_free_vmemmap=on"] if machine.hugetlb_free_vmemmap else []
    text += ["disable_radix"] if machine.mmu == "hash" else []
    text += [machine.cmdline] if machine.cmdline else []
    return " ".join(text)


def parameter_word(value: object) -> str:
    """Return a value as the kernel's parameters have it: ``Y`` and ``N`` for a switch."""
    return ("Y" if value else "N") if isinstance(value, bool) else str(value)
