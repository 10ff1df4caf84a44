"""The pages for users: what they show runs, and they leave nothing of the code's data out."""

import ast
import dataclasses
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import tomllib
import types
import typing
from pathlib import Path

import msgspec
import pytest

from altmap import scenario
from altmap.cli import main as cli
from altmap.explore.rules import RULES
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.arch import ARCHES
from altmap.model.kernel.accounting import ACCOUNTINGS, POLICIES
from altmap.model.kernel.defects import DEFECTS
from altmap.model.machine import predict
from altmap.model.releases import RELEASES, Release
from altmap.report.states import STATES
from altmap.studies.claims.matrix import SEEN
from built import skip_unless_built
from plain_english import found, prose, strings

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/altmap"
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
#: Every page by its name; each console block is run below.
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")}
PAGES["README"] = README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES["CONTRIBUTING"] = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PAGES["complaints"] = (ROOT / "examples/complaints/README.md").read_text(encoding="utf-8")
SCENARIO, POLICY = PAGES["scenario"], PAGES["policies"]
BLOCKS = {name: [(m[1], m[2]) for m in FENCED.finditer(text)] for name, text in PAGES.items()}
ALL_BLOCKS = [block for blocks in BLOCKS.values() for block in blocks]
#: Files that pages show; the name is the first line of each.
FILES = {
    text.partition("\n")[0].removeprefix("# "): text
    for language, text in ALL_BLOCKS
    if language == "toml" and text.startswith("# ")
}
#: But for the file with a mistake of the page about mistakes.
EXAMPLES = {n: text for n, text in FILES.items() if "[[steps]]" in text and n != "typo.toml"}
RECORDING = ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz"
CARRIES_ON = {"carry-on.toml", "acpi-names.toml", "block-off.toml"}
FAULTS = {"crash-dump.toml"}

#: Heading of the section that describes a class, and what its tables need besides the key shown.
SECTIONS = {
    scenario.Scenario: ("## The file", "", {}),
    scenario.Machine: ("### `[machine]`", "[machine]", {}),
    scenario.KernelConfig: ("### `machine.config`", "[machine.config]", {}),
    scenario.Node: ("### `machine.nodes`", "[[machine.nodes]]", {}),
    scenario.VirtioMemParameters: ("### `machine.virtio_mem`", "[machine.virtio_mem]", {}),
    scenario.Device: (
        "### `machine.devices`",
        "[[machine.devices]]",
        {"id": '"d"', "address": '"4GiB"', "size": '"1GiB"'},
    ),
    scenario.Plug: ('#### `do = "plug"`', "[[steps]]", {"id": '"d"', "size": '"1GiB"'}),
    scenario.Region: ("#### `region`", "[steps.region]", {"address": '"4GiB"', "size": '"1GiB"'}),
    scenario.Range: (
        "#### `more_ranges`",
        "[[steps.more_ranges]]",
        {"address": '"8GiB"', "size": '"1GiB"'},
    ),
    scenario.Unplug: ('#### `do = "unplug"`', "[[steps]]", {"id": '"d"'}),
    scenario.Resize: ('#### `do = "resize"`', "[[steps]]", {"id": '"d"', "size": '"1GiB"'}),
    scenario.Online: ('#### `do = "online"`', "[[steps]]", {"id": '"d"'}),
    scenario.Offline: ('#### `do = "offline"`', "[[steps]]", {"id": '"d"'}),
    scenario.Fill: (
        '#### `do = "fill"`',
        "[[steps]]",
        {"id": '"f1"', "size": '"64MiB"', "kind": '"hugetlb"'},
    ),
    scenario.Configure: ('#### `do = "configure"`', "[[steps]]", {"id": '"d"'}),
    scenario.HugePages: (
        '#### `do = "hugepages"`',
        "[[steps]]",
        {"nr_hugepages": "1"},
    ),
    scenario.Free: ('#### `do = "free"`', "[[steps]]", {"id": '"f1"'}),
    scenario.Poison: ('#### `do = "poison"`', "[[steps]]", {"address": '"4GiB"'}),
    scenario.Veto: ('#### `do = "veto"`', "[[steps]]", {"on": '"going_online"'}),
    scenario.Dump: ('#### `do = "dump"`', "[[steps]]", {}),
    scenario.SetTunables: ('#### `do = "set"`', "[[steps]]", {"auto_movable_ratio": "1"}),
    scenario.Reboot: ('#### `do = "reboot"`', "[[steps]]", {}),
    scenario.Write: (
        '#### `do = "write"`',
        "[[steps]]",
        {"file": '"/sys/devices/system/memory/memory1/state"', "word": '"online"'},
    ),
}
STRUCTS = [
    value
    for value in vars(scenario).values()
    if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__name__[0] != "_"
]
COMMON = ("name",)  # of every step, in a table of its own


