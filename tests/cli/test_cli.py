"""The commands, as a shell would run them: exit code, standard output, standard error, files."""

import io
import json
import lzma
import re
import resource
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from altmap.cli import main as cli
from altmap.cli.main import main

RECORDINGS = Path(__file__).parents[1] / "recordings" / "files"
NAMES = [f"linux-{r}-{guest}" for r in ("6.1", "6.12") for guest in ("start", "dimm", "two-nodes")]
ZONEINFO, IOMEM = "proc/zoneinfo", "proc/iomem"
MEMORY, NODE = "sys/devices/system/memory", "sys/devices/system/node"
#: Blocks of 128 MiB.
BLOCK_PAGES, BLOCK_MEMMAP_PAGES = 32768, 512

DIMM = """
description = "A DIMM is plugged and onlined"
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
to = "online_movable"
"""
PLUG = '[[steps]]\ndo = "plug"\nid = "d1"\nsize = "128MiB"\n'
UNPLUG = '[[steps]]\ndo = "unplug"\nid = "d1"\n'
#: The host backs the second half of a section only.
HALF = """
[machine]
memmap_on_memory = "on"
auto_online_blocks = "online"
[[steps]]
do = "plug"
id = "hv"
driver = "hyperv"
address = "0x104000000"
size = "64MiB"
[[steps]]
do = "plug"
id = "d1"
size = "128MiB"
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """Every test has a folder of its own, so that what a command leaves there shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("PYTHONPATH", str(Path(cli.__file__).parents[2]))
    return tmp_path


@pytest.fixture
def altmap(capsys):
    """Return the function that runs a command; it returns exit code, stdout and stderr."""

    def run(*arguments):
        status = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return status, out, err

    return run


@pytest.fixture
def refused(altmap, here):
    """Return the function that runs a command that must fail, and returns its one line."""

    def run(*arguments):
        before = sorted(here.rglob("*"))
        status, out, err = altmap(*arguments)
        assert (status, out) == (cli.FAILED, "")
        assert re.fullmatch(r"altmap: [^\n]+\n", err)
        assert err[:-1].isprintable()
        assert sorted(here.rglob("*")) == before
        return err[len("altmap: ") : -1]

    return run


def scenario(text, name="s.toml"):
    path = Path(name)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def recording(name):
    return RECORDINGS / f"{name}.tar.xz"


def members(archive):
    """Return a recording's files and links, read by the standard library."""
    with tarfile.open(archive) as tar:
        return {
            m.name: tar.extractfile(m).read().decode() if m.isreg() else Path(m.linkname)
            for m in tar
            if m.isreg() or m.issym()
        }


