"""Definitions of the other managers, each as their users write them.

Expected values follow what the programs themselves say: Proxmox's and Firecracker's documentation,
cloud-hypervisor's docs/memory.md, KubeVirt's API, and the units of each.
"""

import json

import pytest

from altmap.errors import InputError
from altmap.vm.readers import read_definition, read_definitions

MIB, GIB = 1 << 20, 1 << 30


def read(text, name="guest", machine=None):
    raw = text.encode() if isinstance(text, str) else json.dumps(text).encode()
    return read_definition(raw, name, machine)


def refused(text):
    with pytest.raises(InputError) as error:
        read(text)
    assert "\n" not in str(error.value)
    return str(error.value)


# --- Proxmox VE ------------------------------------------------------------------------------

PVE = "boot: order=scsi0\ncores: 2\nname: web\nostype: l26\nscsihw: virtio-scsi-single\n"


def test_proxmox_gives_all_memory_at_boot_and_a_balloon():
    made = read(PVE + "memory: 4096\nsockets: 2\n[before]\nmemory: 512\n")
    assert (made.name, made.memory_bytes, made.cpus) == ("web", 4 * GIB, 4)
    assert (made.balloon.present, made.minimum_bytes, made.nodes) == (True, None, ())
    assert (made.manager, made.hypervisor, made.growth) == ("proxmox", "qemu", ())


def test_proxmox_takes_memory_back_down_to_its_balloon():
    assert read(PVE + "balloon: 1024\nmemory: 4096\n").minimum_bytes == GIB
    assert read(PVE + "balloon: 0\nmemory: current=4096\n").balloon.present is False


def test_proxmox_with_hotplug_boots_with_1_gib_and_the_rest_is_dimms():
    made = read(PVE + "cpu: x86-64-v3\nhotplug: disk,memory\nmemory: 3072\nnuma: 1\nsockets: 2\n")
    assert (made.memory_bytes, made.slots, made.max_memory_bytes) == (GIB, 255, 512 * GIB)
    assert [(each.name, each.size_bytes, each.node) for each in made.devices] == [
        ("dimm0", 512 * MIB, 0),
        ("dimm1", 512 * MIB, 1),
        ("dimm2", 512 * MIB, 0),
        ("dimm3", 512 * MIB, 1),
    ]
    assert [(each.memory_bytes, each.cpus) for each in made.nodes] == [(512 * MIB, 2)] * 2
    assert (made.growth, len(made.unread)) == (("dimm",), 1)
    large = read(PVE + "hotplug: memory\nmemory: 20480\nnuma: 1\n")
    # 1 GiB, 32 DIMMs of 512 MiB, then of 1 GiB.
    assert [each.size_bytes for each in large.devices[31:]] == [512 * MIB, GIB, GIB, GIB]


def test_proxmox_nodes_of_its_own_huge_pages_and_arguments():
    made = read(
        PVE
        + "args: -device virtio-mem-pci,memdev=m,id=vm -object memory-backend-ram,id=m,size=1G\n"
        "hugepages: 1024\nmemory: 4096\nnuma: 1\n"
        "numa0: cpus=0;2,hostnodes=0,memory=3072,policy=bind\n"
        "numa1: cpus=1-3,hostnodes=1,memory=1024,policy=bind\nmachine: q35\n"
    )
    assert [(each.memory_bytes, each.cpus) for each in made.nodes] == [(3 * GIB, 2), (GIB, 3)]
    assert (made.backing.hugepage_bytes, made.machine) == (GIB, "q35")
    assert [each.name for each in made.devices] == ["vm"]


def test_proxmox_defaults_and_refusals():
    assert read("scsi0: local:1/d.raw\nnet0: virtio=a,bridge=vmbr0\n").memory_bytes == 512 * MIB
    assert "need numa: 1" in refused(PVE + "hotplug: memory\nmemory: 4096\n")
    assert "1024 MiB or more" in refused(PVE + "hotplug: memory\nmemory: 512\nnuma: 1\n")
    assert "line 6: memory: 'lots'" in refused(PVE + "memory: lots\n")
    container = "arch: amd64\nhostname: c\nmemory: 512\nrootfs: local:1/d\nswap: 512\n"
    assert "container" in refused(container)


# --- cloud-hypervisor ------------------------------------------------------------------------


