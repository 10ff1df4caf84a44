import errno

import pytest

from altmap.lab import plug_dimm, unplug_dimm, write_block_state, write_file

pytestmark = pytest.mark.lab

BLOCK_BYTES = 128 << 20


@pytest.fixture(scope="module")
def block(guest):
    """An offline block of a DIMM."""
    block_id = plug_dimm(guest, "d1", BLOCK_BYTES).address // BLOCK_BYTES
    yield block_id
    assert unplug_dimm(guest, "d1").removed


def test_refusals_are_errnos(guest, block):
    assert write_block_state(guest, block, "sideways") == errno.EINVAL
    assert write_block_state(guest, block + 1, "online") == errno.ENOENT
    assert write_block_state(guest, 0, "offline") == errno.EINVAL  # has holes


def test_block_goes_online_and_offline_again_and_again(guest, block):
    for _ in range(3):
        assert write_block_state(guest, block, "online_movable") == 0
        assert write_block_state(guest, block, "online_movable") == errno.EINVAL
        assert write_block_state(guest, block, "offline") == 0


def test_log_holds_only_what_the_last_step_added(guest, block):
    assert write_block_state(guest, block, "online_movable") == 0
    guest.kernel_log()
    assert write_block_state(guest, block, "offline") == 0
    assert any("Offlined Pages" in line for line in guest.kernel_log())
    assert guest.kernel_log() == []


def test_other_control_files_are_written_alike(guest):
    assert write_file(guest, "/proc/sys/vm/overcommit_memory", "7") == errno.EINVAL
    assert write_file(guest, "/proc/version", "x") != 0


def test_write_that_never_ends_is_interrupted(guest):
    guest.run("mkfifo /tmp/pipe")  # opening it for writing waits for a reader
    assert write_file(guest, "/tmp/pipe", "x", limit_seconds=1) == errno.EINTR
