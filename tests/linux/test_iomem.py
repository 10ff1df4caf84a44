"""``/proc/iomem``: which resources are System RAM, and whose."""

import pytest

from altmap.linux import iomem


def ram(text):
    return [(line.start, line.name) for line in iomem.system_ram(iomem.parse(text))]


def test_system_ram_goes_by_the_flag_and_not_by_the_name():
    # kernel/crash_core.c: crashk_res has IORESOURCE_SYSTEM_RAM; s390x has it beside System RAM.
    text = "00000000-6fffffff : System RAM\n  0f258000-0fcfffff : Kernel code\n"
    text += "70000000-7fffffff : Crash kernel\n80000000-8fffffff : Reserved\n"
    assert ram(text) == [(0, "System RAM"), (0x70000000, "Crash kernel")]


def test_what_lies_inside_system_ram_counts_once():
    text = "00000000-6fffffff : System RAM\n  60000000-6fffffff : Crash kernel\n"
    text += "100000000-1ffffffff : Persistent Memory\n  100000000-1ffffffff : dax0.0\n"
    text += "    100000000-1ffffffff : System RAM (kmem)\n"
    assert ram(text) == [(0, "System RAM"), (0x100000000, "System RAM (kmem)")]


@pytest.mark.parametrize(
    ("parent", "name", "owner"),
    [
        ("dax0.0", "System RAM (kmem)", ("dax0.0", "kmem")),
        # drivers/dax/kmem.c: dev_dax_kmem_probe, 5.1 to 5.7: the name came with 5.8.
        ("dax10.3", "System RAM", ("dax10.3", "kmem")),
        ("virtio2", "System RAM", ("virtio2", "virtio_mem")),
        ("virtio2", "System RAM (virtio_mem)", ("virtio2", "virtio_mem")),
        ("dax0.0x", "System RAM", None),
        ("namespace0.0", "System RAM", None),
    ],
)
def test_memory_inside_a_device_is_its_drivers(parent, name, owner):
    text = f"100000000-1ffffffff : {parent}\n  100000000-17fffffff : {name}\n"
    found = [(each.device, each.driver) for each in iomem.driver_memory(iomem.parse(text))]
    assert found == ([owner] if owner else [])


def test_memory_that_no_device_holds_has_the_drivers_name():
    (found,) = iomem.driver_memory(iomem.parse("100000000-1ffffffff : System RAM (kmem)\n"))
    assert (found.device, found.driver) == ("kmem", "kmem")
    assert not list(iomem.driver_memory(iomem.parse("00000000-1fffffff : System RAM\n")))
