"""Which frames of boot memory are in use: states that differ in nothing else become one."""

from altmap.model.kernel.owners import reassign_boot_frames
from altmap.model.machine import ModelMachine
from altmap.scenario import Fill, Free, Machine, Size

MIB = 1 << 20


def guest(*steps):
    model = ModelMachine.start(Machine(memory=Size(1 << 30)))
    at_boot = model.kernel.used.copy()
    assert all(model.perform(step).outcome for step in steps)
    return model.kernel, at_boot


def kernel_pages(name):
    return Fill(id=name, kind="kernel", size=Size(4 * MIB))


def test_pages_in_use_since_boot_move_to_the_highest_frames_of_their_zone():
    kernel, at_boot = guest(kernel_pages("a"), kernel_pages("b"), Free(id="a"))
    before = kernel.used - at_boot
    assert reassign_boot_frames(kernel, at_boot)
    after = kernel.used - at_boot
    (zone,) = (each for each in kernel.zones.values() if each.present.count(after))
    assert after == (kernel.managed(zone) - at_boot).highest(len(before))
    assert after != before
    assert kernel.kernel_allocations["b"] == after
    assert not reassign_boot_frames(kernel, at_boot)


def test_the_order_of_allocations_does_not_show_after_it():
    one, at_boot = guest(kernel_pages("a"), kernel_pages("b"), Free(id="a"))
    other, _ = guest(kernel_pages("b"))
    reassign_boot_frames(one, at_boot)
    reassign_boot_frames(other, at_boot)
    assert one.used == other.used
    assert one.kernel_allocations["b"] == other.kernel_allocations["b"]
