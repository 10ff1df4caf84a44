"""Programs that were not written for the model act on it: util-linux, procps, numactl."""

import json
import shutil
import subprocess

import pytest
from live_machines import MACHINES, NUMA, PC

from altmap.live.machine import LiveMachine
from altmap.live.mounting import mounted

pytestmark = pytest.mark.mount


@pytest.fixture
def on():
    """Return a function that mounts a machine until the test ends."""
    from contextlib import ExitStack

    with ExitStack() as stack:
        yield lambda source, **keys: stack.enter_context(mounted(source, **keys))


def lsmem(*words, run):
    return run("lsmem", "--bytes", "--output-all", "--json", *words)


def run_here(*command):
    return subprocess.run(command, capture_output=True, text=True)


def others_slow(*names):
    """Return parameters of which the first is one of the fast tests; each mounts a machine."""
    return [names[0], *(pytest.param(name, marks=pytest.mark.slow) for name in names[1:])]


@pytest.mark.parametrize("name", others_slow(*(n for n in MACHINES if n != "64TiB")))
def test_lsmem_prints_what_it_prints_of_the_exported_files(name, on, tmp_path):
    expected = LiveMachine.start(MACHINES[name]).model.observe().render()
    expected.write(tmp_path / "root")
    plain = lsmem("--sysroot", str(tmp_path / "root"), run=run_here)
    inside = lsmem(run=on(MACHINES[name]).run)
    assert json.loads(inside.stdout) == json.loads(plain.stdout)
    assert json.loads(inside.stdout)["memory"]
    assert (inside.stderr, inside.returncode) == ("", 0)


def states(machine, *blocks):
    folder = machine.root / "sys/devices/system/memory"
    return [(folder / f"memory{block}/state").read_text().strip() for block in blocks]


def test_chmem_onlines_by_size_range_and_block_and_says_how_far_it_came(on):
    machine = on(PC)
    done = machine.run("chmem", "--enable", "256M", "--zone", "Movable")
    assert (done.stdout, done.stderr, done.returncode) == ("", "", 0)
    assert states(machine, 32, 33, 34) == ["online", "online", "offline"]
    done = machine.run("chmem", "-e", "-b", "34-35")
    assert (done.stderr, done.returncode) == ("", 0)
    done = machine.run("chmem", "-d", "0x0000000118000000-0x000000011fffffff")
    assert (done.stderr, done.returncode) == ("", 0)
    assert states(machine, 34, 35) == ["online", "offline"]
    # Of 2 GiB more, five blocks are offline: that is a partial success, 64.
    done = machine.run("chmem", "-e", "2G")
    assert done.returncode == 64
    assert "Could only enable 640M of memory" in done.stderr
    assert states(machine, *range(32, 40)) == ["online"] * 8


def test_chmem_disables_what_the_kernel_lets_go(on):
    machine = on(PC)
    machine.run("chmem", "-e", "1G", "-z", "Movable")
    zones = machine.root / "sys/devices/system/memory/memory32/valid_zones"
    assert zones.read_text() == "Movable\n"
    done = machine.run("chmem", "-d", "-b", "0")
    assert done.returncode == 1
    assert "failed" in done.stderr
    assert any("memory0/state" in line and "EINVAL" in line for line in machine.log)
    assert machine.run("chmem", "-d", "1G").returncode == 0
    assert states(machine, *range(32, 40)) == ["offline"] * 8


@pytest.mark.parametrize("name", others_slow("power", "s390x", "arm64-16k", "memory-less-node"))
def test_chmem_offlines_and_onlines_a_block_of_every_architecture(name, on):
    here = on(MACHINES[name])
    folder = here.root / "sys/devices/system/memory"
    last = max(int(path.name.removeprefix("memory")) for path in folder.glob("memory*"))
    if states(here, last) == ["offline"]:
        # chmem looks for zones in memory0, which arm64 does not have.
        (folder / f"memory{last}/state").write_text("online_movable")
    assert states(here, last) == ["online"]
    before = total_kib(here)
    done = here.run("chmem", "-d", "-b", str(last))
    assert (done.stderr, done.returncode) == ("", 0)
    size = int((folder / "block_size_bytes").read_text(), 16)
    assert 0.9 < (before - total_kib(here)) * 1024 / size <= 1
    (folder / f"memory{last}/state").write_text("online_movable")
    assert total_kib(here) == before


def total_kib(machine):
    line = (machine.root / "proc/meminfo").read_text().splitlines()[0]
    return int(line.split()[1])


def test_free_and_vmstat_show_the_machine(on):
    machine = on(PC)
    done = machine.run("free", "--kibi")
    assert int(done.stdout.splitlines()[1].split()[1]) == total_kib(machine)
    done = machine.run("vmstat", "-s", "-S", "K")
    assert f"{total_kib(machine)} K total memory" in done.stdout
    done = machine.run("vmstat", "-m")  # /proc/slabinfo is not modelled, and the host's is hidden
    assert done.returncode != 0


def test_no_file_of_the_host_can_be_written(on):
    machine = on(PC)
    script = """
    for path in /proc/sys/vm/drop_caches /proc/sysrq-trigger /sys/devices/system/memory/x; do
        if sh -c "echo 0 > $path" 2>/dev/null; then echo "wrote $path"; fi
    done
    umount /sys 2>/dev/null && echo unmounted
    mount -t sysfs none /mnt 2>/dev/null && echo mounted
    ls /proc/1/root/sys/devices 2>/dev/null && echo escaped
    grep -E 'Cap(Prm|Eff)' /proc/self/status
    """
    done = machine.run("sh", "-c", script)
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == ["CapPrm", "CapEff"]
    for line in lines:
        capabilities = int(line.split()[1], 16)
        assert not any(capabilities >> bit & 1 for bit in (16, 17, 19, 21, 27))


@pytest.mark.skipif(shutil.which("numactl") is None, reason="missing: numactl (Debian: numactl)")
def test_numactl_shows_the_nodes(on):
    machine = on(NUMA)
    done = machine.run("numactl", "--hardware")
    assert done.stdout.startswith("available: 2 nodes (0-1)\n"), done.stdout + done.stderr
    assert "node 1 size: 0 MB" in done.stdout
    machine.run("chmem", "-e", "1G")
    assert "node 1 size: 0 MB" not in machine.run("numactl", "--hardware").stdout
