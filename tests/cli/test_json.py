"""Every command's JSON names its schema and version, and the page lists them all."""

import json
import re
from pathlib import Path

import pytest

from altmap.cli.main import command_line, main

ROOT = Path(__file__).parents[2]
DIMM = ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz"
SCENARIO = ROOT / "scenarios/dimm-1GiB.toml"
GRID = ROOT / "examples/sweeps/overhead.toml"
#: Command lines, and the schema of what each prints.
PRINTED = {
    "run SCENARIO --json": "altmap-trace",
    "run SCENARIO --policy opt-in --policy existing --json": "altmap-trace",
    "account DIMM --json": "altmap-account",
    "account SCENARIO --json": "altmap-account",
    "ls -J -s DIMM": "altmap-ls",
    "snapshot DIMM -o OUT/s.tar --json": "altmap-snapshot",
    "explain 33 DIMM --json": "altmap-explain",
    "explain EBUSY --json": "altmap-explain",
    "plan free 32 --from DIMM --json": "altmap-plan",
    "watch -s ROOT --for 0 --json": "altmap-watch",
    "claims C13 --json": "altmap-claims",
    "bugs B8 --json": "altmap-bugs",
    "sweep GRID -o OUT/swept --limit 2 -j 1 --no-charts --json": "altmap-sweep-summary",
    "explore books --json": "altmap-exploration-result",
}


def table():
    """Return the page's table: schema to version and command."""
    page = (ROOT / "docs/json.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(altmap-[a-z-]+)` \| (\d+) \| (.+) \|$", page, re.MULTILINE)
    return {name: (int(version), text) for name, version, text in rows}


@pytest.mark.parametrize(("line", "schema"), PRINTED.items(), ids=PRINTED)
def test_what_is_printed_names_its_schema_and_version(tmp_path, capsys, line, schema):
    if "ROOT" in line:
        from altmap.linux.sysroot import Sysroot

        Sysroot.read(DIMM).write(tmp_path / "root")
    names = {"SCENARIO": SCENARIO, "DIMM": DIMM, "ROOT": tmp_path / "root", "GRID": GRID}
    names |= {"OUT/s.tar": tmp_path / "s.tar", "OUT/swept": tmp_path / "swept"}
    assert main([str(names.get(word, word)) for word in line.split()]) in (0, 1, 2)
    made = json.loads(capsys.readouterr().out)
    for each in made if isinstance(made, list) else [made]:
        assert (each["schema"], each["version"]) == (schema, table()[schema][0])


def test_the_page_has_every_schema_of_the_code():
    source = "\n".join(path.read_text() for path in (ROOT / "src/altmap").rglob("*.py"))
    written = set(re.findall(r'"(altmap-[a-z-]+)"', source))
    assert {name for name in written if f'"schema": "{name}"' in source} <= table().keys()
    assert table().keys() <= written


def test_every_command_with_json_is_on_the_page():
    from argparse import _SubParsersAction

    (verbs,) = (a for a in command_line()._actions if isinstance(a, _SubParsersAction))
    page = " ".join(text for _, text in table().values())
    for name, parser in verbs.choices.items():
        if "--json" in parser._option_string_actions:
            assert f"`{name}" in page, name
