"""QEMU's command line for a guest of given hardware."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from altmap.errors import InputError
from altmap.lab.arches import GuestArch, guest_arch

__all__ = ("Hardware", "Ram", "qemu_arguments")

MIB = 1 << 20
GIB = 1 << 30


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
    arch : str
        As in a scenario's ``machine.arch``.
    """

    memory_bytes: int = GIB
    slots: int = 32
    maxmem_bytes: int = 64 * GIB
    smp: int = 1
    machine: str = ""
    node_bytes: tuple[int, ...] = ()
    arch: str = "x86_64"

    def __post_init__(self) -> None:
        machines = guest_arch(self.arch).machines
        if self.machine not in ("", *machines):
            raise InputError(f"machine {self.machine!r}: {self.arch} has {', '.join(machines)}")
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


def qemu_arguments(
    hardware: Hardware,
    accelerator: str,
    kernel: Path,
    initrd_fd: int,
    cmdline: str,
    console_fd: int,
    shell_fd: int,
    qmp_fd: int,
    ram: Ram | None = None,
    *,
    incoming: bool = False,
) -> list[str]:
    """Return QEMU's arguments; all but kernel and memory is handed over as descriptors.

    With *incoming*, QEMU waits to be given the state of a guest that has booted.
    """
    guest = hardware.guest
    return [
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-accel", accelerator,
        "-cpu", guest.cpu,
        "-smp", str(hardware.smp),
        *_memory(hardware, ram),
        "-kernel", str(kernel), "-initrd", f"/dev/fd/{initrd_fd}", "-append", cmdline,
        "-chardev", f"file,id=console,path=/dev/fd/{console_fd}",
        *(word.format(chardev="console") for word in guest.console_device),
        "-chardev", f"socket,id=shell,fd={shell_fd}",
        *(word.format(chardev="shell") for word in guest.shell_device),
        "-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control",
        *(("-incoming", "defer") if incoming else ()),
    ]  # fmt: skip


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
