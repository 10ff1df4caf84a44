"""QEMU's words for a definition: its own, libvirt's for a domain, else made of what it says.

Kept are the words for the machine, CPUs' number, memory, nodes and memory devices. Disks, networks
and consoles are left out, and what guests here cannot have: KVM, the host's CPU.
"""

import functools
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

#: Options that are kept, each with the beginnings of values that count; none: any value.
_KEPT = {
    "-m": (),
    "-M": (),
    "-machine": (),
    "-smp": (),
    "-numa": (),
    "-object": ("memory-backend", '{"qom-type":"memory-backend'),
    "-device": ("pc-dimm", "virtio-mem", '{"driver":"pc-dimm', '{"driver":"virtio-mem'),
}
#: A user that may run libvirt's session daemon: root would use the system's.
_NOBODY = 65534
_MACHINES = {"x86_64": "pc", "aarch64": "virt", "ppc64le": "pseries"}


def words_of(text, definition):
    """Return the words for a guest in the lab, and who wrote them."""
    if definition.manager == "qemu":
        return without_reserve(_kept(shlex.split(text.replace("\\\n", " "))[1:])), "as written"
    if definition.manager == "libvirt":
        argv = native_argv(text)
        if argv:
            return without_reserve(_kept(shlex.split(argv))), "virsh domxml-to-native"
    return without_reserve(made_of(definition)), "from the definition"


def _kept(words):
    found = []
    for name, value in itertools.pairwise(words):
        beginnings = _KEPT.get(name)
        if beginnings is None or (beginnings and not value.replace(" ", "").startswith(beginnings)):
            continue
        if name in ("-M", "-machine"):
            value = ",".join(w for w in value.split(",") if not w.startswith(("accel=", "usb=")))
        if name == "-device" and value.startswith("{"):
            value = json.dumps(_without_place(json.loads(value)))
        elif name == "-device":
            value = ",".join(w for w in value.split(",") if not w.startswith(("bus=", "addr=0x")))
        found += [name, value]
    return found


def _without_place(device):
    """Return a device without its place on PCI buses, which the lab's guest does not have."""
    places = () if device["driver"] == "pc-dimm" else ("bus", "addr")
    return {key: value for key, value in device.items() if key not in places}


def without_reserve(words):
    """Return the words with memory that this machine need not have: nothing is reserved of it."""
    found = []
    for name, value in zip(words[::2], words[1::2], strict=True):
        if name == "-object" and value.startswith("{"):
            value = json.dumps({**json.loads(value), "reserve": False})
        elif name == "-object" and "reserve=" not in value:
            value += ",reserve=off"
        found += [name, value]
    named = any("memory-backend=" in value for value in found)
    if not named and not any("memdev" in value for value in found if value.startswith("node")):
        size = _boot_size(found)
        found += ["-object", f"memory-backend-ram,id=lab-ram,size={size},reserve=off"]
        at = next((i for i, w in enumerate(found) if w in ("-M", "-machine")), None)
        if at is None:
            found += ["-machine", "memory-backend=lab-ram"]
        else:
            found[at + 1] += ",memory-backend=lab-ram"
    return tuple(found)


def _boot_size(words):
    value = words[words.index("-m") + 1].split(",")[0].removeprefix("size=")
    return value if value[-1:].isalpha() else f"{value}M"


def made_of(definition):
    """Return QEMU's words for what a definition says."""
    kib = definition.memory_bytes >> 10
    size = f"size={kib}k"
    if definition.max_memory_bytes and definition.max_memory_bytes > definition.memory_bytes:
        size += f",slots={definition.slots or 0},maxmem={definition.max_memory_bytes >> 10}k"
    words = ["-machine", definition.machine or _MACHINES[definition.arch], "-m", size]
    words += ["-smp", str(definition.cpus or 1)]
    nodes = sorted(definition.nodes, key=lambda each: each.number) if definition.nodes else []
    for node in nodes if len(nodes) > 1 else []:
        numa = f"node,nodeid={node.number}"
        if node.memory_bytes:
            words += ["-object", f"memory-backend-ram,id=ram{node.number},size={node.memory_bytes}"]
            numa += f",memdev=ram{node.number}"
        words += ["-numa", numa + (f",cpus=0-{(definition.cpus or 1) - 1}" * (not node.number))]
    for device in definition.devices:
        words += ["-object", f"memory-backend-ram,id=of-{device.name},size={device.size_bytes}"]
        kind = "pc-dimm" if device.kind == "dimm" else "virtio-mem-pci"
        value = f"{kind},id={device.name},memdev=of-{device.name},node={device.node or 0}"
        if device.requested_bytes is not None:
            value += f",requested-size={device.requested_bytes}"
        if device.block_bytes is not None and device.kind == "virtio-mem":
            value += f",block-size={device.block_bytes}"
        words += ["-device", value]
    return words


@functools.cache
def has_virsh():
    """Tell whether libvirt can say here what it would start: its client and QEMU driver."""
    return shutil.which("virsh") is not None and shutil.which("libvirtd") is not None


@functools.cache
def native_argv(xml):
    """Return libvirt's command line for a domain, empty without libvirt.

    The daemon of a session is asked, which ends by itself after some idle time; it has no network.
    """
    if not has_virsh():
        return ""
    xml = re.sub(r"<domain type='kvm'", "<domain type='qemu'", xml.strip())
    xml = re.sub(r"<cpu mode='host-[a-z]+'", "<cpu", xml)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        home.chmod(0o777)
        path = home / "domain.xml"
        path.write_text(xml, encoding="utf-8")
        path.chmod(0o644)
        result = subprocess.run(
            ["virsh", "-c", "qemu:///session", "domxml-to-native", "qemu-argv", "--xml", path],
            env={"PATH": os.environ["PATH"], "HOME": folder, "XDG_RUNTIME_DIR": folder},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            user=_NOBODY if os.geteuid() == 0 else None,
        )
        _end_daemon(home)
    assert not result.returncode, result.stderr
    words = shlex.split(result.stdout)
    # Before the program come the variables of its environment.
    program = next(at for at, word in enumerate(words) if "qemu-system" in word)
    return shlex.join(words[program + 1 :])


def _end_daemon(home):
    for pid_file in home.rglob("libvirtd.pid"):
        os.kill(int(pid_file.read_text(encoding="ascii")), 15)