def folder_of(files, name="root"):
    """Write files and links to a folder."""
    for path, content in files.items():
        target = Path(name, path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            target.symlink_to(content)
        else:
            target.write_bytes(content.encode("latin-1"))
    return Path(name)


def number(text, pattern):
    found = re.search(pattern, text, re.M)
    assert found, pattern
    return int(found[1])


def zone_numbers(text):
    """Return ``(free, spanned, present, managed)`` of every zone, by a plain search."""
    found = {}
    for part in re.split(r"^Node ", text, flags=re.M)[1:]:
        node, name = re.match(r"(\d+), zone +(\w+)", part).groups()
        found[int(node), name] = tuple(
            number(part, rf"^  (?:pages| +) +{what} +(\d+)$")
            for what in ("free", "spanned", "present", "managed")
        )
    return found


def exported(folder):
    return json.loads(Path(folder, "trace.json").read_text())


# --- run -----------------------------------------------------------------------------------


def test_exit_codes_are_those_of_diff():
    assert (cli.EQUAL, cli.DIFFERENT, cli.FAILED) == (0, 1, 2)


def test_text_shows_each_step_its_result_and_requested_memory(altmap):
    status, out, err = altmap("run", scenario(DIMM))
    assert (status, err) == (cli.EQUAL, "")
    lines = out.splitlines()
    assert lines[:2] == ["A DIMM is plugged and onlined", "=" * 29]
    assert [line for line in lines if line.startswith("[")] == [
        "[0] start",
        "[1] plug-d1",
        "[2] online-d1",
    ]
    assert out.count("result    ok") == 2
    # 512 MiB less 64 bytes for each page of 4096.
    assert f", +{(512 << 10) - (8 << 10)})" in out
    assert "8 MiB of it not in MemTotal" in " ".join(out.split())


def test_a_refusal_is_a_result_not_a_failure(altmap):
    twice = DIMM + '[[steps]]\ndo = "online"\nid = "d1"\n'
    status, out, _ = altmap("run", scenario(twice))
    assert status == cli.EQUAL
    assert "refused: EINVAL by state_store: memory32" in " ".join(out.split())


def test_a_fault_is_a_result_not_a_failure(altmap):
    status, out, _ = altmap("run", scenario(HALF), "--policy", "rfc-2018")
    assert status == cli.EQUAL
    assert "general protection fault at pfn 0x100000" in " ".join(out.split())
    assert "not reached" in out


def test_json_is_the_trace(altmap):
    status, out, err = altmap("run", scenario(DIMM), "--json")
    assert (status, err) == (cli.EQUAL, "")
    trace = json.loads(out)
    assert (trace["schema"], trace["version"]) == ("altmap-trace", 1)
    assert (trace["scenario"], trace["target"]) == ("s", "model")
    assert [step["name"] for step in trace["steps"]] == ["start", "plug-d1", "online-d1"]


def test_same_scenario_same_bytes(altmap):
    first = altmap("run", scenario(DIMM), "--json")
    assert altmap("run", scenario(DIMM), "--json") == first


@pytest.mark.parametrize(
    ("settings", "key", "value"),
    [
        (["memmap_on_memory=off"], "memmap_on_memory", "N"),
        (["memmap_on_memory=force"], "memmap_on_memory", "force"),
        (["memmap_on_memory=off", "memmap_on_memory=on"], "memmap_on_memory", "Y"),
        (["auto_movable_ratio=100"], "auto_movable_ratio", "100"),
        (["movable_node=true"], "movable_node", True),
        (["auto_movable_numa_aware=false"], "auto_movable_numa_aware", "N"),
        (["memory=4GiB", "block_size=256MiB"], "block_size_bytes", 256 << 20),
        (["auto_online_blocks=online_kernel"], "auto_online_blocks", "online_kernel"),
    ],
)
def test_set_replaces_what_the_scenario_says(altmap, settings, key, value):
    options = [word for setting in settings for word in ("--set", setting)]
    status, out, _ = altmap("run", scenario(DIMM), "--json", *options)
    assert status == cli.EQUAL
    assert json.loads(out)["machine"][key] == value


@pytest.mark.parametrize(("given", "release"), [("6.1", "6.1"), ("6.12", "6.12"), ("6.5", "6.1")])
def test_release_replaces_the_scenarios(altmap, given, release):
    text = DIMM.replace("[machine]", '[machine]\nrelease = "6.12"')
    _, out, _ = altmap("run", scenario(text), "--json", "--release", given)
    trace = json.loads(out)
    assert trace["release"] == release
    # Before 6.6, a DIMM of four blocks does not hold its memmap.
    placed = next(
        event for event in trace["steps"][1]["events"] if event["kind"] == "memmap-placed"
    )
    assert (placed["pfns"]["ranges"][0][0] >= 0x100000) is (release == "6.12")


POLICIES = ("opt-in", "rfc-2018", "existing", "total-and-allocated")


def test_policies_are_shown_side_by_side(altmap):
    status, out, _ = altmap("run", scenario(HALF), "--policy", "rfc-2018", "--policy", "opt-in")
    assert status == cli.EQUAL
    assert re.search(r"^ +rfc-2018 \(model, 6.12\) +opt-in \(model, 6.12\)$", out, re.M)
    results = re.findall(r"^  result    (.+?)  +(.+)$", out, re.M)
    assert results[0] == ("fault: the kernel crashes", "ok")
    assert results[1][1] == "ok"


@pytest.mark.parametrize(
    ("width", "nr_policies"),
    [
        *((80, 1), (80, 2), (120, 1), (120, 3), (160, 4)),
        pytest.param(*(80, 3)),
    ],
)
@pytest.mark.parametrize("text", [DIMM, HALF], ids=["dimm", "half"])
def test_columns_fit_the_width_and_hold_nothing_but_text(
    altmap, monkeypatch, text, width, nr_policies
):
    monkeypatch.setenv("COLUMNS", str(width))
    options = [word for policy in POLICIES[:nr_policies] for word in ("--policy", policy)]
    _, out, _ = altmap("run", scenario(text), *options)
    assert max(map(len, out.splitlines())) <= width
    assert out.replace("\n", "").isprintable()


def test_notes_fit_the_width(altmap, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    files = members(recording("linux-6.12-start"))
    del files["proc/kpageflags.runs"]
    _, out, _ = altmap("run", scenario(DIMM), "--from", folder_of(files))
    assert max(map(len, out.splitlines())) <= 80


def test_several_scenarios_follow_one_another(altmap):
    first, second = scenario(DIMM, "one.toml"), scenario(HALF, "two.toml")
    status, out, _ = altmap("run", first, second, "--json")
    assert status == cli.EQUAL
    assert [trace["scenario"] for trace in json.loads(out)] == ["one", "two"]


def test_every_scenario_of_the_project_runs(altmap):
    files = sorted((Path(__file__).parents[2] / "scenarios").glob("*.toml"))
    assert files
    assert altmap("run", *files)[0] == cli.EQUAL


@pytest.mark.parametrize("arguments", [["walk"], ["run"], ["run", "s.toml", "--on", "moon"]])
def test_wrong_usage_is_an_error_with_the_usage(arguments, capsys):
    with pytest.raises(SystemExit) as left:
        main(arguments)
    assert left.value.code == cli.FAILED
    assert "usage: altmap" in capsys.readouterr().err


def test_version(capsys):
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert re.fullmatch(r"altmap \d+\.\d+\.\d+\n", capsys.readouterr().out)


def test_a_reader_who_leaves_is_no_traceback():
    scenario(DIMM)
    command = [sys.executable, "-m", "altmap", "run", "s.toml", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == cli.FAILED


# --- export --------------------------------------------------------------------------------


def test_export_has_a_sysroot_for_each_step_and_the_trace(altmap):
    status, out, err = altmap("run", scenario(DIMM), "--export", "out")
    assert (status, err) == (cli.EQUAL, "")
    assert out.endswith("sysroots written below out\n")
    steps = ["00-start", "01-plug-d1", "02-online-d1"]
    assert sorted(path.name for path in Path("out").iterdir()) == [*steps, "trace.json"]
    for step in steps:
        for path in (ZONEINFO, IOMEM, "proc/meminfo", f"{MEMORY}/block_size_bytes"):
            assert Path("out", step, path).is_file()
    states = [
        [Path("out", step, f"{MEMORY}/memory{nr}/state") for nr in range(32, 36)] for step in steps
    ]
    assert not any(path.exists() for path in states[0])
    assert {path.read_text() for path in states[1]} == {"offline\n"}
    assert {path.read_text() for path in states[2]} == {"online\n"}
    assert [path.name for path in Path().iterdir() if path.name.startswith(".")] == []


def test_export_and_json_say_the_same_and_the_notice_stays_out_of_it(altmap):
    _, out, err = altmap("run", scenario(DIMM), "--json", "--export", "out")
    assert out == Path("out/trace.json").read_text()
    assert err == "sysroots written below out\n"


def test_trace_tells_action_result_and_events(altmap):
    altmap("run", scenario(DIMM + '[[steps]]\ndo = "online"\nid = "d1"\n'), "--export", "out")
    start, plug, online, again = exported("out")["steps"]
    backed = start.pop("backed")
    assert backed["ranges"][-1][1] <= 0x40000  # boot memory, below 1 GiB
    gained = plug["backed"]["nr_pages"] - backed["nr_pages"]
    assert gained == 4 * BLOCK_PAGES
    assert plug["backed"]["ranges"][-1] == [0x100000, 0x120000]
    assert start == {
        "folder": "00-start",
        "name": "start",
        "action": {},
        "result": {"status": "ok", "errno": None, "function": None, "why": ""},
        "events": [],
        "faults": [],
    }
    assert plug["action"] == {"do": "plug", "id": "d1", "size": 512 << 20}
    assert online["action"] == {"do": "online", "id": "d1", "to": "online_movable"}
    placed = next(event for event in plug["events"] if event["kind"] == "memmap-placed")
    # Each block starts with its own memmap.
    starts = range(0x100000, 0x120000, BLOCK_PAGES)
    assert placed["function"] == "vmemmap_populate"
    assert placed["pfns"] == {
        "nr_pages": 4 * BLOCK_MEMMAP_PAGES,
        "nr_ranges": 4,
        "ranges": [[start, start + BLOCK_MEMMAP_PAGES] for start in starts],
    }
    result = again["result"]
    assert (result["status"], result["errno"]) == ("refused", "EINVAL")
    assert result["function"] == "state_store"
    assert "memory32" in result["why"]


def test_trace_tells_the_fault_and_no_folder_follows_it(altmap):
    altmap("run", scenario(HALF), "--policy", "rfc-2018", "--export", "out")
    _, plug, after = exported("out")["steps"]
    assert plug["result"]["status"] == "fault"
    (fault,) = plug["faults"]
    assert plug["result"]["function"] == fault["function"] == "mark_vmemmap_pages"
    assert (fault["pfn"], fault["access"]) == (0x100000, "write")
    assert fault["kind"] == "general protection fault"
    # The struct pages of 512 memmap pages fill 8 pages.
    assert fault["pfns"]["ranges"] == [[0x100000, 0x100008]]
    assert after["result"]["status"] == "not_reached"
    assert after["result"]["why"]
    assert sorted(path.name for path in Path("out").iterdir()) == ["00-start", "trace.json"]


def test_several_policies_are_exported_beside_one_another(altmap):
    altmap("run", scenario(HALF), "--policy", "opt-in", "--policy", "existing", "--export", "out")
    assert sorted(str(path) for path in Path("out").glob("*/*")) == [
        "out/s/existing",
        "out/s/opt-in",
    ]
    assert {exported(f"out/s/{policy}")["policy"] for policy in ("opt-in", "existing")} == {
        "opt-in",
        "existing",
    }


def test_an_empty_folder_may_be_exported_to(altmap):
    Path("out").mkdir()
    assert altmap("run", scenario(DIMM), "--export", "out")[0] == cli.EQUAL
    assert Path("out/trace.json").is_file()


def refused_export(altmap, here, target):
    """Run an export that must fail; return its one line."""
    file = scenario(DIMM)
    before = {path: path.is_file() and path.read_bytes() for path in here.rglob("*")}
    status, _, err = altmap("run", file, "--export", target)
    assert status == cli.FAILED
    assert re.fullmatch(r"altmap: [^\n]+\n", err)
    assert {path: path.is_file() and path.read_bytes() for path in here.rglob("*")} == before
    return err


def test_a_folder_that_is_not_empty_is_refused(altmap, here):
    Path("out").mkdir()
    Path("out/mine").write_text("kept")
    err = refused_export(altmap, here, "out")
    assert err == "altmap: out: need a new or empty folder, but it holds 'mine'\n"


def test_a_file_in_place_of_the_folder_is_refused(altmap, here):
    Path("out").write_text("kept")
    err = refused_export(altmap, here, "out")
    assert err == "altmap: out: need a new or empty folder, but it is a file\n"


@pytest.mark.parametrize(
    "target",
    [
        "/proc/altmap",
        "s.toml/out",
        pytest.param("a" * 300),
    ],
)
def test_a_folder_that_cannot_be_made_is_refused(altmap, here, target):
    assert f"altmap: {target}: cannot be written: " in refused_export(altmap, here, target)


def test_a_step_name_too_long_for_the_disk_leaves_nothing(altmap, here):
    file = scenario(DIMM + f'name = "{"a" * 300}"\n')
    status, _, err = altmap("run", file, "--export", "new/out")
    assert status == cli.FAILED
    assert "new/out: " in err
    assert sorted(path.name for path in here.iterdir()) == ["s.toml"]


# --- from a sysroot ------------------------------------------------------------------------


@pytest.fixture(params=NAMES)
def captured(request):
    """A recording: where it is, and the text of its files."""
    return recording(request.param), members(recording(request.param))


@pytest.fixture
def carried(altmap, captured):
    """A DIMM plugged and onlined on a recorded machine: the files before and after it."""
    path, files = captured
    text = '[machine]\nauto_online_blocks = "online_movable"\n' + PLUG
    status, out, err = altmap("run", scenario(text), "--from", path, "--export", "out")
    assert (status, err) == (cli.EQUAL, ""), out
    return files, Path("out/00-start"), Path("out/01-plug-d1"), exported("out")


def test_the_start_is_the_captured_machine(carried):
    files, start, _, trace = carried
    assert trace["notes"] == []
    skipped = ("/auto_online_blocks", "/meminfo" if trace["release"] == "6.1" else "-")
    for path in (ZONEINFO, IOMEM, "proc/meminfo", "proc/vmstat", "proc/buddyinfo", "proc/version"):
        assert (start / path).read_text() == files[path]
    for path in files:
        # The scenario sets auto_online_blocks; the node's meminfo of 6.1 has a test of its own.
        if path.startswith((MEMORY, NODE)) and not path.endswith(skipped):
            found = start / path
            text = found.readlink() if found.is_symlink() else found.read_text()
            assert text == files[path], path


def test_the_nodes_meminfo_of_6_1_keeps_its_columns(altmap):
    path, name = recording("linux-6.1-start"), f"{NODE}/node0/meminfo"
    altmap("run", scenario(""), "--from", path, "--export", "out")
    assert Path("out/00-start", name).read_text() == members(path)[name]


def test_numbers_carry_on_from_the_captured_ones(carried):
    files, _, after, trace = carried
    release = trace["release"]
    hosted = BLOCK_MEMMAP_PAGES if trace["machine"]["memmap_on_memory"] == "Y" else 0
    before, now = zone_numbers(files[ZONEINFO]), zone_numbers((after / ZONEINFO).read_text())
    changed = {key for key in before if now[key][2:] != before[key][2:]}
    assert changed == {(0, "Movable")}
    (_, spanned, present, managed), (_, spanned_now, present_now, managed_now) = (
        numbers[0, "Movable"] for numbers in (before, now)
    )
    assert present_now - present == BLOCK_PAGES
    assert managed_now - managed == BLOCK_PAGES - hosted
    assert spanned_now - spanned >= BLOCK_PAGES
    total = [
        number(text, r"^MemTotal: +(\d+) kB$")
        for text in (files["proc/meminfo"], (after / "proc/meminfo").read_text())
    ]
    assert total[1] - total[0] == 4 * (BLOCK_PAGES - hosted)
    if release != "6.1":
        memmap = [
            number(text, r"^nr_memmap_pages (\d+)$")
            for text in (files["proc/vmstat"], (after / "proc/vmstat").read_text())
        ]
        assert memmap[1] - memmap[0] == BLOCK_MEMMAP_PAGES


def test_blocks_carry_on_from_the_captured_ones(carried):
    files, _, after, _ = carried

    def states(paths, read):
        found = (re.fullmatch(rf"{MEMORY}/memory(\d+)/state", str(path)) for path in paths)
        return {int(match[1]): read(match[0]) for match in found if match}

    before = states(files, files.get)
    paths = [path.relative_to(after) for path in after.glob(f"{MEMORY}/memory*/state")]
    now = states(paths, lambda path: (after / path).read_text())
    # The first free block from 4 GiB or the end of boot memory on, whichever is higher.
    assert now == before | {max(31, *before) + 1: "online\n"}


def test_parameters_are_those_of_the_sysroot(altmap, captured):
    path, files = captured
    _, out, _ = altmap("run", scenario(PLUG), "--from", path, "--json")
    trace = json.loads(out)
    machine = trace["machine"]
    assert trace["release"] == re.search(r"version (\d+\.\d+)", files["proc/version"])[1]
    assert machine["block_size_bytes"] == int(files[f"{MEMORY}/block_size_bytes"], 16)
    assert machine["auto_online_blocks"] == files[f"{MEMORY}/auto_online_blocks"].strip()
    for name in ("memmap_on_memory", "online_policy", "auto_movable_ratio"):
        shown = files[f"sys/module/memory_hotplug/parameters/{name}"].strip()
        assert machine[name] == shown


def test_the_scenario_overrides_the_sysroot(altmap):
    settings = ("--set", "memmap_on_memory=off", "--set", "auto_online_blocks=online_kernel")
    options = (*settings, "--from", recording("linux-6.12-start"), "--json")
    machine = json.loads(altmap("run", scenario(PLUG), *options)[1])["machine"]
    assert (machine["memmap_on_memory"], machine["auto_online_blocks"]) == ("N", "online_kernel")


@pytest.mark.parametrize("release", ["6.1", "6.12"])
def test_nodes_are_those_of_the_sysroot(altmap, release):
    path = recording(f"linux-{release}-two-nodes")
    text = '[machine]\nauto_online_blocks = "online_movable"\n' + PLUG + "node = 1\n"
    altmap("run", scenario(text), "--from", path, "--export", "out")
    before = zone_numbers(members(path)[ZONEINFO])
    now = zone_numbers(Path("out/01-plug-d1", ZONEINFO).read_text())
    grown = {key: numbers[2] - before[key][2] for key, numbers in now.items()}
    assert {key: nr for key, nr in grown.items() if nr} == {(1, "Movable"): BLOCK_PAGES}
    # 6 GiB of boot memory end at 7 GiB, block 56.
    assert Path(f"out/01-plug-d1/{MEMORY}/memory56/node1").is_symlink()


def test_a_node_that_the_sysroot_has_not_is_refused(refused):
    message = refused(
        *("run", scenario(PLUG + "node = 1\n"), "--from", recording("linux-6.12-start"))
    )
    assert "node 1 does not exist" in message


@pytest.mark.parametrize("release", ["6.1", "6.12"])
def test_a_dimm_of_the_sysroot_is_known_by_its_firmware_node(altmap, release):
    text = """
[[steps]]
do = "offline"
id = "PNP0C80:00"
part = "first"
[[steps]]
do = "online"
id = "PNP0C80:00"
part = "last"
to = "online_movable"
[[steps]]
do = "unplug"
id = "PNP0C80:00"
"""
    path = recording(f"linux-{release}-dimm")
    status, out, err = altmap("run", scenario(text), "--from", path, "--export", "out")
    assert (status, err) == (cli.EQUAL, ""), out
    steps = exported("out")["steps"]
    # Block 33 is online in ZONE_NORMAL, and the recording's kernel has unmovable pages there.
    assert [step["result"]["status"] for step in steps] == ["ok", "ok", "ok", "refused"]
    assert (steps[3]["result"]["errno"], steps[3]["result"]["function"]) == (
        "EBUSY",
        "acpi_scan_try_to_offline",
    )
    assert [step["folder"] for step in steps[1:]] == [
        "01-offline-PNP0C80_00-first",
        "02-online-PNP0C80_00-last",
        "03-unplug-PNP0C80_00",
    ]
    first, last = (Path("out", steps[nr]["folder"], MEMORY) for nr in (1, 2))
    assert (first / "memory32/state").read_text() == "offline\n"
    assert (last / "memory35/state").read_text() == "online\n"
    hosted = 0 if release == "6.1" else BLOCK_MEMMAP_PAGES
    before, now = (
        zone_numbers(text)[0, "Movable"]
        for text in (members(path)[ZONEINFO], (first.parents[3] / ZONEINFO).read_text())
    )
    assert before[2:] == (BLOCK_PAGES, BLOCK_PAGES - hosted)
    assert now[1:] == (0, 0, 0)


@pytest.mark.parametrize("release", ["6.1", "6.12"])
def test_a_dimm_of_the_sysroot_whose_blocks_are_offline_is_unplugged(altmap, release):
    files = members(recording(f"linux-{release}-start"))
    add_offline_dimm(files)
    text = '[[steps]]\ndo = "unplug"\nid = "PNP0C80:00"\n'
    status, out, _ = altmap("run", scenario(text), "--from", folder_of(files), "--export", "out")
    assert status == cli.EQUAL
    assert "refused" not in out
    gone = Path("out/01-unplug-PNP0C80_00")
    assert Path(f"out/00-start/{MEMORY}/memory32").is_dir()
    assert not (gone / f"{MEMORY}/memory32").exists()
    assert "100000000-" not in (gone / IOMEM).read_text()
    assert not (gone / f"{NODE}/node0/memory32").is_symlink()


def add_offline_dimm(files):
    """Add a DIMM of one block at 4 GiB that is offline, as the kernel would show it."""
    block = f"{MEMORY}/memory32"
    files |= {f"{block}/{name}": text for name, text in OFFLINE_BLOCK.items()}
    files[f"{block}/node0"] = Path("../../node/node0")
    files[f"{NODE}/node0/memory32"] = Path("../../memory/memory32")
    files[f"{block}/firmware_node"] = Path("../../../LNXSYSTM:00/LNXSYBUS:00/PNP0C80:00")
    lines = files[IOMEM].splitlines(keepends=True)
    lines.append("100000000-107ffffff : System RAM\n")
    files[IOMEM] = "".join(lines)


OFFLINE_BLOCK = {
    "state": "offline\n",
    "online": "0\n",
    "phys_index": "00000020\n",
    "phys_device": "0\n",
    "removable": "1\n",
    "valid_zones": "Normal Movable\n",
}


@pytest.mark.parametrize("name", ["linux-6.12-start", "linux-6.1-two-nodes"])
def test_a_folder_and_its_archive_are_the_same(altmap, name):
    file, path = scenario(DIMM), recording(name)
    archived = altmap("run", file, "--from", path, "--json", "--export", "a")
    foldered = altmap(*("run", file, "--from", folder_of(members(path)), "--json", "--export", "b"))
    assert archived[:2] == foldered[:2]
    assert subprocess.run(["diff", "-r", "--no-dereference", "a", "b"], check=False).returncode == 0


def test_an_exported_step_can_be_started_from(altmap):
    altmap("run", scenario(DIMM), "--from", recording("linux-6.12-start"), "--export", "a")
    status, _, err = altmap(*("run", scenario(""), "--from", "a/02-online-d1", "--export", "b"))
    assert (status, err) == (cli.EQUAL, "")
    for path in ("proc/meminfo", ZONEINFO, IOMEM, "proc/vmstat", "proc/kpageflags.runs"):
        assert Path("b/00-start", path).read_text() == Path("a/02-online-d1", path).read_text()


OPTIONAL = (
    *("proc/cmdline", "proc/meminfo", "proc/vmstat", "proc/buddyinfo", "proc/kpageflags.runs"),
    *("sys/devices/system/node", "sys/module/memory_hotplug/parameters"),
)


def without(files, path):
    kept = {p: c for p, c in files.items() if p != path and not p.startswith(f"{path}/")}
    assert len(kept) < len(files)
    return kept


@pytest.mark.parametrize("path", OPTIONAL)
def test_an_optional_file_that_is_missing_is_a_note(altmap, path):
    root = folder_of(without(members(recording("linux-6.12-start")), path))
    status, out, err = altmap("run", scenario(DIMM), "--from", root, "--export", "out")
    assert (status, err) == (cli.EQUAL, "")
    named = path.removesuffix(".runs")
    assert any(named in note for note in exported("out")["notes"])
    assert re.search(rf"^note: .*{named}", out, re.M)
    assert not Path("out/02-online-d1", path).is_file()


def test_a_machine_without_any_optional_file_is_predicted(altmap):
    files = members(recording("linux-6.12-start"))
    for path in OPTIONAL:
        files = without(files, path)
    status, _, _ = altmap("run", scenario(DIMM), "--from", folder_of(files), "--export", "out")
    assert status == cli.EQUAL
    before, now = (
        zone_numbers(Path("out", step, ZONEINFO).read_text())
        for step in ("00-start", "02-online-d1")
    )
    assert before == zone_numbers(files[ZONEINFO])
    assert now[0, "Movable"][2] - before[0, "Movable"][2] == 4 * BLOCK_PAGES


REQUIRED = {
    ZONEINFO: "proc/zoneinfo is missing",
    IOMEM: "proc/iomem is missing",
    f"{MEMORY}/block_size_bytes": f"{MEMORY}/block_size_bytes: need this file",
    MEMORY: f"{MEMORY}/block_size_bytes is missing",
}


@pytest.mark.parametrize(("path", "message"), REQUIRED.items(), ids=REQUIRED)
def test_a_required_file_that_is_missing_is_refused(refused, path, message):
    root = folder_of(without(members(recording("linux-6.12-start")), path))
    assert message in refused("run", scenario(PLUG), "--from", root, "--export", "out")


DAMAGE = {
    "iomem without addresses": (IOMEM, r"\b[0-9a-f]+-[0-9a-f]+ :", "00000000-00000000 :", "root"),
    "iomem without System RAM": (IOMEM, "System RAM", "RAM", "System RAM"),
    "zoneinfo cut short": (ZONEINFO, r"^        managed.*\n", "", "proc/zoneinfo: line 1: "),
    "zoneinfo with a huge number": (ZONEINFO, r"(spanned +)\d+", r"\g<1>" + "9" * 20, "99999"),
    "a block size that is none": (f"{MEMORY}/block_size_bytes", "8000000", "x", "power of two"),
}


@pytest.mark.parametrize(("path", "pattern", "by", "message"), DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_file_is_refused_by_name(refused, path, pattern, by, message):
    files = members(recording("linux-6.12-start"))
    damaged = re.sub(pattern, by, files[path], flags=re.M)
    assert damaged != files[path]
    root = folder_of(files | {path: damaged})
    assert message in refused("run", scenario(PLUG), "--from", root, "--export", "out")


NOTED = {
    "meminfo of words": ("proc/meminfo", r"\d+ kB", "many", "proc/meminfo: line 1: "),
    "vmstat of words": ("proc/vmstat", r"\d+$", "many", "proc/vmstat: line 1: "),
    "kpageflags with a gap": ("proc/kpageflags.runs", r"^0x100 .*\n", "", "proc/kpageflags.runs"),
    "a release too old": (
        "proc/version",
        r"6\.12",
        "2.6",
        "no record of 2.6; that of 4.20 is used",
    ),
    "no release": ("proc/version", r"6\.12\.\d+", "next", "next"),
    "a block in no state": (f"{MEMORY}/memory3/state", "online", "on\x1b[1mline", r"on\x1b[1mline"),
    "a block of another id": (f"{MEMORY}/memory3/phys_index", "3", "4", "00000003"),
    "nodes that are none": (f"{NODE}/online", "0", "0-", "'0-'"),
}


@pytest.mark.parametrize(("path", "pattern", "by", "message"), NOTED.values(), ids=NOTED)
def test_a_damaged_file_that_is_not_needed_is_a_note(altmap, path, pattern, by, message):
    files = members(recording("linux-6.12-start"))
    damaged = re.sub(pattern, by, files[path], flags=re.M)
    assert damaged != files[path]
    root = folder_of(files | {path: damaged})
    status, out, err = altmap("run", scenario(PLUG), "--from", root, "--export", "out")
    assert (status, err) == (cli.EQUAL, "")
    assert message in " ".join(out.split())


def test_a_block_size_below_a_page_is_refused(refused):
    files = members(recording("linux-6.12-start")) | {f"{MEMORY}/block_size_bytes": "1\n"}
    with_dimm = ("run", scenario(PLUG), "--from", folder_of(files))
    assert "block" in refused(*with_dimm)


def test_a_short_protection_is_refused(refused):
    files = members(recording("linux-6.12-start"))
    files[ZONEINFO] = re.sub(r"protection: .*", "protection: (0)", files[ZONEINFO])
    assert "protection" in refused("run", scenario(PLUG), "--from", folder_of(files))


def test_the_message_about_version_names_the_file(refused):
    files = members(recording("linux-6.12-start")) | {"proc/version": "junk\n"}
    del files["proc/sys/kernel/osrelease"]
    assert "proc/version" in refused("run", scenario(PLUG), "--from", folder_of(files))


def test_a_device_name_from_a_link_is_shown_escaped(refused):
    files = members(recording("linux-6.12-dimm"))
    for nr in range(32, 36):
        files[f"{MEMORY}/memory{nr}/firmware_node"] = Path("../../../x/\x1b[31m\nred")
    refused("run", scenario(UNPLUG), "--from", folder_of(files))


def test_from_is_refused_for_the_lab(refused):
    message = refused("run", scenario(PLUG), "--on", "lab", "--from", recording(NAMES[0]))
    assert message.startswith("--from: ")


@pytest.mark.parametrize(
    "source",
    ["missing", pytest.param("a" * 300)],
)
def test_a_sysroot_that_is_not_there_is_refused(refused, source):
    assert source in refused("run", scenario(PLUG), "--from", source)


# --- hostile archives ----------------------------------------------------------------------


def archive(*extra, without=()):
    """Write an archive of a recording's files and some more members."""
    with tarfile.open("a.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        for path, content in members(recording("linux-6.12-start")).items():
            if isinstance(content, str) and path not in without:
                add(tar, path, content.encode())
        for arguments in extra:
            add(tar, *arguments)
    return Path("a.tar")


def add(tar, path, content=b"", kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(path)
    info.type, info.linkname, info.size = kind, target, len(content)
    tar.addfile(info, io.BytesIO(content))


HOSTILE = {
    "absolute": (("/etc/passwd", b"x"), "'/etc/passwd': need a relative name"),
    "absolute proc": (("/proc/swaps", b"x"), "'/proc/swaps': need a relative name"),
    "parent": (("../out", b"x"), "'../out': need a name without '..'"),
    "parent inside": (("proc/../../out", b"x"), "'proc/../../out': need a name without '..'"),
    "link to root": (
        (f"{MEMORY}/memory0/x", b"", tarfile.SYMTYPE, "/etc/shadow"),
        "'/etc/shadow': need a relative target",
    ),
    "link out": (
        (f"{MEMORY}/memory0/x", b"", tarfile.SYMTYPE, "../" * 9 + "etc/shadow"),
        "leaves the sysroot",
    ),
    "link in place of a folder": (
        ("sys", b"", tarfile.SYMTYPE, "elsewhere"),
        "'sys': need a folder",
    ),
    "hard link": (
        (f"{MEMORY}/x", b"", tarfile.LNKTYPE, "proc/meminfo"),
        "need a regular file, folder or symbolic link",
    ),
    "device": (
        (f"{MEMORY}/x", b"", tarfile.CHRTYPE),
        "need a regular file, folder or symbolic link",
    ),
    "twice": (("proc/meminfo", b"MemTotal: 1 kB\n"), "'proc/meminfo': is there twice"),
    "escape code": (("\x1b[31m/../x", b""), r"'\x1b[31m/../x'"),
}


@pytest.mark.parametrize(("member", "message"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_archive_is_refused(refused, member, message):
    line = refused("run", scenario(PLUG), "--from", archive(member), "--export", "out")
    assert line.startswith("a.tar: member ")
    assert message in line


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("packed", [True, False], ids=["xz", "plain"])
def test_a_truncated_archive_is_refused(refused, share, packed):
    raw = recording("linux-6.12-start").read_bytes()
    # The end of a plain archive is padding.
    raw = raw if packed else lzma.decompress(raw).rstrip(b"\0")
    Path("cut.tar").write_bytes(raw[: int(len(raw) * share)])
    line = refused("run", scenario(PLUG), "--from", "cut.tar", "--export", "out")
    assert line.startswith("cut.tar: need a whole tar archive")


@pytest.mark.parametrize("content", [b"not an archive", b"\0" * 2048, b"\x1f\x8b" + b"x" * 99])
def test_what_is_no_archive_is_refused(refused, content):
    Path("x").write_bytes(content)
    assert refused("run", scenario(PLUG), "--from", "x").startswith("x: need a ")


# --- malformed scenarios -------------------------------------------------------------------


def plug(**keys):
    words = {"do": '"plug"', "id": '"d1"', "size": '"128MiB"'} | keys
    return "[[steps]]\n" + "".join(f"{key} = {text}\n" for key, text in words.items())


def online(blocks):
    return f'[[steps]]\ndo = "online"\nblocks = {blocks}\n'


MALFORMED = {
    "not TOML": ("a = \n", "not TOML"),
    "not UTF-8": (b"\xff\xfe", "not UTF-8"),
    "unknown key": ("colour = 1\n", "unknown field 'colour'"),
    "unknown machine key": ("[machine]\ncolour = 1\n", "unknown field 'colour'"),
    "unknown step key": (plug(colour="1"), "unknown field 'colour'"),
    "unknown step": ('[[steps]]\ndo = "fly"\n', "'fly'"),
    "step without do": ('[[steps]]\nid = "d1"\n', "steps[0]: need the field 'do'"),
    "plug without size": ('[[steps]]\ndo = "plug"\nid = "d1"\n', "steps[0]: need the field 'size'"),
    "machine is text": ('machine = "large"\n', "machine 'large'"),
    "steps are text": ('steps = "many"\n', "steps 'many': need a list"),
    "name is a path": ('name = "../x"\n', "'../x'"),
    "step name is a path": (plug(name='"a/b"'), "steps[0].name 'a/b'"),
    "name has a newline": ('name = "a\\nb"\n', r"'a\nb'"),
    "size without unit": (plug(size='"128"'), "size '128': need a unit"),
    "size is a number": (plug(size="128"), "size 128"),
    "size of unknown unit": (plug(size='"1parsec"'), "'parsec'"),
    "size of half a byte": (plug(size='"0.5B"'), "'0.5B'"),
    "size below zero": (plug(size='"-1MiB"'), "'-1MiB'"),
    "size of nothing": (plug(size='"0MiB"'), "steps[0].size 0"),
    "size no DIMM has": (plug(size='"1MiB"'), "DIMM size 1 MiB: need a multiple of 2 MiB"),
    "address below zero": (plug(address="-1"), "address -1"),
    "address without end": (plug(address="inf"), "steps[0].address"),
    "address is a fraction": (plug(address="4294967296.5"), "steps[0]"),
    "address is a bool": (plug(address="true"), "address True"),
    "address is a date": (plug(address="2020-01-01"), "steps[0].address"),
    "address misaligned": (plug(address='"0x100000001"'), "0x100000001"),
    "address in boot memory": (plug(address='"1MiB"'), "DIMM address"),
    "two at one address": (
        plug(address='"4GiB"') + plug(id='"d2"', address='"4GiB"'),
        "0x100000000",
    ),
    "unknown driver": (plug(driver='"floppy"'), "'floppy'"),
    "hyperv without address": (
        plug(driver='"hyperv"'),
        "steps[0].address: a hyperv plug needs one",
    ),
    "region of a DIMM": (
        plug(region='{ address = "4GiB", size = "1GiB" }'),
        "steps[0].region",
    ),
    "node below zero": (plug(node="-1"), "node -1"),
    "node that is none": (plug(node="7"), "node 7"),
    "plugged twice": (PLUG + PLUG, "'d1'"),
    "unplugged without plug": (UNPLUG, "'d1': no such device"),
    "unplugged twice": (
        '[machine]\nauto_online_blocks = "offline"\n' + PLUG + UNPLUG + UNPLUG,
        "'d1': no such device",
    ),
    "hyperv unplugged": (
        plug(driver='"hyperv"', address='"4GiB"') + UNPLUG,
        "'hyperv' never removes",
    ),
    "dimm resized": (
        PLUG + '[[steps]]\ndo = "resize"\nid = "d1"\nsize = "1GiB"\n',
        "keeps its size",
    ),
    "block below zero": (online("-1"), "blocks -1"),
    "blocks backwards": (online('"5-3"'), "'5-3'"),
    "blocks empty": (online("[]"), "blocks []"),
    "blocks in hex": (online('"0x20"'), "'0x20'"),
    "id and blocks": (online("1") + 'id = "d1"\n', "steps[0].blocks: need either id or blocks"),
    "neither id nor blocks": (
        '[[steps]]\ndo = "online"\n',
        "steps[0].blocks: need either id or blocks",
    ),
    "unknown zone": (online("1") + 'to = "online_fast"\n', "'online_fast'"),
    "set nothing": ('[[steps]]\ndo = "set"\n', "steps[0].do 'set': need one of"),
    "no cpu": ("[machine]\ncpus = 0\n", "machine.cpus 0"),
    "unknown platform": ('[machine]\nplatform = "pdp11"\n', "'pdp11'"),
    "unknown arch": ('[machine]\narch = "pdp11"\n', "'pdp11'"),
    "unknown policy": ('[machine]\npolicy = "hope"\n', "'hope'"),
    "no release": ('[machine]\nrelease = "newest"\n', "'newest'"),
    "memory too small": ('[machine]\nmemory = "1MiB"\n', "machine.memory 0x100000"),
    "memory odd": ('[machine]\nmemory = "129MiB"\n', "machine.memory 0x8100000"),
    "memory is not its nodes": (
        '[machine]\nmemory = "1GiB"\nnodes = [{ memory = "2GiB" }]\n',
        "machine.memory 0x40000000",
    ),
    "block size odd": ('[machine]\nblock_size = "96MiB"\n', "machine.block_size 0x6000000"),
    "block size tiny": ('[machine]\nblock_size = "1B"\n', "machine.block_size 0x1"),
}


@pytest.mark.parametrize(("text", "message"), MALFORMED.values(), ids=MALFORMED)
def test_a_malformed_scenario_is_refused_with_value_and_rule(refused, text, message):
    assert message in refused("run", scenario(text), "--export", "out")


#: What is no scenario at all, however it is read.
ABSURD = {
    "escape code in a key": '"\\u001b[31m" = 1\n',
    "newline in a key": '"a\\nb" = 1\n',
    "escape code in a device": plug(id='"\\u001b[31m"') + '[[steps]]\ndo = "unplug"\nid = "x"\n',
    "address of 5000 digits": plug(address="9" * 5000),
    "size beyond 64 bits": plug(size='"999999999999PiB"'),
    "hyperv size beyond 64 bits": plug(driver='"hyperv"', address='"8GiB"', size='"999999999PiB"'),
    "region beyond 64 bits": plug(
        driver='"hyperv"',
        address='"8GiB"',
        region='{ address = "8GiB", size = "999999999PiB" }',
    ),
    "block beyond 64 bits": online('"99999999999999999999"'),
    "block of 5000 digits": online(f'"{"9" * 5000}"'),
    "memory beyond 64 bits": '[machine]\nmemory = "999999999PiB"\n',
    "release of 5000 digits": f'[machine]\nrelease = "{"9" * 5000}.1"\n',
    "brackets without end": "a = " + "[" * 2000 + "]" * 2000 + "\n",
}


@pytest.mark.parametrize("text", ABSURD.values(), ids=ABSURD)
def test_absurd_scenarios_are_refused(refused, text):
    refused("run", scenario(text), "--export", "out")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("nothing", "'nothing': need KEY=VALUE"),
        ("colour=red", "unknown field 'colour'"),
        ("cpus=many", "machine.cpus 'many': need an integer"),
        ("memory=1", "machine.memory 1: need a number and a unit"),
        ("memmap_on_memory=maybe", "'maybe'"),
        ("block_size=3MiB", "machine.block_size 0x300000"),
        pytest.param("cpus=²", "cpus"),
        pytest.param(f"cpus={'9' * 5000}", "cpus"),
        pytest.param("a\nb=1", "a"),
    ],
    ids=range(9),
)
def test_a_malformed_setting_is_refused(refused, setting, message):
    assert message in refused("run", scenario(PLUG), "--set", setting, "--export", "out")


@pytest.mark.parametrize(("option", "value"), [("--policy", "hope"), ("--release", "newest")])
def test_a_malformed_option_is_refused(refused, option, value):
    assert repr(value) in refused("run", scenario(PLUG), option, value, "--export", "out")


@pytest.mark.parametrize("name", ["missing.toml", ".", "a" * 300])
def test_a_scenario_that_cannot_be_read_is_refused(refused, name):
    assert refused("run", name).startswith(f"scenario {name}: ")


def test_text_of_a_scenario_cannot_command_the_terminal(altmap):
    text = 'description = "\\u001b[31mred"\n' + plug(id='"\\u001b[31m"')
    status, out, _ = altmap("run", scenario(text))
    assert status == cli.EQUAL
    assert "\x1b" not in out


#: What would fill the memory of the machine that reads it.
UNBOUNDED = {
    "size": plug(size='"64PiB"'),
    "blocks": online('"0-9999999999"'),
    "cpus": "[machine]\ncpus = 1000000000\n",
    "block size": '[machine]\nblock_size = "1PiB"\n',
}


@pytest.mark.parametrize("text", UNBOUNDED.values(), ids=UNBOUNDED)
def test_a_scenario_cannot_fill_the_memory(text):
    def limit():
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    command = [sys.executable, "-m", "altmap", "run", scenario(text)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit, check=False)
    assert done.returncode in (cli.EQUAL, cli.FAILED), done.stderr[-200:]
    assert "Traceback" not in done.stderr


# --- compare and lab -----------------------------------------------------------------------


@pytest.fixture
def without_programs(here, monkeypatch):
    """No program can be found; the kernel is in the cache, so that none is fetched."""
    monkeypatch.setenv("PATH", str(here / "nowhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    kernel = here / "cache/altmap/kernels/6.12"
    kernel.mkdir(parents=True)
    (kernel / "packages.json").write_text("{}")


@pytest.mark.parametrize("command", [["compare"], ["run", "--on", "lab"]])
def test_without_qemu_the_package_to_install_is_named(altmap, without_programs, command):
    status, out, err = altmap(*command, scenario(PLUG))
    assert (status, out) == (cli.FAILED, "")
    assert err == "altmap: qemu-system-x86_64 is missing: apt install qemu-system-x86\n"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("policy=existing", "machine.policy 'existing'"),
        ("arch=s390x", "no DIMM on s390x: the machine has no pc-dimm device"),
        ("arch=vax", "architecture 'vax': no guest has it"),
        ("mmu=hash", "machine.mmu 'hash'"),
        ("block_size=256MiB", "machine.block_size"),
    ],
)
def test_what_a_guest_cannot_be_is_refused_before_it_boots(refused, setting, message):
    assert message in refused("compare", scenario(PLUG), "--set", setting)


def test_fetch_needs_two_numbers(refused):
    assert refused("lab", "fetch", "6") == "kernel release '6': need major.minor, such as '6.12'"


def test_fetch_without_apt_is_refused(altmap, without_programs):
    status, out, err = altmap("lab", "fetch", "6.1", "--without-qemu")
    assert (status, out) == (cli.FAILED, "")
    assert re.fullmatch(r"altmap: apt-\w+ is missing: [^\n]+\n", err)


@pytest.mark.lab
@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get")
def test_fetch_of_an_unknown_release_is_refused(altmap, here, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    status, out, err = altmap("lab", "fetch", "9.9")
    assert (status, out) == (cli.FAILED, "")
    assert re.fullmatch(r"altmap: kernel release '9\.9': no such image [^\n]+\n", err)