def rows(heading, page=SCENARIO):
    """Return the rows of the first table below a heading: key to all cells behind it."""
    assert page.count(f"\n{heading}\n") == 1, f"need one heading {heading!r}"
    below = page.split(f"\n{heading}\n", 1)[1]
    if "It has no keys." in below.partition("\n#")[0]:
        return {}
    table = re.search(r"(?:^\|.*\n)+", below, re.MULTILINE)[0].splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in table]
    return {cell[0].strip("`"): cell[1:] for cell in cells}


def keys_of(struct):
    fields = msgspec.structs.fields(struct)
    steps = struct.__struct_config__.tag is not None
    return [field for field in fields if not (steps and field.name in COMMON)]


def literals(annotation):
    """Return the words that an annotation allows."""
    if typing.get_origin(annotation) is typing.Literal:
        return list(typing.get_args(annotation))
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [word for part in typing.get_args(annotation) for word in literals(part)]
    return []


# --- the schema ------------------------------------------------------------------------------


def test_every_class_of_the_schema_has_a_section():
    assert set(SECTIONS) == set(STRUCTS)


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_the_page_has_every_key_and_no_other(struct):
    assert set(rows(SECTIONS[struct][0])) == {field.name for field in keys_of(struct)}


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_the_page_has_every_word_and_default(struct):
    shown = rows(SECTIONS[struct][0])
    for field in keys_of(struct):
        kind, default = shown[field.name][:2]
        for word in literals(field.type):
            assert f"`{word}`" in kind + default, f"{struct.__name__}.{field.name}: {word}"
        # load_scenario gives the scenario itself the name of its file.
        if field.required and (struct, field.name) != (scenario.Scenario, "name"):
            assert default == "required", f"{struct.__name__}.{field.name}"
        elif isinstance(field.default, bool):
            assert default == str(field.default).lower(), f"{struct.__name__}.{field.name}"
        elif isinstance(field.default, str | int) and field.default != "":
            assert str(field.default) in default, f"{struct.__name__}.{field.name}"


@pytest.mark.parametrize("struct", STRUCTS, ids=lambda struct: struct.__name__)
def test_every_example_of_a_key_is_accepted(struct, tmp_path):
    heading, table, needed = SECTIONS[struct]
    for key, cells in rows(heading).items():
        example = cells[-1].strip("`")
        if not example.startswith(f"{key} = "):
            continue
        given = dict(needed)
        for other in [key, *({"id"} if key == "blocks" else ())]:
            given.pop(other, None)
        lines = [table, *(f"{name} = {value}" for name, value in given.items()), example]
        if table == "[[steps]]":
            lines.insert(1, f'do = "{struct.__struct_config__.tag}"')
            if struct is scenario.Plug:
                having = [name for name, keys in scenario.DRIVER_KEYS.items() if key in keys.own]
                lines.extend(f'driver = "{name}"' for name in having[:1])
        if table == "[steps.region]":
            plug = 'do = "plug"\nid = "d"\nsize = "64MiB"\naddress = "4GiB"\ndriver = "hyperv"'
            lines.insert(0, f"[[steps]]\n{plug}")
        if table == "[[steps.more_ranges]]":
            lines.insert(0, '[[steps]]\ndo = "plug"\nid = "d"\nsize = "1GiB"')
        path = tmp_path / f"{key}.toml"
        path.write_text("\n".join(lines), encoding="utf-8")
        scenario.load_scenario(path)


