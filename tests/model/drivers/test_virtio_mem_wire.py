"""virtio-mem's messages: the kernel's own structs, written down once more, say what is right."""

import ctypes
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from altmap.errors import InputError
from altmap.model.drivers.virtio_mem_wire import (
    Config,
    Feature,
    PlugState,
    Request,
    RequestType,
    Response,
    ResponseType,
)

MIB = 1 << 20


# include/uapi/linux/virtio_mem.h, field by field.
class KernelRequest(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = (
        ("type", ctypes.c_uint16),
        ("padding", ctypes.c_uint16 * 3),
        ("addr", ctypes.c_uint64),
        ("nb_blocks", ctypes.c_uint16),
        ("more", ctypes.c_uint16 * 3),
    )


class KernelResponse(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = (
        ("type", ctypes.c_uint16),
        ("padding", ctypes.c_uint16 * 3),
        ("state", ctypes.c_uint16),
    )


class KernelConfig(ctypes.LittleEndianStructure):
    _pack_ = 1
    _fields_ = (
        ("block_size", ctypes.c_uint64),
        ("node_id", ctypes.c_uint16),
        ("padding", ctypes.c_uint8 * 6),
        ("addr", ctypes.c_uint64),
        ("region_size", ctypes.c_uint64),
        ("usable_region_size", ctypes.c_uint64),
        ("plugged_size", ctypes.c_uint64),
        ("requested_size", ctypes.c_uint64),
    )


SIZES = {KernelRequest: 24, KernelResponse: 10, KernelConfig: 56}
CONFIG_FIELDS = (
    "block_size",
    "node_id",
    "addr",
    "region_size",
    "usable_region_size",
    "plugged_size",
    "requested_size",
)
configs = st.builds(
    lambda shift, node, addr, parts: Config(
        1 << shift, node, addr << shift, *(part << shift for part in (max(parts), *parts))
    ),
    st.integers(20, 30),
    st.integers(0, 0xFFFF),
    st.integers(0, 1 << 20),
    st.lists(st.integers(0, 1 << 20), min_size=3, max_size=3),
)
requests = st.builds(
    Request,
    st.sampled_from([RequestType.PLUG, RequestType.UNPLUG, RequestType.STATE]),
    st.integers(0, (1 << 64) - 1),
    st.integers(0, 0xFFFF),
) | st.just(Request(RequestType.UNPLUG_ALL))
responses = st.builds(Response, st.sampled_from(ResponseType), st.sampled_from(PlugState))


def test_the_structs_have_the_kernel_s_sizes():
    assert {struct: ctypes.sizeof(struct) for struct in SIZES} == SIZES


def test_a_plug_request_by_hand():
    raw = Request(RequestType.PLUG, 0x1_0000_0000, 64).encode()
    assert raw.hex(" ", 8) == "0000000000000000 0000000001000000 4000000000000000"


def test_a_mixed_state_by_hand():
    assert (
        Response(ResponseType.ACK, PlugState.MIXED).encode().hex()
        == "0000" + "000000000000" + "0200"
    )


def test_the_feature_bits():
    assert [(f.name, f.value) for f in Feature] == [
        ("ACPI_PXM", 1),
        ("UNPLUGGED_INACCESSIBLE", 2),
        ("PERSISTENT_SUSPEND", 4),
    ]


@given(requests)
def test_requests_are_the_kernel_s(request):
    theirs = KernelRequest.from_buffer_copy(request.encode())
    assert (theirs.type, theirs.addr, theirs.nb_blocks) == (
        request.type,
        request.addr,
        request.nb_blocks,
    )
    assert [*theirs.padding, *theirs.more] == [0] * 6
    assert Request.decode(bytes(theirs)) == request


@given(responses)
def test_responses_are_the_kernel_s(response):
    theirs = KernelResponse.from_buffer_copy(response.encode())
    assert (theirs.type, theirs.state, [*theirs.padding]) == (
        response.type,
        response.state,
        [0] * 3,
    )
    assert Response.decode(bytes(theirs)) == response


@given(configs)
def test_configs_are_the_kernel_s(config):
    theirs = KernelConfig.from_buffer_copy(config.encode())
    assert all(getattr(theirs, name) == getattr(config, name) for name in CONFIG_FIELDS)
    assert bytes(theirs.padding) == bytes(6)
    assert Config.decode(bytes(theirs)) == config


@pytest.mark.parametrize("message", [Config, Request, Response])
@given(raw=st.binary(max_size=64))
def test_any_bytes_are_a_message_or_one_clear_error(message, raw):
    decoded, complaint = None, ""
    try:
        decoded = message.decode(raw)
    except InputError as error:
        complaint = str(error)
    if decoded is None:
        assert re.fullmatch(r"[^\n]*(need|ends above)[^\n]*", complaint)
    else:
        assert message.decode(decoded.encode()) == decoded


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"block_size": 3 * MIB}, "block_size 0x300000: need a power of two"),
        ({"block_size": 0}, "block_size 0x0: need a power of two"),
        ({"addr": MIB}, "addr 0x100000: need a multiple of the block size 0x200000"),
        ({"requested_size": 34 * MIB}, "requested_size 0x2200000: need at most the region size"),
        ({"plugged_size": 34 * MIB}, "plugged_size 0x2200000: need at most the region size"),
        ({"node_id": 1 << 16}, "node_id 0x10000: need 0 to"),
        ({"addr": (1 << 64) - 2 * MIB}, "ends above 64 bits"),
    ],
)
def test_a_config_that_breaks_a_rule_is_refused_in_both_directions(change, words):
    good = dict(zip(CONFIG_FIELDS, (2 * MIB, 0, 4 << 30, 32 * MIB, 0, 0, 0), strict=True))
    with pytest.raises(InputError, match=words):
        Config(**good | change).encode()
    if change.get("node_id", 0) < 1 << 16:
        with pytest.raises(InputError, match=words):
            Config.decode(bytes(KernelConfig(**good | change)))


@pytest.mark.parametrize(
    ("message", "raw", "words"),
    [
        (Request, bytes(23), "request of 23 bytes: need 24"),
        (Response, bytes(11), "response of 11 bytes: need 10"),
        (Config, b"", "config of 0 bytes: need 56"),
        (Request, b"\4" + bytes(23), r"request type 4: need one of 0 \(PLUG\)"),
        (Response, b"\4" + bytes(9), r"response type 4: need one of 0 \(ACK\)"),
        (Response, bytes(8) + b"\3\0", "response state 3: need one of"),
    ],
)
def test_what_is_no_message_is_named(message, raw, words):
    with pytest.raises(InputError, match=words):
        message.decode(raw)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (Request(RequestType.PLUG, 1 << 64, 1), "addr"),
        (Request(RequestType.PLUG, 0, 1 << 16), "nb_blocks 0x10000"),
        (Request(RequestType.PLUG, -1, 1), "addr -0x1"),
    ],
)
def test_a_value_that_does_not_fit_its_field_is_refused(request_, words):
    with pytest.raises(InputError, match=words):
        request_.encode()
