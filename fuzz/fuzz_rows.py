"""Rows of JSON and tables: conformance, fleets, descriptions of sweeps."""

import tempfile
from pathlib import Path

from altmap.storage.json_files import read_json
from altmap.sweep.fleet import read_trace
from altmap.sweep.store import _About
from altmap.verify.conformance import read_cases

ROOT = Path(__file__).parents[1]

SEEDS = [
    b"c" + (ROOT / "tests/conformance.toml").read_bytes()[:4000],
    b't[[requests]]\ntime = "2026-01-01T00:00:00"\nmachine = "m"\nrequested = "2GiB"\n',
    b"vtime,machine,driver,requested\n0,m1,dimm,2GiB\n3600,m1,,3GiB\n",
    b'a{"schema":"altmap-sweep","version":1,"grid":"g","description":"","digest":"0","scenarios":1,'
    b'"dimensions":[],"altmap":"0"}',
]
_FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-rows-"))
_ENDINGS = {b"c": "toml", b"t": "toml", b"v": "csv"}


def TestOneInput(data: bytes) -> None:
    kind = data[:1]
    path = _FOLDER / f"x.{_ENDINGS.get(kind, 'json')}"
    path.write_bytes(data[1:])
    if kind == b"c":
        read_cases(path)
    elif kind in _ENDINGS:
        read_trace(path)
    else:
        read_json(path, _About)


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
