"""The command: texts, JSON, page, plans and sweeps of a definition's file."""

import json
import tomllib
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.scenario import parse_scenario

EXAMPLES = Path(__file__).parents[2] / "examples/vm"
GIB = 1 << 30


def run(capsys, *words):
    code = main(["vm", *map(str, words)])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def document(capsys, *words):
    code, out, err = run(capsys, *words, "--json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_json_has_the_numbers_of_the_table(capsys):
    made = document(capsys, EXAMPLES / "web.xml", "--way", "virtio-mem")
    assert (made["schema"], made["version"]) == ("altmap-vm", 1)
    (way,) = made["ways"]
    sizes = [row["size_bytes"] for row in way["rows"]]
    assert sizes == [4 * GIB, 8 * GIB, 16 * GIB, 32 * GIB]
    for row in way["rows"]:
        added = row["online_kernel_bytes"] + row["online_movable_bytes"] + row["offline_bytes"]
        assert added == row["size_bytes"] - 4 * GIB
        assert row["mem_total_bytes"] == way["rows"][0]["mem_total_bytes"] + added
    assert made["boot"]["mem_total_bytes"] == way["rows"][0]["mem_total_bytes"]
    assert way["commands"] == [
        "virsh update-memory-device web --alias virtiomem0 --requested-size 29360128KiB --live"
    ]


def test_a_policy_in_python_counts_and_its_mistake_is_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["new", "policy", "-o", "hosts_its_memmap.py"]) == 0
    text = Path("hosts_its_memmap.py").read_text()
    Path("wrong_policy.py").write_text(text.replace("block = request.", "block = request.no"))
    words = (
        EXAMPLES / "small.sh",
        "--way",
        "dimm",
        "--cmdline",
        "memory_hotplug.memmap_on_memory=1",
    )
    code, out, _ = run(capsys, *words, "--policy", "hosts_its_memmap:Policy")
    assert code == 0
    assert "memmap policy: mine" in out
    assert "memmap policy" not in run(capsys, *words)[1]
    own = document(capsys, *words, "--policy", "hosts_its_memmap:Policy")["ways"][0]["rows"][1]
    existing = document(capsys, *words, "--policy", "existing")["ways"][0]["rows"][1]
    assert (own["memmap_self_bytes"] > 0, existing["memmap_self_bytes"]) == (True, 0)
    code, _, err = run(capsys, *words, "--policy", "wrong_policy:Policy")
    assert (code, err.count("\n")) == (2, 1)
    assert "wrong_policy.py:" in err
    for other in ("--rules", "--scenario"):
        code, _, err = run(capsys, *words, "--policy", "existing", other)
        assert (code, "goes with none of" in err) == (2, True)


def test_the_kernels_options_count(capsys, tmp_path):
    config = tmp_path / "config"
    config.write_text("# Linux/x86 6.6.1 Kernel Configuration\nCONFIG_MEMORY_HOTPLUG=y\n")
    made = document(capsys, EXAMPLES / "web.xml", "--config", config)
    assert made["kernel"]["release"] == "6.6"
    assert set(made["kernel"]["missing"]) == {"dimm", "virtio-mem", "hyperv", "balloon"}
    made = document(capsys, EXAMPLES / "web.xml", "--release", "6.1", "--cmdline", "movable_node")
    assert made["kernel"]["settings"] == {"movable_node": True}


def test_two_kernels_are_side_by_side(capsys):
    made = document(capsys, EXAMPLES / "web.xml", "--compare", "6.1", "6.12", "--to", "8GiB")
    assert [way["release"] for way in made["ways"]] == ["6.1", "6.12"]
    assert [way["rows"][-1]["result"] for way in made["ways"]] == ["refused", "ok"]


def test_a_check_fails_for_findings_and_for_a_size_that_is_not_reached(capsys):
    assert run(capsys, EXAMPLES / "database.xml", "--check")[0] == 1
    words = ("--way", "dimm", "--cmdline", "memhp_default_state=online_movable", "--to")
    assert run(capsys, EXAMPLES / "small.sh", *words, "512MiB")[0] == 0
    assert run(capsys, EXAMPLES / "small.sh", "--check", *words, "12GiB")[0] == 1


def test_a_scenario_is_one_that_runs(capsys):
    code, out, _ = run(capsys, EXAMPLES / "small.sh", "--way", "dimm", "--to", "1GiB", "--scenario")
    assert code == 0
    assert parse_scenario(out, "x").machine.memory == 256 << 20
    assert tomllib.loads(out)["steps"][0]["do"] == "plug"


def test_the_page_opens_offline(capsys, tmp_path):
    page = tmp_path / "page.html"
    assert run(capsys, EXAMPLES / "small.sh", "-o", page)[0] == 0
    text = page.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "http" not in text.replace("http-equiv", "")
    assert "<h2>Growing by dimm</h2>" in text
    assert "one-step" in text


def test_a_definition_from_standard_input(capsys, monkeypatch):
    import io
    import sys

    raw = io.TextIOWrapper(io.BytesIO((EXAMPLES / "small.sh").read_bytes()))
    monkeypatch.setattr(sys, "stdin", raw)
    assert document(capsys, "-")["definition"]["name"] == "small"


