"""Man pages and completion, made from the commands' own arguments."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from altmap.cli.main import GROUPS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder that `make man` fills."""
    spec = importlib.util.spec_from_file_location("man", ROOT / "docs/man.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("made")
    module.main(folder)
    return folder


def test_every_command_has_a_page_and_what_acts_is_in_section_8(made):
    names = {path.name for path in (made / "man").iterdir()}
    for group in GROUPS:
        for verb in group.verbs:
            assert names & {f"altmap-{verb}.1", f"altmap-{verb}.8"}
    assert {"altmap-plan-add.1", "altmap-lab-exec.1"} <= names
    assert {name for name in names if name.endswith(".8")} == {"altmap-apply.8"}


def test_a_page_has_every_option_and_exit_code(made):
    page = (made / "man/altmap-apply.8").read_text().replace(r"\-", "-")
    for word in ("--yes", "--dry-run", "--on-bare-metal", "--rollback", "--limit SECONDS"):
        assert rf"\fB{word}\fR" in page
    for code in ("0", "1", "2", "64"):
        assert f".TP\n\\fB{code}\\fR\n" in page.split(".SH EXIT STATUS")[1]


@pytest.mark.skipif(shutil.which("groff") is None, reason="missing: groff")
def test_groff_finds_nothing_to_warn_about(made):
    for page in sorted((made / "man").iterdir()):
        ran = subprocess.run(
            ["groff", "-man", "-Tascii", "-ww", page], capture_output=True, text=True, check=True
        )
        assert ran.stderr == "", page.name
        assert "SYNOPSIS" in re.sub(".\x08", "", ran.stdout)  # bold is struck twice


@pytest.mark.skipif(shutil.which("bash") is None, reason="missing: bash")
@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["altmap", "pl"], "plan"),
        (["altmap", "expl"], "explain"),
        (["altmap", "plan", "add", "--driv"], "--driver"),
        (["altmap", "ls", "--noh"], "--noheadings"),
        (["altmap", "watch", "--int"], "--interval"),
    ],
)
def test_bash_completes_commands_and_options(made, words, expected):
    script = (
        f"source {made}/completions/altmap; COMP_WORDS=({' '.join(words)}); "
        f"COMP_CWORD={len(words) - 1}; _shtab_altmap altmap {words[-1]} {words[-2]}; "
        'echo "${COMPREPLY[@]}"'
    )
    ran = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert expected in ran.stdout.split()


def test_zsh_gets_every_command(made):
    text = (made / "completions/_altmap").read_text()
    assert text.startswith("#compdef altmap")
    for verb in ("explain", "snapshot", "watch", "plan", "apply"):
        assert f"    {verb}:'" in text
