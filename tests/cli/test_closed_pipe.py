"""A reader that has gone, as of ``| head -1``, does not undo the files that a command writes."""

import io
from pathlib import Path

import pytest

from altmap.cli.main import main

ROOT = Path(__file__).parents[2]
SCENARIO = str(ROOT / "scenarios/hyperv-64MiB-first-half.toml")
DIMM = str(ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz")
RECORDINGS = [
    str(ROOT / f"tests/recordings/traces/x86_64-{release}-dimm-1GiB.tar.xz")
    for release in ("6.1", "6.12")
]


class Gone(io.StringIO):
    """Standard output whose reader has gone, before or after the first lines."""

    def __init__(self, nr_lines=0):
        super().__init__()
        self.nr_lines = nr_lines

    def write(self, text):
        if self.getvalue().count("\n") >= self.nr_lines:
            raise BrokenPipeError(32, "Broken pipe")
        return super().write(text)


#: What a command writes, and the command.
WRITERS = {
    "out/trace.json": f"run {SCENARIO} --export out",
    "page.json": f"compare --recording {RECORDINGS[0]} --recording {RECORDINGS[1]} "
    "--report page.json",
    "study/dimm-one-section.toml": "claims C13 --write study",
    "bugs/two-sections-leave.toml": "bugs B8 --write bugs",
    "plan.json": f"plan free 32 --from {DIMM} -o plan.json",
    "vm.html": f"vm {ROOT / 'examples/vm/web.xml'} -o vm.html",
    "now.tar": f"snapshot {DIMM} -o now.tar",
}


@pytest.mark.parametrize("path", WRITERS)
@pytest.mark.parametrize("nr_lines", [0, 1])
def test_what_a_command_writes_is_there_whole(path, nr_lines, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdout", Gone(nr_lines))
    main(WRITERS[path].split())
    assert (tmp_path / path).stat().st_size > 0
    assert capsys.readouterr().err == ""


def test_a_report_has_the_comparisons_that_nothing_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdout", Gone())
    assert main(WRITERS["page.json"].split()) == 2
    assert (tmp_path / "page.json").read_text().count('"predicted": "model') == 2
