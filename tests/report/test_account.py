"""Memory accounting of real kernels' files and of predictions."""

import dataclasses
import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from altmap.cli import main as cli
from altmap.errors import InputError
from altmap.linux.observation import Observation, page_size_bytes
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import predict
from altmap.report.account import account, account_trace
from altmap.report.text import account_text
from altmap.scenario import Machine, Plug, Scenario, Size, load_scenario

ROOT = Path(__file__).parents[2]
RECORDINGS = sorted((ROOT / "tests/recordings/files").glob("*.tar.xz"))
SCENARIOS = sorted((ROOT / "scenarios").glob("*.toml"))
MIB = 1 << 20


def seen(name):
    return Observation.read(Sysroot.read(ROOT / f"tests/recordings/files/{name}.tar.xz"))


def by_name(levels):
    return {level.name: level for level in levels}


def losses(level):
    return {loss.cause: loss.size_bytes for loss in level.losses}


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_every_byte_is_on_a_level_or_lost_with_a_cause(path):
    found = Observation.read(Sysroot.read(path))
    levels = account(found)
    for level, below in itertools.pairwise(levels):
        assert level.size_bytes - sum(loss.size_bytes for loss in level.losses) == below.size_bytes
    assert levels[0].size_bytes == len(found.memory.blocks) * found.memory.block_size_bytes
    assert levels[-1].size_bytes == found.meminfo["MemFree"] * 1024
    assert all(loss.size_bytes >= 0 for level in levels for loss in level.losses)


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_byte_of_a_prediction_is_on_a_level_or_lost_with_a_cause(path):
    levels = account_trace(predict(load_scenario(path)))
    for level, below in itertools.pairwise(levels):
        assert level.size_bytes - sum(loss.size_bytes for loss in level.losses) == below.size_bytes


@pytest.mark.parametrize(
    ("name", "factor"), [("MemTotal", 0.5), ("MemTotal", 2), ("MemFree", 2), ("Cached", 90)]
)
def test_counters_that_contradict_each_other_are_no_negative_loss(name, factor):
    found = seen("linux-6.12-dimm")
    meminfo = found.meminfo | {name: int(found.meminfo[name] * factor)}
    levels = account(dataclasses.replace(found, meminfo=meminfo))
    for level, below in itertools.pairwise(levels):
        lost, gained = (sum(x.size_bytes for x in y) for y in (level.losses, level.gains))
        assert level.size_bytes - lost + gained == below.size_bytes
    parts = [part for level in levels for part in (*level.losses, *level.gains)]
    assert all(part.size_bytes > 0 for part in parts)
    assert "  +" in account_text(levels, "t") or factor < 1


def test_more_present_pages_than_online_blocks_are_said():
    found = seen("linux-6.12-dimm")
    memory = dataclasses.replace(
        found.memory, blocks={nr: b for nr, b in found.memory.blocks.items() if nr < 32}
    )
    online = by_name(account(dataclasses.replace(found, memory=memory)))["online"]
    assert [gain.cause for gain in online.gains] == [
        "present pages outside of the blocks that are online"
    ]


@pytest.mark.parametrize("name", ["MemTotal", "MemFree"])
def test_a_line_that_meminfo_lacks_is_no_level(name):
    found = seen("linux-6.12-dimm")
    meminfo = {key: value for key, value in found.meminfo.items() if key != name}
    names = [level.name for level in account(dataclasses.replace(found, meminfo=meminfo))]
    assert names == [n for n in by_name(account(found)) if n != name]


def test_a_half_online_dimm_on_6_12():
    # Of four blocks of 128 MiB two are online, each with 512 pages of memmap.
    levels = by_name(account(seen("linux-6.12-dimm")))
    assert losses(levels["memory blocks"]) == {"blocks that are offline": 256 * MIB}
    assert losses(levels["present"])["memmap of added memory, in that memory itself"] == 4 * MIB


def test_the_same_dimm_on_6_1_has_its_memmap_in_existing_memory():
    # One DIMM of four blocks is not self-hosted there, and no counter shows its memmap.
    levels = by_name(account(seen("linux-6.1-dimm")))
    assert "memmap of added memory, in that memory itself" not in losses(levels["present"])