@pytest.mark.parametrize(
    ("key", "names"),
    [
        ("release", RELEASES),
        ("arch", ARCHES),
        ("policy", POLICIES),
        ("driver", scenario.DRIVER_KEYS),
    ],
)
def test_every_name_that_data_gives_is_on_the_page(key, names):
    if key == "policy":
        assert set(names) <= set(rows("# Memmap policies", f"\n{POLICY}"))
    else:
        heading = '#### `do = "plug"`' if key == "driver" else "### `[machine]`"
        assert set(names) <= set(re.findall(r"`([^`]+)`", rows(heading)[key][0]))


def test_every_step_has_the_common_keys_of_the_page():
    assert set(rows("### `[[steps]]`")) == {"do", *COMMON}
    tags = {s.__struct_config__.tag for s in STRUCTS if s.__struct_config__.tag_field == "do"}
    assert all(f"`{tag}`" in rows("### `[[steps]]`")["do"][0] for tag in tags)


def event_kinds():
    """Return the kinds of events that the code makes, as far as they are written as constants."""
    calls = (
        node
        for folder in ("model", "lab")
        for path in (ROOT / "src/altmap" / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant)
    )
    makers = {"note", "Event"}
    return {
        call.args[0].value
        for call in calls
        if getattr(call.func, "attr", getattr(call.func, "id", "")) in makers
    }


def test_the_page_on_output_has_every_kind_of_event():
    shown = PAGES["output"].split("| events | meaning |")[1].split("\n\n")[0]
    kinds = event_kinds()
    assert len(kinds) > 10
    assert kinds <= set(re.findall(r"`([a-z-]+)`", shown))


# --- what it shows ---------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the examples, from which the project's own files are seen."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    for name in ("scenarios", "tests", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return tmp_path


def test_every_file_that_a_page_shows_is_named_and_one_name_is_one_file():
    shown = [text for language, text in ALL_BLOCKS if language == "toml"]
    assert all(re.match(r"# [a-z-]+\.toml\n", text) for text in shown)
    assert set(shown) == set(FILES.values())


@pytest.mark.parametrize("text", [t for lang, t in ALL_BLOCKS if lang == "toml"])
def test_every_toml_block_is_toml(text):
    tomllib.loads(text)


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_runs_on_the_model(name, folder):
    loaded = scenario.load_scenario(folder / name)
    seen = Observation.read(Sysroot.read(RECORDING)) if name in CARRIES_ON else None
    trace = predict(loaded, seen)
    assert len(trace.steps) == len(loaded.steps) + 1
    statuses = {step.outcome.status for step in trace.steps}
    assert statuses <= {"ok", "refused"} | ({"fault"} if name in FAULTS else set())
    assert ("fault" in statuses) == (name in FAULTS)


def commands(console):
    """Yield each command of a console example, the output shown, and the exit code shown or 0."""
    parts = re.split(r"^\$ ", console, flags=re.MULTILINE)[1:]
    for index, part in enumerate(parts):
        command, _, output = part.partition("\n")
        if not command.startswith("altmap "):
            continue
        after = parts[index + 1] if index + 1 < len(parts) else ""
        code = int(after.split("\n")[1]) if after.startswith("echo $?\n") else 0
        yield command, output, code


def needs_lab(command):
    words = shlex.split(command)
    return words[1] in ("check", "compare", "conform", "hunt", "lab", "record") or "lab" in words


def console(page):
    """Return the commands of a page that need no real kernel."""
    texts = [match[2] for match in FENCED.finditer(page) if match[1] == "console"]
    return [shown for text in texts for shown in commands(text) if not needs_lab(shown[0])]


