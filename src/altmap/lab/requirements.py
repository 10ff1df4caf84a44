"""What a scenario needs of its guest: modules, ports, and steps that a guest can perform."""

from __future__ import annotations

from altmap.errors import InputError
from altmap.lab.cxl_regions import CXL_MODULES
from altmap.lab.inject import check_set, injects
from altmap.lab.kmem import PMEM_MODULES
from altmap.lab.qemu import Hardware
from altmap.lab.veto import VETO_MODULE, check_action, check_veto
from altmap.lab.virtio_mem import MODULES
from altmap.scenario import Machine, Plug, Reboot, Scenario, SetTunables, Veto

__all__ = (
    "check_steps",
    "module_parameters",
    "modules_of",
    "needs_virtio_mem",
    "nr_ports",
    "plugs_of",
    "uses_hyperv",
)

#: Drivers whose memory are DIMMs of which Linux is not told.
_HIDDEN = ("hyperv", "probe")


def plugs_of(scenario: Scenario, driver: str) -> list[Plug]:
    """Return the steps that plug such a device."""
    return [s for s in scenario.steps if isinstance(s, Plug) and s.driver == driver]


def needs_virtio_mem(scenario: Scenario) -> bool:
    """Tell whether a scenario has virtio-mem devices, at boot or plugged."""
    at_boot = any(device.driver == "virtio-mem" for device in scenario.machine.devices)
    return at_boot or bool(plugs_of(scenario, "virtio-mem"))


def uses_hyperv(scenario: Scenario) -> bool:
    """Tell whether a scenario's memory comes from a Hyper-V host."""
    return bool(plugs_of(scenario, "hyperv")) or scenario.machine.balloon == "hyperv"


def modules_of(scenario: Scenario) -> tuple[str, ...]:
    """Return the modules that the scenario's devices and vetoes need."""
    vetoes = any(isinstance(step, Veto) for step in scenario.steps)
    devices = (
        *(MODULES if needs_virtio_mem(scenario) else ()),
        *dict.fromkeys(
            module
            for plug in plugs_of(scenario, "kmem")
            for module in (PMEM_MODULES if plug.dax == "pmem" else CXL_MODULES)
        ),
    )
    return (*devices, VETO_MODULE) if vetoes else devices


def module_parameters(module: str, machine: Machine) -> str:
    """Return what a module is loaded with: what the scenario says, and that it logs what it asks.

    Only parameters that differ from the module's own are given: not every release has each.
    """
    if module != "virtio_mem":
        return ""
    given = machine.virtio_mem
    words = {
        "unplug_online": "N" if not given.unplug_online else None,
        "force_bbm": "Y" if given.force_bbm else None,
        "bbm_block_size": given.bbm_block_size and int(given.bbm_block_size),
        "bbm_safe_unplug": "N" if not given.bbm_safe_unplug else None,
    }
    return " ".join(["dyndbg=+p", *(f"{key}={word}" for key, word in words.items() if word)])


def nr_ports(scenario: Scenario, hardware: Hardware) -> int:
    """Return how many PCI Express ports the guest needs, one for each device that it is to get."""
    needed = hardware.qemu_machine in hardware.guest.port_machines
    return len(plugs_of(scenario, "virtio-mem")) if needed else 0


def _check_reboot(scenario: Scenario, hardware: Hardware) -> None:
    """Refuse what would not be there after a reboot as the model has it there.

    Raises
    ------
    InputError
        If the guest has other devices than DIMMs that ACPI tells of and that the scenario plugs.
    """
    others = {step.driver for step in scenario.steps if isinstance(step, Plug)} - {"dimm"}
    if hardware.guest.dimm != "acpi" or hardware.dom0_bytes or hardware.dimms or others:
        raise InputError(
            "reboot: in the lab on x86_64 only, and beside no devices but DIMMs of steps"
        )


def check_steps(scenario: Scenario, hardware: Hardware) -> None:
    """Refuse before the boot what would be refused after it."""
    guest = hardware.guest
    if guest.no_device_node and len(hardware.node_bytes) > 1 and plugs_of(scenario, "virtio-mem"):
        raise InputError(
            f"virtio-mem with {len(hardware.node_bytes)} nodes: {guest.no_device_node}"
        )
    if hardware.pmem and guest.pmem == "dimm" and (hardware.dimms or plugs_of(scenario, "dimm")):
        raise InputError("kmem beside dimm: Linux is not told of DIMMs, which back its memory")
    if hardware.cxl and any(plugs_of(scenario, driver) for driver in ("dimm", "virtio-mem")):
        raise InputError("kmem with CXL memory: beside it, the guest has no other memory devices")
    for step in scenario.steps:
        if isinstance(step, SetTunables):
            check_set(step, guest)
        if isinstance(step, Veto):
            (check_action if injects(scenario, guest) else check_veto)(step)
        if isinstance(step, Reboot):
            _check_reboot(scenario, hardware)
        if isinstance(step, Plug) and step.driver not in _HIDDEN and hardware.hidden_dimms:
            raise InputError(
                f"plug {step.id!r}: beside {' and '.join(_HIDDEN)}, no other driver: Linux is not "
                "told of memory devices"
            )
        if isinstance(step, Plug) and step.driver == "dimm" and not guest.dimm:
            raise InputError(f"plug {step.id!r}: no DIMM on {guest.name}: {guest.no_dimm}")
        if isinstance(step, Plug) and step.driver == "virtio-mem" and not guest.virtio_mem:
            raise InputError(f"plug {step.id!r}: QEMU has no virtio-mem device on {guest.name}")
