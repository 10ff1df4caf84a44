"""The machines on which programs run: small, uneven, large, of other architectures."""

from altmap.scenario import Machine, Online, Plug, Scenario


def scenario(name, *steps, **machine):
    return Scenario(name=name, machine=Machine(**machine), steps=steps)


PC = scenario(
    "pc-1GiB",
    Plug(id="d1", size="1GiB"),
    arch="x86_64",
    release="6.12",
    memory="1GiB",
    auto_online_blocks="offline",
)
NUMA = scenario(
    "memory-less-node",
    Plug(id="d1", size="1GiB", node=1),
    arch="x86_64",
    release="6.12",
    memory="2GiB",
    nodes=[{"memory": "2GiB"}, {"memory": "0MiB"}],
    auto_online_blocks="offline",
)
LARGE = scenario(
    "64TiB",
    Plug(id="d1", size="64TiB", address="0x1080000000"),
    Online(id="d1", to="online_movable"),
    arch="x86_64-la57",
    release="6.12",
    memory="64GiB",
    block_size="2GiB",
    memmap_on_memory="on",
    auto_online_blocks="offline",
)
POWER = scenario(
    "power",
    Plug(id="d1", size="1GiB"),
    arch="ppc64le",
    release="6.12",
    memory="4GiB",
    auto_online_blocks="online_movable",
)
S390X = scenario(
    "s390x",
    Plug(id="s1", driver="standby", size="2GiB"),
    arch="s390x",
    release="6.12",
    memory="1GiB",
    auto_online_blocks="offline",
)
ARM64 = scenario(
    "arm64-16k",
    Plug(id="d1", size="2GiB"),
    arch="aarch64-16k",
    release="6.12",
    memory="2GiB",
    auto_online_blocks="offline",
)
CXL = scenario(
    "cxl-2TiB",
    Plug(id="cxl0", driver="kmem", dax="cxl", size="2TiB", address="0x2000000000"),
    arch="x86_64",
    release="7.3",
    memory="64GiB",
    block_size="2GiB",
    memmap_on_memory="on",
    auto_online_blocks="offline",
)
MACHINES = {each.name: each for each in (PC, NUMA, LARGE, POWER, S390X, ARM64)}
