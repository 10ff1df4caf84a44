"""Numbers for monitoring, read back by Prometheus' own parser."""

import socket
import threading
import time
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from altmap.cli.main import main
from altmap.errors import AltmapError, InputError
from altmap.host import scrapes
from altmap.host.metrics import METRICS, samples
from altmap.host.prometheus import prometheus_text
from altmap.host.scrapes import listen
from altmap.linux import memory
from altmap.linux.observation import Observation
from altmap.linux.reading import Reader
from altmap.linux.sysroot import Sysroot

RECORDINGS = Path(__file__).parents[1] / "recordings" / "files"
DIMM = RECORDINGS / "linux-6.12-dimm.tar.xz"


def parsed(text):
    return {
        (sample.name, *(sample.labels[name] for name in METRICS[sample.name][0])): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def exported(capsys, source):
    assert main(["export", "--prometheus", str(source)]) == 0
    return parsed(capsys.readouterr().out)


@pytest.mark.parametrize("name", ["6.1-dimm", "6.12-two-nodes", "7.3-dimm"])
def test_blocks_are_counted_by_state_zone_and_node(capsys, name):
    source = RECORDINGS / f"linux-{name}.tar.xz"
    found = exported(capsys, source)
    blocks = memory.parse(Reader(Sysroot.read(source))).blocks
    expected = Counter()
    for block in blocks.values():
        zone = block.valid_zones[0] if block.state == "online" else ""
        expected["altmap_memory_blocks", block.state, zone, str(block.nodes[0])] += 1
    assert {key: n for key, n in found.items() if key[0] == "altmap_memory_blocks"} == expected
    assert found["altmap_memory_block_size_bytes",] == 128 << 20


def test_the_memmap_is_told_by_placement(capsys):
    found = exported(capsys, DIMM)
    # Eight blocks booted, four are of the DIMM; 2 MiB of struct pages each.
    assert found["altmap_memmap_bytes", "existing"] == 8 * (2 << 20)
    assert found["altmap_memmap_bytes", "self"] == 4 * (2 << 20)
    assert found["altmap_device_current_bytes", "acpi", "PNP0C80:00"] == 512 << 20


def test_what_xen_wants_stands_beside_what_is_there():
    sysroot = Sysroot.read(DIMM)
    base = "sys/devices/system/xen_memory/xen_memory0"
    sysroot.files |= {f"{base}/target_kb": b"2097152\n", f"{base}/info/current_kb": b"1048576\n"}
    sysroot.files |= {f"{base}/info/{name}_kb": b"0\n" for name in ("low", "high")}
    found = {(each.name, *each.labels): each.value for each in samples(Observation.read(sysroot))}
    assert found["altmap_requested_bytes", "xen"] == 2 << 30
    assert found["altmap_current_bytes", "xen"] == 1 << 30
    sysroot.files[f"{base}/target_kb"] = b"-1\n"
    names = {each.name for each in samples(Observation.read(sysroot))}
    assert "altmap_requested_bytes" not in names


def test_every_number_is_of_a_gauge_that_is_described_and_of_no_other_exporter():
    for each in samples(Observation.read(Sysroot.read(DIMM))):
        labels, _ = METRICS[each.name]
        assert len(labels) == len(each.labels)
    assert not any(name.startswith("node_") for name in METRICS)


def test_the_text_file_is_replaced_at_once(tmp_path, capsys):
    target = tmp_path / "altmap.prom"
    target.write_text("old")
    assert main(["export", "--prometheus", str(DIMM), "--textfile", str(target)]) == 0
    assert parsed(target.read_text()) == exported(capsys, DIMM)
    assert [path.name for path in tmp_path.iterdir()] == ["altmap.prom"]


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def test_a_scrape_is_answered_on_the_loopback(capsys):
    port = free_port()
    sysroot = Sysroot.read(DIMM)
    seen = Observation.read(sysroot)
    render = lambda: prometheus_text(lambda: list(samples(seen))).encode()  # noqa: E731
    with listen(f"127.0.0.1:{port}", render) as listening:
        assert listening.address == f"127.0.0.1:{port}"
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            assert parsed(answer.read().decode()) == exported(capsys, DIMM)
        taken = pytest.raises(AltmapError, match="Address already in use")
        with taken, listen(f"127.0.0.1:{port}", bytes):
            pass
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:9100", "[::]:9100", "10.0.0.1:9100", "localhost:9100", ":9100", "127.0.0.1", "1:2:3",
     "127.0.0.1:99999", "1.2.3:80", "127.0.0.2:9100", "[::2]:9100", "[::ffff:127.0.0.1]:9100"],
)  # fmt: skip
def test_no_other_address_is_listened_at(capsys, address):
    assert main(["export", "--prometheus", str(DIMM), "--listen", address]) == 2
    assert "need 127.0.0.1:PORT or [::1]:PORT" in capsys.readouterr().err


@pytest.fixture
def listening():
    with listen("127.0.0.1:0", lambda: b"x 1\n") as found:
        yield found


def connected(listening):
    host, _, port = listening.address.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=30)


def asked(listening):
    """Return the first line of an answer, and its body."""
    with connected(listening) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        raw = b""
        while part := client.recv(1 << 16):
            raw += part
    head, _, body = raw.partition(b"\r\n\r\n")
    return head.split(b"\r\n")[0].decode(), body


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_port_zero_is_any_that_is_free_and_it_is_told(host):
    with listen(f"{host}:0", lambda: b"x 1\n") as found:
        port = int(found.address.removeprefix(f"{host}:"))
        assert port > 0
        with urllib.request.urlopen(f"http://{found.address}/metrics", timeout=60) as answer:
            assert answer.read() == b"x 1\n"


@pytest.mark.parametrize("drips", [False, True], ids=["nothing", "a byte at a time"])
def test_a_request_has_a_time(listening, monkeypatch, drips):
    monkeypatch.setattr(scrapes, "REQUEST_SECONDS", 0.5)
    start = time.monotonic()
    with connected(listening) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\nX: ")
        client.settimeout(0.05)
        while time.monotonic() < start + 20:
            try:
                if drips:
                    client.sendall(b"x")
                if not client.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    assert time.monotonic() < start + 15
    assert asked(listening)[0].endswith("200 OK")


def test_connections_are_bounded_and_the_next_one_is_turned_away(listening):
    before = threading.active_count()
    held = [connected(listening) for _ in range(scrapes.MOST_CONNECTIONS + 30)]
    try:
        answers = [client.recv(1 << 16) for client in held[scrapes.MOST_CONNECTIONS :]]
        assert all(answer.startswith(b"HTTP/1.0 503 ") for answer in answers)
        # A thread and a timer each.
        assert threading.active_count() <= before + 2 * scrapes.MOST_CONNECTIONS
    finally:
        for client in held:
            client.close()
    deadline = time.monotonic() + 20
    while not asked(listening)[0].endswith("200 OK"):
        assert time.monotonic() < deadline


def test_a_source_that_is_gone_is_status_503_in_one_line():
    said = []

    def render():
        raise InputError("x: need\nthis")

    with listen("127.0.0.1:0", render, said.append) as found:
        status, body = asked(found)
    assert (status.split(" ", 1)[1], body) == ("503 Service Unavailable", b"x: need\\nthis\n")
    assert said == ["x: need\\nthis"]
