"""Commands and lines of each manager: as its own parser takes them."""

import json
import shlex
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from definitions import GIB, MIB, qemu, with_virtio_mem

from altmap.errors import printable
from altmap.vm.definition import DefinedNode
from altmap.vm.words import command, file_line, quantity, total_bytes

MANAGERS = (
    *("libvirt", "qemu", "proxmox", "kubevirt", "cloud-hypervisor", "firecracker"),
    *("vmware", "hyper-v", "xen"),
)


def json_values(text):
    decoder, at, found = json.JSONDecoder(), 0, []
    while at < len(text):
        value, at = decoder.raw_decode(text, at)
        at += 1
        found.append(value)
    return found


def test_qmp_adds_a_backend_and_a_dimm():
    text = command(qemu(nodes=(DefinedNode(0, 4 * GIB),)), "add", id_="d1", size_bytes=GIB)
    backend, device = json_values(text)
    assert backend["arguments"] == {"qom-type": "memory-backend-ram", "id": "mem-d1", "size": GIB}
    assert device["arguments"] == {"driver": "pc-dimm", "id": "d1", "memdev": "mem-d1", "node": 0}


def test_qmp_adds_and_resizes_a_virtio_mem_device():
    backend, device = json_values(
        command(qemu(), "add_virtio_mem", id_="v", size_bytes=GIB, region_bytes=8 * GIB)
    )
    assert backend["arguments"]["size"] == 8 * GIB
    assert device["arguments"]["requested-size"] == GIB
    (resize,) = json_values(command(qemu(), "resize", id_="v", size_bytes=2 * GIB))
    assert resize["arguments"] == {
        "path": "/machine/peripheral/v",
        "property": "requested-size",
        "value": 2 * GIB,
    }


def test_libvirt_attaches_xml():
    libvirt = qemu(manager="libvirt", nodes=(DefinedNode(0, 4 * GIB),))
    text = command(libvirt, "add", id_="d1", size_bytes=GIB)
    head, _, xml = text.partition("<<<")
    assert head == "virsh attach-device guest /dev/stdin --live "
    memory = ET.fromstring(json.loads(xml))
    assert memory.get("model") == "dimm"
    assert int(memory.find("target/size").text) * 1024 == GIB
    assert memory.find("target/node").text == "0"
    assert command(libvirt, "resize", id_="v0", size_bytes=GIB) == (
        "virsh update-memory-device guest --alias v0 --requested-size 1048576KiB --live"
    )


@pytest.mark.parametrize(
    ("manager", "words"),
    [
        ("cloud-hypervisor", "ch-remote --api-socket /run/guest.sock resize --memory 8192M"),
        ("vmware", "govc vm.change -vm guest -m 8192"),
        ("hyper-v", "Set-VMMemory -VMName guest -StartupBytes 8589934592"),
        ("xen", "xl mem-set guest 8192m"),
    ],
)
def test_others_are_asked_for_the_total(manager, words):
    definition = qemu(manager=manager)
    assert command(definition, "add", size_bytes=4 * GIB, total=8 * GIB) == words


def test_kubernetes_and_firecracker_get_json():
    patch = command(qemu(manager="kubevirt"), "add", size_bytes=GIB, total=5 * GIB)
    made = json.loads(patch.partition("-p ")[2].strip("'"))
    assert made["spec"]["template"]["spec"]["domain"]["memory"] == {"guest": "5120Mi"}
    text = command(qemu(manager="firecracker"), "add", size_bytes=GIB, total=5 * GIB)
    assert json.loads(text.partition("-d ")[2].strip("'")) == {"requested_size_mib": 1024}


@pytest.mark.parametrize("manager", MANAGERS)
@pytest.mark.parametrize("action", ["add", "remove", "resize", "balloon", "add_virtio_mem"])
def test_every_manager_has_every_command_without_a_gap(manager, action):
    text = command(qemu(manager=manager), action, size_bytes=GIB, total=5 * GIB, id_="x")
    assert text
    assert "$" not in text


@pytest.mark.parametrize("manager", MANAGERS)
def test_every_manager_has_a_line_for_memory_and_maximum(manager):
    definition = qemu(manager=manager)
    for field in ("memory", "maximum"):
        assert file_line(definition, field, 4 * GIB, 16 * GIB)


def test_a_balloon_is_set_to_what_is_left():
    assert "4194304KiB" in command(qemu(manager="libvirt"), "balloon", total=4 * GIB)
    text = command(qemu(manager="cloud-hypervisor"), "balloon", total=3 * GIB)
    assert text.endswith("--balloon 1024M")


def test_what_the_host_gives_is_boot_memory_and_devices():
    assert total_bytes(with_virtio_mem(qemu(), requested=GIB)) == 5 * GIB
    assert total_bytes(replace(qemu(), devices=())) == 4 * GIB
    assert (quantity(4 * GIB), quantity(200 * MIB)) == ("4GiB", "200MiB")


@pytest.mark.parametrize("name", ["my vm", "db; reboot", "a'b", "$(id)", "x\ny"])
def test_a_name_is_one_word_of_a_shell(name):
    for manager in ("libvirt", "vmware", "xen", "kubevirt"):
        text = command(qemu(manager=manager, name=name), "add", size_bytes=GIB, total=5 * GIB)
        words = shlex.split(text.partition("<<<")[0])
        assert printable(name) in words
        assert "\n" not in text


def test_an_id_of_qmp_is_json():
    text = command(qemu(), "resize", id_='v"0', size_bytes=GIB)
    assert json_values(text)[0]["arguments"]["path"] == '/machine/peripheral/v"0'


def test_proxmox_knows_machines_by_number():
    proxmox = qemu(manager="proxmox", name="web")
    assert command(replace(proxmox, id="101"), "add", total=8 * GIB) == "qm set 101 --memory 8192"
    assert command(proxmox, "add", total=8 * GIB) == "qm set VMID --memory 8192"


def test_hyperv_changes_startup_without_dynamic_memory_only():
    static = qemu(manager="hyper-v", max_memory_bytes=16 * GIB)
    assert command(static, "add", total=8 * GIB).endswith(f"-StartupBytes {8 * GIB}")
    dynamic = replace(static, by_demand=True)
    assert f"-MaximumBytes {16 * GIB} " in command(dynamic, "add", total=8 * GIB)
    assert f"-MaximumBytes {32 * GIB} " in command(dynamic, "add", total=32 * GIB)


def test_cloud_hypervisor_resizes_a_zone_with_its_boot_memory():
    """``vm.resize-zone`` takes the zone's whole size; zones refuse ``vm.resize``."""
    zone = replace(with_virtio_mem(qemu()).devices[0], name="z", zone_bytes=2 * GIB)
    definition = qemu(manager="cloud-hypervisor", devices=(zone,))
    assert command(definition, "resize", id_="z", size_bytes=GIB, total=7 * GIB) == (
        "ch-remote --api-socket /run/guest.sock resize-zone --id z --size 3072M"
    )
    whole = replace(definition, devices=(replace(zone, zone_bytes=None),))
    assert "resize --memory 7168M" in command(whole, "resize", id_="z", total=7 * GIB)