CONSOLE = [
    pytest.param(*shown, id=f"{name}: {shown[0]}")
    for name, page in PAGES.items()
    for shown in console(page)
]
IN_THE_LAB = [
    pytest.param(*shown, id=f"{name}: {shown[0]}")
    for name, page in PAGES.items()
    for language, text in ((m[1], m[2]) for m in FENCED.finditer(page))
    if language == "console"
    for shown in commands(text)
    if needs_lab(shown[0])
]
#: Lines for a shell, without their comments; lab commands have other tests.
SHELL = dict.fromkeys(
    command.strip()
    for language, text in ALL_BLOCKS
    if language == "sh"
    for line in text.splitlines()
    for command in line.partition("  #")[0].split(";")
    if command.strip().startswith("altmap ") and not needs_lab(command)
)
#: What makes a line about this host one about a recorded machine: tests leave theirs alone.
RECORDED = {
    "ls": ("-s", "captured.tar"),
    "snapshot": ("captured.tar",),
    "explain": ("captured.tar",),
    "plan": ("--from", "captured.tar"),
    "plan resize": ("--from", "virtio-mem.tar"),
    "plan remove --any": ("--from", "virtio-mem.tar"),
    "apply": ("--root", "machine"),
    "export": ("captured.tar",),
}
#: What changes a machine, or goes on until it is ended: tests/host has tests of these.
ONLY_PARSED = re.compile(r"altmap (apply plan.json$|watch|mount|shell|ctl|export .*--listen)\b")
VIRTIO_MEM = ROOT / "tests/recordings/virtio-mem/linux-6.12-virtio-mem-before.tar.xz"


def test_the_pages_show_commands():
    shown = {name: len(console(page)) for name, page in PAGES.items()}
    assert shown["README"] == README.count("\n$ altmap run ") > 0
    assert shown["cookbook"] >= 10
    for name in ("start", "output", "sysroots", "policies", "report", "host", "explore", "sweep"):
        assert shown[name], name


def test_no_command_is_shown_outside_of_a_console_block():
    for name, page in PAGES.items():
        assert "\n$ " not in FENCED.sub("", page), name


@pytest.mark.parametrize("command", SHELL)
def test_lines_for_a_shell_can_be_typed(command, folder, capsys):
    shutil.copy(folder / "first.toml", folder / "mine.toml")
    shutil.copy(RECORDING, folder / "captured.tar")
    shutil.copy(VIRTIO_MEM, folder / "virtio-mem.tar")
    shutil.copy(ROOT / "examples/every_driver.py", folder / "mine.py")
    with (folder / "mine.py").open("a") as module:
        module.write("\nPolicy = EveryDriver\n")
    words = shlex.split(command)[1:]
    if ONLY_PARSED.match(command):
        assert cli.command_line().parse_args(words).verb
        return
    if words[0] == "apply":
        with tarfile.open(RECORDING) as archive:
            archive.extractall("machine", filter="data")
        plan = ["plan", "free", "32", "--from", "machine", "-o", "plan.json"]
        assert cli.main(plan) == 0
    if "dmesg.txt" in words:
        Path("dmesg.txt").write_text("Offlined Pages 32768\n")
        words[-1] = ""  # not this host
    sources = (RECORDED.get(" ".join(words[:n])) for n in (3, 2, 1))
    named = any(option in words for option in ("-s", "--vm")) or "captured.tar" in words
    source = () if named else next((each for each in sources if each is not None), ())
    assert cli.main([word for word in (*words, *source) if word]) == 0
    assert capsys.readouterr().err == ""


def test_every_command_has_a_line_for_a_shell():
    typed = {
        line.split()[1] for line in PAGES["commands"].splitlines() if line.startswith("altmap ")
    }
    assert typed == {name for group in cli.GROUPS for name in group.verbs}


#: Numbers that a real guest gives by chance. Free memory moves by itself, and its tolerance grows
#: by the kernel stacks and page tables that came or went between two looks, as kernel threads do.
BY_CHANCE = re.compile(r"(?<=predicted )\d+|(?<=observed )\d+|(?<=±)\d+|\d+(?= of processes)")
#: How far free memory is from its prediction; a guest may also meet it exactly.
HOW_FAR = re.compile(r"^    ~ .*\n      tolerance .*\n", re.MULTILINE)


def not_as_shown(shown, printed):
    """Return the first line of a comparison that was not printed, or not in the order shown."""
    rest = iter(BY_CHANCE.sub("N", printed).splitlines())
    for line in BY_CHANCE.sub("N", shown).splitlines():
        if line != "..." and line not in rest:
            return line
    return None


@pytest.mark.lab
@pytest.mark.parametrize(("command", "shown", "code"), IN_THE_LAB)
def test_commands_for_the_lab_print_and_exit_as_shown(command, shown, code, folder, capsys):
    words = shlex.split(command)
    if "--release" in words:
        skip_unless_built(words[words.index("--release") + 1])
    assert cli.main(words[1:]) == code
    shown, printed = (
        HOW_FAR.sub("", text).replace("equal within tolerance", "equal")
        for text in (shown, capsys.readouterr().out)
    )
    assert not_as_shown(shown, printed) is None


