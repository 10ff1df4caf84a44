"""Explorations in TOML."""

import tempfile
from pathlib import Path

from altmap.explore.spec import load_exploration

ROOT = Path(__file__).parents[1]

SEEDS = [path.read_bytes() for path in sorted((ROOT / "src/altmap/explore").rglob("*.toml"))]
_FILE = Path(tempfile.mkdtemp(prefix="fuzz-exploration-")) / "x.toml"


def TestOneInput(data: bytes) -> None:
    _FILE.write_bytes(data)
    load_exploration(_FILE)


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
