"""QEMU's command line for a guest of given hardware."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from altmap.errors import InputError

__all__ = ("Hardware", "qemu_arguments")

MIB = 1 << 20
GIB = 1 << 30
_MACHINES = ("pc", "q35")


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
        ``pc`` or ``q35``.
    node_bytes : tuple of int
        Boot memory of each NUMA node, 0 for a node without; empty for a guest without NUMA.
    """

    memory_bytes: int = GIB
    slots: int = 32
    maxmem_bytes: int = 64 * GIB
    smp: int = 1
    machine: str = "pc"
    node_bytes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.machine not in _MACHINES:
            raise InputError(f"machine {self.machine!r}: need one of {', '.join(_MACHINES)}")
        if self.memory_bytes <= 0 or self.memory_bytes % MIB:
            raise InputError(f"guest memory {self.memory_bytes} bytes: need a multiple of 1 MiB")
        if self.node_bytes and sum(self.node_bytes) != self.memory_bytes:
            raise InputError(
                f"nodes of {' + '.join(map(str, self.node_bytes))} bytes: need a sum of"
                f" {self.memory_bytes}, the guest's memory"
            )


def qemu_arguments(
    hardware: Hardware,
    accelerator: str,
    kernel: Path,
    initrd_fd: int,
    cmdline: str,
    console_fd: int,
    shell_fd: int,
    qmp_fd: int,
) -> list[str]:
    """Return QEMU's arguments; all but the kernel is handed over as descriptors."""
    return [
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        "-accel", accelerator,
        "-cpu", "max",
        "-smp", str(hardware.smp),
        *_memory(hardware),
        "-kernel", str(kernel), "-initrd", f"/dev/fd/{initrd_fd}", "-append", cmdline,
        "-serial", f"file:/dev/fd/{console_fd}",
        "-chardev", f"socket,id=shell,fd={shell_fd}", "-serial", "chardev:shell",
        "-chardev", f"socket,id=qmp,fd={qmp_fd}", "-mon", "chardev=qmp,mode=control",
    ]  # fmt: skip


def _memory(hardware: Hardware) -> Iterator[str]:
    size = f"{hardware.memory_bytes // MIB}M"
    if hardware.slots:
        size += f",slots={hardware.slots},maxmem={hardware.maxmem_bytes // MIB}M"
    yield from ("-m", size)
    if not hardware.node_bytes:
        yield from _backend("ram", hardware.memory_bytes)
        yield from ("-machine", f"{hardware.machine},memory-backend=ram")
        return
    yield from ("-machine", hardware.machine)
    for node, size_bytes in enumerate(hardware.node_bytes):
        numa = f"node,nodeid={node}"
        if size_bytes:
            yield from _backend(f"ram{node}", size_bytes)
            numa += f",memdev=ram{node}"
        if node == 0:
            numa += f",cpus=0-{hardware.smp - 1}"
        yield from ("-numa", numa)


def _backend(name: str, size_bytes: int) -> tuple[str, str]:
    # Without reservation, guests may be larger than this machine.
    return "-object", f"memory-backend-ram,id={name},size={size_bytes},reserve=off"
