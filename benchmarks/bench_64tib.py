"""64 TiB plugged and onlined on the model, beside what hardware and a real kernel would take.

    python benchmarks/bench_64tib.py [--no-lab] [--json]

Three measurements of one run, so that their ratios mean something:

model
    Hot-add and online of 64 TiB in blocks of 128 MiB with a memmap in each; time and peak memory of
    a process of its own, and a check that every page is accounted for.
boot
    A machine that boots with 4 PiB, of which x86_64 uses 64 TiB, beside one that gets 64 TiB
    plugged: until every file is observed, page flags included. Each page is accounted for.
memset
    The memmap of 64 TiB is 1 TiB that a kernel must write. Measured: ``fill`` of 512 MiB that were
    touched before.
kernel
    Linux 6.12 in QEMU plugs and onlines a DIMM: from the request until the guest reports ``_OST``.

What is not 64 TiB is extrapolated linearly. Targets are for the model: loops of Python
(``yardstick.py``), and memory.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from yardstick import loop_seconds

from altmap.errors import AltmapError
from altmap.model.machine import ModelMachine
from altmap.scenario import Machine, Plug, Size

RUNS = 5
TARGET_LOOPS, TARGET_MB = 8, 150
#: Of boot and plug with all files.
TARGET_FILES_LOOPS, TARGET_FILES_MB = 20, 300
GIB, TIB = 1 << 30, 1 << 40
ADDED_BYTES = 64 * TIB
PAGE_BYTES, STRUCT_PAGE_BYTES, BLOCK_BYTES = 4096, 64, 128 << 20
MEMMAP_BYTES = ADDED_BYTES // PAGE_BYTES * STRUCT_PAGE_BYTES
MEMSET_BYTES = 512 << 20
LAB_RELEASE, LAB_DIMMS, LAB_DIMM_BYTES = "6.12", 3, 2 * GIB


# --- model ---------------------------------------------------------------------------------


def run_model() -> dict[str, float]:
    """Add and online 64 TiB in this process."""
    machine = Machine(
        arch="x86_64-la57",
        memory=Size(64 * GIB),
        memmap_on_memory="on",
        auto_online_blocks="online",
        block_size=Size(BLOCK_BYTES),
    )
    model = ModelMachine.start(machine, pages=False)
    before = count(model)
    started = time.process_time()
    record = model.perform(Plug(size=Size(ADDED_BYTES), id="d"))
    seconds = time.process_time() - started
    peak_mb = peak_bytes() / 1e6
    if not record.outcome:
        raise SystemExit(f"the plug was not done: {record.outcome}")
    check(before, count(model))
    return {"seconds": seconds, "peak_mb": peak_mb}


def run_files(how: str) -> dict[str, float]:
    """Boot with 64 TiB, or plug them, and observe every file, in this process."""
    started = time.process_time()
    if how == "boot":
        model = ModelMachine.start(Machine(memory=Size(1 << 52)))
    else:
        machine = Machine(
            arch="x86_64-la57",
            memory=Size(64 * GIB),
            memmap_on_memory="on",
            auto_online_blocks="online",
        )
        model = ModelMachine.start(machine)
        if not model.perform(Plug(size=Size(ADDED_BYTES), id="d")).outcome:
            raise SystemExit("the plug was not done")
    model.observe()
    seconds = time.process_time() - started
    kernel, counts = model.kernel, count(model)
    held = counts["free"] + counts["in use"] + len(kernel.reserved) + counts["memmap"]
    if held != counts["present"] or counts["present"] * PAGE_BYTES < ADDED_BYTES - 2 * GIB:
        raise SystemExit(f"pages are lost: {held} of {counts['present']}")
    return {"seconds": seconds, "peak_mb": peak_bytes() / 1e6}


def count(model: ModelMachine) -> dict[str, int]:
    kernel = model.kernel
    zones = list(kernel.zones.values())
    return {
        "present": sum(kernel.nr_present(zone) for zone in zones),
        "managed": sum(kernel.nr_managed(zone) for zone in zones),
        "free": sum(kernel.nr_free(zone) for zone in zones),
        "in use": len(kernel.used),
        "memmap": len(kernel.self_hosted),
        "blocks online": len(kernel.online_blocks),
    }


def check(before: dict[str, int], after: dict[str, int]) -> None:
    """End the program unless every added page is accounted for."""
    gained = {name: after[name] - before[name] for name in after}
    nr_pages, nr_memmap = ADDED_BYTES // PAGE_BYTES, MEMMAP_BYTES // PAGE_BYTES
    for claim, left, right in (
        ("present = pages added", gained["present"], nr_pages),
        ("memmap = 64 bytes for each page", gained["memmap"], nr_memmap),
        ("managed + memmap = present", gained["managed"] + gained["memmap"], gained["present"]),
        ("free + in use = managed", gained["free"] + gained["in use"], gained["managed"]),
        ("every block is online", gained["blocks online"], ADDED_BYTES // BLOCK_BYTES),
    ):
        if left != right:
            raise SystemExit(f"pages are lost: {claim}: {left} != {right}")


def peak_bytes() -> int:
    """Return this process's VmHWM, which is 0 at the start of a program (unlike ru_maxrss)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def bench_model(what: str = "online") -> dict[str, float]:
    """Run the model in fresh processes and return the medians."""
    command = [sys.executable, __file__, "--model-only", what]
    runs = [
        json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        for _ in range(RUNS)
    ]
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


# --- memset and kernel ---------------------------------------------------------------------


