"""The folder of a sweep after damage: parts that are not whole are run again, and it is said."""

import io
import itertools

import polars as pl
import pytest

from altmap.cli.main import main
from altmap.sweep.grid import load_grid
from altmap.sweep.store import open_store

GRID = """
[machine]
release = ["6.1", "6.12"]
policy = ["opt-in", "rfc-2018"]

[requests]
driver = "dimm"
added = ["256MiB", "512MiB", "100MiB"]
"""
NR = 12


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Return the grid's file, and the parts of a sweep of it in chunks of 5."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "g.toml").write_text(GRID)
    assert sweep(folder) == 0
    parts = {path.name: path.read_bytes() for path in (folder / "out/parts").iterdir()}
    assert len(parts) == 3
    return folder, parts


def sweep(folder):
    words = ["sweep", str(folder / "g.toml"), "-o", str(folder / "out"), "-j", "1"]
    return main([*words, "--chunk", "5", "--no-charts", "--json"])


def rows(folder):
    with open_store(folder / "out", load_grid(folder / "g.toml")) as store:
        return store.rows().drop("cpu_seconds").sort("scenario").collect()


def other_table():
    raw = io.BytesIO()
    pl.DataFrame({"x": [1, 2]}).write_parquet(raw)
    return raw.getvalue()


def changed(raw, change):
    made = io.BytesIO()
    change(pl.read_parquet(raw)).write_parquet(made)
    return made.getvalue()


FIRST = "000000000000-000000000005.parquet"
DAMAGE = {
    "emptied": lambda raw: b"",
    "cut": lambda raw: raw[:100],
    "half": lambda raw: raw[: len(raw) // 2],
    "overwritten": lambda raw: raw[:40] + b"\xff" * 200 + raw[240:],
    "without an end": lambda raw: raw[:-4],
    "another table": lambda raw: other_table(),
    "a row less": lambda raw: changed(raw, lambda frame: frame.head(4)),
    "a row twice": lambda raw: changed(raw, lambda frame: frame[[0, 0, 2, 3, 4]]),
    "other scenarios": lambda raw: changed(raw, lambda f: f.with_columns(pl.col("scenario") + 5)),
    "a column less": lambda raw: changed(raw, lambda frame: frame.drop("why")),
    "another type": lambda raw: changed(
        raw, lambda f: f.with_columns(pl.col("why").cast(pl.Binary))
    ),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_part_that_is_not_whole_is_removed_and_said(swept, damage):
    folder, parts = swept
    path = folder / "out/parts" / FIRST
    path.write_bytes(damage(parts[FIRST]))
    with open_store(folder / "out", load_grid(folder / "g.toml")) as store:
        (said,) = store.remove_damaged(NR)
        assert said.startswith(f"{path}: removed, its scenarios run again: ")
        assert list(store.missing(NR, NR)) == [(0, 5)]
    assert not path.exists()
    path.write_bytes(parts[FIRST])


def test_a_part_that_was_removed_is_said_and_run_again(swept, capsys):
    folder, parts = swept
    before = rows(folder)
    path = folder / "out/parts" / FIRST
    path.write_bytes(DAMAGE["half"](parts[FIRST]))
    assert sweep(folder) == 0
    err = capsys.readouterr().err
    assert f"{path}: removed, its scenarios run again: " in err
    assert rows(folder).equals(before)


@pytest.mark.parametrize(
    ("start", "stop"), [(0, 3), (4, 6), (0, NR), (NR, NR + 2), (3, 3)], ids=str
)
def test_a_part_that_repeats_scenarios_or_has_others_does_not_count(swept, start, stop, capsys):
    folder, parts = swept
    before = rows(folder)
    more = changed(
        parts[FIRST],
        lambda frame: (
            pl.concat([frame] * 3)
            .head(stop - start)
            .with_columns(scenario=pl.int_range(start, stop, eager=True))
        ),
    )
    (folder / f"out/parts/{start:012d}-{stop:012d}.parquet").write_bytes(more)
    assert sweep(folder) == 0
    assert capsys.readouterr().err.count("removed, its scenarios run again") >= 1
    found = rows(folder)
    assert found["scenario"].to_list() == list(range(NR))
    if (start, stop) != (0, NR) and start:
        assert found.equals(before)
    for path, name in itertools.product([folder / "out/parts"], parts):
        (path / name).write_bytes(parts[name])
    for path in (folder / "out/parts").iterdir():
        if path.name not in parts:
            path.unlink()


def test_a_file_with_another_name_is_no_part(swept):
    folder, parts = swept
    before = rows(folder)
    (folder / "out/parts/copy.parquet").write_bytes(parts[FIRST])
    assert sweep(folder) == 0
    assert rows(folder).equals(before)
    (folder / "out/parts/copy.parquet").unlink()


@pytest.mark.parametrize("raw", [b"", b"\xff", b"[]", b'{"schema": "\xff"}', b"[" * 10_000])
def test_a_damaged_description_of_a_sweep_is_one_line(swept, raw, capsys):
    folder, _ = swept
    path = folder / "out/sweep.json"
    before = path.read_bytes()
    path.write_bytes(raw)
    assert sweep(folder) == 2
    err = capsys.readouterr().err
    assert (err.count("\n"), f"{path}: " in err) == (1, True)
    path.write_bytes(before)


def test_a_combination_that_no_platform_has_is_one_line_of_show(tmp_path, capsys):
    path = tmp_path / "g.toml"
    path.write_text(
        '[machine]\nplatform = "xen"\nmemory = "1GiB"\n'
        '[requests]\ndriver = "hyperv"\nbacking = "first-half"\nadded = ["64MiB"]\n'
    )
    assert main(["sweep", str(path), "--show", "0"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "a Xen domain gets memory from its balloon only" in err
