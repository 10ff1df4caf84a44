"""The worked example of docs/live.md, and further programs: a udev rule, an agent, monitoring."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import debian
import pytest
from live_machines import CXL, MACHINES, NUMA, PC, POWER, S390X

import altmap
from altmap import Machine, Offline, Plug, Scenario, SetTunables
from altmap.live.mounting import mounted

pytestmark = pytest.mark.mount
ROOT = Path(__file__).parents[2]
RULE = ROOT / "examples/live/40-memory-online.rules"
AGENT = ROOT / "examples/live/online-agent.sh"
MEMORY = "sys/devices/system/memory"

#: A mount namespace in which only the rule is in /run; nothing of the host is written.
UDEV = """
set -e
mount -t tmpfs none /run
mkdir -p /run/udev/rules.d
cp "$1" /run/udev/rules.d/
shift
exec env SYSTEMD_DEVICE_VERIFY_SYSFS=0 "$@"
"""


def offline_blocks(machine):
    states = sorted((machine.root / MEMORY).glob("memory*/state"))
    return [path.parent.name for path in states if path.read_text() == "offline\n"]


@pytest.mark.parametrize(
    "source",
    [POWER, *(pytest.param(source, marks=pytest.mark.slow) for source in (S390X, CXL))],
    ids=lambda each: each.name,
)
def test_the_agent_onlines_every_block_and_names_what_is_refused(source):
    with mounted(source) as machine:
        if source is POWER:  # its kernel onlines what is plugged by itself
            machine.perform(Offline(id="d1"))
        blocks = offline_blocks(machine)
        assert len(blocks) > 3
        done = machine.run(str(AGENT))
        assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
        assert offline_blocks(machine) == []
        machine.perform(Offline(blocks=blocks[0]), altmap.Veto(on="going_online", errno="EPERM"))
        done = machine.run(str(AGENT))
        assert (done.stderr, done.returncode) == (f"{blocks[0]} was refused\n", 1)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a rule in a namespace of its own")
@pytest.mark.parametrize("source", [POWER, S390X, CXL], ids=lambda each: each.name)
def test_udev_applies_the_rule_to_a_block(source, tmp_path):
    udevadm = debian.udevadm()
    with mounted(source) as machine:
        if source is POWER:
            machine.perform(Offline(id="d1"))
        block = offline_blocks(machine)[-1]
        command = (udevadm, "test", "--action=add", f"/sys/devices/system/memory/{block}")
        inside = (sys.executable, "-m", "altmap.live.inside", str(machine.root), "1")
        outside = ("unshare", "--mount", "--propagation", "private", "sh", "-c", UDEV, "sh")
        done = subprocess.run(
            [*outside, str(RULE), *inside, *command], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "writing 'online_movable'" in done.stderr
        assert (machine.root / MEMORY / block / "state").read_text() == "online\n"
        assert (machine.root / MEMORY / block / "valid_zones").read_text() == "Movable\n"
    assert not Path("/run/udev/rules.d", RULE.name).exists()


@pytest.mark.skipif(
    shutil.which("prometheus-node-exporter") is None,
    reason="missing: prometheus-node-exporter (Debian: prometheus-node-exporter)",
)
@pytest.mark.parametrize(
    "source",
    [NUMA, *(pytest.param(source, marks=pytest.mark.slow) for source in (PC, POWER))],
    ids=lambda each: each.name,
)
def test_node_exporter_exports_the_machines_numbers(source, tmp_path):
    script = """
    prometheus-node-exporter --web.listen-address=127.0.0.1:19177 --collector.disable-defaults \\
        --collector.meminfo --collector.meminfo_numa --collector.vmstat --collector.buddyinfo \\
        >/dev/null 2>&1 &
    exporter=$!
    "$1" -c '
import time, urllib.request
for _ in range(100):
    try:
        print(urllib.request.urlopen("http://127.0.0.1:19177/metrics").read().decode())
        break
    except OSError:
        time.sleep(0.1)