def test_a_comparison_is_shown_as_that_with_a_recorded_guest(capsys):
    """How far free memory was off is a real guest's chance: here it is the same every time."""
    (shown,) = (text for each in IN_THE_LAB if HOW_FAR.search(text := each.values[1]))
    recorded = ROOT / "tests/recordings/traces/x86_64-6.12-dimm-1GiB.tar.xz"
    assert cli.main(["compare", "--recording", str(recorded)]) == 0
    printed = capsys.readouterr().out
    assert not_as_shown(shown, printed) is None
    for wrong in ("16 blocks", "(50 fields)", "DMA32"):
        assert not_as_shown(shown.replace(wrong, "other"), printed) is not None


@pytest.mark.parametrize(("command", "shown", "code"), CONSOLE)
def test_commands_print_and_exit_as_shown(command, shown, code, folder, capsys):
    try:
        ended = cli.main(shlex.split(command)[1:])
    except SystemExit as end:  # of a word that no command has
        ended = end.code
    assert ended == code
    captured = capsys.readouterr()
    printed = (captured.out + captured.err).splitlines()
    at, left_out = 0, False
    for line in shown.splitlines():
        if line == "...":  # any lines
            left_out = True
            continue
        assert line in printed[at:], f"not printed, or not in this order: {line!r}"
        found = printed.index(line, at)
        assert left_out or found == at, f"lines left out without '...' before {line!r}"
        at, left_out = found + 1, False
    assert left_out or not any(printed[at:]), f"not shown: {printed[at:]}"


# --- releases --------------------------------------------------------------------------------


def test_the_page_on_bugs_is_as_generated(generate):
    shown = (ROOT / "docs/bugs.md").read_text(encoding="utf-8")
    assert shown == generate.page_of_bugs(), "run python docs/generate.py"


def test_the_matrix_is_as_generated(generate):
    shown = (ROOT / "docs/matrix.md").read_text(encoding="utf-8")
    assert shown == generate.page_of_matrix(), "run python docs/generate.py"


def test_the_page_on_policies_has_every_accounting_and_defect():
    accounting = re.findall(r"^\| `(\w+)` \|", POLICY.split("| accounting |")[1], re.MULTILINE)
    assert accounting[: len(ACCOUNTINGS)] == list(ACCOUNTINGS)
    for defect in DEFECTS.values():
        shown = defect.shows or f"no switch: {defect.reason}"
        assert f"| `{defect.id}` | {defect.what} | {shown} |" in POLICY


RELEASES_PAGE = ROOT / "docs/releases.md"


def test_the_page_on_releases_is_as_generated(generate):
    shown = RELEASES_PAGE.read_text(encoding="utf-8")
    assert shown == generate.releases_page(), "run python docs/generate.py"


def test_the_page_on_drivers_is_as_generated_and_has_every_driver(generate):
    shown = (ROOT / "docs/drivers.md").read_text(encoding="utf-8")
    assert shown == generate.drivers_page(), "run python docs/generate.py"
    names = set(scenario.DRIVER_KEYS)
    plugged = " ".join(record.scenario for record in generate.driver_records())
    assert names == set(re.findall(r'driver = "([\w-]+)"', plugged))
    for record in generate.driver_records():
        assert all(str(value).strip() for value in dataclasses.asdict(record).values()), record.name


def test_the_page_on_releases_leaves_no_behaviour_out_and_explains_each():
    page = RELEASES_PAGE.read_text(encoding="utf-8").split("## What each value rests on")[0]
    for field in Release.__dataclass_fields__:
        if field in ("name", "confirmed", "sources"):
            continue
        (row,) = re.findall(
            rf"^\| `{field}` (?:\|[^|\n]*){{{len(RELEASES)}}}\|$", page, re.MULTILINE
        )
        assert all(cell.strip() for cell in row.strip("|").split("|")), field
        assert re.search(rf"^- (?:`\w+`, )*`{field}`(?:, `\w+`)*: \S", page, re.MULTILINE), field


