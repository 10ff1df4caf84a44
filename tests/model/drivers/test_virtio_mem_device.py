"""QEMU's half of virtio-mem: which requests it grants, and what backs memory then."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.errors import InputError
from altmap.model.arch import ARCHES
from altmap.model.drivers.virtio_mem_device import VirtioMemDevice, check_device
from altmap.model.drivers.virtio_mem_wire import (
    Config,
    PlugState,
    Request,
    RequestType,
    Response,
    ResponseType,
)
from altmap.pfn import PfnRange, PfnSet

MIB, GIB = 1 << 20, 1 << 30
ADDR = 4 * GIB
PLUG, UNPLUG, UNPLUG_ALL, STATE = RequestType


class Host:
    """A device of 1 GiB, and what it has said to be backed."""

    def __init__(self, requested=256 * MIB, arch="x86_64"):
        self.backed = PfnSet()
        extent = ARCHES[arch].board.virtio_mem_extent_bytes
        self.device = VirtioMemDevice("vm0", extent, 4096, 2 * MIB, 0, ADDR, GIB, self.back)
        self.device.request_size(requested)

    def back(self, pfns, backed):
        if backed:
            assert not self.backed.count(pfns)
            self.backed |= pfns
        else:
            assert self.backed.covers(pfns)
            self.backed -= pfns

    def ask(self, kind, mib=0, nb_blocks=1):
        raw = Request(kind, ADDR + int(mib * MIB), nb_blocks).encode()
        return Response.decode(self.device.handle(raw))

    @property
    def config(self):
        return Config.decode(self.device.config())


def test_plug_and_unplug_back_and_unback_the_range():
    host = Host()
    assert host.ask(PLUG, 0, 64).type is ResponseType.ACK
    assert host.backed == PfnSet([PfnRange(0x100000, 0x108000)])
    assert host.config.plugged_size == 128 * MIB
    assert host.ask(UNPLUG, 64, 32).type is ResponseType.ACK
    assert host.backed == PfnSet([PfnRange(0x100000, 0x104000)])


@pytest.mark.parametrize(
    ("kind", "mib", "nb_blocks", "answer"),
    [
        (PLUG, 1, 1, ResponseType.ERROR),  # not aligned
        (PLUG, 0, 0, ResponseType.ERROR),  # nothing
        (PLUG, -2, 1, ResponseType.ERROR),  # below the region
        (PLUG, 512, 1, ResponseType.ERROR),  # beyond what is usable
        (PLUG, 510, 2, ResponseType.ERROR),  # across its end
        (PLUG, 16, 8, ResponseType.ERROR),  # some of it is plugged
        (PLUG, 32, 128, ResponseType.NACK),  # more than is requested
        (PLUG, 32, 112, ResponseType.ACK),
        (PLUG, 510, 1, ResponseType.ACK),
        (UNPLUG, 16, 9, ResponseType.ERROR),  # some of it is not plugged
        (UNPLUG, 16, 8, ResponseType.ACK),
        (UNPLUG, 17, 1, ResponseType.ERROR),
    ],
)
def test_each_rule_of_the_device(kind, mib, nb_blocks, answer):
    host = Host()
    assert host.ask(PLUG, 0, 16).type is ResponseType.ACK
    before = host.backed.copy()
    assert host.ask(kind, mib, nb_blocks).type is answer
    assert (host.backed == before) == (answer is not ResponseType.ACK)


def test_states_of_blocks():
    host = Host()
    host.ask(PLUG, 0, 16)
    asked = [host.ask(STATE, 0, 16), host.ask(STATE, 32, 16), host.ask(STATE, 16, 16)]
    assert [a.state for a in asked] == [PlugState.PLUGGED, PlugState.UNPLUGGED, PlugState.MIXED]
    assert host.ask(STATE, 600, 1).type is ResponseType.ERROR


@pytest.mark.parametrize("kind", [PLUG, UNPLUG, UNPLUG_ALL])
def test_a_busy_device_changes_nothing(kind):
    host = Host()
    host.ask(PLUG, 0, 16)
    host.device.busy = True
    assert host.ask(kind, 64 if kind is PLUG else 0).type is ResponseType.BUSY
    assert len(host.backed) == 8192


@pytest.mark.parametrize(
    ("arch", "requested", "usable"),
    [("x86_64", 0, 0), ("x86_64", 2, 258), ("x86_64", 900, 1024), ("aarch64", 2, 1024)],
)
def test_the_usable_region_exceeds_the_request_by_two_sections(arch, requested, usable):
    host = Host(requested * MIB, arch)
    assert host.config.usable_region_size == usable * MIB


def test_the_usable_region_shrinks_only_when_all_is_unplugged():
    host = Host(512 * MIB)
    host.ask(PLUG, 0, 256)
    host.device.request_size(2 * MIB)
    assert host.config.usable_region_size == 768 * MIB
    assert host.ask(UNPLUG_ALL).type is ResponseType.ACK
    assert (host.config.usable_region_size, host.config.plugged_size) == (258 * MIB, 0)
    assert not host.backed


@pytest.mark.parametrize(
    ("size", "words"), [(MIB, "need a multiple of the block"), (2 * GIB, "need at most")]
)
def test_a_size_that_qemu_refuses_changes_nothing(size, words):
    host = Host()
    with pytest.raises(InputError, match=words):
        host.device.request_size(size)
    assert host.config.requested_size == 256 * MIB


@pytest.mark.parametrize(
    ("size", "block", "requested", "words"),
    [
        (GIB, 3 * MIB, 0, "power of two"),
        (GIB, MIB // 2, 0, "at least 1 MiB"),
        (GIB + MIB, 2 * MIB, 0, "size 0x40100000: need a multiple"),
        (GIB, 2 * MIB, MIB, "requested size 0x100000: need a multiple"),
        (GIB, 2 * MIB, 2 * GIB, "need at most the device's size"),
    ],
)
def test_a_device_that_qemu_does_not_create(size, block, requested, words):
    with pytest.raises(InputError, match=words):
        check_device("plug 'vm0'", size, block, requested)


def test_what_is_no_request_is_an_error_as_qemu_s_protocol_violation():
    with pytest.raises(InputError, match="request type 7"):
        Host().device.handle(b"\7" + bytes(23))


@given(
    st.lists(
        st.tuples(
            st.sampled_from([PLUG, PLUG, UNPLUG, UNPLUG_ALL, STATE]),
            st.integers(-2, 300).map(lambda n: n * 2),
            st.integers(0, 200),
        ),
        max_size=30,
    )
)
def test_a_twin_with_one_flag_per_block_agrees(requests):
    host, plugged = Host(256 * MIB), set()
    for kind, mib, nb_blocks in requests:
        blocks = set(range(mib // 2, mib // 2 + nb_blocks))
        fits = nb_blocks and mib >= 0 and mib // 2 + nb_blocks <= 256
        if kind is UNPLUG_ALL:
            want, plugged = ResponseType.ACK, set()
        elif not fits:
            want = ResponseType.ERROR
        elif kind is STATE:
            want = ResponseType.ACK
        elif kind is PLUG and len(plugged) + nb_blocks > 128:
            want = ResponseType.NACK
        elif blocks & plugged if kind is PLUG else blocks - plugged:
            want = ResponseType.ERROR
        else:
            want = ResponseType.ACK
            plugged = plugged | blocks if kind is PLUG else plugged - blocks
        assert host.ask(kind, mib, nb_blocks).type is want
        assert host.backed == PfnSet(
            PfnRange(0x100000 + b * 512, 0x100000 + (b + 1) * 512) for b in plugged
        )
        assert host.config.plugged_size == len(plugged) * 2 * MIB
