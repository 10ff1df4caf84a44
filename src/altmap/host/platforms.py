"""What a machine runs on, and how memory is added there: hypervisors and clouds as data.

A platform is recognised by the files that it shows itself in. Where none does, the way and the
address are QEMU's, which is a guess and called one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from altmap.linux.paths import text_of
from altmap.linux.sysroot import Sysroot

if TYPE_CHECKING:
    from altmap.scenario import Step

__all__ = ("PLATFORMS", "DefinedPlatform", "FoundPlatform", "HostPlatform", "Sign", "platform_of")

_VENDOR = "sys/devices/virtual/dmi/id/sys_vendor"
_PRODUCT = "sys/devices/virtual/dmi/id/product_name"
_ASSET = "sys/devices/virtual/dmi/id/chassis_asset_tag"
_SYSINFO = "proc/sysinfo"
_LSCPU = "sos_commands/processor/lscpu"
_TREE = "sys/firmware/devicetree/base"


class Sign(NamedTuple):
    """A file whose text matches a pattern; *without* is a pattern that it must not match."""

    path: str
    pattern: str
    without: str = ""


@dataclass(frozen=True, slots=True)
class HostPlatform:
    """A hypervisor, a cloud, or firmware.

    Attributes
    ----------
    name : str
    signs : tuple of Sign
        One of them is enough.
    driver : str or None
        The usual way to add memory, a key of :data:`altmap.host.mechanisms.WAYS`; ``None`` leaves
        it to the architecture.
    by : str
        Who adds memory, and how; empty for what the way says.
    knows_address : bool
        The model places memory as this platform does.
    cannot : str
        Why memory cannot be added while the machine runs, and what can be done; empty if it can.
    """

    name: str
    signs: tuple[Sign, ...] = ()
    driver: str | None = None
    by: str = ""
    knows_address: bool = False
    cannot: str = ""


@dataclass(frozen=True, slots=True)
class DefinedPlatform:
    """The platform of a guest whose definition is known.

    Attributes
    ----------
    name : str
        Such as ``libvirt domain 'web'``.
    driver : str or None
        The way to add memory that is set up, a key of :data:`altmap.host.mechanisms.WAYS`.
    command : callable
        ``(step, added_bytes)`` to the hypervisor's command, with what the plan added before.
    cannot : str
        Why memory cannot be added while the guest runs; empty if it can.
    slots : int or None
        Free slots of DIMMs, ``None`` where none are needed.
    most_bytes : mapping of str to int
        How much may be added in all, by driver.
    knows_address : bool
        The model places memory as this platform does.
    balloon_bytes, balloon_most_bytes : int
        What the guest has beside a balloon of the hypervisor, and without it; 0 without one.
    """

    name: str
    driver: str | None
    command: Callable[[Step, int], str]
    cannot: str = ""
    slots: int | None = None
    most_bytes: Mapping[str, int] = field(default_factory=dict)
    knows_address: bool = False
    balloon_bytes: int = 0
    balloon_most_bytes: int = 0


_CLOUD = "memory is that of its type: stop it, choose a larger type, and start it again"

#: The first that matches; clouds before the hypervisors that they run on.
PLATFORMS: tuple[HostPlatform, ...] = (
    HostPlatform("an Amazon EC2 instance", (Sign(_VENDOR, "Amazon EC2"),), cannot=_CLOUD),
    HostPlatform(
        "a Google Compute Engine instance",
        (Sign(_PRODUCT, "Google Compute Engine"),),
        cannot=_CLOUD,
    ),
    HostPlatform(
        "an Azure virtual machine",
        (Sign(_ASSET, "7783-7084-3265-9085-8269-3286-77"),),
        cannot=_CLOUD,
    ),
    HostPlatform("an OpenStack instance", (Sign(_VENDOR, "OpenStack"),), cannot=_CLOUD),
    HostPlatform("a DigitalOcean droplet", (Sign(_VENDOR, "DigitalOcean"),), cannot=_CLOUD),
    HostPlatform("an Alibaba Cloud instance", (Sign(_VENDOR, "Alibaba Cloud"),), cannot=_CLOUD),
    HostPlatform("a Hetzner Cloud server", (Sign(_VENDOR, "Hetzner"),), cannot=_CLOUD),
    HostPlatform(
        "a VirtualBox guest",
        (Sign(_VENDOR, "innotek GmbH"), Sign(_PRODUCT, "VirtualBox")),
        cannot="VirtualBox has no memory hotplug: shut it down and change its memory",
    ),
    HostPlatform(
        "a bhyve guest",
        (Sign(_PRODUCT, "BHYVE"),),
        cannot="bhyve has no memory hotplug: shut it down and change its memory",
    ),
    HostPlatform(
        "a guest of Apple's Virtualization framework",
        (Sign(_PRODUCT, "Apple Virtualization"),),
        cannot="the framework has a balloon only: shut it down and change its memory",
    ),
    HostPlatform(
        "Hyper-V",
        (
            Sign(_PRODUCT, "^Virtual Machine$"),
            Sign(_LSCPU, "^Hypervisor vendor: +Microsoft"),
        ),
        "hyperv",
        "the Hyper-V host, by dynamic memory or Set-VM -MemoryStartupBytes, in chunks of 128 MiB "
        "or a memory block (drivers/hv/hv_balloon.c: handle_pg_range)",
    ),
    HostPlatform(
        "VMware",
        (Sign(_VENDOR, "VMware"), Sign(_LSCPU, "^Hypervisor vendor: +VMware")),
        "dimm",
        "vSphere, if memory hot plug was enabled before power-on (govc vm.change -m)",
    ),
    HostPlatform(
        "Xen",
        (
            Sign("sys/hypervisor/type", "^xen"),
            Sign(_VENDOR, "^Xen"),
            Sign(_LSCPU, "^Hypervisor vendor: +Xen"),
        ),
        "xen",
    ),
    HostPlatform(
        "Cloud Hypervisor",
        (Sign(_VENDOR, "Cloud Hypervisor"),),
        "dimm",
        "Cloud Hypervisor (ch-remote resize --memory), if it was started with hotplug_size",
    ),
    HostPlatform(
        "Nutanix AHV", (Sign(_VENDOR, "Nutanix"),), "dimm", "Nutanix AHV (acli vm.update memory=)"
    ),
    HostPlatform(
        "Firecracker",
        (
            Sign(_VENDOR, "Firecracker"),
            Sign("proc/cmdline", r"\bpci=off\b.*\bvirtio_mmio\.device="),
        ),
        "virtio-mem",
        "Firecracker's API (PATCH /hotplug/memory), if it was started with a virtio-mem device",
    ),
    HostPlatform(
        "KVM on s390x",
        (Sign(_SYSINFO, "Control Program: +KVM"),),
        "virtio-mem",
    ),
    HostPlatform(
        "z/VM",
        (Sign(_SYSINFO, "Control Program: +z/VM"),),
        "standby",
        "z/VM, before boot (CP DEFINE STORAGE ... STANDBY); chmem -e brings it in",
    ),
    HostPlatform(
        "an LPAR of IBM Z",
        (Sign(_SYSINFO, "^LPAR Number:", "Control Program:"),),
        "standby",
        "the image profile's reserved storage (HMC), before activation; chmem -e brings it in",
    ),
    HostPlatform(
        "QEMU",
        (
            Sign(_VENDOR, "^(?:QEMU|Red Hat|oVirt)"),
            Sign(_PRODUCT, "^(?:KVM|Standard PC)"),
            Sign(f"{_TREE}/compatible", "qemu,|linux,dummy-virt"),
            Sign(f"{_TREE}/model", "emulated by qemu"),
            Sign("proc/cpuinfo", "emulated by qemu"),
            Sign(_LSCPU, "^Hypervisor vendor: +KVM"),
        ),
        "dimm",
        knows_address=True,
    ),
    HostPlatform(
        "PowerNV, without a hypervisor",
        (Sign(f"{_TREE}/compatible", "ibm,powernv"), Sign("proc/cpuinfo", "machine.*: PowerNV")),
        cannot="its firmware adds no memory: shut it down",
    ),
    HostPlatform(
        "PowerVM",
        (
            Sign(f"{_TREE}/compatible", "IBM,"),
            Sign("proc/ppc64/lparcfg", "^partition_id="),
            Sign(_LSCPU, "^Hypervisor vendor: +pHyp"),
        ),
        "dimm",
        "the HMC (chhwres -r mem -o a -q MIB), which has drmgr add logical memory blocks",
    ),
)
#: A machine that shows another vendor, or none.
_OTHER = HostPlatform("an unknown platform")


class FoundPlatform(NamedTuple):
    """A platform, and what it is known by.

    Attributes
    ----------
    platform : HostPlatform
    ground : str
        The file and its line; empty if no file says anything.
    path, word : str
        The file and what matched in it; empty if the platform is not known.
    """

    platform: HostPlatform
    ground: str
    path: str = ""
    word: str = ""


def platform_of(sysroot: Sysroot) -> FoundPlatform:
    """Return what a machine runs on, by its files."""
    for platform in PLATFORMS:
        for sign in platform.signs:
            text = text_of(sysroot.files.get(sign.path, b"")).replace("\0", "\n")
            match = re.search(sign.pattern, text, re.MULTILINE)
            if match and not (sign.without and re.search(sign.without, text)):
                line = next(filter(lambda line: match[0] in line, text.splitlines()), match[0])
                ground = f"{sign.path}: {line.strip()[:60]}"
                return FoundPlatform(platform, ground, sign.path, match[0])
    vendor = (sysroot.text(_VENDOR) or "").strip()
    return FoundPlatform(_OTHER, f"{_VENDOR}: {vendor[:60]}" if vendor else "")
