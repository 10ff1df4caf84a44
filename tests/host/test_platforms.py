"""How memory is added follows from what the machine runs on, or is called a guess."""

from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.errors import InputError
from altmap.host.anonymous import anonymous
from altmap.host.mechanisms import WAYS
from altmap.host.planner_add import PlugWish, plan_add, plan_grow
from altmap.host.platforms import PLATFORMS, platform_of
from altmap.linux.sysroot import Sysroot

DIMM = Path(__file__).parents[1] / "recordings/files/linux-6.12-dimm.tar.xz"
MS = "Microsoft Corporation\n"
DMI = "sys/devices/virtual/dmi/id"
TREE = "sys/firmware/devicetree/base"
MIB = 1 << 20
VM00 = "LPAR Number:          12\nVM00 Control Program: {}\n"

#: Files as real machines have them, and what they run on.
SHOWN = [
    ({f"{DMI}/sys_vendor": "QEMU\n", f"{DMI}/product_name": "Standard PC (Q35)\n"}, "QEMU"),
    ({f"{DMI}/sys_vendor": "Red Hat\n", f"{DMI}/product_name": "KVM\n"}, "QEMU"),
    (
        {
            f"{DMI}/sys_vendor": MS,
            f"{DMI}/product_name": "Virtual Machine\n",
        },
        "Hyper-V",
    ),
    (
        {
            f"{DMI}/sys_vendor": MS,
            f"{DMI}/product_name": "Virtual Machine\n",
            f"{DMI}/chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77\n",
        },
        "an Azure virtual machine",
    ),
    ({f"{DMI}/sys_vendor": "VMware, Inc.\n", f"{DMI}/product_name": "VMware7,1\n"}, "VMware"),
    ({"sys/hypervisor/type": "xen\n"}, "Xen"),
    ({f"{DMI}/sys_vendor": "Xen\n", f"{DMI}/product_name": "HVM domU\n"}, "Xen"),
    (
        {f"{DMI}/sys_vendor": "Amazon EC2\n", f"{DMI}/product_name": "m5.large\n"},
        "an Amazon EC2 in",
    ),
    (
        {f"{DMI}/sys_vendor": "Google\n", f"{DMI}/product_name": "Google Compute Engine\n"},
        "a Google Compute Engine",
    ),
    (
        {f"{DMI}/sys_vendor": "OpenStack Foundation\n", f"{DMI}/product_name": "OpenStack Nova\n"},
        "an OpenStack",
    ),
    (
        {f"{DMI}/sys_vendor": "innotek GmbH\n", f"{DMI}/product_name": "VirtualBox\n"},
        "a VirtualBox",
    ),
    ({f"{DMI}/sys_vendor": "Cloud Hypervisor\n"}, "Cloud Hypervisor"),
    (
        {"proc/cmdline": "console=ttyS0 pci=off root=/dev/vda virtio_mmio.device=4K@0xd0000:5\n"},
        "Firecracker",
    ),
    ({f"{TREE}/compatible": "IBM,9009-42A\0IBM,pSeries\0"}, "PowerVM"),
    ({"proc/ppc64/lparcfg": "lparcfg 1.9\npartition_id=3\n"}, "PowerVM"),
    ({f"{TREE}/compatible": "qemu,pseries\0IBM,pSeries\0"}, "QEMU"),
    ({f"{TREE}/model": "IBM pSeries (emulated by qemu)\0"}, "QEMU"),
    ({f"{TREE}/compatible": "linux,dummy-virt\0"}, "QEMU"),
    ({f"{TREE}/compatible": "ibm,powernv\0ibm,p9-openbmc\0"}, "PowerNV"),
    ({"proc/sysinfo": VM00.format("z/VM    7.2.0")}, "z/VM"),
    ({"proc/sysinfo": VM00.format("KVM/Linux")}, "KVM on s390x"),
    ({"proc/sysinfo": "Manufacturer: IBM\nLPAR Number:          12\n"}, "an LPAR"),
    ({f"{DMI}/sys_vendor": "Dell Inc.\n", f"{DMI}/product_name": "PowerEdge\n"}, "an unknown"),
    (
        {f"{DMI}/sys_vendor": MS, f"{DMI}/product_name": "Surface\n"},
        "an unk",
    ),
    ({}, "an unknown"),
]


