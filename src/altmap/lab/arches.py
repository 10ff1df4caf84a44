"""Guest architectures as data: which kernel, which QEMU, which devices, which words for the kernel.

Nothing here runs anything. A record has all that differs between guests; the code that starts one
reads the record and never the name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from altmap.errors import InputError, one_of

__all__ = ("GUESTS", "GuestArch", "guest_arch")

#: What each console device is told; ``{chardev}`` is the character device to connect.
Devices = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GuestArch:
    """What a guest of one architecture and page size is made of.

    Attributes
    ----------
    name : str
        As in a scenario's ``machine.arch``.
    debian : str
        Debian's name of the architecture.
    flavours : tuple of str
        Endings of Debian's kernel packages, the first that a release has is taken.
    config : str
        A line that the kernel's configuration must have, so that a flavour of another page size is
        not taken for this one; empty where flavours tell.
    program, package : str
        QEMU's program, and Debian's package of it.
    platforms : tuple of (str, str)
        A scenario's ``machine.platform`` and QEMU's machine, the default first.
    cpu : str
    console, shell : str
        The guest's devices for the kernel's messages and for the command loop.
    console_device, shell_device : tuple of str
        QEMU's arguments for them; ``{chardev}`` stands for the character device.
    cmdline : str
        Kernel parameters that such guests need besides the lab's own.
    port_config : tuple of str
        Options of the kernel's configuration that console and command port need.
    dimm_config : tuple of str
        Those that a DIMM needs to be noticed.
    dimm : str
        How a ``pc-dimm`` reaches the guest's kernel: ``acpi`` or ``dlpar``; empty if it does not.
    no_dimm : str
        Why it does not, for people.
    memory_devices : bool
        QEMU's machine has room for memory devices (``slots`` and ``maxmem``).
    snapshots : bool
        A guest that has booted can be copied (:mod:`altmap.lab.snapshot`).
    virtio_mem : str
        QEMU's virtio-mem device for the machine, empty if it has none.
    port_machines : tuple of str
        QEMU's machines whose root bus takes no device while they run: one needs a port of its own.
    pmem : str
        How a guest gets persistent memory: ``dimm``, by a DIMM of which Linux is not told and the
        kernel parameter ``memmap``; ``device-tree``, by a node for a part of its RAM that the
        parameter ``mem`` leaves out; empty if it cannot.
    cxl_cpu : str
        QEMU's CPU for a guest with CXL memory; empty if there can be none. A kernel that is told of
        a hypervisor makes no region of it: it could not flush the CPUs' caches
        (``drivers/cxl/core/region.c: cxl_region_invalidate_memregion``).
    no_device_node : str
        Why the kernel is not told the node of a virtio-mem device; empty if it is.
    mmus : tuple of str
        The MMUs that a scenario can ask for; empty without a choice.
    optimizes_hugetlb : bool
        Its kernels can free most of the memmap of huge pages.
    forces_memmap : bool
        A module of the lab can give every add the flag MHP_MEMMAP_ON_MEMORY: it changes an argument
        in a register, by the architecture's calling convention.
    injects_failures : bool
        A module of the lab can make functions fail, and veto as often as a scenario says.
    tells_touches : bool
        The lab's plugin for QEMU knows the kernel's addresses and page size.
    shares_cache : bool
        Its kernels lie in the cache's folder itself, beside the folders of other architectures.
    cache_line_bytes : int
        ``L1_CACHE_BYTES``, to which some of the kernel's objects are aligned.
    boot_factor : float
        How much longer than an x86_64 guest it may take to boot.
    """

    name: str
    debian: str
    flavours: tuple[str, ...]
    program: str
    package: str
    platforms: tuple[tuple[str, str], ...]
    cpu: str
    console: str
    shell: str
    console_device: Devices
    shell_device: Devices
    config: str = ""
    cmdline: str = ""
    port_config: tuple[str, ...] = ()
    dimm_config: tuple[str, ...] = ()
    dimm: str = ""
    no_dimm: str = ""
    memory_devices: bool = True
    snapshots: bool = True
    virtio_mem: str = ""
    port_machines: tuple[str, ...] = ()
    pmem: str = ""
    cxl_cpu: str = ""
    no_device_node: str = ""
    mmus: tuple[str, ...] = ()
    optimizes_hugetlb: bool = False
    forces_memmap: bool = False
    injects_failures: bool = False
    tells_touches: bool = False
    shares_cache: bool = False
    cache_line_bytes: int = 64
    boot_factor: float = 1.0

    @property
    def family(self) -> str:
        """``uname -m``, whatever the page size."""
        return self.name.partition("-")[0]

    @property
    def machines(self) -> tuple[str, ...]:
        """QEMU's machines, the default first."""
        return tuple(dict.fromkeys(machine for _, machine in self.platforms))


