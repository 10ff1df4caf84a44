"""node_exporter reads exported predictions, and its numbers are the model's and ours."""

import platform
from collections import Counter
from pathlib import Path

import pytest
from exporter import fetch_exporter, scraped

from altmap.host.metrics import samples
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import predict
from altmap.scenario import load_scenario
from altmap.storage.export import export

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="missing: an x86_64 machine"),
]

RECORDINGS = Path(__file__).parents[1] / "recordings/files"
SCENARIO = """
[machine]
auto_online_blocks = "offline"
[[steps]]
do = "plug"
id = "d1"
size = "512MiB"
{node}
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
"""
#: Recording that the prediction starts from, and whether its nodes show all that is read of them.
CASES = {"paper": (None, False), "6.12": ("6.12-start", True), "nodes": ("6.12-two-nodes", True)}
ZONE_PAGES = ("present", "spanned", "managed", "min", "low", "high")


@pytest.fixture(scope="module", params=CASES.values(), ids=CASES)
def predicted(request, tmp_path_factory):
    """Each step's folder with what was predicted, and whether nodes can be compared."""
    recording, nodes = request.param
    folder = tmp_path_factory.mktemp("predicted")
    node = "node = 1" if recording == "6.12-two-nodes" else ""
    (folder / "s.toml").write_text(SCENARIO.format(node=node))
    base = Sysroot.read(RECORDINGS / f"linux-{recording}.tar.xz") if recording else None
    trace = predict(load_scenario(folder / "s.toml"), base and Observation.read(base), pages=False)
    export({"": trace}, folder / "out", base)
    return [
        (folder / "out" / name, step.observation)
        for name, step in zip(trace.folder_names(), trace.steps, strict=True)
    ], nodes


def test_node_exporter_says_of_each_step_what_was_predicted(predicted):
    program = fetch_exporter()
    steps, nodes = predicted
    collectors = ["meminfo", "zoneinfo", *(["meminfo_numa"] if nodes else [])]
    for root, seen in steps:
        theirs = scraped(program, root, collectors)
        for name in collectors:
            assert theirs["node_scrape_collector_success", ("collector", name)] == 1
        _check_meminfo(theirs, seen)
        for zone in seen.zoneinfo:
            labels = (("node", str(zone.node)), ("zone", zone.name))
            for name in ZONE_PAGES:
                assert theirs[f"node_zoneinfo_{name}_pages", *labels] == zone.pages[name]
        if nodes:
            for node, numbers in seen.nodes.meminfo.items():
                total = theirs["node_memory_numa_MemTotal", ("node", str(node))]
                assert total == numbers["MemTotal"] * 1024
        _check_ours(theirs, root, seen)


#: Lines of meminfo that hotplug changes; newer versions know no more than a list of lines.
CORE = ("MemTotal", "MemFree", "MemAvailable", "CommitLimit", "Slab", "Percpu")


def _check_meminfo(theirs, seen):
    told = {name[0].removeprefix("node_memory_"): value for name, value in theirs.items()}
    compared = set()
    for name, value in seen.meminfo.items():
        plain = name.replace("(", "_").replace(")", "")
        for key, expected in ((plain, value), (f"{plain}_bytes", value * 1024)):
            if key in told:
                assert told[key] == expected, name
                compared.add(name)
    assert compared >= {*CORE, "HugePages_Total", "HugePages_Free"}


def _check_ours(theirs, root, seen):
    """Check that a zone's present pages are our online blocks, where blocks have no holes."""
    ours = Counter()
    for each in samples(Observation.read(Sysroot.read(root))):
        if each.name == "altmap_memory_blocks" and each.labels[0] == "online":
            ours[each.labels[1:]] += each.value * seen.memory.block_size_bytes
    for node in {str(zone.node) for zone in seen.zoneinfo}:
        for zone in ("Normal", "Movable"):
            pages = theirs["node_zoneinfo_present_pages", ("node", node), ("zone", zone)]
            assert pages * 4096 == ours[zone, node]
