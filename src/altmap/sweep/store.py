"""The folder of a sweep: one Parquet file for each chunk, written completely or not at all.

Effects: files.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from altmap import __version__
from altmap.errors import InputError, missing_extra
from altmap.storage.files import read_file, remove_drafts, write_file
from altmap.storage.json_files import read_json
from altmap.storage.locks import locked
from altmap.sweep.grid import Grid
from altmap.sweep.row import COLUMNS, SweepRow

if TYPE_CHECKING:
    import polars as pl

__all__ = ("Store", "open_store", "parquet", "require_polars")

#: A chunk of 2000 scenarios has some 100 kB.
_MOST_PART_BYTES = 256 << 20
_PART = re.compile(r"([0-9]{12})-([0-9]{12})\.parquet")


class _About(msgspec.Struct, kw_only=True):
    """``sweep.json``: the grid of the folder's rows."""

    schema: str = "altmap-sweep"
    version: int = 1
    grid: str
    description: str
    digest: str
    scenarios: int
    dimensions: list[str]
    altmap: str


def require_polars() -> None:
    """Check that rows can be stored.

    Raises
    ------
    InputError
        Names the extra that installs the missing module.
    """
    try:
        import polars as _polars  # noqa: F401
    except ImportError as error:
        raise missing_extra("sweep: needs", error, "sweep") from error


def parquet(rows: Sequence[SweepRow]) -> bytes:
    """Return rows as a Parquet file; every file has the same columns and types."""
    import polars as pl

    columns = {name: [getattr(row, name) for row in rows] for name in COLUMNS}
    frame = pl.DataFrame(columns, schema=_schema())
    made = io.BytesIO()
    frame.write_parquet(made, compression="zstd")
    return made.getvalue()


@dataclass(frozen=True, slots=True)
class Store:
    """The folder of one sweep.

    Attributes
    ----------
    folder : Path
    """

    folder: Path

    @property
    def parts(self) -> Path:
        """The folder of the rows; a file is named by its first scenario and its end."""
        return self.folder / "parts"

    def done(self) -> list[tuple[int, int]]:
        """Return the ranges of scenarios whose rows are stored, in order."""
        names = (_PART.fullmatch(path.name) for path in self.parts.iterdir())
        return sorted((int(name[1]), int(name[2])) for name in names if name)

    def remove_damaged(self, end: int) -> list[str]:
        """Remove what is no whole part, so that its scenarios are missing; say so, a line each.

        Parameters
        ----------
        end : int
            Scenarios of the grid.
        """
        said = []
        reached = 0
        for start, stop in self.done():
            why = _damage(self.part(start, stop), start, stop)
            if not start < stop <= end:
                why = f"need scenarios below {end}"
            elif start < reached:
                why = f"an earlier part has scenario {start}"
            if why is None:
                reached = stop
                continue
            self.part(start, stop).unlink()
            said.append(f"{self.part(start, stop)}: removed, its scenarios run again: {why}")
        return said

    def part(self, start: int, stop: int) -> Path:
        """Return the file of a range of scenarios."""
        return self.parts / f"{start:012d}-{stop:012d}.parquet"

    def missing(
        self, end: int, most: int, shard: tuple[int, int] | None = None
    ) -> Iterator[tuple[int, int]]:
        """Yield the ranges below *end* that are not stored, cut at multiples of *most*.

        Of *shard*, the number of a shard from 1 and how many there are, only every so-many-th
        piece, so that no two shards have a scenario in common.
        """
        nr, nr_shards = shard or (1, 1)
        start = 0
        for first, last in [*self.done(), (end, end)]:
            while start < min(first, end):
                stop = min((start // most + 1) * most, first, end)
                if start // most % nr_shards == nr - 1:
                    yield start, stop
                start = stop
            start = max(start, last)

    def keep(self, start: int, stop: int, raw: bytes) -> None:
        """Write the rows of a range, completely or not at all.

        Raises
        ------
        InputError
            If the file cannot be written.
        """
        write_file(self.part(start, stop), raw)

    def rows(self) -> pl.LazyFrame:
        """Return all stored rows, to be read in batches."""
        import polars as pl

        return pl.scan_parquet([self.part(*each) for each in self.done()])


def _damage(path: Path, start: int, stop: int) -> str | None:
    """Return why a file does not hold the rows of a range of scenarios, ``None`` if it does."""
    import polars as pl

    try:
        frame = pl.read_parquet(read_file(path, _MOST_PART_BYTES), use_statistics=False)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of Rust is none of Exception
        return f"no Parquet ({type(error).__name__})"
    if dict(frame.schema) != _schema():
        return "its columns are not those of a sweep's rows"
    if frame["scenario"].to_list() != list(range(start, stop)):
        return f"need a row for each scenario from {start} to {stop - 1}"
    return None


def _schema() -> dict[str, pl.DataType]:
    import polars as pl

    kinds = {int: pl.Int64(), float: pl.Float64(), str: pl.String()}
    return {name: kinds[kind] for name, kind in COLUMNS.items()}


@contextmanager
def open_store(folder: Path, grid: Grid, *, shared: bool = False) -> Iterator[Store]:
    """Yield the folder of a grid, new or unfinished, under an exclusive lock.

    A *shared* one is open to other processes that have it shared, on this host or others: no lock
    is taken, since not every mounted folder has locks, and no unfinished file of others is removed.

    Raises
    ------
    InputError
        If it has other contents, is in use, or cannot be created.
    """
    try:
        if not (folder / "sweep.json").exists():
            begun = ("parts",) if shared else ()  # by another shard, at this moment
            names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
            if any(
                not name.startswith((".lock", ".altmap-")) and name not in begun for name in names
            ):
                raise InputError(f"{folder}: is not empty, and not a sweep; need a new folder")
            (folder / "parts").mkdir(parents=True, exist_ok=True)
        if shared:
            _check_about(folder, grid)
            yield Store(folder)
            return
        with locked(folder / ".lock", f"{folder}: another sweep is writing to it"):
            _check_about(folder, grid)
            remove_drafts(folder / "parts")
            yield Store(folder)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from error


def _check_about(folder: Path, grid: Grid) -> None:
    path = folder / "sweep.json"
    about = _About(
        grid=grid.name,
        description=grid.description,
        digest=grid.digest,
        scenarios=len(grid),
        dimensions=[f"{each.table}.{each.key}" for each in grid.dimensions],
        altmap=__version__,
    )
    if not path.exists():
        write_file(path, msgspec.json.format(msgspec.json.encode(about), indent=2) + b"\n")
        return
    found = read_json(path, _About)
    if found.digest != about.digest:
        raise InputError(
            f"{folder}: belongs to another grid, {found.grid} ({found.digest[:12]}), "
            f"not of {grid.name} ({grid.digest[:12]}); need another folder"
        )
    if found.altmap != about.altmap:
        raise InputError(f"{folder}: was created by altmap {found.altmap}, this is {__version__}")