def test_the_page_on_releases_says_which_were_compared_and_names_every_source():
    page = RELEASES_PAGE.read_text(encoding="utf-8")
    names, proofs = (
        re.search(rf"^\| {head} \|(.*)\|$", page, re.MULTILINE)[1].split("|")
        for head in ("release", "rests on")
    )
    said = {name.strip(): proof.strip() for name, proof in zip(names, proofs, strict=True)}
    assert said == {
        "4.20": "history",
        "5.10": "history",
        "5.13": "history",
        "5.15": "history",
        "6.1": "compared",
        "6.6": "history",
        "6.8": "history",
        "6.12": "compared",
        "6.18": "compared",
        "7.0": "history",
        "7.2": "compared",
        "7.3": "compared",
    }
    for release in RELEASES.values():
        for behaviour, source in release.sources.items():
            pattern = rf"^\| `{behaviour}` \| [^|]*\b{re.escape(release.name)}\b[^|]* \| "
            assert re.search(pattern + re.escape(source) + r" \|$", page, re.MULTILINE)


def test_the_page_on_struct_pages_is_as_generated_and_shows_where_it_ends(generate):
    shown = (ROOT / "docs/struct-page.md").read_text(encoding="utf-8")
    assert shown == generate.struct_pages_page(), "run python docs/generate.py"
    for name in ("x86_64", "aarch64"):
        table = shown.split(f"## {name}\n")[1]
        head = "| 80 bytes | 64 bytes | 56 bytes | 32 bytes | 8 bytes |"
        assert head in table
        # 32768 pages of 32 bytes are 1 MiB, half a PMD; of twice as many 2 MiB.
        assert "| 128 MiB | no | on: 512 | no | no | no |" in table
        assert "| 256 MiB | no | on: 1024 | no | on: 512 | no |" in table
    # ppc64, 64 KiB: 4096 pages of 64 bytes are 4 pages, padded to a pageblock of 32.
    assert "| 256 MiB | force: 32, 27 padding | force: 32, 28 padding |" in shown


def test_each_value_of_a_record_is_measured_read_or_inferred(generate):
    """The page's table; what it says is checked on values whose evidence is known."""
    page = RELEASES_PAGE.read_text(encoding="utf-8")
    table = page.split("## What each value rests on")[1].split("## Measured by")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", table, re.MULTILINE))
    assert set(rows) == set(Release.__dataclass_fields__) - {"name", "confirmed", "sources"}
    said = {name: dict(zip(RELEASES, row.split(" | "), strict=True)) for name, row in rows.items()}
    assert {word for row in said.values() for word in row.values()} == {
        *("measured", "read", "inferred"),
    }
    assert said["memmap_scope"]["6.1"] == said["memmap_scope"]["7.3"] == "measured"
    assert said["standby_added"]["7.3"] == "read"
    assert said["dax_falls_back"]["5.15"] == "read"
    assert said["memmap_scope"]["6.8"] == said["virtio_mem"]["5.10"] == "inferred"
    for name, release in RELEASES.items():
        if not release.confirmed:
            assert "measured" not in {row[name] for row in said.values()}


