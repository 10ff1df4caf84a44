"""QEMU's command line for a guest of given hardware.

Effects: files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from altmap.errors import InputError
from altmap.lab.arches import GuestArch, guest_arch

__all__ = (
    "BootDimm",
    "CxlMemory",
    "Hardware",
    "Payload",
    "Pmem",
    "Ram",
    "machine_arguments",
    "qemu_arguments",
)

MIB = 1 << 20
GIB = 1 << 30

#: Machines whose firmware can be kept from offering hibernation (ACPI's S4), with which a balloon
#: driver adds no memory (drivers/hv/hv_balloon.c: balloon_probe), and how.
_NO_HIBERNATION = {"pc": "PIIX4_PM.disable_s4=1", "q35": "ICH9-LPC.disable_s4=1"}


@dataclass(frozen=True, slots=True)
class BootDimm:
    """A DIMM that is there when the guest boots.

    Attributes
    ----------
    name : str
    address, size_bytes : int
    node : int
    """

    name: str
    address: int
    size_bytes: int
    node: int = 0


@dataclass(frozen=True, slots=True)
class Pmem:
    """A range of persistent memory (PMEM) that is there when the guest boots.

    Attributes
    ----------
    name : str
        The dax device that is to be made of it.
    address, size_bytes : int
    node : int
    """

    name: str
    address: int
    size_bytes: int
    node: int = 0


@dataclass(frozen=True, slots=True)
class CxlMemory:
    """A CXL type 3 device with volatile memory, alone in a window and on a host bridge.

    Attributes
    ----------
    name : str
        The dax device that is to be made of it.
    address, size_bytes : int
        Of memory and window. QEMU chooses the address.
    """

    name: str
    address: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Hardware:
    """What a guest is made of.

    Attributes
    ----------
    memory_bytes : int
        Memory at boot.
    slots, maxmem_bytes : int
        DIMM slots; limit of boot memory and all DIMMs together.
    smp : int
        Number of CPUs.
    machine : str
        QEMU's machine, such as ``q35``; empty for the architecture's default.
    node_bytes : tuple of int
        Boot memory of each NUMA node, 0 for a node without; empty for a guest without NUMA.
    ports : int
        PCI Express ports for devices that are plugged while the guest runs; see ``port_machines``.
    dom0_bytes, dom0_max_bytes : int
        Under Xen, what the first domain has at boot, and its limit or 0; *memory_bytes* is then
        the host's. 0 without Xen.
    hidden_dimms : bool
        DIMMs only back page frames: Linux is not told of them, and accesses to frames that nothing
        backs are logged.
    dimms : tuple of BootDimm
        DIMMs that are there at boot.
    pmem : tuple of Pmem
        Persistent memory; on a machine with a device tree it is a part of *memory_bytes*.
    cxl : tuple of CxlMemory
    arch : str
        As in a scenario's ``machine.arch``.
    written : tuple of str
        QEMU's words for the machine, its CPUs, memory, nodes and memory devices, as another tool
        wrote them, in place of those that are made of the other fields.
    """

    memory_bytes: int = GIB
    slots: int = 32
    maxmem_bytes: int = 64 * GIB
    smp: int = 1
    machine: str = ""
    node_bytes: tuple[int, ...] = ()
    ports: int = 0
    dom0_bytes: int = 0
    dom0_max_bytes: int = 0
    hidden_dimms: bool = False
    dimms: tuple[BootDimm, ...] = ()
    pmem: tuple[Pmem, ...] = ()
    cxl: tuple[CxlMemory, ...] = ()
    arch: str = "x86_64"
    written: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        machines = guest_arch(self.arch).machines
        if self.machine not in ("", *machines):
            raise InputError(f"machine {self.machine!r}: {self.arch} has {', '.join(machines)}")
        if self.hidden_dimms and self.qemu_machine not in _NO_HIBERNATION:
            raise InputError(
                f"memory of which Linux is not told: need {', '.join(_NO_HIBERNATION)} on x86_64, "
                f"not {self.qemu_machine} on {self.arch}"
            )
        if self.memory_bytes <= 0 or self.memory_bytes % MIB:
            raise InputError(f"guest memory {self.memory_bytes} bytes: need a multiple of 1 MiB")
        if self.node_bytes and sum(self.node_bytes) != self.memory_bytes:
            raise InputError(
                f"nodes of {' + '.join(map(str, self.node_bytes))} bytes: need a sum of"
                f" {self.memory_bytes}, the guest's memory"
            )

    @property
    def guest(self) -> GuestArch:
        """The record of the architecture."""
        return guest_arch(self.arch)

    @property
    def qemu_machine(self) -> str:
        """QEMU's machine."""
        return self.machine or self.guest.machines[0]


