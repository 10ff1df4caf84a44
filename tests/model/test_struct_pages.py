"""machine.struct_page_bytes: what a struct page of another size does to the memmap."""

import pytest

from altmap.errors import InputError
from altmap.model.machine import ModelMachine
from altmap.scenario import Machine, Offline, Plug

MIB = 1 << 20


def guest(arch="x86_64", size=None, block="128MiB", release="6.12", **changes):
    model = ModelMachine.start(
        Machine(
            arch=arch,
            release=release,
            memory="4GiB",
            memmap_on_memory="on",
            auto_online_blocks="online_movable",
            block_size=block,
            struct_page_bytes=size,
            **changes,
        )
    )
    plug = Plug(id="d", driver="kmem", dax="cxl", address="16GiB", size="1GiB", node=0)
    assert model.perform(plug).outcome
    return model


#: A block's memmap must be a multiple of a PMD, 2 MiB with 4 KiB pages: pages * bytes by hand.
@pytest.mark.parametrize(
    ("size", "block", "hosts"),
    [
        (64, "128MiB", True),  # 2 MiB
        (None, "128MiB", True),
        (32, "128MiB", False),  # 1 MiB
        (32, "256MiB", True),  # 2 MiB
        (80, "256MiB", False),  # 5 MiB
        (80, "512MiB", True),  # 10 MiB
        (56, "512MiB", False),  # 7 MiB
        (56, "1GiB", True),  # 14 MiB
        (8, "512MiB", False),  # 1 MiB
        (8, "1GiB", True),  # 2 MiB
    ],
)
@pytest.mark.parametrize("arch", ["x86_64", "aarch64"])
def test_a_memmap_that_is_no_multiple_of_a_pmd_is_not_self_hosted(arch, size, block, hosts):
    model = guest(arch, size, block)
    nr_pages = (1 << 30) * (size or 64) // 4096 // 4096
    assert len(model.kernel.self_hosted) == (nr_pages if hosts else 0)
    forced = ModelMachine.start(Machine(arch=arch, memory="4GiB", struct_page_bytes=size))
    assert forced.kernel.arch.struct_page_size_bytes == (size or 64)


def test_a_smaller_struct_page_takes_less_of_existing_memory():
    free = {}
    for size in (64, 32):
        model = ModelMachine.start(Machine(memory="4GiB", struct_page_bytes=size, release="6.12"))
        before = model.kernel.free_nr_pages()
        assert model.perform(Plug(id="d", size="1GiB", address="16GiB")).outcome
        free[size] = before - model.kernel.free_nr_pages() + 262144
    assert free[64] - free[32] == 16 * MIB // 4096 - 8 * MIB // 4096


@pytest.mark.parametrize(("size", "goes"), [(64, False), (32, False), (80, False), (56, False)])
def test_arm64_since_7_1_offlines_no_small_block_of_any_size(size, goes):
    """Of 64 bytes it hosts its memmap; of others the memmap of a block is not whole leaves."""
    model = guest("aarch64", size, release="7.3")
    assert bool(model.perform(Offline(id="d", part="first")).outcome) is goes
    assert guest("aarch64", size).perform(Offline(id="d", part="first")).outcome


def test_a_size_that_no_kernel_has_is_refused():
    with pytest.raises(InputError, match="struct_page_bytes 63"):
        Machine(struct_page_bytes=63)
