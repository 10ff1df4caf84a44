"""The driver protocol log: directions, order, texts and bytes of the messages."""

import json
import re

import pytest

from altmap.cli import main as cli
from altmap.protocol.hyperv_messages import decode, describe

SCENARIO = """
[machine]
memory = "1GiB"
release = "6.12"
auto_online_blocks = "online"
balloon = "hyperv"

[[steps]]
do = "plug"
id = "h"
driver = "hyperv"
address = "4GiB"
size = "64MiB"

[[steps]]
do = "online"
blocks = 0

[[steps]]
do = "resize"
id = "balloon"
size = "1GiB"
"""


@pytest.fixture
def run(tmp_path, capsys):
    path = tmp_path / "s.toml"
    path.write_text(SCENARIO)

    def run(*args):
        code = cli.main(["run", str(path), *args])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def messages(run):
    """The messages of the trace, which hold the bytes."""
    steps = json.loads(run("--json")[1])["steps"]
    events = [event for step in steps for event in step["events"]]
    return [bytes.fromhex(event["message"]) for event in events if "message" in event]


def test_every_message_is_shown_in_order_with_direction_and_fields(run, messages, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    code, out, _ = run("--driver-log")
    assert code == 0
    lines = [line for line in out.splitlines() if "→" in line]
    assert len(lines) == len(messages) == 10
    for line, raw in zip(lines, messages, strict=True):
        message = decode(raw)
        arrow = "guest→host" if message.TO_HOST else "host→guest"
        assert re.search(rf"^ *\d+  {arrow}  {re.escape(describe(message))} \(\w+\)$", line)
    numbers = [int(n) for n in re.findall(r"^ *(\d+)  \w", out, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_hex_shows_the_bytes_themselves(run, messages):
    _, out, _ = run("--driver-log", "--hex")
    dumped = re.findall(r"^ {18}[0-9a-f]{4}  ([0-9a-f ]+)$", out, re.MULTILINE)
    assert bytes.fromhex("".join(dumped)) == b"".join(messages)


def test_a_step_without_messages_is_marked(run):
    _, out, _ = run("--driver-log")
    assert re.search(r"^\[2\] online-memory0\n  no messages$", out, re.MULTILINE)


def test_the_table_has_no_messages_of_the_log(run):
    _, out, _ = run()
    assert "DM_" not in out
    assert "hv_balloon answers page_count=16384 result=1" in out


def test_each_policy_has_its_own_log(run):
    _, out, _ = run("--driver-log", "--policy", "opt-in", "--policy", "rfc-2018")
    assert re.findall(r"^driver log: .*policy (\S+)$", out, re.MULTILINE) == ["opt-in", "rfc-2018"]


def test_bytes_without_a_driver_log_are_refused_in_one_line(run):
    code, out, err = run("--hex")
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert "--driver-log" in err