'
    kill $exporter
    """
    with mounted(source) as machine:
        done = machine.run("sh", "-c", script, "sh", sys.executable, timeout=60)
        lines = (machine.root / "proc/meminfo").read_text().splitlines()
    rows = [line.rsplit(" ", 1) for line in done.stdout.splitlines() if line[:1] not in ("#", "")]
    shown = {row[0]: row[1] for row in rows}
    for line in lines:
        name, number, *unit = line.replace("(", "_").replace(")", "").split()
        key = f"node_memory_{name.rstrip(':')}" + ("_bytes" if unit else "")
        assert float(shown[key]) == int(number) * (1024 if unit else 1), key
    for collector in ("meminfo", "meminfo_numa", "vmstat", "buddyinfo"):
        assert shown[f'node_scrape_collector_success{{collector="{collector}"}}'] == "1"


@pytest.mark.skipif(shutil.which("daxctl") is None, reason="missing: daxctl (Debian: daxctl)")
def test_daxctl_lists_the_device_and_the_region():
    with mounted(CXL) as machine:
        done = machine.run("daxctl", "list", "--regions", "--devices")
    (region,) = json.loads(done.stdout)
    (device,) = region["devices"]
    assert (region["id"], region["size"]) == (0, 2 << 40)
    assert (device["chardev"], device["size"], device["mode"]) == ("dax0.0", 2 << 40, "system-ram")
    assert (device["online_memblocks"], device["total_memblocks"]) == (0, 1024)


@pytest.mark.skipif(shutil.which("daxctl") is None, reason="missing: daxctl (Debian: daxctl)")
def test_daxctl_onlines_offlines_and_reconfigures_without_loading_modules():
    cxl = Plug(id="c", driver="kmem", dax="cxl", size="1GiB", address="0x2000000000")
    machine = Machine(release="6.12", memory="2GiB", auto_online_blocks="offline")
    with mounted(Scenario(name="dax", machine=machine, steps=[cxl])) as here:

        def daxctl(*words):
            done = here.run("daxctl", *words, "dax0.0")
            assert done.returncode == 0, done.stderr
            (device,) = json.loads(here.run("daxctl", "list").stdout)
            return device["mode"], device.get("online_memblocks")

        assert daxctl("online-memory") == ("system-ram", 8)
        assert (here.root / f"{MEMORY}/memory1024/valid_zones").read_text() == "Movable\n"
        assert daxctl("offline-memory") == ("system-ram", 0)
        assert daxctl("reconfigure-device", "--mode=devdax") == ("devdax", None)
        assert not (here.root / f"{MEMORY}/memory1024").exists()
        assert daxctl("reconfigure-device", "--mode=system-ram", "--no-online") == ("system-ram", 0)


def test_a_node_of_a_dax_device_cannot_be_opened_and_the_hosts_others_can():
    with mounted(CXL) as machine:
        kind = machine.run("stat", "-c", "%F %Hr:%Lr", "/dev/dax0.0").stdout
        assert kind == "character special file 251:0\n"
        assert machine.run("sh", "-c", "cat < /dev/dax0.0").returncode != 0
        assert machine.run("sh", "-c", "echo > /dev/null").returncode == 0
        assert machine.run("sh", "-c", "touch /dev/new && ls /dev/shm").returncode == 0
    assert not Path("/dev/new").exists()
    assert not Path("/dev/dax0.0").exists()


@pytest.mark.slow
def test_the_fixture_of_the_plugin_mounts_until_a_test_ends(tmp_path):
    (tmp_path / "test_agent.py").write_text(
        "from altmap import Machine, Plug, Scenario\n"
        "POWER = Scenario(name='power', machine=Machine(arch='ppc64le', memory='2GiB'),\n"
        "    steps=[Plug(id='d', size='512MiB')])\n"
        "ROOTS = []\n"
        "def test_it(altmap_machine):\n"
        "    machine = altmap_machine(POWER)\n"
        "    ROOTS.append(machine.root)\n"
        "    assert machine.perform(Plug(id='more', size='512MiB')) == ['ok']\n"
        "    assert 'offline' not in machine.run('lsmem', '--summary=never').stdout\n"
        "def test_it_is_unmounted():\n"
        "    assert not ROOTS[0].exists()\n"
    )
    entries = list(altmap_entries())
    plugin = [] if entries else ["-p", "altmap.live.plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *plugin, str(tmp_path), "-p", "no:cacheprovider"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert "2 passed" in done.stdout, done.stdout + done.stderr


def altmap_entries():
    from importlib.metadata import entry_points

    return entry_points(group="pytest11", name="altmap")


def test_tunables_are_steps_of_the_platform_too():
    with mounted(MACHINES["pc-1GiB"]) as machine:
        assert machine.perform(SetTunables(auto_online_blocks="online_movable")) == ["ok"]
        text = (machine.root / MEMORY / "auto_online_blocks").read_text()
    assert text == "online_movable\n"