_X86_64 = GuestArch(
    name="x86_64",
    debian="amd64",
    flavours=("amd64",),
    program="qemu-system-x86_64",
    package="qemu-system-x86",
    platforms=(("pc", "pc"), ("q35", "q35"), ("xen", "q35")),
    cpu="max",
    console="ttyS0",
    shell="ttyS1",
    console_device=("-serial", "chardev:{chardev}"),
    shell_device=("-serial", "chardev:{chardev}"),
    port_config=("SERIAL_8250_CONSOLE",),
    dimm_config=("ACPI_HOTPLUG_MEMORY",),
    dimm="acpi",
    virtio_mem="virtio-mem-pci",
    port_machines=("q35",),
    pmem="dimm",
    cxl_cpu="max,-hypervisor",
    optimizes_hugetlb=True,
    forces_memmap=True,
    injects_failures=True,
    tells_touches=True,
    shares_cache=True,
)
_PPC64LE = GuestArch(
    name="ppc64le",
    cache_line_bytes=128,
    debian="ppc64el",
    flavours=("powerpc64le",),
    config="CONFIG_PPC_4K_PAGES=y",
    program="qemu-system-ppc64",
    package="qemu-system-ppc",
    platforms=(("pseries", "pseries"),),
    cpu="power9",
    console="hvc0",
    shell="hvc1",
    console_device=("-device", "spapr-vty,chardev={chardev},reg=0x71000001"),
    shell_device=("-device", "spapr-vty,chardev={chardev},reg=0x71000002"),
    port_config=("PPC_PSERIES", "HVC_CONSOLE"),
    dimm="dlpar",
    # In a copy (QEMU 7.2) the first request to DLPAR never ends.
    snapshots=False,
    mmus=("radix", "hash"),
    boot_factor=2.0,
)
_ARM64 = GuestArch(
    name="aarch64",
    debian="arm64",
    flavours=("arm64",),
    program="qemu-system-aarch64",
    package="qemu-system-arm",
    platforms=(("virt", "virt"),),
    cpu="cortex-a72",
    console="ttyAMA0",
    shell="ttyS0",
    console_device=("-serial", "chardev:{chardev}"),
    shell_device=("-device", "pci-serial,chardev={chardev}"),
    port_config=("SERIAL_AMBA_PL011_CONSOLE", "SERIAL_8250_PCI"),
    no_dimm="Debian's arm64 kernels leave CONFIG_ACPI_HOTPLUG_MEMORY unset",
    virtio_mem="virtio-mem-pci",
    port_machines=("virt",),
    pmem="device-tree",
    # drivers/virtio/virtio_mem.c: virtio_mem_translate_node_id.
    no_device_node="without ACPI, which needs firmware, an arm64 kernel is told no device's node",
    boot_factor=2.0,
)

#: Every architecture that a guest can have, by name.
GUESTS: dict[str, GuestArch] = {
    arch.name: arch
    for arch in (
        _X86_64,
        _PPC64LE,
        replace(
            _PPC64LE,
            name="ppc64le-64k",
            # Up to 6.1 the only flavour has pages of 64 KiB, later ones say so in their name.
            flavours=("powerpc64le-64k", "powerpc64le"),
            config="CONFIG_PPC_64K_PAGES=y",
        ),
        _ARM64,
        replace(_ARM64, name="aarch64-16k", flavours=("arm64-16k",), cpu="neoverse-n1"),
        GuestArch(
            name="s390x",
            cache_line_bytes=256,
            debian="s390x",
            flavours=("s390x",),
            program="qemu-system-s390x",
            package="qemu-system-s390x",
            platforms=(("s390-ccw", "s390-ccw-virtio"),),
            cpu="max",
            console="ttyS0",
            shell="ttysclp0",
            console_device=("-device", "sclplmconsole,chardev={chardev}"),
            shell_device=("-device", "sclpconsole,chardev={chardev}"),
            port_config=("SCLP_CONSOLE", "SCLP_VT220_TTY"),
            no_dimm="the machine has no pc-dimm device",
            memory_devices=False,
            virtio_mem="virtio-mem-ccw",
            boot_factor=2.0,
        ),
    )
}


def guest_arch(name: str) -> GuestArch:
    """Return the guest record of that name.

    Raises
    ------
    InputError
        If no guest has this architecture; the message lists those there are.
    """
    if name not in GUESTS:
        raise InputError(f"architecture {name!r}: no guest has it, {one_of(name, GUESTS)}")
    return GUESTS[name]
