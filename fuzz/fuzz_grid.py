"""Grids of sweeps in TOML."""

import tempfile
from pathlib import Path

from altmap.sweep.grid import Grid, load_grid

ROOT = Path(__file__).parents[1]

SEEDS = [path.read_bytes() for path in sorted((ROOT / "examples/sweeps").glob("*.toml"))]
_FILE = Path(tempfile.mkdtemp(prefix="fuzz-grid-")) / "x.toml"


def _use(grid: Grid) -> None:
    for number in range(min(3, len(grid))):
        grid.slice(number, number + 1).points()


def TestOneInput(data: bytes) -> None:
    _FILE.write_bytes(data)
    _use(load_grid(_FILE))


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
