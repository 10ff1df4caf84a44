"""The same programs on the model and in a real guest: what they print, and how they end."""

import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import debian
import pytest
from live_machines import PC, scenario
from shell_forms import DAX_FORMS, DAX_STATE_FORMS, FORMS

from altmap.lab import plug_dimm
from altmap.lab.cxl import with_dax_memory
from altmap.lab.cxl_regions import CXL_MODULES, make_cxl_devices
from altmap.lab.guest import Guest
from altmap.lab.hardware import cmdline_of, hardware_of
from altmap.lab.insmod import load_module
from altmap.lab.kernels import fetch
from altmap.lab.kmem import DaxDevices
from altmap.lab.veto import VETO_MODULE
from altmap.live.mounting import mounted
from altmap.scenario import Plug

pytestmark = [pytest.mark.lab, pytest.mark.mount]
#: The first release whose dax devices have a file ``state``.
WITH_STATE = "7.3"
PROGRAMS = (
    *("lsmem", "chmem", "bash", "mount", "awk", "bc", "grep", "mkdir", "rm", "cat", "dd", "head"),
    *("ln", "mknod", "mv", "rmdir", "stat", "touch", "truncate"),
)
#: Every command in the order in which it is run on both.
COMMANDS = (
    "lsmem --bytes --output-all",
    "chmem --enable 256M --zone Movable",
    "lsmem --bytes --split STATE,ZONES --output RANGE,STATE,ZONES",
    "chmem -e -b 34-35",
    "chmem -d 0x0000000118000000-0x000000011fffffff",
    "chmem -v -d -b 34",
    "chmem -e 2G",
    "chmem -d -b 0",
    "chmem -e -b 99",
    "chmem -e 100M",
    "chmem -e -b 32 -z Nowhere",
    "bash -c 'echo bogus > /sys/devices/system/memory/memory32/state'",
    "bash -c 'echo online > /sys/devices/system/memory/memory32/state'",
    "bash -c 'echo 1 > /sys/devices/system/memory/memory32/online'",
    "bash -c 'echo 2 > /sys/devices/system/memory/memory32/online'",
    "bash -c 'echo 1 > /sys/devices/system/memory/memory32/removable'",
    "bash -c 'echo Y > /sys/module/memory_hotplug/parameters/memmap_on_memory'",
    "bash -c 'echo auto > /sys/module/memory_hotplug/parameters/online_policy'",
    "bash -c 'echo -1 > /sys/module/memory_hotplug/parameters/auto_movable_ratio'",
    "bash -c 'echo 0x64 > /sys/module/memory_hotplug/parameters/auto_movable_ratio'",
    "bash -c 'cat /sys/module/memory_hotplug/parameters/*'",
    "bash -c 'echo never > /sys/devices/system/memory/auto_online_blocks'",
    "bash -c 'echo 2 > /sys/firmware/acpi/hotplug/memory/enabled'",
    "bash -c 'echo 64 > /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages'",
    "bash -c 'cat /proc/sys/vm/nr_hugepages'",
    "bash -c 'echo 0 > /proc/sys/vm/nr_hugepages'",
    "bash -c 'echo x > /proc/meminfo'",
    "bash -c 'mkdir /sys/devices/system/memory/memory500'",
    "bash -c 'rm /sys/devices/system/memory/memory32/state'",
    "lsmem --bytes --output-all",
)
#: A dax device of CXL memory, as guests here get it.
CXL_GUEST = scenario(
    "cxl-guest",
    Plug(id="dax0.0", driver="kmem", dax="cxl", address="0x110000000", size="512MiB", node=1),
    platform="q35",
    nodes=[{"memory": "1GiB"}, {"memory": "0MiB"}],
    memmap_on_memory="on",
    auto_online_blocks="offline",
)
DAXCTL = (
    "list --regions --devices --mappings",
    "list --regions --human",
    "online-memory dax0.0",
    "list --device=dax0.0",
    "online-memory dax0.0",
    "reconfigure-device --mode=devdax dax0.0",
    "offline-memory dax0.0",
    "offline-memory dax0.0",
    "online-memory dax0.0",
    "reconfigure-device --mode=devdax --force dax0.0",
    "list",
    "online-memory dax0.0",
    "offline-memory dax0.0",
    "reconfigure-device --mode=devdax dax0.0",
    "reconfigure-device --mode=system-ram --no-online dax0.0",
    "reconfigure-device --mode=system-ram dax0.0",
    "list --mappings",
    "offline-memory all",
    "online-memory dax9.0",
    "list --region=0 --idle",
    "disable-device dax0.0",
    "enable-device dax0.0",
    "destroy-device dax0.0",
    "create-device --region=0",
    # The last: the kernel may allocate in it what keeps it from going offline.
    "online-memory --no-movable dax0.0",
    "list --devices --idle",
)

