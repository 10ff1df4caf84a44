"""Situations that users reported: the model says in advance what the table beside them says."""

import re
from pathlib import Path

import pytest

from altmap.model.machine import predict
from altmap.scenario import load_scenario

FOLDER = Path(__file__).parents[2] / "examples/complaints"
ROW = re.compile(
    r"\| \[([\w-]+)\]\(\1\.toml\) \| [^|]+ \| `([\w-]+)`: (ok|[A-Z]+)(?: by `(\w+)`)?: "
)
ROWS = ROW.findall((FOLDER / "README.md").read_text(encoding="utf-8"))


def test_every_scenario_has_a_row():
    assert sorted(row[0] for row in ROWS) == sorted(path.stem for path in FOLDER.glob("*.toml"))


@pytest.mark.parametrize(("name", "step", "ending", "function"), ROWS, ids=[row[0] for row in ROWS])
def test_the_model_says_in_advance_what_the_table_says(name, step, ending, function):
    trace = predict(load_scenario(FOLDER / f"{name}.toml"), pages=False)
    outcomes = {record.name: record.outcome for record in trace.steps}
    assert (outcomes[step].errno or "ok", outcomes[step].function or "") == (ending, function)
    others = [outcome for other, outcome in outcomes.items() if other != step]
    assert all(others), "only the step that people complain about is refused"


def test_a_large_dimm_on_6_1_takes_its_memmap_from_existing_memory():
    trace = predict(load_scenario(FOLDER / "memmap-on-memory-with-a-large-dimm.toml"))
    (placed,) = [event for event in trace.steps[1].events if event.kind == "memmap-placed"]
    # 1 GiB of 4 KiB pages, 64 bytes for each.
    assert len(placed.pfns) == (1 << 30) // 4096 * 64 // 4096 == 4096
    assert "of existing memory" in placed.text


def test_the_second_dimm_under_auto_movable_is_in_normal():
    trace = predict(load_scenario(FOLDER / "auto-movable-goes-to-normal.toml"))
    blocks = trace.steps[2].observation.memory.blocks
    assert blocks[32].valid_zones == ("Movable",)
    assert blocks[48].valid_zones == ("Normal",)


def test_the_kernel_starves_while_half_of_the_machine_is_free():
    trace = predict(load_scenario(FOLDER / "all-movable-starves-the-kernel.toml"), pages=False)
    meminfo = trace.steps[-1].observation.meminfo
    assert meminfo["MemFree"] * 2 > meminfo["MemTotal"]


def test_virtio_mem_takes_its_memmap_from_existing_memory_whatever_is_advised():
    trace = predict(load_scenario(FOLDER / "virtio-mem-with-memmap-on-memory.toml"))
    placed = [event for event in trace.steps[1].events if event.kind == "memmap-placed"]
    # 2 GiB of 4 KiB pages, 64 bytes for each.
    assert sum(len(event.pfns) for event in placed) == (2 << 30) // 4096 * 64 // 4096 == 8192
    assert all("of existing memory" in event.text for event in placed)
