"""util-linux reads what we write, and says the same."""

import json
import shutil
import subprocess

import pytest

from altmap.linux.observation import Block, MemoryFolder, Observation

LSMEM = shutil.which("lsmem")
pytestmark = pytest.mark.skipif(LSMEM is None, reason="needs lsmem from util-linux")

COLUMNS = "RANGE,SIZE,STATE,REMOVABLE,BLOCK,NODE,ZONES"


def lsmem(folder):
    ran = subprocess.run(
        [LSMEM, "--sysroot", folder, "--json", "--all", "--bytes", "--output", COLUMNS],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(ran.stdout)["memory"]


def expected(nr, block, block_size_bytes):
    start = nr * block_size_bytes
    zones = "/".join("None" if zone == "none" else zone for zone in block.valid_zones)
    return {
        "range": f"{start:#018x}-{start + block_size_bytes - 1:#018x}",
        "size": block_size_bytes,
        "state": "on->off" if block.state == "going-offline" else block.state,
        # lsmem asks the file only of blocks that are online.
        "removable": block.removable and block.state == "online",
        "block": str(nr),
        "node": block.nodes[0],
        "zones": zones,
    }


def test_lsmem_sees_a_recorded_machine_as_we_do(recorded, tmp_path):
    recorded.write(tmp_path / "root")
    memory = Observation.read(recorded).memory
    assert lsmem(tmp_path / "root") == [
        expected(nr, block, memory.block_size_bytes) for nr, block in memory.blocks.items()
    ]


def test_lsmem_reads_what_an_observation_alone_renders(tmp_path):
    blocks = {
        0: Block("online", 0, True, ("none",), (0,)),
        7: Block("offline", 0, True, ("Normal", "Movable"), (0,)),
        8: Block("going-offline", 0, True, ("Movable",), (1,)),
        4096: Block("online", 0, True, ("Movable",), (1,)),
    }
    memory = MemoryFolder(256 << 20, "online", blocks)
    Observation(memory=memory).render().write(tmp_path / "root")
    assert lsmem(tmp_path / "root") == [
        expected(nr, block, 256 << 20) for nr, block in blocks.items()
    ]