def test_a_value_is_measured_only_by_an_equal_run_of_its_release(generate, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    row = "| dimm-1GiB | x86_64 | {} | dimm | {} | 376 | 14 |  |\n"
    rows = row.format("6.1", "equal within tolerance") + row.format("6.12", "different")
    (docs / "conformance.md").write_text(rows, encoding="utf-8")
    done = generate.compared(docs)
    assert done == {"6.1": {"dimm-1GiB"}}
    said = {r: generate.evidence(RELEASES[r], "nopage_flags", done) for r in ("6.1", "6.12", "7.0")}
    assert said == {"6.1": "measured", "6.12": "read", "7.0": "inferred"}


@pytest.mark.parametrize(("verdict", "word"), [("equal", "measured"), ("unclear", "read")])
def test_a_value_is_measured_by_a_check_that_told_it(generate, tmp_path, verdict, word):
    (tmp_path / "checks").mkdir()
    told = {"record": "6.12", "arch": "x86_64"}
    told["behaviours"] = [{"behaviour": "nopage_flags", "verdict": verdict}]
    (tmp_path / "checks/6.12-x86_64.json").write_text(json.dumps(told))
    found = generate.checks(tmp_path)
    assert generate.evidence(RELEASES["6.12"], "nopage_flags", {}, found) == word
    assert generate.evidence(RELEASES["7.3"], "nopage_flags", {}, found) == "read"


def test_a_cell_of_a_driver_is_marked_by_an_equal_comparison_that_exists(generate):
    records = {record.name: record for record in generate.driver_records()}
    done = generate.compared(ROOT / "docs")
    page = (ROOT / "docs/drivers.md").read_text(encoding="utf-8")
    cells = [
        (d, name, by) for d, named in generate.SEEN_CELLS.items() for name, by in named.items()
    ]
    for driver, name, by in cells:
        assert getattr(records[driver], name)
        assert generate.releases_of(by, done), f"{driver}, {name}: no equal run of {by}"
    table = page.split("- *scenario*")[0].splitlines()
    assert sum(line.count(" † |") for line in table) == len(cells)
    assert generate.releases_of(
        "dimm-1GiB", {"6.1": {"dimm-in-pieces"}, "6.12": {"dimm-1GiB"}}
    ) == ["6.12"]
    drivers = {driver for driver, _ in SEEN}
    assert drivers >= {"probe", "virtio-mem"}, "the matrix marks what the page says that it does"


def test_the_page_of_commands_and_the_picture_are_as_generated(generate):
    for path, made in (
        (generate.COMMANDS_PAGE, generate.commands_page()),
        (generate.PICTURE, generate.picture()),
    ):
        assert path.read_text(encoding="utf-8") == made, "run python docs/generate.py"


def test_every_command_is_in_a_page_that_people_write():
    words = re.findall(r"^### altmap (.+)$", PAGES["commands"], re.MULTILINE)
    assert len(words) >= 6
    generated = {"commands"}
    written = "".join(text for name, text in PAGES.items() if name not in generated)
    for word in words:
        assert f"altmap {word}" in written, word


def test_the_page_of_reports_explains_every_state():
    page = PAGES["report"]
    for info in STATES.values():
        cells = [info.name, info.letter, info.meaning]
        assert f"| {' | '.join(cells)} |".replace("|  |", "| |") in page


@pytest.mark.skipif(importlib.util.find_spec("mkdocs") is None, reason="missing: mkdocs")
@pytest.mark.slow
def test_the_site_is_built_strictly_and_fetches_nothing(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    built = {path.stem for path in (tmp_path / "site").glob("*.html")}
    assert {path.stem for path in (ROOT / "docs").glob("*.md")} <= built
    assert {"index", "contributing", "changelog"} <= built
    for path in (tmp_path / "site").glob("*.html"):
        text = path.read_text(encoding="utf-8")
        fetched = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\s\">]+)", text)
        fetched += re.findall(r"<link[^>]* href=\"?([^\s\">]+)", text)
        assert not [url for url in fetched if "//" in url], path.name


def test_readme_links_every_page():
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("*.md")}
    assert pages <= set(re.findall(r"\]\((docs/[^)#]+)\)", README))


LINKS = re.compile(r"\[[^\]]+\]\(([^)#\s]*)(?:#([^)\s]+))?\)")


def anchor(heading):
    """Return what a heading is linked by."""
    kept = re.sub(r"[^\w\- ]", "", heading.strip().lower())
    return kept.replace(" ", "-")


