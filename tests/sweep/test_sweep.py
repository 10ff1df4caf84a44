"""Sweeps: rows equal runs, and no row is lost or repeated if a process crashes."""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from altmap.cli.main import main
from altmap.errors import InputError
from altmap.model.kernel.hugetlb import pool_of, set_max_huge_pages
from altmap.model.machine import ModelMachine, predict
from altmap.scenario import build_scenario, parse_scenario, scenario_toml
from altmap.sweep.charts import _CHARTS, chart_svgs, equal_charts
from altmap.sweep.fleet import csv_text, members, read_trace
from altmap.sweep.grid import load_grid
from altmap.sweep.pool import cluster, processes, run_slice
from altmap.sweep.row import COLUMNS, MachineNumbers
from altmap.sweep.runner import run
from altmap.sweep.store import open_store
from altmap.sweep.summary import Summary, summarise
from altmap.sweep.walk import rows_of

SWEEPS = Path(__file__).parents[2] / "examples/sweeps"
PRODUCT = """
[machine]
release = ["6.1", "6.12"]
policy = ["opt-in", "opt-in+total", "rfc-2018", "existing"]
memory = ["1GiB", "4GiB"]
memmap_on_memory = "on"
auto_online_blocks = ["online", "online_movable"]

[requests]
driver = ["dimm", "hyperv", "kmem", "virtio-mem", "xen"]
backing = ["whole", "second-half"]
added = ["64MiB", "512MiB", ["256MiB", "512MiB"], ["256MiB", "512MiB", "128MiB"], "100MiB"]
"""
DRIVERS = """
[machine]
page_size = ["4KiB", "64KiB"]
arch = ["ppc64le", "aarch64", "s390x"]
memory = "2GiB"
memmap_on_memory = "on"

[requests]
driver = ["dimm", "standby", "virtio-mem", "hyperv"]
added = [["1GiB", "2GiB"], ["1GiB", "512MiB"]]
"""
SMALL = """
[machine]
release = ["6.1", "6.12"]
policy = ["opt-in", "rfc-2018"]

[requests]
driver = ["dimm", "kmem"]
added = ["256MiB", ["256MiB", "512MiB"], "100MiB"]
"""


@cache
def grid_of(text):
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "g.toml")
        path.write_text(text)
        return load_grid(path)


def plain(rows):
    """Return rows without the column that differs between runs."""
    return sorted(
        tuple(getattr(row, name) for name in COLUMNS if name != "cpu_seconds") for row in rows
    )


def kept(store):
    frame = store.rows().drop("cpu_seconds").sort("scenario").collect()
    assert frame["scenario"].is_unique().all()
    return frame


def ran(point):
    """Return the trace of a scenario as in altmap run, or its error."""
    if point.error:
        return None, point.error
    try:
        return predict(parse_scenario(scenario_toml(point.data), "x")), ""
    except InputError as error:
        return None, str(error)


# --- rows ------------------------------------------------------------------------------------


@given(st.sampled_from([PRODUCT, DRIVERS]), st.data())
def test_a_row_equals_a_run_of_the_same_scenario(text, data):
    grid = grid_of(text)
    number = data.draw(st.integers(0, len(grid) - 1))
    around = grid.slice(max(0, number - 3), min(len(grid), number + 3)).points()
    row = next(row for row in rows_of(around, {}) if row.scenario == number)
    (point,) = grid.slice(number, number + 1).points()
    trace, error = ran(point)
    if trace is None:
        assert (row.result, row.why) == ("invalid", error)
        return
    steps = json.loads(json.dumps(trace.to_builtins(), default=int))["steps"][1:]
    results = [step["result"] for step in steps]
    bad = [at for at, each in enumerate(results) if each["status"] in ("refused", "fault")]
    assert row.steps == len(steps)
    assert row.steps_refused == sum(each["status"] == "refused" for each in results)
    assert row.failed_step == (bad[0] + 1 if bad else None)
    if bad:
        first = results[bad[0]]
        assert (row.errno, row.function, row.why) == (
            first["errno"],
            first["function"],
            first["why"],
        )
    assert (row.release, row.policy) == (trace.release, trace.policy)
    assert row.block_size_bytes == trace.machine["block_size_bytes"]
    start, end = trace.steps[0].observation, trace.steps[-1].observation
    assert row.mem_total_before_bytes == start.meminfo["MemTotal"] * 1024
    if end is None:
        assert row.result == "fault"
        assert row.mem_total_after_bytes is None
        return
    assert row.mem_total_after_bytes == end.meminfo["MemTotal"] * 1024
    assert row.free_after_bytes == end.meminfo["MemFree"] * 1024
    assert row.seen_bytes == row.mem_total_after_bytes - row.mem_total_before_bytes
    zones = [zone for zone in end.zoneinfo if zone.name == "Movable"]
    page = row.page_size_bytes
    assert row.movable_bytes == sum(zone.pages["present"] for zone in zones) * page


