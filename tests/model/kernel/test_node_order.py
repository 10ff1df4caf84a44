"""Where an allocation for a node goes: the fallback lists that real kernels log."""

from altmap.model.kernel.allocator import allocate
from altmap.model.kernel.zonelists import node_orders
from altmap.model.machine import ModelMachine
from altmap.scenario import parse_scenario


def test_fallback_lists_of_boot_are_as_a_real_kernel_logs_them():
    """Linux 6.12, "Fallback order for Node 0: 0 1 2" and so on; the masks of CPUs come later."""
    assert node_orders(range(4), range(4), ()) == {
        0: [0, 1, 2, 3],
        1: [1, 2, 3, 0],
        2: [2, 3, 0, 1],
        3: [3, 0, 1, 2],
    }


def test_fallback_lists_after_a_zone_came_and_went_are_as_a_real_kernel_logs_them():
    """Node 3 of Linux 6.12 is added without memory, gets a zone of it, and loses it again."""
    assert node_orders([3], range(3), {0}) == {3: [1, 2, 0]}
    assert node_orders(range(4), range(4), {0}) == {
        0: [0, 1, 2, 3],
        1: [1, 2, 3, 0],
        2: [2, 3, 1, 0],
        3: [3, 1, 2, 0],
    }
    assert node_orders(range(4), range(3), {0}) == {
        0: [0, 1, 2],
        1: [1, 2, 0],
        2: [2, 1, 0],
        3: [2, 1, 0],
    }


def test_a_memmap_of_a_node_without_memory_comes_from_the_node_without_a_cpu():
    """Found by drawn scenarios; node 0 was asked before, for its number."""
    text = """
        [machine]
        nodes = [{ memory = "512MiB" }, { memory = "768MiB" }, { memory = "0MiB" }]
        """
    kernel = ModelMachine.start(parse_scenario(text, "three-nodes").machine).kernel
    taken = allocate(kernel, 2, 1024)
    assert taken is not None
    at = [sum(taken.count(z.present) for z in kernel.node_zones(node)) for node in (0, 1)]
    assert at == [0, 1024]
