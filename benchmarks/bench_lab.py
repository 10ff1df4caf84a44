"""What an observation of a real kernel costs: a boot, a copy of a guest that has booted, many.

    python benchmarks/bench_lab.py [--json]

boot
    Linux 6.12 is booted by QEMU's emulation, without KVM, and looked at once.
copy
    The same from a copy of a guest that has booted, which the first run may have to make.
virtme-ng
    The same kernel booted by virtme-ng, in emulation too, printing ``/proc/meminfo`` only. Its root
    is 9p, which Debian has as modules: unpacked and indexed before, not measured. ``-v``, since
    without the console its output is lost.
scenarios
    Twenty scenarios of ``tests/conformance.toml``, two guests side by side, with all observations.

Times are medians; processor time is that of this process and of QEMU. Ratios of one run hold on a
busy machine, times do not.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from altmap.errors import AltmapError, LabError
from altmap.lab import Guest, Hardware, capture, fetch
from altmap.lab.accelerator import TCG
from altmap.lab.kernels import KernelFiles
from altmap.lab.snapshot import booted
from altmap.lab.target import run_in_guest
from altmap.scenario import Scenario, load_scenario
from altmap.verify.conformance import read_cases

RELEASE, RUNS, NR_SCENARIOS, GUESTS = "6.12", 3, 20, 2
HERE = Path(__file__).parents[1]


def chosen() -> list[Scenario]:
    """Return the first twenty that run on the release, in the order of the list."""
    names = [
        name
        for case in read_cases(HERE / "tests/conformance.toml")
        if RELEASE in case.releases and not case.slow and not case.cannot
        for name in case.scenarios
    ]
    paths = [HERE / "scenarios" / f"{name}.toml" for name in dict.fromkeys(names)]
    scenarios = (load_scenario(path, [f"release={RELEASE}"]) for path in paths)
    return [s for s in scenarios if s.machine.arch in (None, "x86_64")][:NR_SCENARIOS]


def measured(run: Callable[[], object]) -> dict[str, float]:
    """Return elapsed and processor seconds of a call, its child processes included."""
    started, before = time.perf_counter(), sum(os.times()[:4])
    run()
    return {
        "seconds": time.perf_counter() - started,
        "processor_seconds": sum(os.times()[:4]) - before,
    }


def median(run: Callable[[], object]) -> dict[str, float]:
    runs = [measured(run) for _ in range(RUNS)]
    return {name: statistics.median(times[name] for times in runs) for name in runs[0]}


def virtme_missing() -> str:
    """Return what virtme-ng lacks on this machine, empty if nothing."""
    if shutil.which("vng", path=programs()) is None:
        return "vng is missing: pip install virtme-ng"
    if shutil.which("depmod", path=programs()) is None:
        return "depmod is missing: apt install kmod"
    return ""


def programs() -> str:
    """Return the path of programs, with those of this Python's environment first."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/sbin"])


def bench_virtme(kernel: KernelFiles) -> dict[str, float]:
    """Return the time of virtme-ng from its start to its end."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        subprocess.run(["dpkg-deb", "-x", kernel.modules_deb, root], check=True)
        version = next((root / "usr/lib/modules").iterdir()).name
        (root / "lib").symlink_to("usr/lib")
        environment = os.environ | {"PATH": programs(), "HOME": folder}
        subprocess.run(["depmod", "-b", root, version], check=True, env=environment)
        image = root / f"vmlinuz-{version}"
        shutil.copy(kernel.vmlinuz, image)
        command = [
            "vng", "-v", "--run", str(image), "--disable-kvm", "--force-9p",
            "--no-virtme-ng-init", "--append", "quiet", "--busybox", str(kernel.busybox),
            "--memory", "1G", "--cpus", "1", "--", "cat /proc/meminfo",
        ]  # fmt: skip

        def run() -> None:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=180,
                check=False,
                env=environment,
            )
            if b"MemTotal:" not in done.stdout:
                raise LabError("virtme-ng printed no /proc/meminfo")

        return median(run)


def measure() -> dict[str, object]:
    """Measure everything."""
    kernel, hardware = fetch(RELEASE), Hardware()

    def boot() -> None:
        with Guest(kernel, hardware, accelerator=TCG) as guest:
            capture(guest)

    accelerators = set()

    def copy() -> None:
        with booted(kernel, hardware, "") as guest:
            accelerators.add(guest.accelerator)
            capture(guest)

    def scenarios() -> None:
        with ThreadPoolExecutor(GUESTS) as pool:
            list(pool.map(lambda scenario: run_in_guest(scenario, lambda _: None), chosen()))

    copy()  # makes the snapshot
    times = {"boot": median(boot), "copy": median(copy)}
    missing = virtme_missing()
    if not missing:
        try:
            times["virtme-ng"] = bench_virtme(kernel)
        except (LabError, OSError, subprocess.SubprocessError) as error:
            missing = str(error).splitlines()[0]
    ratios = {
        name: {clock: slower[clock] / times["copy"][clock] for clock in slower}
        for name, slower in times.items()
        if name != "copy"
    }
    times["scenarios"] = measured(scenarios)
    return {
        "release": RELEASE,
        "accelerator_of_copies": "".join(accelerators),
        "load": os.getloadavg()[0],
        "nr_scenarios": len(chosen()),
        **times,
        "to_copy": ratios,
        "virtme_missing": missing,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print numbers as JSON")
    args = parser.parse_args()
    try:
        result = measure()
    except AltmapError as error:
        result = {"skipped": str(error).splitlines()[0]}
    if args.json or "skipped" in result:
        print(
            json.dumps(result, indent=2) if args.json else f"lab       skipped: {result['skipped']}"
        )
        return 0
    print(f"Linux {RELEASE} to its first observation, medians of {RUNS}; load {result['load']:.1f}")
    for name in ("boot", "copy", "virtme-ng", "scenarios"):
        if name not in result:
            print(f"{name:9} skipped: {result['virtme_missing']}")
            continue
        times = result[name]
        what = f"{result['nr_scenarios']} by {GUESTS} guests" if name == "scenarios" else "one"
        what += f", {result['accelerator_of_copies']}" if name == "copy" else ""
        print(
            f"{name:9} {times['seconds']:.1f} s, {times['processor_seconds']:.1f} s of processor"
            f" time ({what})"
        )
    for name, ratio in result["to_copy"].items():
        print(
            f"{name} takes {ratio['seconds']:.1f} x a copy's time,"
            f" {ratio['processor_seconds']:.1f} x its processor time"
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