@dataclass(frozen=True, slots=True)
class Ram:
    """Files that hold a guest's boot memory.

    Attributes
    ----------
    folder : Path
        One file for each piece of memory.
    kept : bool
        What the guest writes goes into the files; else they are only where it starts from.
    """

    folder: Path
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Payload:
    """What QEMU boots.

    Attributes
    ----------
    kernel : Path
    cmdline : str
        Linux's.
    initrd_fd : int
    hypervisor : Path or None
        Xen, which starts Linux as its first domain.
    tree_fd : int or None
        A device tree instead of QEMU's.
    """

    kernel: Path
    cmdline: str
    initrd_fd: int
    hypervisor: Path | None = None
    tree_fd: int | None = None


def machine_arguments(hardware: Hardware, ram: Ram | None = None) -> list[str]:
    """Return the arguments for QEMU's machine: CPUs and memory, which its device tree tells."""
    return [
        "-nodefaults", "-no-user-config", "-display", "none",
        *(hardware.written or ("-smp", str(hardware.smp), *_memory(hardware, ram))),
    ]  # fmt: skip


def qemu_arguments(
    hardware: Hardware,
    accelerator: str,
    payload: Payload,
    console_fd: int,
    shell_fd: int,
    qmp_fd: int,
    ram: Ram | None = None,
    *,
    incoming: bool = False,
    log: tuple[str, int] | None = None,
) -> list[str]:
    """Return QEMU's arguments; all but kernel, Xen and memory is handed over as descriptors.

    With *incoming*, QEMU waits to be given the state of a guest that has booted. *log* is what it
    is to log, and where.
    """
    guest = hardware.guest
    return [
        *machine_arguments(hardware, ram),
        "-no-reboot",
        "-accel", accelerator,
        "-cpu", _XEN_CPU if payload.hypervisor else guest.cxl_cpu if hardware.cxl else guest.cpu,
        *_cxl(hardware.cxl),
        *(word for dimm in _dimms(hardware) for word in _dimm(dimm)),
        *_boot(hardware, payload),
        "-chardev", f"file,id=console,path=/dev/fd/{console_fd}",
        *(word.format(chardev="console") for word in guest.console_device),
        "-chardev", f"socket,id=shell,fd={shell_fd}",
        *(word.format(chardev="shell") for word in guest.shell_device),
        "-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control",
        *(("-incoming", "defer") if incoming else ()),
        *(word for port in range(hardware.ports) for word in _port(port)),
        *(("-global", _NO_HIBERNATION[hardware.qemu_machine]) if hardware.hidden_dimms else ()),
        *(("-d", log[0], "-D", f"/dev/fd/{log[1]}") if log else ()),
    ]  # fmt: skip


def _dimms(hardware: Hardware) -> Iterator[BootDimm]:
    """Yield the DIMMs, those that back persistent memory among them."""
    yield from hardware.dimms
    if hardware.guest.pmem == "dimm":
        for each in hardware.pmem:
            yield BootDimm(each.name, each.address, each.size_bytes, max(0, each.node))


def _dimm(dimm: BootDimm) -> tuple[str, ...]:
    """Return a DIMM; its memory is named as one that is plugged later, to be released alike."""
    size = f"size={dimm.size_bytes},reserve=off"
    where = f"addr={dimm.address:#x},node={dimm.node}"
    return (
        *("-object", f"memory-backend-ram,id={dimm.name}-memory,{size}"),
        *("-device", f"pc-dimm,id={dimm.name},memdev={dimm.name}-memory,{where}"),
    )