MONITORS = ("bash", "free", "grep", "numactl", "prometheus-node-exporter", "vmstat")
#: Total memory, as free, vmstat and numactl have it.
SIZE = r"Mem: +(\d+)|(\d+) K total memory|node 0 size: (\d+) MB"
FETCH = "import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())"
EXPORTED = """
prometheus-node-exporter --web.listen-address=127.0.0.1:19178 --collector.disable-defaults \\
    --collector.meminfo --collector.meminfo_numa --collector.vmstat --collector.buddyinfo \\
    >/dev/null 2>&1 &
for _ in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    FETCH http://127.0.0.1:19178/metrics >/tmp/metrics && break
    sleep 1
done 2>/dev/null
kill $!
grep -E "^node_(memory|vmstat|buddyinfo|scrape_collector_success)" /tmp/metrics
"""


def libraries(program):
    done = subprocess.run(["ldd", program], capture_output=True, text=True, check=True)
    return re.findall(r"(/\S+)", done.stdout)


def tree_with(programs, tree):
    """Return a tree for /lib/modules of the guest that holds programs and their libraries."""
    folder = tree / "tools"
    folder.mkdir()
    for name in programs:
        program = shutil.which(name)
        if program is None:
            pytest.skip(f"missing: {name}")
        shutil.copy(Path(program).resolve(), folder / name)
        for library in libraries(program):
            shutil.copy(Path(library).resolve(), folder / Path(library).name)
    return tree


def take_tools(guest):
    guest.run(
        "cp -r /lib/modules/tools /tools; chmod -R +x /tools; mkdir -p /lib64;"
        "cp /tools/ld-linux-x86-64.so.2 /lib64/"
    )
    guest.run("echo offline > /sys/devices/system/memory/auto_online_blocks")


@pytest.fixture
def guest(tmp_path):
    tree = tree_with(PROGRAMS, tmp_path)
    shutil.copy(debian.selftest(), tree / "tools/mem-on-off-test.sh")
    kernel = replace(fetch("6.12"), tree=tree, modules=(VETO_MODULE,))
    with Guest(kernel, hardware_of(PC.machine), cmdline_of(PC.machine)) as running:
        take_tools(running)
        plug_dimm(running, "d1", 1 << 30)
        load_module(running, VETO_MODULE)
        running.run("mount -t debugfs debugfs /sys/kernel/debug")
        yield running


@pytest.fixture(params=["6.12", "7.3"])
def with_cxl(request, tmp_path):
    """A guest with a dax device of CXL memory that kmem has, and the same as a scenario."""
    source = CXL_GUEST.replace(machine=CXL_GUEST.machine.replace(release=request.param))
    hardware = with_dax_memory(hardware_of(source.machine), source.steps)
    kernel = replace(
        fetch(request.param),
        tree=tree_with(("daxctl", "bash", "cat", "readlink"), tmp_path),
        modules=(*CXL_MODULES, "device_dax"),
    )
    with Guest(kernel, hardware, cmdline_of(source.machine)) as running:
        take_tools(running)
        devices = DaxDevices(running, make_cxl_devices(running))
        load_module(running, "device_dax")
        assert devices.plug(source.steps[0])
        running.run("echo 1 > /sys/bus/dax/drivers_autoprobe")
        yield running, source


def in_guest(guest, command, limit_seconds=60.0):
    done = guest.run(
        f"export LD_LIBRARY_PATH=/tools PATH=/tools:/bin; {command} 2>&1", limit_seconds
    )
    return done.status, done.text


def on_model(machine, command):
    done = machine.run("bash", "-c", f"export LC_ALL=C; {command} 2>&1", timeout=300)
    return done.returncode, done.stdout