def with_files(texts):
    made = Sysroot.read(DIMM)
    made.files |= {path: text.encode() for path, text in texts.items()}
    return made


@pytest.mark.parametrize(("texts", "name"), SHOWN)
def test_a_platform_is_known_by_the_files_that_it_shows_itself_in(texts, name):
    found = platform_of(Sysroot({path: text.encode() for path, text in texts.items()}))
    assert found.platform.name.startswith(name)
    assert bool(found.ground) == bool(texts)


@pytest.mark.parametrize(("texts", "name"), SHOWN)
def test_an_anonymous_snapshot_keeps_what_names_the_platform_and_no_more(texts, name):
    made = anonymous(with_files(texts))
    assert platform_of(made).platform.name.startswith(name)
    kept = b" ".join(raw for path, raw in made.files.items() if path in texts)
    assert b"m5.large" not in kept
    assert b"9009" not in kept
    assert b"Dell" not in kept


def test_every_platform_is_shown_above_and_has_a_way_or_a_reason():
    names = {
        platform_of(Sysroot({path: text.encode() for path, text in texts.items()})).platform.name
        for texts, _ in SHOWN
    }
    unseen = {platform.name for platform in PLATFORMS} - names
    assert len(unseen) <= 6, unseen  # clouds that are known by their vendor alone
    for platform in PLATFORMS:
        assert bool(platform.cannot) != (platform.driver in WAYS)


CANNOT = [texts for texts, name in SHOWN if name.startswith(("a ", "an A", "an O", "PowerNV"))]


@pytest.mark.parametrize("texts", CANNOT)
def test_what_cannot_grow_while_it_runs_is_said_with_its_ground(texts):
    with pytest.raises(InputError, match=r"\(.*: .*\) cannot be grown while it runs: "):
        plan_add(with_files(texts), PlugWish(512 * MIB))
    assert plan_add(with_files(texts), PlugWish(512 * MIB, "dimm")).steps


def test_offline_blocks_of_such_a_machine_come_online_all_the_same():
    ec2 = with_files({f"{DMI}/sys_vendor": "Amazon EC2\n"})
    assert [step.value for step in plan_grow(ec2, 1536 * MIB, PlugWish(1)).steps] == ["online"] * 2
    assert main(["plan", "add", "512MiB", "--from", str(DIMM)]) == 0


def test_memory_comes_to_a_guest_of_hyper_v_by_its_balloon():
    hyperv = with_files({f"{DMI}/product_name": "Virtual Machine\n"})
    plan = plan_add(hyperv, PlugWish(512 * MIB))
    (step,) = [step for step in plan.steps if step.by == "platform"]
    assert "(hyperv hyperv1)" in step.title
    assert "a guess: only the platform knows the address" in step.title
    assert "Hyper-V host" in step.who
    assert "QEMU" not in step.who
    assert any(f"Hyper-V by {DMI}/product_name" in note for note in plan.notes)
    (told,) = (
        step
        for step in plan_add(hyperv, PlugWish(512 * MIB, address=8 << 30)).steps
        if step.by == "platform"
    )
    assert "guess" not in told.title


@pytest.mark.parametrize("vendor", ["Dell Inc.", ""])
def test_an_unknown_platform_makes_way_and_address_a_guess(vendor):
    plan = plan_add(with_files({f"{DMI}/sys_vendor": vendor}), PlugWish(512 * MIB))
    assert "a guess" in plan.steps[0].title
    (note,) = (note for note in plan.notes if "is a guess" in note)
    assert (vendor in note) if vendor else ("no file names the platform" in note)


def test_qemu_places_memory_as_the_model_does():
    plan = plan_add(with_files({f"{DMI}/sys_vendor": "QEMU\n"}), PlugWish(512 * MIB))
    assert "guess" not in plan.steps[0].title + " ".join(plan.notes)
    assert "at 0x120000000" in plan.steps[0].title