def _cxl(devices: tuple[CxlMemory, ...]) -> Iterator[str]:
    """Yield each device, found by its serial number, with the bridge and the window that it has."""
    machine = ["cxl=on"] if devices else []
    for at, each in enumerate(devices):
        bus = _FIRST_CXL_BUS + _CXL_BUSES * at
        size = f"size={each.size_bytes},reserve=off"
        yield from (
            *("-object", f"memory-backend-ram,id=cxl{at}-memory,{size}"),
            *("-device", f"pxb-cxl,bus_nr={bus},bus=pcie.0,id=cxl{at}-bridge"),
            *("-device", f"cxl-rp,bus=cxl{at}-bridge,id=cxl{at}-port,port=0,chassis={at},slot=0"),
            *("-device", f"cxl-type3,bus=cxl{at}-port,volatile-memdev=cxl{at}-memory,sn={at + 1}"),
        )
        machine.append(f"cxl-fmw.{at}.targets.0=cxl{at}-bridge,cxl-fmw.{at}.size={each.size_bytes}")
    if machine:
        # QEMU takes a list of windows from one option only.
        yield from ("-machine", ",".join(machine))


#: Numbers of PCI buses: each host bridge has its own and those of its port.
_FIRST_CXL_BUS = 0x20
_CXL_BUSES = 8


def _port(number: int) -> tuple[str, str]:
    """Return a port that takes a device while the guest runs."""
    return "-device", f"pcie-root-port,id=port{number},chassis={number},addr={0x10 + number:#x}"


# With every feature of TCG's CPU, Xen hangs.
_XEN_CPU = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt,+cx16"


def _boot(hardware: Hardware, payload: Payload) -> Iterator[str]:
    initrd = f"/dev/fd/{payload.initrd_fd}"
    if payload.hypervisor is None:
        yield from ("-kernel", str(payload.kernel), "-initrd", initrd)
        yield from ("-append", payload.cmdline)
        if payload.tree_fd is not None:
            yield from ("-dtb", f"/dev/fd/{payload.tree_fd}")
        return
    # A comma separates multiboot's modules; doubled it stands for itself.
    linux = f"{payload.kernel} {payload.cmdline}".replace(",", ",,")
    yield from ("-kernel", str(payload.hypervisor), "-initrd", f"{linux},{initrd}")
    yield from ("-append", f"{_XEN_CMDLINE} dom0_mem={_dom0_mem(hardware)}")


# Xen keeps the first serial port as its console, which it shares with the first domain. Memory that
# nobody uses need not be scrubbed, which would make QEMU allocate all of it.
_XEN_CMDLINE = "console=com1 com1=115200,8n1 loglvl=warning bootscrub=0"


def _dom0_mem(hardware: Hardware) -> str:
    words = [f"{hardware.dom0_bytes // 1024}K"]
    if hardware.dom0_max_bytes:
        words.append(f"max:{hardware.dom0_max_bytes // 1024}K")
    return ",".join(words)


def _memory(hardware: Hardware, ram: Ram | None) -> Iterator[str]:
    size = f"{hardware.memory_bytes // MIB}M"
    if hardware.slots and hardware.guest.memory_devices:
        size += f",slots={hardware.slots},maxmem={hardware.maxmem_bytes // MIB}M"
    yield from ("-m", size)
    if not hardware.node_bytes:
        yield from _backend("ram", hardware.memory_bytes, ram)
        yield from ("-machine", f"{hardware.qemu_machine},memory-backend=ram")
        return
    yield from ("-machine", hardware.qemu_machine)
    for node, size_bytes in enumerate(hardware.node_bytes):
        numa = f"node,nodeid={node}"
        if size_bytes:
            yield from _backend(f"ram{node}", size_bytes, ram)
            numa += f",memdev=ram{node}"
        if node == 0:
            numa += f",cpus=0-{hardware.smp - 1}"
        yield from ("-numa", numa)


def _backend(name: str, size_bytes: int, ram: Ram | None) -> tuple[str, str]:
    if ram is not None:
        share = "on" if ram.kept else "off"
        # A comma in a path is written twice.
        path = str(ram.folder / name).replace(",", ",,")
        return "-object", (
            f"memory-backend-file,id={name},size={size_bytes},mem-path={path},share={share}"
        )
    # Without reservation, guests may be larger than this machine.
    return "-object", f"memory-backend-ram,id={name},size={size_bytes},reserve=off"
