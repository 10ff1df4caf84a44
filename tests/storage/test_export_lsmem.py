"""util-linux reads every exported step, and sees the blocks that were predicted."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import predict
from altmap.scenario import load_scenario
from altmap.storage.export import export

LSMEM = shutil.which("lsmem")
pytestmark = pytest.mark.skipif(LSMEM is None, reason="needs lsmem from util-linux")

RECORDINGS = Path(__file__).parents[1] / "recordings" / "files"
COLUMNS = ("RANGE", "SIZE", "STATE", "REMOVABLE", "BLOCK", "NODE", "ZONES")

DIMM = """
[machine]
memmap_on_memory = "on"
auto_online_blocks = "offline"
[[steps]]
do = "plug"
id = "d1"
size = "512MiB"
[[steps]]
do = "online"
id = "d1"
part = "first"
to = "online_movable"
[[steps]]
do = "online"
id = "d1"
part = "last"
to = "online_kernel"
[[steps]]
do = "offline"
id = "d1"
part = "first"
"""
UNPLUG = """
[machine]
auto_online_blocks = "online_movable"
[[steps]]
do = "plug"
id = "d1"
size = "256MiB"
[[steps]]
do = "unplug"
id = "d1"
"""
NODES = """
[machine]
auto_online_blocks = "online"
nodes = [{ memory = "1GiB" }, { memory = "1GiB" }]
[[steps]]
do = "plug"
id = "d1"
size = "256MiB"
node = 1
"""
LARGE_BLOCKS = """
[machine]
memory = "4GiB"
block_size = "512MiB"
auto_online_blocks = "online"
[[steps]]
do = "plug"
id = "d1"
size = "1GiB"
"""
HYPERV = """
[machine]
auto_online_blocks = "online"
[[steps]]
do = "plug"
id = "hv"
driver = "hyperv"
address = "4GiB"
size = "64MiB"
"""
#: Scenario, and the recording that it starts from.
CASES = {
    "dimm": (DIMM, None),
    "unplug": (UNPLUG, None),
    "nodes": (NODES, None),
    "large-blocks": (LARGE_BLOCKS, None),
    "hyperv": (HYPERV, None),
    "dimm-on-6.1": (DIMM, "linux-6.1-start"),
    "dimm-on-6.12": (DIMM, "linux-6.12-start"),
    "second-dimm-on-6.12": (DIMM, "linux-6.12-dimm"),
    "dimm-on-two-nodes": (DIMM, "linux-6.12-two-nodes"),
}


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def exported(request, tmp_path_factory):
    """A trace, and the folder that it was exported to."""
    text, recording = request.param
    tmp_path = tmp_path_factory.mktemp("exported")
    scenario_file = tmp_path / "scenario.toml"
    scenario_file.write_text(text)
    scenario = load_scenario(scenario_file)
    base = Sysroot.read(RECORDINGS / f"{recording}.tar.xz") if recording else None
    trace = predict(scenario, base and Observation.read(base), pages=False)
    export({"": trace}, tmp_path / "out", base)
    return trace, tmp_path / "out"


def steps(exported):
    trace, folder = exported
    for name, step in zip(trace.folder_names(), trace.steps, strict=True):
        assert step.observation is not None
        yield folder / name, step.observation.memory


def lsmem(folder, *options):
    ran = subprocess.run(
        [LSMEM, "--sysroot", folder, *options], check=True, capture_output=True, text=True
    )
    assert ran.stderr == ""
    return ran.stdout


def row(nr, block, block_bytes):
    """Return what lsmem says of one block.

    Its source reads ``removable`` of online blocks only, and joins zones by a slash.
    """
    return {
        "range": f"{nr * block_bytes:#018x}-{(nr + 1) * block_bytes - 1:#018x}",
        "size": block_bytes,
        "state": block.state,
        "removable": bool(block.removable) and block.state == "online",
        "block": str(nr),
        "node": block.nodes[0],
        "zones": "/".join("None" if zone == "none" else zone for zone in block.valid_zones),
    }


def test_every_block_of_every_step_is_read_as_predicted(exported):
    for folder, memory in steps(exported):
        out = lsmem(folder, "-J", "-a", "-b", "-o", ",".join(COLUMNS))
        assert json.loads(out)["memory"] == [
            row(nr, block, memory.block_size_bytes) for nr, block in memory.blocks.items()
        ]


def test_ranges_cover_the_blocks_of_each_state_and_zone(exported):
    for folder, memory in steps(exported):
        seen = {}
        for line in json.loads(lsmem(folder, "-J", "-b", "-o", ",".join(COLUMNS)))["memory"]:
            first, _, last = line["block"].partition("-")
            ids = range(int(first), int(last or first) + 1)
            start, end = (int(text, 16) for text in line["range"].split("-"))
            assert (start, end + 1) == (
                ids.start * memory.block_size_bytes,
                ids.stop * memory.block_size_bytes,
            )
            assert line["size"] == end + 1 - start
            seen |= dict.fromkeys(ids, (line["state"], line["zones"], line["node"]))
        expected = {nr: row(nr, block, 0) for nr, block in memory.blocks.items()}
        assert seen == {
            nr: (line["state"], line["zones"], line["node"]) for nr, line in expected.items()
        }


def test_the_default_table_ends_in_the_predicted_sums(exported):
    for folder, memory in steps(exported):
        out = lsmem(folder, "-b", "-o", "+ZONES,NODE")
        assert out.splitlines()[0].split() == [
            *("RANGE", "SIZE", "STATE", "REMOVABLE", "BLOCK", "ZONES", "NODE")
        ]
        sums = dict(line.split(": ") for line in out.splitlines() if ": " in line)
        states = [block.state for block in memory.blocks.values()]
        assert {name: int(text) for name, text in sums.items()} == {
            "Memory block size": memory.block_size_bytes,
            "Total online memory": states.count("online") * memory.block_size_bytes,
            "Total offline memory": states.count("offline") * memory.block_size_bytes,
        }


def test_lsmem_sees_each_step_of_a_dimm(tmp_path):
    scenario_file = tmp_path / "scenario.toml"
    scenario_file.write_text(DIMM)
    trace = predict(load_scenario(scenario_file), pages=False)
    export({"": trace}, tmp_path / "out")
    seen = []
    for name in trace.folder_names():
        out = lsmem(tmp_path / "out" / name, "-J", "-b", "-a", "-o", "BLOCK,STATE,ZONES")
        blocks = {int(row["block"]): row for row in json.loads(out)["memory"]}
        # 1 GiB is blocks 0 to 7; the DIMM is at 4 GiB.
        assert all(blocks[nr]["state"] == "online" for nr in range(8))
        seen.append([f"{b['state']} {b['zones']}" for nr, b in blocks.items() if nr >= 32])
    free, movable, kernel = "offline Normal/Movable", "online Movable", "online Normal"
    assert seen == [
        [],
        [free, free, free, free],
        [movable, free, free, free],
        [movable, free, free, kernel],
        [free, free, free, kernel],
    ]