def test_cloud_hypervisor_takes_512_mib_and_grows_by_dimms_in_eight_slots():
    assert read("cloud-hypervisor --kernel k --disk path=d").memory_bytes == 512 * MIB
    made = read(
        "cloud-hypervisor \\\n --cpus boot=4,max=8,max_phys_bits=40 \\\n"
        " --memory size=1024M,hotplug_size=8192M --kernel k "
        "--cmdline 'console=hvc0 root=/dev/vda'\n"
    )
    assert (made.memory_bytes, made.max_memory_bytes, made.slots) == (GIB, 9 * GIB, 8)
    assert (made.growth, made.devices, made.cpus) == (("dimm",), (), 4)
    assert (made.cmdline, made.max_phys_bits) == ("console=hvc0 root=/dev/vda", 40)
    assert made.written["memory_bytes"].line == 3


def test_cloud_hypervisor_grows_by_virtio_mem_of_its_zones_and_nodes():
    made = read(
        "cloud-hypervisor --memory size=0,hotplug_method=virtio-mem --memory-zone "
        "id=a,size=1G,hotplug_size=4G,hotplugged_size=1G id=b,size=2G,shared=on,file=/f "
        "--numa guest_numa_id=1,memory_zones=[b],cpus=[2-3] "
        "--numa guest_numa_id=0,cpus=[0-1],memory_zones=a --balloon size=1G,free_page_reporting=on"
    )
    assert (made.memory_bytes, made.max_memory_bytes, made.slots) == (3 * GIB, 7 * GIB, None)
    (device,) = made.devices
    assert (device.name, device.node, device.size_bytes) == ("a", 0, 4 * GIB)
    assert (device.requested_bytes, device.block_bytes) == (GIB, 2 * MIB)
    assert [(each.memory_bytes, each.cpus) for each in made.nodes] == [(GIB, 2), (2 * GIB, 2)]
    assert (made.balloon.current_bytes, made.balloon.free_page_reporting) == (3 * GIB, True)
    assert made.growth == ("virtio-mem", "balloon")


CH = {
    "cpus": {"boot_vcpus": 2, "max_vcpus": 4},
    "memory": {"size": 2 * GIB, "hotplug_method": "VirtioMem", "hotplug_size": 6 * GIB},
    "payload": {"kernel": "vmlinux", "cmdline": "console=hvc0"},
    "balloon": None,
}


def test_cloud_hypervisor_json_is_read_as_configuration_and_as_answer():
    for value in (CH, {"config": CH, "state": "Running", "memory_actual_size": 2 * GIB}):
        made = read(value)
        assert (made.memory_bytes, made.max_memory_bytes) == (2 * GIB, 8 * GIB)
        assert [(each.kind, each.size_bytes) for each in made.devices] == [("virtio-mem", 6 * GIB)]
        assert (made.balloon.present, made.cmdline) == (False, "console=hvc0")
    acpi = read({**CH, "memory": {"size": GIB, "hotplug_size": GIB, "hugepages": True}})
    assert (acpi.growth, acpi.devices, acpi.backing.hugepage_bytes) == (("dimm",), (), 0)
    fixed = read({**CH, "memory": {"size": GIB}})
    assert (fixed.growth, fixed.max_memory_bytes) == ((), None)


def test_cloud_hypervisor_without_boot_memory_is_refused():
    assert "need a size, or zones" in refused({**CH, "memory": {"size": 0}})
    assert "need 4 PiB at most" in refused({**CH, "memory": {"size": (1 << 64) - 1}})
    assert "need a size with K, M or G" in refused("cloud-hypervisor --memory size=1T")


# --- Firecracker -----------------------------------------------------------------------------

FC = {
    "boot-source": {"kernel_image_path": "vmlinux", "boot_args": "console=ttyS0 panic=1"},
    "drives": [],
    "machine-config": {"vcpu_count": 2, "mem_size_mib": 1024},
}


