"""Boot, grow and shrink the guests of definitions on real kernels, and compare with the answers.

``python benchmarks/bench_vm.py [NAME ...]`` prints a line for each definition of
``tests/vm/in_the_lab.toml``: what differs, and how far MemTotal at boot is off.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/vm"))

from on_kernels import guests, judged

from altmap.errors import AltmapError


def main(names: list[str]) -> int:
    """Judge the named definitions, or all; return the exit code."""
    nr_wrong = 0
    for table in guests():
        if names and table["name"] not in names:
            continue
        start = time.monotonic()
        try:
            made = judged(table)
            verdict = "; ".join(made.wrong) or "equal"
            off, how = f"{made.boot_off_kib:+d} kB", made.how
        except AltmapError as error:
            verdict, off, how = str(error).splitlines()[0], "-", "-"
        nr_wrong += verdict != "equal"
        seconds = time.monotonic() - start
        print(f"{table['name']:30} {how:23} {off:>9} {seconds:5.0f} s  {verdict}", flush=True)
    print(f"{nr_wrong} differ")
    return 1 if nr_wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
