"""Groups of a sweep: what makes no difference is left out, what differs is not averaged away."""

import json
import tomllib

import pytest

from altmap.cli.main import main
from altmap.errors import InputError
from altmap.sweep.cells import CELLS, RANGES, cells, without_difference
from altmap.sweep.charts import _CHARTS
from altmap.sweep.grid import load_grid
from altmap.sweep.summary import Summary, _order, group_columns
from altmap.sweep.text import summary_text

GRID = """
[machine]
release = ["6.1", "6.12"]
memory = "1GiB"
memmap_on_memory = "on"
auto_movable_ratio = [100, 301]
auto_online_blocks = "online_movable"
[requests]
added = ["256MiB", "1GiB"]
"""


@pytest.fixture
def swept(tmp_path, capsys, monkeypatch):
    """Return a function that sweeps the grid and returns the text and the summary."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "140")
    (tmp_path / "grid.toml").write_text(GRID)

    def run(*words):
        assert main(["sweep", "grid.toml", "-o", "out", "-j", "1", "--no-charts", *words]) == 0
        text = capsys.readouterr().out
        return text, json.loads((tmp_path / "out/summary.json").read_text())

    return run


def row(text, *words):
    (line,) = [line.split() for line in text.splitlines() if line.split()[: len(words)] == [*words]]
    return line


def test_a_dimension_that_changes_no_cell_is_named_and_not_a_column(swept):
    text, made = swept()
    assert made["by"] == ["release", "requests"]
    assert made["no_difference"] == ["auto_movable_ratio"]
    assert "\nWithout difference: auto_movable_ratio\n" in text
    assert len(made["groups"]) == 4
    assert all(group["scenarios"] == 2 for group in made["groups"])


def test_what_differs_within_a_group_is_a_range_and_no_mean(swept):
    text, made = swept("--by", "release")
    for group in made["groups"]:
        assert group["asked_gib_least"] == 0.25
        assert group["asked_gib_most"] == 1
        assert group["mem_total_gib_least"] < group["mem_total_gib"] < group["mem_total_gib_most"]
    assert "0.25–1.00" in text
    total = [f"{made['groups'][0][f'mem_total_gib_{end}']:,.2f}" for end in ("least", "most")]
    assert "–".join(total) in row(text, "Linux", "6.1")


def test_a_column_that_all_groups_share_is_a_line_and_not_a_column(swept):
    text, made = swept("--by", "added")
    (line,) = [line for line in text.splitlines() if line.startswith("Equal in all groups")]
    for words in ("failed 0.0 %", "memmap 1.56 %"):
        assert words in line
    assert "failed" not in text.partition("Equal in all groups")[0]
    assert len(made["groups"]) == 2


def test_a_column_that_is_only_unknown_elsewhere_is_a_line_too():
    unknown = {f"{c.name}_{end}": None for c in RANGES for end in ("least", "most")}
    groups = [group(policy="a"), group(policy="b", failed_percent=100.0, **unknown)]
    for each in groups:
        each |= {"run": 1} | {name: 1.0 for *_, names in _CHARTS for name in names}
    text = summary_text(Summary(("policy",), {"ok": 2}, groups, []), 200)
    table, _, rest = text.partition("Equal in all groups, as far as known: ")
    assert "failed" in table
    assert "MemTotal" not in table
    assert rest.startswith("requested 1.00 GiB, MemTotal 1.00 GiB, not in MemTotal 1.00 %")


def test_any_key_of_the_grid_groups(swept):
    text, made = swept("--by", "auto_movable_ratio", "--by", "added")
    pairs = [(group["auto_movable_ratio"], group["requests"]) for group in made["groups"]]
    assert pairs == [(ratio, size) for ratio in ("100", "301") for size in ("256 MiB", "1 GiB")]
    assert "By auto_movable_ratio, requests\n" in text


def test_a_key_that_the_grid_has_not_is_refused(tmp_path):
    (tmp_path / "grid.toml").write_text(GRID)
    grid = load_grid(tmp_path / "grid.toml")
    with pytest.raises(InputError, match=r"--by 'auto_movable_ratoi'.*mean 'auto_movable_ratio'"):
        group_columns(grid, ["auto_movable_ratoi"])
    assert tomllib.loads(GRID)["machine"]["auto_movable_ratio"] == [100, 301]


def group(**columns):
    ends = {f"{c.name}_{end}": 1.0 for c in RANGES for end in ("least", "most")}
    ends |= {name: 1 for name in ends if "gigantic" in name}
    return {"scenarios": 1, "failed_percent": 0.0, **ends, **columns}


@pytest.mark.parametrize("column", [each.name for each in RANGES])
@pytest.mark.parametrize("end", ["least", "most"])
def test_each_cell_makes_a_difference(column, end):
    groups = [group(policy="a"), group(policy="b")]
    assert without_difference(groups, ["policy"]) == ["policy"]
    groups[1][f"{column}_{end}"] = 2
    assert without_difference(groups, ["policy"]) == []


def test_a_dimension_that_matters_only_with_another_is_kept():
    on = group(mem_total_gib_most=2.0)
    groups = [
        {
            **(on if (block, memmap) == ("1 GiB", "on") else group()),
            "block": block,
            "memmap": memmap,
        }
        for block in ("128 MiB", "1 GiB")
        for memmap in ("on", "off")
    ]
    assert without_difference(groups, ["block", "memmap"]) == []


def test_a_difference_that_no_cell_shows_is_none():
    groups = [group(policy="a"), group(policy="b", overhead_percent_least=1.0001)]
    assert without_difference(groups, ["policy"]) == ["policy"]


def test_a_cell_is_one_number_a_range_or_unknown():
    made = group(asked_gib_most=12.0, mem_total_gib_least=None, mem_total_gib_most=None)
    made["not_seen_percent_least"] = -0.001
    named = dict(zip((each.name for each in CELLS), cells(made), strict=True))
    assert named["asked_gib"] == "1.00–12.00"
    assert named["mem_total_gib"] == "-"
    assert named["not_seen_percent"] == "0.00–1.00"
    assert named["gigantic_after"] == "1"


def test_sizes_with_a_fraction_sort_as_sizes():
    sizes = ["1008 MiB", "1 GiB", "1.5 GiB", "12 GiB", "0.5 TiB"]
    assert sorted(["12 GiB", "1.5 GiB", "0.5 TiB", "1 GiB", "1008 MiB"], key=_order) == sizes
