"""Shards of a sweep on one folder, groups in the order of their sizes, tables within a width."""

import json

import pytest

from altmap.cli.main import main
from altmap.sweep.store import Store
from altmap.sweep.summary import Summary, _order
from altmap.sweep.text import summary_text

GRID = """description = "few"
[machine]
memory = ["512MiB", "1GiB"]
release = ["6.1", "6.12"]
[requests]
driver = "dimm"
added = ["1GiB", "256MiB", "512MiB"]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "g.toml").write_text(GRID)
    return tmp_path


def swept(folder, out, *words):
    command = ["sweep", str(folder / "g.toml"), "-o", str(folder / out), "--no-charts"]
    return main([*command, "-j", "1", "--chunk", "2", *words])


def rows(folder, out):
    frame = Store(folder / out).rows().collect()
    return frame.drop("cpu_seconds").sort("scenario").to_dicts()


@pytest.mark.slow
def test_shards_together_have_the_rows_of_one_run(folder, capsys):
    assert swept(folder, "whole") == 0
    for nr in (2, 1):
        assert swept(folder, "shared", "--shard", f"{nr}/3") == 0
        assert "scenarios of others are not yet" in capsys.readouterr().out
        assert not (folder / "shared/summary.json").exists()
    assert sorted(Store(folder / "shared").done()) == [(0, 2), (2, 4), (6, 8), (8, 10)]
    assert swept(folder, "shared", "--shard", "3/3") == 0
    assert (folder / "shared/summary.json").exists()
    assert rows(folder, "shared") == rows(folder, "whole")


def test_every_piece_is_of_one_shard_whatever_is_done(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/000000000003-000000000005.parquet").touch()
    store = Store(tmp_path)
    pieces = [piece for nr in (1, 2, 3) for piece in store.missing(11, 2, (nr, 3))]
    assert sorted(pieces) == list(store.missing(11, 2))
    assert sorted(pieces) == [(0, 2), (2, 3), (5, 6), (6, 8), (8, 10), (10, 11)]


@pytest.mark.parametrize("shard", ["0/3", "4/3", "1", "a/b", "-1/3", "1/0"])
def test_a_shard_that_is_none_is_refused(folder, capsys, shard):
    assert swept(folder, "out", f"--shard={shard}") == 2
    assert "need I/N with I from 1 to N" in capsys.readouterr().err


def test_sizes_sort_as_sizes_and_releases_as_releases(folder):
    assert swept(folder, "out", "--by", "added", "--by", "release") == 0
    groups = json.loads((folder / "out/summary.json").read_text())["groups"]
    assert [(group["requests"], group["release"]) for group in groups] == [
        (size, release) for size in ("256 MiB", "512 MiB", "1 GiB") for release in ("6.1", "6.12")
    ]
    ordered = ["", "6.1", "6.6", "6.12", "x 256 MiB", "x 1 GiB", "x 1 GiB + 1 GiB", "y 1 MiB"]
    assert sorted({*ordered}, key=_order) == ordered
    assert sorted([3, None, 1.5], key=_order) == [None, 1.5, 3]


def test_a_column_that_cannot_group_says_why(folder, capsys):
    assert swept(folder, "out", "--by", "movable_ratio") == 2
    assert "is a result of each group" in capsys.readouterr().err
    assert not (folder / "out").exists()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_tables_and_legend_are_within_the_width(folder, width):
    swept(folder, "out", "--by", "added", "--by", "release")
    made = json.loads((folder / "out/summary.json").read_text())
    summary = Summary(tuple(made["by"]), made["results"], made["groups"], made["failures"])
    text = summary_text(summary, width)
    assert max(map(len, text.splitlines())) <= width
    for name in ("failed", "MemTotal", "gigantic", "movable"):
        assert name in text.partition("a–b: least")[0]
    assert text.count("\nBy requests, release\n") == (2 if width == 60 else 1)