@pytest.mark.parametrize(
    "path",
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "examples/complaints/README.md"],
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_every_link_leads_somewhere(path):
    for target, heading in LINKS.findall(path.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        there = (path.parent / target).resolve() if target else path
        assert there.exists(), target
        if heading:
            text = re.sub(r"^```.*?^```$", "", there.read_text(), flags=re.MULTILINE | re.DOTALL)
            headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            assert heading in {anchor(each) for each in headings}, f"{target}#{heading}"


# --- plain English ---------------------------------------------------------------------------


#: Texts that pages repeat from the code; tests above and of explore compare them.
QUOTED = [
    *(info.meaning for info in STATES.values()),
    *(rule.text for rule in RULES),
    *(text for defect in DEFECTS.values() for text in (defect.what, defect.shows, defect.reason)),
]
#: Names that users type, which do not change.
IDS = {rule.name for rule in RULES}
#: Packages and modules at the top, whose strings and docstrings are in plain English.
PLAIN = sorted({path.relative_to(SOURCE).parts[0] for path in SOURCE.rglob("*.py")})


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        ("a machine of one's own", "of one's own"),
        ("what stands in the way", "stands in the way"),
        ("boots on paper", "on paper"),
        ("the kernel is dead", "kernel is dead"),
        ("the kernel lives", "kernel lives"),
        ("The listener says\n    no.", "says no"),
        ("nobody backs them", "nobody"),
        ("Somebody holds it", "Somebody"),
        ("whoever computed it died", "whoever"),
        ("there is nothing behind it", "nothing behind it"),
        ("what there is", "what there is"),
        ("the house, room by room", "room by room"),
        ("whether the books balance", "the books balance"),
        ("retries without end", "without end"),
        ("withheld by the driver", "withheld"),
        ("maps, and who did what", "who did what"),
        ("takes it back", "takes it back"),
        ("a surprise", "surprise"),
        ("bought 64 MiB", "bought"),
        ("what a step comes to", "comes to"),
        ("what was said, what is safe", "what was said"),
        ("look at it", "look at it"),
        ("the ledger", "ledger"),
        ("the conversation of host and guest", "conversation"),
    ],
)
def test_a_phrase_of_the_list_is_found(text, phrase):
    assert f"{phrase!r}: say" in "\n".join(found(text))


def test_standard_terms_code_and_output_are_not_found():
    assert not found("The driver withdraws; a page comes online, each block on its own; ok.")
    assert not prose("`nobody`").strip("`")
    assert not found(prose("```console\n$ altmap run x\nthe kernel is dead\n```\n"))
    assert not found(prose("| `x` | nothing behind it |", ["nothing behind it"]))


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_is_in_plain_english(name):
    assert not found(prose(PAGES[name], QUOTED))


@pytest.mark.parametrize("place", PLAIN)
def test_a_package_is_in_plain_english(place):
    top = ROOT / "src/altmap" / place
    modules = [top] if top.is_file() else sorted(top.rglob("*.py"))
    assert modules, f"{place}: no such package or module"
    bad = [
        f"{path.relative_to(ROOT)}:{line}: {phrase}"
        for path in modules
        for line, text in strings(path.read_text(encoding="utf-8"))
        if text not in IDS
        for phrase in found(text)
    ]
    assert not bad, "\n".join(bad)


# --- capturing by hand -----------------------------------------------------------------------


def captured_here():
    """Return what this machine lacks for its files to be captured, empty if nothing."""
    needed = ("/proc/zoneinfo", "/sys/devices/system/memory/block_size_bytes")
    lacking = [path for path in needed if not Path(path).exists()]
    # The copy of proc/kpageflags would take long: 2 MiB for each GiB.
    if not lacking and int(re.search(r"\d+", Path("/proc/meminfo").read_text())[0]) > 64 << 20:
        lacking.append("memory below 64 GiB")
    return ", ".join(lacking)


@pytest.mark.slow
@pytest.mark.skipif(bool(captured_here()), reason=f"missing: {captured_here()}")
@pytest.mark.skipif(shutil.which("bash") is None, reason="missing: bash")
def test_a_sysroot_captured_by_the_page_s_commands_is_read(tmp_path):
    (script,) = [text for language, text in BLOCKS["sysroots"] if language == "sh"]
    subprocess.run(["bash", "-c", script], cwd=tmp_path, capture_output=True, check=True)
    sysroot = Sysroot.read(tmp_path / "sysroot.tar.gz")
    seen = Observation.read(sysroot)
    block_size = Path("/sys/devices/system/memory/block_size_bytes").read_text()
    assert seen.memory.block_size_bytes == int(block_size, 16)
    names = {path.name for path in Path("/sys/devices/system/memory").glob("memory[0-9]*")}
    assert {f"memory{id_}" for id_ in seen.memory.blocks} == names
    assert seen.zoneinfo
    assert seen.version == Path("/proc/version").read_text().removesuffix("\n")
    assert f"{seen.meminfo['MemTotal']} kB" in Path("/proc/meminfo").read_text()