@pytest.mark.parametrize(
    ("more", "growth", "devices", "current"),
    [
        ({}, (), [], None),
        ({"balloon": None, "memory-hotplug": None, "pmem": []}, (), [], None),
        ({"balloon": {"amount_mib": 256, "deflate_on_oom": True}}, ("balloon",), [], 768 * MIB),
        (
            {"memory-hotplug": {"total_size_mib": 2048}},
            ("virtio-mem",),
            [(2 * GIB, 0, 2 * MIB)],
            None,
        ),
        (
            {"memory-hotplug": {"total_size_mib": 2048, "block_size_mib": 128}},
            ("virtio-mem",),
            [(2 * GIB, 0, 128 * MIB)],
            None,
        ),
    ],
)
def test_firecracker_configurations_are_read(more, growth, devices, current):
    made = read({**FC, **more})
    assert (made.memory_bytes, made.cpus, made.growth) == (GIB, 2, growth)
    found = [(each.size_bytes, each.requested_bytes, each.block_bytes) for each in made.devices]
    assert found == devices
    assert made.balloon.current_bytes == current
    assert (made.cmdline, made.kernel) == ("console=ttyS0 panic=1", "vmlinux")
    assert made.max_memory_bytes == (3 * GIB if devices else None)


def test_firecracker_needs_a_size():
    assert "need mem_size_mib" in refused({**FC, "machine-config": {"vcpu_count": 1}})
    assert "1.5: need a whole number" in refused({"machine-config": {"mem_size_mib": 1.5}})


# --- KubeVirt --------------------------------------------------------------------------------


def kubevirt(domain, kind="VirtualMachineInstance", name="vm", more=""):
    return (
        f"apiVersion: kubevirt.io/v1\nkind: {kind}\nmetadata:\n  name: {name}\n{more}"
        f"spec:\n  domain:\n{domain}"
    )


def test_kubevirt_takes_the_guests_memory_before_requests_and_limits():
    made = read(
        kubevirt(
            "    cpu: {cores: 2, sockets: 2}\n    memory:\n      guest: 4Gi\n"
            "    resources: {requests: {memory: 1Gi}}\n    machine: {type: q35}\n"
            "    devices: {autoattachMemBalloon: false}\n"
        )
    )
    assert (made.name, made.memory_bytes, made.cpus, made.machine) == ("vm", 4 * GIB, 4, "q35")
    assert (made.balloon.present, made.growth) == (False, ())
    assert made.written["memory_bytes"].line == 9
    by_request = kubevirt("    resources: {requests: {memory: 1.5G, cpu: 1500m}}\n")
    assert (read(by_request).memory_bytes, read(by_request).cpus) == (1_500_000_000, 2)
    by_limit = kubevirt("    resources: {limits: {memory: 1073741824}}\n")
    assert read(by_limit).memory_bytes == GIB


def test_kubevirt_with_a_maximum_has_a_virtio_mem_device_of_the_rest():
    text = (
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: grow}\nspec:\n"
        "  template:\n    spec:\n      architecture: amd64\n      domain:\n        memory:\n"
        "          guest: 2Gi\n          maxGuest: 8Gi\n"
    )
    made = read(text)
    (device,) = made.devices
    assert (made.memory_bytes, made.max_memory_bytes) == (2 * GIB, 8 * GIB)
    assert (device.size_bytes, device.block_bytes, device.node) == (6 * GIB, 2 * MIB, 0)
    assert (made.growth, made.arch, made.arch_given) == (("virtio-mem",), "x86_64", True)
    huge = read(text + "          hugepages: {pageSize: 1Gi}\n")
    assert (huge.devices[0].block_bytes, huge.backing.hugepage_bytes) == (GIB, GIB)


def test_kubevirt_that_has_grown_boots_with_what_it_had_at_boot():
    made = read(
        kubevirt(
            "    memory: {guest: 3Gi, maxGuest: 4Gi}\n",
            more="status:\n  memory: {guestAtBoot: 1Gi}\n",
        )
    )
    assert (made.memory_bytes, made.devices[0].size_bytes) == (GIB, 3 * GIB)
    assert made.devices[0].requested_bytes == 2 * GIB