def bench_memset() -> dict[str, float]:
    """Return the time to write 1 TiB of memmap, from the median of fills that fault no page in."""
    import numpy as np

    memory = np.empty(MEMSET_BYTES, np.uint8)
    memory.fill(1)
    times = []
    for value in range(RUNS):
        started = time.perf_counter()
        memory.fill(value)
        times.append(time.perf_counter() - started)
    seconds = statistics.median(times)
    return {
        "measured_bytes": MEMSET_BYTES,
        "measured_seconds": seconds,
        "gb_per_second": MEMSET_BYTES / seconds / 1e9,
        "seconds": seconds * (MEMMAP_BYTES / MEMSET_BYTES),
    }


def lab_missing() -> str:
    """Return what a guest lacks on this machine, empty if nothing."""
    if shutil.which("qemu-system-x86_64") is None:
        return "qemu-system-x86_64 is missing"
    return "" if importlib.util.find_spec("qemu") else "qemu.qmp is missing"


def bench_kernel() -> dict[str, float | str]:
    """Return the time of a real plug and online, extrapolated from the median of a few DIMMs."""
    from altmap.lab import Guest, fetch, plug_dimm

    cmdline = "memory_hotplug.memmap_on_memory=1 memhp_default_state=online"
    times = []
    with Guest(fetch(LAB_RELEASE), cmdline=cmdline) as guest:
        online = "grep -l online /sys/devices/system/memory/memory*/state | wc -l"
        blocks = int(guest.run(online).text)
        for nr in range(LAB_DIMMS):
            started = time.perf_counter()
            plug_dimm(guest, f"d{nr}", LAB_DIMM_BYTES)
            times.append(time.perf_counter() - started)
        gained = int(guest.run(online).text) - blocks
        if gained != LAB_DIMMS * LAB_DIMM_BYTES // BLOCK_BYTES:
            raise SystemExit(f"the guest onlined {gained} blocks only")
        accelerator = guest.accelerator
    per_gib = statistics.median(times) / (LAB_DIMM_BYTES / GIB)
    return {
        "release": LAB_RELEASE,
        "accelerator": accelerator,
        "measured_bytes": LAB_DIMM_BYTES,
        "seconds_per_gib": per_gib,
        "seconds": per_gib * (ADDED_BYTES / GIB),
    }


# --- report --------------------------------------------------------------------------------


def measure(with_lab: bool) -> dict[str, object]:
    """Measure everything that can be measured here."""
    model, memset = bench_model(), bench_memset()
    files = {how: bench_model(how) for how in ("boot", "plug")}
    reason = lab_missing() if with_lab else "--no-lab"
    kernel: dict[str, float | str] = {"skipped": reason}
    if not reason:
        try:
            kernel = bench_kernel()
        except AltmapError as error:
            kernel = {"skipped": str(error).splitlines()[0]}
    others = {"memset": memset, "kernel": kernel}
    return {
        "host": {
            "python": platform.python_version(),
            "linux": platform.release(),
            "cpus": os.cpu_count(),
            "load": os.getloadavg()[0],
        },
        "added_bytes": ADDED_BYTES,
        "block_bytes": BLOCK_BYTES,
        "runs": RUNS,
        "model": model,
        **files,
        **others,
        "ratios": {
            name: float(other["seconds"]) / model["seconds"]
            for name, other in others.items()
            if "seconds" in other
        },
        "targets": {
            name: {"figure": figure, "limit": limit, "met": figure < limit}
            for name, figure, limit in (
                ("loops", model["seconds"] / loop_seconds(), TARGET_LOOPS),
                ("peak_mb", model["peak_mb"], TARGET_MB),
                *(
                    (f"{how}_{name}", figure, limit)
                    for how, made in files.items()
                    for name, figure, limit in (
                        ("loops", made["seconds"] / loop_seconds(), TARGET_FILES_LOOPS),
                        ("mb", made["peak_mb"], TARGET_FILES_MB),
                    )
                ),
            )
        },
    }


def print_text(result: dict) -> None:
    model, memset, kernel = result["model"], result["memset"], result["kernel"]
    ratios, targets, host = result["ratios"], result["targets"], result["host"]
    print(
        f"64 TiB in blocks of 128 MiB, a memmap in each; medians of {result['runs']}; "
        f"Python {host['python']}, Linux {host['linux']}, {host['cpus']} CPUs, "
        f"load {host['load']:.1f}"
    )
    print(f"model    {model['seconds']:.3f} s, peak {model['peak_mb']:.0f} MB, no page lost")
    print(
        f"memset   {memset['seconds']:.0f} s for 1 TiB of memmap, from 512 MiB at "
        f"{memset['gb_per_second']:.1f} GB/s: {ratios['memset']:.0f} x the model"
    )
    if "seconds" in kernel:
        print(
            f"kernel   {kernel['seconds']:.0f} s, from {kernel['measured_bytes'] // GIB} GiB at "
            f"{kernel['seconds_per_gib']:.3f} s/GiB (Linux {kernel['release']}, "
            f"{kernel['accelerator']}): {ratios['kernel']:.0f} x the model"
        )
    else:
        print(f"kernel   skipped: {kernel['skipped']}")
    for name, target in targets.items():
        verdict = "pass" if target["met"] else "fail"
        print(f"{verdict}     {name}: {target['figure']:.1f} (target {target['limit']})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--no-lab", action="store_true", help="boot no guest")
    parser.add_argument("--json", action="store_true", help="print numbers as JSON")
    parser.add_argument("--model-only", metavar="WHAT", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.model_only:
        one = run_model() if args.model_only == "online" else run_files(args.model_only)
        print(json.dumps(one))
        return 0
    result = measure(not args.no_lab)
    print(json.dumps(result, indent=2)) if args.json else print_text(result)
    return 0 if all(target["met"] for target in result["targets"].values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