def parts(status, text):
    """Return a selftest's lines without the numbers of blocks: which go offline is chance."""
    lines = [re.sub(r"memory\d+", "memoryN", line).strip() for line in text.splitlines()]
    return status, {line for line in lines if line and not line.startswith(("->", "/"))}


def test_programs_print_and_exit_on_the_model_as_in_a_guest(guest):
    real = [(command, *in_guest(guest, command)) for command in COMMANDS]
    tested = parts(*in_guest(guest, "bash /tools/mem-on-off-test.sh -r 10", 300.0))
    with mounted(PC) as machine:
        modelled = [(command, *on_model(machine, command)) for command in COMMANDS]
        tested_here = parts(*on_model(machine, f"bash {debian.selftest()} -r 10"))
    assert [pair for pair in zip(modelled, real, strict=True) if pair[0] != pair[1]] == []
    assert tested_here == tested
    assert tested[0] == 0


def test_reads_and_writes_of_any_form_end_on_the_model_as_in_a_guest(guest):
    commands = [f'bash -c "{form}"' for form in FORMS]
    real = [(command, *in_guest(guest, command)) for command in commands]
    with mounted(PC) as machine:
        modelled = [(command, *on_model(machine, command)) for command in commands]
    assert [pair for pair in zip(modelled, real, strict=True) if pair[0] != pair[1]] == []


def apart(command):
    """Return a command that prints its standard error after its output: daxctl buffers one."""
    return f"{command} 2>/tmp/err; s=$?; cat /tmp/err; exit $s"


def test_daxctl_prints_and_exits_on_the_model_as_in_a_guest(with_cxl):
    guest, source = with_cxl
    commands = [f"bash -c '{apart(f'daxctl {words}')}'" for words in DAXCTL]
    real = [(command, *in_guest(guest, command)) for command in commands]
    with mounted(source) as machine:
        modelled = [(command, *on_model(machine, command)) for command in commands]
    assert [pair for pair in zip(modelled, real, strict=True) if pair[0] != pair[1]] == []
    assert "reconfigured 1 device" in "".join(text for *_, text in real)


def test_writes_to_files_of_dax_end_on_the_model_as_in_a_guest(with_cxl):
    guest, source = with_cxl
    forms = DAX_FORMS + (DAX_STATE_FORMS if source.machine.release == WITH_STATE else ())
    commands = [f'bash -c "{form}"' for form in forms]
    real = [(command, *in_guest(guest, command)) for command in commands]
    with mounted(source) as machine:
        modelled = [(command, *on_model(machine, command)) for command in commands]
    assert [pair for pair in zip(modelled, real, strict=True) if pair[0] != pair[1]] == []


@pytest.fixture
def monitored(tmp_path):
    """A guest with what monitors memory, and an interface for it."""
    kernel = replace(fetch("6.12"), tree=tree_with(MONITORS, tmp_path))
    with Guest(kernel, hardware_of(PC.machine), cmdline_of(PC.machine)) as running:
        take_tools(running)
        plug_dimm(running, "d1", 1 << 30)
        running.run("ifconfig lo up")
        yield running


def test_monitors_show_the_sizes_and_names_that_they_show_in_a_guest(monitored):
    """Free pages are others: the guest holds the programs in memory, and has just booted."""
    with mounted(PC) as machine:
        fetch_page = f"{sys.executable} -c '{FETCH}'"
        modelled = monitor(lambda command: on_model(machine, command), fetch_page)
    real = monitor(lambda command: in_guest(monitored, command, 120.0), "wget -q -O -")
    assert modelled == real
    assert len(real[0]) == 3
    assert real[0] != real[1]
    assert "node_memory_MemTotal_bytes" in real[2]


def monitor(run, fetch_page):
    """Return sizes before and after a block goes online, and the names of what is exported."""
    sizes = [sizes_shown(run)]
    assert run("echo online_movable > /sys/devices/system/memory/memory33/state") == (0, "")
    sizes.append(sizes_shown(run))
    status, text = run(EXPORTED.replace("FETCH", fetch_page))
    assert status == 0, text
    return *sizes, {line.rpartition(" ")[0] for line in text.splitlines()}


def sizes_shown(run):
    # busybox has a free of its own, which its shell prefers.
    commands = ("bash -c 'free --kibi'", "vmstat -s", "numactl --hardware")
    shown = [re.search(SIZE, run(command)[1]) for command in commands]
    return [next(filter(None, match.groups())) for match in shown]