def test_gigantic_pages_are_as_many_as_the_pool_allocates():
    scenario = build_scenario(
        {
            "name": "g",
            "machine": {"memory": "4GiB", "auto_online_blocks": "online"},
            "steps": [{"do": "plug", "id": "d", "size": "3GiB"}],
        }
    )
    machine = ModelMachine.start(scenario.machine)
    machine.perform(scenario.steps[0])
    expected = MachineNumbers.of(machine.kernel).gigantic
    pool = pool_of(machine.kernel, 1 << 30)
    set_max_huge_pages(machine.kernel, pool, 0, 100)
    assert expected == len(pool.pages) >> 18
    assert expected > 2


@settings(max_examples=settings.default.max_examples // 5)
@given(st.randoms(use_true_random=False))
def test_the_order_and_size_of_chunks_change_no_row(chance):
    grid = grid_of(PRODUCT)
    whole = plain(rows_of(grid.slice(120, 180).points(), {}))
    cuts = sorted({120, 180, *(chance.randrange(120, 180) for _ in range(4))})
    slices = [grid.slice(a, b) for a, b in pairwise(cuts)]
    chance.shuffle(slices)
    assert plain(row for part in slices for row in rows_of(part.points(), {})) == whole


def test_a_scenario_that_crashes_the_model_is_a_row(monkeypatch):
    grid = grid_of(SMALL)
    perform = ModelMachine.perform

    def crash(self, step):
        if getattr(step, "size", 0) == 100 << 20:
            raise RuntimeError("a defect")
        return perform(self, step)

    monkeypatch.setattr(ModelMachine, "perform", crash)
    rows = rows_of(grid.slice(0, len(grid)).points(), {})
    assert len(rows) == len(grid)
    bad = [row for row in rows if row.result == "crashed"]
    assert {row.requests for row in bad} == {"100 MiB"}
    assert {row.why for row in bad} == {"RuntimeError: a defect"}
    assert {row.function for row in bad} == {"crash"}


# --- workers ---------------------------------------------------------------------------------


def always_crashes(part):
    """Run a slice, but crash at scenario 7."""
    if part.start <= 7 < part.stop:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_slice(part)


def crashes_once(part):
    """Run a slice, but crash at the first one with scenario 7."""
    mark = Path(os.environ["ALTMAP_TEST_MARK"])
    if part.start <= 7 < part.stop and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return run_slice(part)


def swept(folder, pool, work=run_slice, chunk=5, grid=None):
    grid = grid or grid_of(SMALL)
    with open_store(folder, grid) as store:
        run(grid, store, pool, end=len(grid), chunk=chunk, work=work)
        return kept(store)


@pytest.fixture(scope="module")
def straight():
    return plain(rows_of(grid_of(SMALL).slice(0, len(grid_of(SMALL))).points(), {}))


@pytest.mark.slow
def test_a_scenario_that_always_crashes_its_worker_is_one_lost_row(tmp_path, straight):
    frame = swept(tmp_path / "out", processes(2), always_crashes)
    assert frame.filter(pl.col("result") == "lost")["scenario"].to_list() == [7]
    others = frame.filter(pl.col("scenario") != 7)
    assert sorted(others.rows()) == [row for row in straight if row[0] != 7]


@pytest.mark.slow
def test_a_killed_worker_loses_no_row(tmp_path, straight, monkeypatch):
    monkeypatch.setenv("ALTMAP_TEST_MARK", str(tmp_path / "mark"))
    frame = swept(tmp_path / "out", processes(2), crashes_once)
    assert (tmp_path / "mark").exists()
    assert sorted(frame.rows()) == straight


@pytest.mark.slow
def test_a_killed_worker_of_a_cluster_loses_and_repeats_no_row(tmp_path):
    grid = grid_of(PRODUCT)
    fewer = replace(grid.dimensions[-1], values=("64MiB", "1GiB"))
    grid = replace(grid, dimensions=(*grid.dimensions[:-1], fewer))
    local = sorted(plain(rows_of(grid.slice(0, len(grid)).points(), {})))
    module = [sys.executable, "-m", "distributed.cli"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    path = os.pathsep.join(filter(None, sys.path))
    env = {**os.environ, "PYTHONPATH": path}
    file = tmp_path / "scheduler.json"
    started = [
        subprocess.Popen(
            [
                *module[:2],
                "distributed.cli.dask_scheduler",
                "--host",
                "127.0.0.1",
                "--port",
                "0",
                "--no-dashboard",
                "--no-show",
                "--scheduler-file",
                str(file),
            ],
            env=env,
            **quiet,
        )
    ]
    try:
        wait_for(file.exists)
        for _ in range(3):
            command = [
                *module[:2],
                "distributed.cli.dask_worker",
                "--host",
                "127.0.0.1",
                "--nworkers",
                "1",
                "--nthreads",
                "1",
                "--no-nanny",
                "--no-dashboard",
                "--scheduler-file",
                str(file),
            ]
            started.append(
                subprocess.Popen([*command, "--local-directory", str(tmp_path)], env=env, **quiet)
            )
        address = json.loads(file.read_text())["address"]
        assert address.startswith("tcp://127.0.0.1:")
        from distributed import Client

        with Client(address) as client:
            client.wait_for_workers(3, timeout=300)
        pool = cluster(address)
        assert pool.nr_workers == 3
        killed = []

        def advance(_):
            if not killed:
                killed.append(started[1].pid)
                os.kill(started[1].pid, signal.SIGKILL)

        with open_store(tmp_path / "out", grid) as store:
            run(grid, store, pool, end=len(grid), chunk=4, advance=advance)
            frame = kept(store)
        assert killed
        assert sorted(frame.rows()) == local
        assert sorted(frame["digest"]) == sorted(row[1] for row in local)
    finally:
        for each in reversed(started):
            each.kill()
            each.wait()


def wait_for(condition, seconds=300):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_an_unreachable_cluster_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("altmap.sweep.pool._CONNECT_SECONDS", 1)
    (tmp_path / "g.toml").write_text(SMALL)
    address = "tcp://127.0.0.1:9"
    argv = ["sweep", str(tmp_path / "g.toml"), "-o", str(tmp_path / "o"), "--cluster", address]
    assert main(argv) == 2
    assert f"--cluster {address}: no Dask scheduler" in capsys.readouterr().err


# --- continuing ------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_killed_sweep_continues_to_the_same_rows(tmp_path):
    grid = tmp_path / "g.toml"
    grid.write_text(PRODUCT)
    command = [
        sys.executable,
        "-m",
        "altmap",
        "sweep",
        str(grid),
        "-j",
        "1",
        "--chunk",
        "20",
        "--no-charts",
        "-o",
    ]
    killed = subprocess.Popen(
        [*command, str(tmp_path / "killed")], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    parts = tmp_path / "killed/parts"
    wait_for(lambda: parts.is_dir() and any(parts.glob("[0-9]*.parquet")))
    killed.kill()
    killed.wait()
    before = {path.name: path.stat().st_mtime_ns for path in parts.glob("[0-9]*.parquet")}
    assert 0 < len(before) < len(load_grid(grid)) // 20
    assert subprocess.run([*command, str(tmp_path / "killed")], capture_output=True).returncode == 0
    again = {path.name: path.stat().st_mtime_ns for path in parts.glob("[0-9]*.parquet")}
    assert before.items() <= again.items()
    rows = plain(rows_of(load_grid(grid).slice(0, len(load_grid(grid))).points(), {}))
    with open_store(tmp_path / "killed", load_grid(grid)) as store:
        assert sorted(kept(store).rows()) == rows


def test_stored_rows_are_not_computed_again_and_another_grid_is_refused(tmp_path, capsys):
    grid, out = tmp_path / "g.toml", tmp_path / "out"
    grid.write_text(SMALL)
    argv = ["sweep", str(grid), "-o", str(out), "-j", "1", "--no-charts"]
    assert main([*argv, "--limit", "5"]) == 0
    assert [path.name for path in out.glob("parts/*")] == ["000000000000-000000000005.parquet"]
    assert main(argv) == 0
    assert "24 scenarios" in capsys.readouterr().out
    names = sorted(path.name for path in out.glob("parts/*"))
    assert names[1] == "000000000005-000000000024.parquet"
    grid.write_text(SMALL.replace("256MiB", "384MiB"))
    assert main(argv) == 2
    assert "belongs to another grid" in capsys.readouterr().err
    assert main(["sweep", str(grid), "-o", str(tmp_path)]) == 2
    assert "is not empty, and not a sweep" in capsys.readouterr().err


# --- grids and fleets ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "unknown field 'x'"),
        ("[machine]\nrelease = []", "machine.release: an empty list"),
        ("[machine]\ncolour = 'red'", "machine: unknown field 'colour'"),
        ("[machine]\nrelease = ['six']", "release 'six'"),
        ("[machine]\narch = 'vax'", "architecture 'vax'"),
        ("[machine]\nmemory = ['1GiB', 2]", "machine.memory"),
        ("[machine]\npolicy = ['m:C']", "policy 'm:C'"),
        ("[requests]\nadded = ['1GiB']\ndriver = 'tape'", "requests.driver 'tape'"),
        ("[requests]\nadded = []", "requests.added: need a size"),
        ("[requests]\nadded = ['1']", "need a unit"),
        ("[fleet]\nmachines = 1\ntrace = 'a.csv'", "either a trace or a number"),
        ("[fleet]\ntrace = 'a.csv'", "a.csv: No such file"),
        ("[fleet]\nmachines = 2\n[machine]\nmemory = '1GiB'", "machine.memory: the trace has it"),
        ("[[steps]]\ndo = 'fly'", "fly"),
        ("[machine", "Expected"),
    ],
)
def test_a_bad_grid_is_refused_with_place_and_rule(text, message, tmp_path):
    path = tmp_path / "g.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=r"^grid ") as caught:
        load_grid(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_trace_is_the_same_fleet_in_each_format(tmp_path, capsys):
    assert main(["sweep", str(SWEEPS / "fleet.toml"), "--fleet"]) == 0
    lines = capsys.readouterr().out.splitlines()[:40]
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    pl.read_csv(tmp_path / "t.csv").write_parquet(tmp_path / "t.parquet")
    names = lines[0].split(",")
    tables = [dict(zip(names, line.split(","), strict=True)) for line in lines[1:]]
    text = "".join(
        "[[requests]]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in each.items())
        for each in tables
    )
    (tmp_path / "t.toml").write_text(text)
    fleets = [members(read_trace(tmp_path / f"t.{end}")) for end in ("csv", "parquet", "toml")]
    assert fleets[0] == fleets[1] == fleets[2]
    (tmp_path / "again.csv").write_text(csv_text(fleets[0]))
    assert members(read_trace(tmp_path / "again.csv")) == fleets[0]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,a,tape,1GiB,2GiB", "driver 'tape'"),
        ("now,a,dimm,1GiB,2GiB", "time 'now'"),
        ("1,a,dimm,1GiB,2", "need a unit"),
        ("1,a,dimm,1GiB,", "requested"),
        ("1,a,dimm,1GiB,2GiB,x", "has no column"),
        ("1,a,dimm,1GiB,2GiB\n2,a,kmem,1GiB,3GiB", "need one value for each machine"),
        ("1,a,dimm,1GiB,2GiB\n2026-01-01,a,dimm,1GiB,3GiB", "both numbers and dates"),
    ],
)
def test_a_bad_trace_is_refused_with_place_and_rule(line, message, tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("time,machine,driver,memory,requested\n" + line + "\n")
    with pytest.raises(InputError, match=message):
        members(read_trace(path))


def test_the_row_of_a_failed_request_has_its_time(tmp_path):
    (tmp_path / "t.csv").write_text(
        "time,machine,driver,memory,requested\n"
        "2026-01-02T00:00:00,a,hyperv,1GiB,256MiB\n2026-01-01T00:00:00,a,hyperv,1GiB,2GiB\n"
    )
    (tmp_path / "g.toml").write_text("[fleet]\ntrace = 't.csv'\n")
    grid = load_grid(tmp_path / "g.toml")
    (row,) = rows_of(grid.slice(0, 1).points(), {})
    assert (row.result, row.failed_request, row.failed_at) == ("refused", 2, "2026-01-02T00:00:00")
    assert row.requests == "1 GiB, -768 MiB"


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.toml")), ids=lambda path: path.stem)
@pytest.mark.slow
def test_each_example_runs(path, tmp_path, capsys):
    argv = ["sweep", str(path), "-o", str(tmp_path / "o"), "--limit", "40", "-j", "1"]
    assert main(argv) == 0
    assert "40 scenarios" in capsys.readouterr().out
    charts = {each.name for each in tmp_path.glob("o/charts/*.png")}
    names = {"not-seen", "overhead", "failures", "gigantic", "movable"}
    shown = (tmp_path / "o/summary.txt").read_text()
    without = re.search(r"^No chart, as all groups are equal: (.*)", shown, re.MULTILINE)
    equal = set(re.findall(r"([a-z-]+) \(", without[1])) if without else set()
    assert charts == {f"{name}.png" for name in names - equal}
    bad = pl.read_parquet(tmp_path / "o/parts").filter(pl.col("result").is_in(["crashed", "lost"]))
    assert not len(bad)
    text = path.read_text(encoding="utf-8")
    assert text.startswith("# ")


def test_the_summary_equals_a_loop_over_the_rows(tmp_path):
    grid = grid_of(PRODUCT)
    with open_store(tmp_path / "o", grid) as store:
        for start in (0, 200):
            store.keep(start, start + 200, run_slice(grid.slice(start, start + 200)))
        made = summarise(store.rows(), ["policy", "driver"])
        rows = store.rows().collect().to_dicts()
    assert sum(made.results.values()) == len(rows) == 400
    for group in made.groups:
        mine = [r for r in rows if (r["policy"], r["driver"]) == (group["policy"], group["driver"])]
        ran = [r for r in mine if r["result"] in ("ok", "refused", "fault")]
        failed = [r for r in ran if r["result"] != "ok"]
        assert group["scenarios"] == len(mine)
        if ran:
            assert group["failed_percent"] == pytest.approx(100 * len(failed) / len(ran))
            asked = sum(r["asked_bytes"] for r in ran)
            missing = sum(r["not_seen_bytes"] for r in ran)
            assert group["not_seen_percent"] == pytest.approx(100 * missing / asked)


@pytest.mark.slow
def test_a_table_truncates_no_word_and_omits_columns_with_one_value(tmp_path, capsys):
    out = str(tmp_path / "o")
    assert main(["sweep", str(SWEEPS / "auto-movable.toml"), "-o", out, "-j", "1"]) == 0
    text = capsys.readouterr().out
    assert "By online_policy, auto_movable_ratio, driver, requests\n" in text
    lines = text.splitlines()
    for words in (["online_policy", "auto_movable_ratio", "driver"], ["301", "virtio-mem"]):
        assert any(all(word in line.split() for word in words) for line in lines)


def test_a_chart_of_zeros_starts_at_its_axis():
    columns = {name: 0.0 for *_, names in _CHARTS for name in names}
    groups = [{"driver": d, "scenarios": 1, "run": 1, **columns} for d in ("dimm", "kmem")]
    groups[1] |= {"gigantic_after_mean": None, "gigantic_lost_mean": None}
    svgs = chart_svgs(Summary(("driver",), {"ok": 2}, groups, []), "t")
    assert list(svgs) == ["gigantic"]
    one = chart_svgs(Summary(("driver",), {"ok": 1}, groups[:1], []), "t")
    for svg in (*svgs.values(), *one.values()):
        axis = sorted(float(x) for x in re.findall(r">([0-9.]+)</text>", svg))
        assert (axis[0], axis[-1]) == (0, 1)
    assert ">no value<" in svgs["gigantic"]
    assert ">no value<" not in one["gigantic"]


def test_a_legend_has_what_occurs_and_the_columns_of_the_labels_are_named():
    columns = {name: 0.0 for *_, names in _CHARTS for name in names}
    groups = [
        {"driver": d, "policy": d[0], "scenarios": 3, "run": 3, **columns} for d in ("dimm", "kmem")
    ]
    groups[1] |= {"fault": 1}
    svg = chart_svgs(Summary(("driver", "policy"), {"ok": 5}, groups, []), "t")["failures"]
    assert ">fault<" in svg
    assert ">refused<" not in svg
    assert ">33.33<" in svg
    assert ">a bar for each driver · policy<" in svg


def test_a_chart_whose_bars_are_all_equal_is_named_and_not_drawn(tmp_path):
    columns = {name: 1.5 for *_, names in _CHARTS for name in names}
    groups = [{"driver": d, "scenarios": 1, "run": 1, **columns} for d in ("dimm", "kmem")]
    groups[1] |= {"overhead_percent": 1.6}
    made = Summary(("driver",), {"ok": 2}, groups, [])
    assert list(chart_svgs(made, "t")) == ["overhead"]
    assert equal_charts(made) == {
        "not-seen": "1.50",
        "failures": "150.00 + 150.00",
        "gigantic": "1.50 + 1.50",
        "movable": "1.50",
    }


def test_show_prints_a_scenario_for_run(tmp_path, capsys):
    assert main(["sweep", str(SWEEPS / "overhead.toml"), "--show", "5"]) == 0
    (tmp_path / "s.toml").write_text(capsys.readouterr().out)
    assert main(["run", str(tmp_path / "s.toml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["scenario"] == "overhead-5"


def test_every_column_is_documented():
    page = (
        (SWEEPS.parents[1] / "docs/sweep.md")
        .read_text(encoding="utf-8")
        .partition("## The rows")[2]
    )
    rows = [line.split("|")[1].strip(" `") for line in page.splitlines() if line.startswith("| `")]
    assert [name for name in rows if name in COLUMNS] == list(COLUMNS)


def test_a_deeply_nested_trace_is_one_line(tmp_path):
    path = tmp_path / "deep.toml"
    path.write_text("a = " + "[" * 100_000)
    with pytest.raises(InputError, match=r"^trace .*deep\.toml: not TOML: "):
        read_trace(path)


def test_what_a_killed_pool_was_doing_has_failed_when_it_is_killed():
    """Who cancels it while the executor's thread fails it ends that thread, and the exit hangs."""
    pool = processes(1)
    executor = pool.make()
    futures = [executor.submit(time.sleep, 60) for _ in range(20)]
    pool.kill(executor)
    assert all(future.done() for future in futures)
    assert isinstance(futures[-1].exception(), pool.crashed)
