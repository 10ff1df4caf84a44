"""Traces in JSON, and the report on them."""

import tempfile
from pathlib import Path

from altmap.model.machine import predict
from altmap.report.files import ReportOptions, report_on
from altmap.report.page import page
from altmap.scenario import load_scenario
from altmap.storage.export import trace_json
from altmap.storage.saved import read_saved

ROOT = Path(__file__).parents[1]

SEEDS = [
    trace_json(
        predict(load_scenario(ROOT / f"scenarios/{name}.toml", [f"policy={policy}"]))
    ).encode()
    for name, policy in (
        ("dimm-1GiB", "opt-in"),
        ("hyperv-64MiB-second-half", "rfc-2018"),
        ("xen-balloon", "opt-in"),
    )
    if (ROOT / f"scenarios/{name}.toml").exists()
]
_FILE = Path(tempfile.mkdtemp(prefix="fuzz-trace-")) / "trace.json"


def TestOneInput(data: bytes) -> None:
    _FILE.write_bytes(data)
    found = read_saved(_FILE)
    report_on(found, ReportOptions()).encode("utf-8")
    if found.comparisons:
        page((), "fuzz", "0", found.comparisons)


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