def test_kubevirt_documents_lists_json_and_instance_types():
    kind = "apiVersion: instancetype.kubevirt.io/v1\nkind: VirtualMachineInstancetype\n"
    types = kind + "metadata: {name: small}\nspec: {cpu: {guest: 2}, memory: {guest: 1Gi}}\n"
    machine = (
        "apiVersion: kubevirt.io/v1\nkind: VirtualMachine\nmetadata: {name: typed}\n"
        "spec: {instancetype: {name: small}, template: {spec: {domain: {}}}}\n"
    )
    made = read(types + "---\n" + machine)
    assert (made.name, made.memory_bytes, made.cpus) == ("typed", GIB, 2)
    assert "instance type 'small': need it in the same file" in refused(machine)
    other = kubevirt("    memory: {guest: 1Gi}\n", name="other")
    assert read(other + "---\n" + kubevirt("    memory: {guest: 2Gi}\n"), machine="vm").name == "vm"
    instance = {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "j"},
        "spec": {"domain": {"memory": {"guest": "1Gi"}}},
    }
    assert read({"apiVersion": "v1", "kind": "List", "items": [instance]}).memory_bytes == GIB


def test_kubevirt_boots_a_kernel_and_merges_keys():
    made = read(
        "x: &size {guest: 1Gi}\n"
        + kubevirt(
            "    memory: {<<: *size}\n"
            "    firmware: {kernelBoot: {kernelArgs: console=ttyS0, container: {kernelPath: /k}}}\n"
        )
    )
    assert (made.memory_bytes, made.cmdline, made.kernel) == (GIB, "console=ttyS0", "/k")
    assert "has Deployment of Kubernetes" in refused("apiVersion: apps/v1\nkind: Deployment\n")
    assert "need domain.memory.guest" in refused(kubevirt("    devices: {}\n"))


# --- VMware ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "nr_mib", "growth", "minimum"),
    [
        ('memsize = "4096"', 4096, (), None),
        ('memSize = "4096"\nmem.hotadd = "TRUE"', 4096, ("memory",), None),
        ('MEMSIZE = "2048"\nmem.hotadd = "FALSE"\nsched.mem.minsize = "512"', 2048, (), 512),
        ('sched.mem.pin = "TRUE"', 32, (), None),
        (
            'memSize = "65536"\nmem.hotadd = "true"\nsched.mem.minsize = "max"',
            65536,
            ("memory",),
            None,
        ),
    ],
)
def test_vmware_configurations_are_read(lines, nr_mib, growth, minimum):
    head = 'config.version = "8"\nvirtualHW.version = "19"\ndisplayName = "web |22 one"\n'
    made = read(head + 'guestOS = "rhel9-64"\nnumvcpus = "4"\n' + lines + "\n")
    assert (made.memory_bytes, made.growth, made.cpus) == (nr_mib * MIB, growth, 4)
    assert made.minimum_bytes == (None if minimum is None else minimum * MIB)
    assert (made.name, made.arch, made.manager) == ('web " one', "x86_64", "vmware")
    assert made.backing.locked == (True if "pin" in lines else None)


@pytest.mark.parametrize(("memory", "most"), [(2048, 3072), (3072, 3072), (4096, 65536)])
def test_vmware_adds_up_to_16_times_the_memory_and_to_3_gib_below_it(memory, most):
    head = f'displayName = "a"\nguestOS = "rhel9-64"\nmemSize = "{memory}"\n'
    assert read(head + 'mem.hotadd = "TRUE"\n').max_memory_bytes == most * MIB
    assert read(head).max_memory_bytes is None


def test_vmware_names_what_it_leaves_to_the_host():
    made = read('memSize = "8192"\nnumvcpus = "16"\nnuma.vcpu.maxPerVirtualNode = "8"\n')
    assert [each.line for each in made.unread] == [3]
    assert "line 1: memsize: 'x'" in refused('memsize = "x"\n')
    assert read('memsize = "512"\nguestOS = "rhel5"\n').arch == "i686"


# --- Hyper-V ---------------------------------------------------------------------------------

STATIC = {
    "VMName": "web",
    "Startup": 4 * GIB,
    "DynamicMemoryEnabled": False,
    "Buffer": 20,
    "Minimum": GIB // 2,
    "Maximum": 1024 * GIB,
}
DYNAMIC = {
    "VMName": "db",
    "Startup": 2 * GIB,
    "DynamicMemoryEnabled": True,
    "Minimum": GIB // 2,
    "Maximum": 64 * GIB,
    "Priority": 50,
}


