"""Whether a machine is a guest, which may be changed without more ado; bare metal may not."""

from __future__ import annotations

from altmap.host.transport import Transport

__all__ = ("hypervisor_of",)

#: Vendors and products that firmware of virtual machines shows.
_DMI = (
    ("QEMU", "QEMU"),
    ("Xen", "Xen"),
    ("VMware", "VMware"),
    ("innotek", "VirtualBox"),
    ("Microsoft Corporation Virtual Machine", "Hyper-V"),
    ("Google Compute Engine", "Google Compute Engine"),
    ("Amazon EC2", "Amazon EC2"),
    ("OpenStack", "OpenStack"),
    ("KubeVirt", "KubeVirt"),
)


def hypervisor_of(files: Transport) -> str | None:
    """Return what a guest runs under, as its own files say, ``None`` if none says so.

    A dom0 of Xen is no guest: its memory is the machine's.
    """
    kind = (files.read("sys/hypervisor/type") or "").strip()
    if kind == "xen" and "control_d" in (files.read("proc/xen/capabilities") or ""):
        return None
    if kind:
        return kind
    names = ("sys_vendor", "product_name")
    shown = " ".join((files.read(f"sys/class/dmi/id/{name}") or "").strip() for name in names)
    for start, name in _DMI:
        if start in shown:
            return name
    for line in (files.read("proc/cpuinfo") or "").splitlines():
        name, _, words = line.partition(":")
        if name.strip() in ("flags", "Features") and "hypervisor" in words.split():
            return "a hypervisor"
    if files.read("proc/device-tree/hypervisor/compatible"):
        return "a hypervisor"
    return None