def test_half_a_block_of_hyperv_is_fake_offline_and_its_memmap_in_existing_memory():
    levels = by_name(
        account_trace(predict(load_scenario(ROOT / "scenarios/hyperv-64MiB-second-half.toml")))
    )
    assert losses(levels["present"])["fake-offline: PageOffline pages of a driver"] == 64 * MIB
    assert losses(levels["MemTotal"])["memmap of added memory, in existing memory"] == 2 * MIB


def test_a_refused_dimm_is_requested_but_in_no_block():
    levels = by_name(account_trace(predict(load_scenario(ROOT / "scenarios/misaligned-dimm.toml"))))
    assert losses(levels["requested"]) == {"plugged, but in no memory block": 128 * MIB}


def test_without_page_flags_the_loss_is_named_as_unknown():
    sysroot = Sysroot.read(ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz")
    del sysroot.files["proc/kpageflags.runs"]
    levels = by_name(account(Observation.read(sysroot)))
    assert [loss.cause for loss in levels["present"].losses] == [
        "memmap, kernel image, fake-offline pages (kpageflags is missing)"
    ]


def test_a_machine_that_shows_no_zones_is_refused():
    with pytest.raises(InputError, match="proc/zoneinfo"):
        account(Observation())


@pytest.mark.parametrize("path", RECORDINGS, ids=lambda path: path.name)
def test_the_page_size_of_x86_is_found(path):
    assert page_size_bytes(Observation.read(Sysroot.read(path))) == 4096


@pytest.mark.parametrize("boot_gib", [1, 2, 4])
def test_offline_memory_does_not_change_the_page_size(boot_gib):
    """With much of System RAM offline, its ratio to present pages was taken for 16 KiB pages."""
    plug = Plug(id="d", size=Size(4096 * MIB))
    machine = Machine(memory=Size(boot_gib << 30), auto_online_blocks="offline")
    trace = predict(Scenario(name="s", machine=machine, steps=[plug]))
    assert page_size_bytes(trace.steps[-1].observation) == 4096


def test_the_command_prints_levels_and_json(capsys):
    source = str(ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz")
    assert cli.main(["account", source]) == cli.EQUAL
    text = capsys.readouterr().out
    assert "memory blocks       1,536.000 MiB" in text
    assert "  blocks that are offline" in text
    assert cli.main(["account", source, "--json"]) == cli.EQUAL
    made = json.loads(capsys.readouterr().out)
    assert (made["schema"], made["version"]) == ("altmap-account", 2)
    assert made["levels"][0]["size_bytes"] == 1536 * MIB


def test_a_missing_source_is_one_line(capsys):
    assert cli.main(["account", "nowhere"]) == cli.FAILED
    assert capsys.readouterr().err.count("\n") == 1


BALLOON = Path(__file__).parents[1] / "host/machines/balloon-in-memtotal.tar.gz"


def causes(seen):
    return {loss.cause: loss.size_bytes for level in account(seen) for loss in level.losses}


def test_a_balloon_that_stays_in_memtotal_is_named():
    # balloon_inflate 157696, balloon_deflate 4096: 600 MiB in the balloon of the hypervisor.
    found = causes(Observation.read(Sysroot.read(BALLOON)))
    assert found["balloon (of the hypervisor)"] == 600 << 20
    assert found["other kernel memory"] < 16 << 20


@pytest.mark.parametrize(
    ("meminfo", "vmstat", "expected"),
    [
        ({"Balloon": 500 << 10}, {}, 500 << 20),  # newer kernels: in kB
        ({"Balloon": 0}, {}, None),  # it goes before the counters
        ({}, {"balloon_inflate": 4096}, None),  # nothing is in the balloon
        ({}, {"balloon_inflate": 4096 + 256}, 1 << 20),
        ({}, {"balloon_inflate": 1 << 20}, None),  # more than is unaccounted for: it left MemTotal
    ],
)
def test_a_balloon_is_named_if_the_files_count_it_and_it_fits(meminfo, vmstat, expected):
    seen = Observation.read(Sysroot.read(BALLOON))
    seen = replace(seen, meminfo=seen.meminfo | meminfo, vmstat=seen.vmstat | vmstat)
    found = causes(seen)
    assert found.get("balloon (of the hypervisor)") == expected
    assert ("kernel, or a driver's (balloon)" in found) == (expected is None)
    levels = account(seen)
    for level, below in itertools.pairwise(levels):
        lost = sum(loss.size_bytes for loss in level.losses)
        assert level.size_bytes - lost == below.size_bytes
