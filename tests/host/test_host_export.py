"""Numbers for monitoring, read back by Prometheus' own parser."""

import socket
import urllib.request
from collections import Counter
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from altmap.cli.main import main
from altmap.errors import AltmapError
from altmap.host.metrics import METRICS, samples
from altmap.host.prometheus import listen
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
    with listen(f"127.0.0.1:{port}", lambda: list(samples(Observation.read(sysroot)))):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
            assert parsed(answer.read().decode()) == exported(capsys, DIMM)
        taken = pytest.raises(AltmapError, match="Address already in use")
        with taken, listen(f"127.0.0.1:{port}", list):
            pass
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0:9100", "[::]:9100", "10.0.0.1:9100", "localhost:9100", ":9100", "127.0.0.1", "1:2:3",
     "127.0.0.1:99999", "1.2.3:80"],
)  # fmt: skip
def test_no_other_address_is_listened_at(capsys, address):
    assert main(["export", "--prometheus", str(DIMM), "--listen", address]) == 2
    assert "need 127.0.0.1:PORT or [::1]:PORT" in capsys.readouterr().err
