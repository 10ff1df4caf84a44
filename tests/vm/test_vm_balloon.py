"""Growing by a balloon: memory that was there at boot comes back, and none is added."""

from dataclasses import replace

import pytest
from definitions import GIB, MIB, qemu

from altmap.vm.answers import boot_state, started, way_answer
from altmap.vm.definition import DefinedBalloon

BALLOONED = qemu(8 * GIB, growth=("balloon",), balloon=DefinedBalloon(True, 2 * GIB))


def answer_of(definition, sizes=(), names=(), **keys):
    guest = started(definition, **keys)
    (way,) = guest.ways(names)
    return guest, way_answer(guest, way, sizes)


def test_mem_total_lacks_what_the_balloon_has():
    """``fill_balloon: adjust_managed_page_count(page, -1)``."""
    guest, answer = answer_of(BALLOONED)
    total = boot_state(guest).mem_total_bytes
    assert [row.size_bytes for row in answer.rows] == [2 * GIB, 4 * GIB, 8 * GIB]
    assert [row.mem_total_bytes for row in answer.rows] == [
        total - 6 * GIB,
        total - 4 * GIB,
        total,
    ]


def test_a_balloon_that_deflates_on_oom_leaves_mem_total():
    balloon = DefinedBalloon(True, 2 * GIB, deflate_on_oom=True)
    guest, answer = answer_of(replace(BALLOONED, balloon=balloon))
    state = boot_state(guest)
    assert {row.mem_total_bytes for row in answer.rows} == {state.mem_total_bytes}
    assert answer.rows[0].mem_free_bytes == state.mem_free_bytes - 6 * GIB


@pytest.mark.parametrize(("deflates", "total_kib"), [(False, 904332), (True, 1952908)])
def test_mem_total_is_that_of_a_real_guest_whose_balloon_has_a_gib(deflates, total_kib):
    """Debian's 6.12 in QEMU: ``-M q35 -m 2G,slots=2,maxmem=4G``, QMP ``balloon`` to 1 GiB."""
    balloon = DefinedBalloon(True, GIB, deflate_on_oom=deflates)
    _, answer = answer_of(
        qemu(2 * GIB, max_memory_bytes=4 * GIB, growth=("balloon",), balloon=balloon)
    )
    assert abs(answer.rows[0].mem_total_bytes // 1024 - total_kib) <= 8


def test_nothing_is_added_and_the_memmap_of_all_is_there_from_the_start():
    _, answer = answer_of(BALLOONED)
    for row in answer.rows:
        assert (row.needs_free_bytes, row.memmap_boot_bytes) == (0, 6 * GIB // 64)
        assert row.online_kernel_bytes == row.online_movable_bytes == row.offline_bytes == 0
    assert [row.given.likely for row in answer.rows] == [0, 2 * GIB, 6 * GIB]


def test_sizes_need_be_no_multiple_of_a_block():
    held = replace(BALLOONED, balloon=DefinedBalloon(True, 8 * GIB - 64 * MIB))
    _, answer = answer_of(held)
    assert [row.result for row in answer.rows] == ["ok", "ok"]


def test_a_balloon_returns_no_more_than_it_took():
    _, answer = answer_of(BALLOONED, [2 * GIB, 9 * GIB])
    assert (answer.rows[-1].result, answer.rows[-1].reached_bytes) == ("refused", 8 * GIB)
    assert answer.stops_bytes == 8 * GIB


def test_a_kernel_without_the_driver_keeps_its_size():
    _, answer = answer_of(BALLOONED, config="CONFIG_MEMORY_HOTPLUG=y\n")
    assert (answer.rows[-1].result, answer.stops_bytes) == ("refused", 2 * GIB)
    assert "CONFIG_VIRTIO_BALLOON" in answer.stops


@pytest.mark.parametrize("sizes", [(), (4 * GIB, 16 * GIB)])
def test_a_supposed_balloon_is_in_a_guest_that_boots_with_the_maximum(sizes):
    definition = qemu(4 * GIB, max_memory_bytes=16 * GIB)
    guest, answer = answer_of(definition, sizes, ["balloon"])
    large = boot_state(started(qemu(16 * GIB, max_memory_bytes=None)))
    assert answer.rows[-1].size_bytes == 16 * GIB
    assert answer.rows[-1].mem_total_bytes == large.mem_total_bytes
    assert answer.rows[0].mem_total_bytes == large.mem_total_bytes - 12 * GIB
    assert answer.rows[0].mem_total_bytes < boot_state(guest).mem_total_bytes - 180 * MIB