def test_a_guests_files_are_where_the_model_starts(capsys):
    recording = EXAMPLES.parents[1] / "tests/recordings/files/linux-6.12-dimm.tar.xz"
    made = document(capsys, EXAMPLES / "small.sh", "--guest", recording, "--to", "1GiB")
    assert made["kernel"]["stated"] == "the guest's files"
    assert any("files show" in note for note in made["notes"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "need a FILE"),
        (["none.xml"], "none.xml"),
        ([EXAMPLES / "small.sh", "--compare", "dimm", "floppy"], "need a release, or one of"),
        ([EXAMPLES / "small.sh", "--scenario"], "--way says which"),
        ([EXAMPLES / "small.sh", "--arch", "vax"], "architecture 'vax'"),
        ([EXAMPLES / "small.sh", "--release", "x"], "release"),
        ([EXAMPLES / "small.sh", "-o", "x.svg"], "need a name that ends with .html"),
        (["--rules", "--way", "balloon"], "a balloon adds nothing"),
    ],
)
def test_what_cannot_be_answered_is_one_line(words, message, capsys):
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1


def test_a_size_below_what_the_guest_has_is_one_line(capsys):
    code, out, err = run(capsys, EXAMPLES / "web.xml", "--to", "1GiB")
    assert (code, out) == (2, "")
    assert err == "altmap: --to 1GiB: need 4 GiB or more, which the guest has at boot\n"


def test_a_plan_has_the_hypervisors_commands_and_limits(capsys):
    small = str(EXAMPLES / "small.sh")
    assert main(["plan", "grow", "8GiB", "--vm", small, "--driver", "dimm", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    steps = [step for step in made["steps"] if step["by"] == "platform"]
    assert len(steps) == 2
    assert all('"driver": "pc-dimm"' in step["who"] for step in steps)
    assert main(["plan", "grow", "80GiB", "--vm", str(EXAMPLES / "web.xml")]) != 0
    assert "need at most 28 GiB" in capsys.readouterr().err


def test_a_plan_removes_a_dimm_by_the_definitions_name(capsys, tmp_path):
    path = tmp_path / "guest.sh"
    path.write_text(
        "qemu-system-x86_64 -M q35 -m 1G,slots=4,maxmem=8G -object memory-backend-ram,id=m,size=1G "
        "-device pc-dimm,id=second,memdev=m -kernel k -append memhp_default_state=online_movable\n"
    )
    assert main(["plan", "remove", "second", "--vm", str(path), "--json"]) == 0
    step = json.loads(capsys.readouterr().out)["steps"][-1]
    assert json.loads(step["who"]) == {"execute": "device_del", "arguments": {"id": "second"}}


BALLOONED = """
<domain type='kvm'><name>db</name><memory unit='GiB'>8</memory>
<currentMemory unit='GiB'>2</currentMemory><vcpu>2</vcpu>
<os><type arch='x86_64' machine='q35'>hvm</type></os></domain>
"""


@pytest.mark.parametrize(
    ("text", "goal", "commands"),
    [
        (BALLOONED, ("grow", "7GiB"), ["virsh setmem db 7340032KiB --live"]),
        (BALLOONED, ("grow", "2GiB"), []),
        (BALLOONED, ("resize", "balloon", "1GiB"), ["virsh setmem db 1048576KiB --live"]),
        (BALLOONED, ("resize", "balloon", "2GiB"), []),
        (
            'name = "xg"\ntype = "hvm"\nmemory = 2048\nmaxmem = 8192\n',
            ("grow", "8GiB"),
            ["xl mem-set xg 8192m"],
        ),
    ],
)
def test_a_plan_changes_the_balloon_of_a_definition(text, goal, commands, capsys, tmp_path):
    path = tmp_path / "definition"
    path.write_text(text)
    assert main(["plan", *goal, "--vm", str(path), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert [step["who"] for step in made["steps"]] == commands


def test_a_balloon_gives_no_more_than_it_took(capsys, tmp_path):
    path = tmp_path / "definition"
    path.write_text(BALLOONED)
    assert main(["plan", "resize", "balloon", "9GiB", "--vm", str(path)]) == 1
    assert "need at most 8 GiB" in capsys.readouterr().err


def test_a_sweep_takes_a_definition_as_its_base(capsys, tmp_path):
    grid = tmp_path / "g.toml"
    grid.write_text('[machine]\nrelease = ["6.1", "6.12"]\n[requests]\nadded = ["1GiB"]\n')
    assert main(["sweep", str(grid), "--vm", str(EXAMPLES / "small.sh"), "--show", "1"]) == 0
    made = tomllib.loads(capsys.readouterr().out)["machine"]
    assert (made["memory"], made["platform"], made["release"]) == ("256MiB", "q35", "6.12")


def test_what_is_less_than_a_mib_is_not_listed(capsys, tmp_path):
    path = tmp_path / "ch.json"
    path.write_text('{"memory": {"size": 2147483648}, "payload": {"kernel": "vmlinux"}}')
    code, out, _ = run(capsys, path)
    assert code == 0
    assert "the memmap" in out
    assert "- 0 MiB" not in out
