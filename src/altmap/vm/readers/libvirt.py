"""libvirt's domain XML: domains, their status files, snapshots and checkpoints.

What libvirt does with a domain before QEMU starts is done here too, since that is what the guest
sees: boot memory is the sum of the NUMA cells, or the total less the devices
(src/conf/domain_postparse.c: virDomainDefPostParseMemory); sizes are rounded up, to MiB and modules
to 2 MiB, on ppc64 to 256 MiB, an NVDIMM's there down (src/qemu/qemu_domain.c:
qemuDomainAlignMemorySizes); with memory hotplug and no cell there is one node (src/qemu/
qemu_postparse.c: qemuDomainDefNumaAutoAdd). libvirt 11.3.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from altmap.errors import InputError
from altmap.vm.definition import (
    DefinedBalloon,
    DefinedDevice,
    DefinedNode,
    Definition,
    DeviceKind,
    HostBacking,
    Hypervisor,
)
from altmap.vm.readers.arch import arch_named
from altmap.vm.readers.notes import Notes, at, bounded_parts, growth_of
from altmap.vm.readers.qemu import with_arguments
from altmap.vm.readers.sizes import MIB, libvirt_size, whole
from altmap.vm.readers.spans import count_of
from altmap.vm.readers.xml_tree import Element, parse_xml

__all__ = ("FORMAT", "libvirt_domains")

FORMAT = "libvirt domain XML"

_HYPERVISORS: Mapping[str, Hypervisor] = {
    "qemu": "qemu",
    "kvm": "qemu",
    "kqemu": "qemu",
    "hvf": "qemu",
    "nvmm": "qemu",
    "xen": "xen",
    "ch": "cloud-hypervisor",
    "vmware": "vmware",
    "hyperv": "hyper-v",
}
#: libvirt's word for a kind, the kind, and what an alias that libvirt makes up starts with.
_MODELS: tuple[tuple[str, DeviceKind, str], ...] = (
    ("dimm", "dimm", "dimm"),
    ("nvdimm", "nvdimm", "nvdimm"),
    ("virtio-mem", "virtio-mem", "virtiomem"),
    ("virtio-pmem", "virtio-pmem", "virtiopmem"),
    ("sgx-epc", "other", "epc"),
)
_DEEPEST = 3


@dataclass(frozen=True, slots=True)
class _Rounding:
    """What sizes are rounded up to: boot memory and modules."""

    boot_bytes: int = MIB
    module_bytes: int = 2 * MIB
    nvdimm_down: bool = False


_NONE = _Rounding(1, 1)
_PSERIES = _Rounding(256 * MIB, 256 * MIB, nvdimm_down=True)


def libvirt_domains(text: str) -> list[Definition]:
    """Return the domains of a file, each once: a snapshot's inactive domain is left out.

    Raises
    ------
    InputError
        If the text is no XML, has no domain, or has one that is no virtual machine.
    """
    root = parse_xml(text)
    found = _domains(root, _DEEPEST)
    if not found:
        raise InputError(f"its root is <{root.name}>: need a <domain> of libvirt's")
    return [_domain(each) for each in bounded_parts("domains", found)]


def _domains(element: Element, depth: int) -> list[Element]:
    """Return the domains at or below an element; one of capabilities has no name."""
    if element.name == "domain" and "type" in element.attributes and element.first("name"):
        return [element]
    below = element.children if depth else []
    return [found for child in below for found in _domains(child, depth - 1)]


def _domain(domain: Element) -> Definition:
    kind = domain.attributes["type"]
    hypervisor = _HYPERVISORS.get(kind)
    if hypervisor is None:
        raise InputError(
            f"domain type {kind!r} is not supported: need one of {', '.join(_HYPERVISORS)}"
        )
    notes = Notes()
    named = domain.get("os/type", "arch")
    rounding = _NONE
    if hypervisor == "qemu":
        rounding = _PSERIES if (named or "").startswith("ppc64") else _Rounding()
    devices = _devices(domain, rounding, notes)
    nodes = _nodes(domain, rounding)
    memory_bytes = _boot_memory(domain, nodes, rounding, notes)
    max_bytes = _up(_size(domain.first("maxMemory")), rounding.boot_bytes) or None
    slots = _whole(domain, "maxMemory", "slots")
    if max_bytes is not None:
        _wrote(notes, "max_memory_bytes", domain.first("maxMemory"))
        _wrote(notes, "slots", domain.first("maxMemory"))
        if hypervisor == "qemu" and not nodes and not _is_ccw(domain):
            nodes = (DefinedNode(0, memory_bytes, _most_cpus(domain)),)
            devices = tuple(_on_the_only_node(device) for device in devices)
    balloon = _balloon(domain, memory_bytes, devices, notes)
    made = Definition(
        format=FORMAT,
        name=domain.words("name") or "domain",
        manager="libvirt",
        hypervisor=hypervisor,
        arch=arch_named(named),
        arch_given=named is not None,
        machine=domain.get("os/type", "machine"),
        memory_bytes=memory_bytes,
        max_memory_bytes=max_bytes,
        slots=slots,
        cpus=_cpus(domain),
        nodes=nodes,
        devices=devices,
        balloon=balloon,
        backing=_backing(domain),
        acpi=domain.first("features/acpi") is not None if hypervisor == "qemu" else None,
        max_phys_bits=_phys_bits(domain),
        uefi="efi" in (domain.get("os", "firmware") or "")
        or domain.get("os/loader", "type") == "pflash",
        kernel=domain.words("os/kernel"),
        cmdline=domain.words("os/cmdline"),
    )
    if made.cmdline is not None:
        _wrote(notes, "cmdline", domain.first("os/cmdline"))
    _wrote(notes, "machine", domain.first("os/type"))
    if hypervisor == "qemu":
        growth = growth_of(memory_bytes, max_bytes, slots, devices, balloon)
        made = replace(made, growth=growth)
        arguments = [
            (each.attributes.get("value", ""), each.line) for each in domain.all("commandline/arg")
        ]
        made = with_arguments(made, arguments, notes)
    return replace(made, written=notes.written, unread=notes.unread)


def _boot_memory(
    domain: Element,
    nodes: tuple[DefinedNode, ...],
    rounding: _Rounding,
    notes: Notes,
) -> int:
    written = domain.first("memory")
    total_bytes = _size(written)
    _wrote(notes, "memory_bytes", written)
    of_nodes = sum(node.memory_bytes for node in nodes)
    if of_nodes:
        first = domain.first("cpu/numa/cell")
        if len(nodes) == 1 or written is None:
            _wrote(notes, "memory_bytes", first)
        return of_nodes
    of_devices = sum(_size(each.first("target/size")) for each in domain.all("devices/memory"))
    if total_bytes <= of_devices:
        line = None if written is None else written.line
        raise InputError(
            f"{'' if line is None else f'line {line}: '}<memory>: {total_bytes} bytes: need more "
            f"than the {of_devices} bytes of the memory devices"
        )
    return _up(total_bytes - of_devices, rounding.boot_bytes)


def _nodes(domain: Element, rounding: _Rounding) -> tuple[DefinedNode, ...]:
    cells = bounded_parts("cells", domain.all("cpu/numa/cell"))
    made = sorted(
        (
            DefinedNode(
                number=_whole(cell, "", "id", number) or 0,
                memory_bytes=_up(_attribute_size(cell), rounding.boot_bytes),
                cpus=count_of(cell.attributes.get("cpus")),
                line=cell.line,
            )
            for number, cell in enumerate(cells)
        ),
        key=lambda node: node.number,
    )
    left = _most_cpus(domain) - sum(node.cpus or 0 for node in made)
    if made and left > 0:
        made[0] = replace(made[0], cpus=(made[0].cpus or 0) + left)
    return tuple(made)


def _attribute_size(cell: Element) -> int:
    given, unit = cell.attributes.get("memory"), cell.attributes.get("unit")
    if given is None:
        raise InputError(f"line {cell.line}: <cell>: need memory")
    return at("<cell>", cell.line, lambda: libvirt_size(given, unit))


def _devices(domain: Element, rounding: _Rounding, notes: Notes) -> tuple[DefinedDevice, ...]:
    made: list[DefinedDevice] = []
    elements = bounded_parts("memory devices", domain.all("devices/memory"))
    slots = {each.get("address", "slot") for each in elements if _at_slot(each)}
    free = iter(number for number in range(len(elements) + 1) if str(number) not in slots)
    counts: dict[str, int] = {}
    for element in elements:
        model = element.attributes.get("model", "")
        known = next((each for each in _MODELS if each[0] == model), None)
        if known is None:
            words = f"<memory model='{model}'>"
            notes.leave(words, "is no memory device that altmap knows", element.line)
            continue
        _, kind, prefix = known
        if kind in ("dimm", "nvdimm"):
            slot = element.get("address", "slot") if _at_slot(element) else None
            number = next(free) if slot is None else slot
        else:
            number = counts.get(prefix, 0)
            counts[prefix] = counts.get(prefix, 0) + 1
        if kind == "other":
            notes.leave(f"<memory model='{model}'>", "no memory of the kernel's", element.line)
        name = element.get("alias", "name") or f"{prefix}{number}"
        made.append(_device(element, kind, name, domain, rounding))
    return tuple(made)


def _device(
    element: Element, kind: DeviceKind, name: str, domain: Element, rounding: _Rounding
) -> DefinedDevice:
    size_bytes = _size(element.first("target/size"))
    if not size_bytes:
        raise InputError(f"line {element.line}: <memory>: need <target> with a <size>")
    label_bytes = _size(element.first("target/label/size")) or None
    if kind == "nvdimm" and rounding.nvdimm_down:
        of_guest = size_bytes - (label_bytes or 0)
        size_bytes = of_guest // rounding.module_bytes * rounding.module_bytes + (label_bytes or 0)
    else:
        size_bytes = _up(size_bytes, rounding.module_bytes)
    node = element.first("target/node")
    base = element.get("target/address", "base") or element.get("address", "base")
    mem = kind == "virtio-mem"
    return DefinedDevice(
        kind=kind,
        size_bytes=size_bytes,
        name=name,
        node=None if node is None else at("<node>", node.line, lambda: whole(node.text, 1 << 16)),
        requested_bytes=_size(element.first("target/requested")) if mem else None,
        plugged_bytes=_optional(element.first("target/current")) if mem else None,
        block_bytes=_optional(element.first("target/block")) if mem else None,
        address=None if base is None else at("<address>", element.line, lambda: _address(base)),
        label_bytes=label_bytes,
        dynamic_memslots=_yes(element.get("target", "dynamicMemslots")),
        backing=_device_backing(element, domain),
        line=element.line,
    )


def _at_slot(element: Element) -> bool:
    return element.get("address", "type") == "dimm" and element.get("address", "slot") is not None


def _address(text: str) -> int:
    return whole(text if text.lower().startswith("0x") else f"0x{text.strip()}")


def _device_backing(element: Element, domain: Element) -> HostBacking:
    whole_guest = _backing(domain)
    page = _size(element.first("source/pagesize"))
    access = element.attributes.get("access")
    discard = _yes(element.attributes.get("discard"))
    of_file = element.first("source/path") is not None
    return HostBacking(
        prealloc=True if page or whole_guest.prealloc else whole_guest.prealloc,
        discard=whole_guest.discard if discard is None else discard,
        # A file of its own has that file's pages (qemuBuildMemoryBackendProps).
        hugepage_bytes=page or (None if of_file else whole_guest.hugepage_bytes),
        shared=whole_guest.shared if access is None else access == "shared",
        source="file" if of_file else whole_guest.source,
        locked=whole_guest.locked,
    )


def _backing(domain: Element) -> HostBacking:
    backing = domain.first("memoryBacking")
    if backing is None:
        return HostBacking()
    huge = backing.first("hugepages")
    page = None if huge is None else huge.first("page")
    access = backing.get("access", "mode")
    allocation = backing.get("allocation", "mode")
    source = backing.get("source", "type")
    return HostBacking(
        # Huge pages of the host are allocated at the start (qemuBuildMemoryGetPagesize).
        prealloc=True
        if huge is not None
        else None
        if allocation is None
        else allocation == "immediate",
        discard=True if backing.first("discard") is not None else None,
        hugepage_bytes=None if huge is None else 0 if page is None else _page_size(page),
        shared=None if access is None else access == "shared",
        source={"anonymous": "ram", "memfd": "memfd", "file": "file"}.get(source or ""),
        locked=True if backing.first("locked") is not None else None,
    )


def _page_size(page: Element) -> int:
    given, unit = page.attributes.get("size", "0"), page.attributes.get("unit")
    return at("<page>", page.line, lambda: libvirt_size(given, unit))


def _balloon(
    domain: Element, memory_bytes: int, devices: tuple[DefinedDevice, ...], notes: Notes
) -> DefinedBalloon:
    """Return the balloon. ``currentMemory`` sets QEMU's, which is in boot memory and DIMMs only.

    src/qemu/qemu_process.c: qemuProcessRefreshBalloonState adds what virtio-mem has.
    """
    dimms_bytes = sum(each.size_bytes for each in devices if each.kind == "dimm")
    requested_bytes = sum(each.requested_bytes or 0 for each in devices)
    element = domain.first("devices/memballoon")
    current = domain.first("currentMemory")
    current_bytes = _size(current)
    if current is not None:
        _wrote(notes, "balloon", current)
    elif element is not None:
        _wrote(notes, "balloon", element)
    left_bytes = min(current_bytes, memory_bytes + dimms_bytes)
    made = DefinedBalloon(current_bytes=left_bytes + requested_bytes if current_bytes else None)
    if element is None:
        return made
    return replace(
        made,
        present=element.attributes.get("model") != "none",
        free_page_reporting=_yes(element.attributes.get("freePageReporting")),
        deflate_on_oom=_yes(element.attributes.get("autodeflate")),
    )


def _cpus(domain: Element) -> int:
    vcpu = domain.first("vcpu")
    if vcpu is None:
        return 1
    return at(
        "<vcpu>", vcpu.line, lambda: whole(vcpu.attributes.get("current", vcpu.text), 1 << 16)
    )


def _most_cpus(domain: Element) -> int:
    vcpu = domain.first("vcpu")
    return 1 if vcpu is None else at("<vcpu>", vcpu.line, lambda: whole(vcpu.text, 1 << 16))


def _phys_bits(domain: Element) -> int | None:
    found = domain.first("cpu/maxphysaddr")
    if found is None:
        return None
    given = found.attributes.get("bits") or found.attributes.get("limit")
    return None if given is None else at("<maxphysaddr>", found.line, lambda: whole(given, 64))


def _is_ccw(domain: Element) -> bool:
    return (domain.get("os/type", "machine") or "").startswith("s390-ccw")


def _on_the_only_node(device: DefinedDevice) -> DefinedDevice:
    takes_one = device.kind in ("dimm", "nvdimm", "virtio-mem") and device.node is None
    return replace(device, node=0) if takes_one else device


def _size(element: Element | None) -> int:
    if element is None or not element.text:
        return 0
    words, unit = element.text, element.attributes.get("unit")
    return at(f"<{element.name}>", element.line, lambda: libvirt_size(words, unit))


def _optional(element: Element | None) -> int | None:
    return None if element is None else _size(element)


def _whole(element: Element, path: str, attribute: str, otherwise: int | None = None) -> int | None:
    found = element.first(path) if path else element
    given = None if found is None else found.attributes.get(attribute)
    if found is None or given is None:
        return otherwise
    return at(f"<{found.name} {attribute}>", found.line, lambda: whole(given, 1 << 32))


def _up(size_bytes: int, unit_bytes: int) -> int:
    return -(-size_bytes // unit_bytes) * unit_bytes


def _yes(word: str | None) -> bool | None:
    return {"yes": True, "on": True, "no": False, "off": False}.get(word or "")


def _wrote(notes: Notes, name: str, element: Element | None) -> None:
    if element is None:
        return
    attributes = "".join(f" {key}='{value}'" for key, value in element.attributes.items())
    text = f">{element.text}</{element.name}>" if element.text else "/>"
    notes.wrote(name, f"<{element.name}{attributes}{text}", element.line)