def test_hyperv_static_and_dynamic_memory():
    static, dynamic = read(STATIC), read(DYNAMIC)
    assert (static.name, static.memory_bytes, static.growth) == ("web", 4 * GIB, ("hyperv",))
    assert (static.max_memory_bytes, static.minimum_bytes) == (1 << 40, None)
    assert (dynamic.memory_bytes, dynamic.growth) == (2 * GIB, ("hyperv",))
    assert (dynamic.by_demand, static.by_demand) == (True, False)
    assert (dynamic.max_memory_bytes, dynamic.minimum_bytes) == (64 * GIB, GIB // 2)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_hyperv_is_read_as_powershell_writes_it(encoding):
    text = json.dumps([STATIC, DYNAMIC], indent=4).replace("\n", "\r\n")
    made = read_definitions(text.encode(encoding), "vms.json")
    assert [each.name for each in made] == ["web", "db"]


def test_hyperv_machines_with_their_memory_are_one_machine():
    machine = {"Name": "db", "ProcessorCount": 4, "Generation": 2, "MemoryStartup": 2 * GIB}
    (made,) = read_definitions(json.dumps({"VM": machine, "Memory": DYNAMIC}).encode(), "x")
    assert (made.cpus, made.machine, made.growth) == (4, "generation 2", ("hyperv",))
    by_vm = read({**machine, "DynamicMemoryEnabled": True, "MemoryMaximum": 8 * GIB})
    assert (by_vm.memory_bytes, by_vm.max_memory_bytes) == (2 * GIB, 8 * GIB)
    assert "startup: -1: need a whole number" in refused({**STATIC, "Startup": -1})


# --- Xen -------------------------------------------------------------------------------------


def test_xen_guests_start_with_memory_and_grow_to_maxmem():
    made = read(
        'name = "pv"\nmemory = 394\nmaxmem = 579\nvcpus = 2\nkernel = "/k"\nextra = "quiet"\n'
        'root = "/dev/xvda1"\nvif = [ "bridge=br0" ]\n'
        'vnuma = [ [ "pnode=0","size=300","vcpus=0" ], [ "size=279","vcpus=1" ] ]\n'
    )
    assert (made.memory_bytes, made.balloon.current_bytes) == (579 * MIB, 394 * MIB)
    assert (made.growth, made.cpus, made.cmdline) == (("balloon",), 2, "root=/dev/xvda1 quiet")
    assert [each.memory_bytes for each in made.nodes] == [300 * MIB, 279 * MIB]
    fixed = read('memory = "1024" # MiB\ntype = "hvm"\n')
    assert (fixed.memory_bytes, fixed.growth) == (GIB, ())


@pytest.mark.parametrize(
    ("text", "uefi"),
    [
        ("memory: 2048\nbios: ovmf\ncores: 2\n", True),
        ("memory: 2048\nbios: seabios\ncores: 2\n", False),
        (
            'config.version = "8"\nmemSize = "2048"\nguestOS = "debian12-64"\nfirmware = "efi"\n',
            True,
        ),
        ('config.version = "8"\nmemSize = "2048"\nguestOS = "debian12-64"\n', False),
        (json.dumps(STATIC | {"Generation": 2}), True),
        (json.dumps(STATIC | {"Generation": 1}), False),
        ("qemu-system-x86_64 -m 2G -bios /usr/share/ovmf/OVMF.fd", True),
        ("qemu-system-x86_64 -m 2G -drive if=pflash,file=CODE.fd -drive file=x.img", True),
        ("qemu-system-x86_64 -m 2G -drive file=efi.img -bios bios.bin", False),
        ("qemu-system-x86_64 -m 2G -M q35,pflash0=code", True),
        (
            "<domain type='kvm'><name>a</name><memory>2097152</memory>"
            "<os firmware='efi'><type arch='x86_64'>hvm</type></os></domain>",
            True,
        ),
        (
            "<domain type='kvm'><name>a</name><memory>2097152</memory>"
            "<os><type arch='x86_64'>hvm</type><loader type='pflash'>/c</loader></os></domain>",
            True,
        ),
        (
            "apiVersion: kubevirt.io/v1\nkind: VirtualMachineInstance\nmetadata: {name: a}\n"
            "spec: {domain: {memory: {guest: 2Gi}, firmware: {bootloader: {efi: {}}}}}\n",
            True,
        ),
    ],
)
def test_uefi_firmware_is_known_where_a_file_names_it(text, uefi):
    (made,) = read_definitions(text.encode(), "file")
    assert made.uefi is uefi
