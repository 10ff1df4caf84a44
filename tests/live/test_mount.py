"""Mounting: what is cleaned up, who may do what, and clients that misbehave."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from live_machines import PC

import altmap
from altmap import Fill, InputError, Offline, Unplug, load_scenario, predict
from altmap.cli.main import main
from altmap.live.mounting import mounted

pytestmark = pytest.mark.mount
MEMORY = "sys/devices/system/memory"


@pytest.fixture
def machine():
    with mounted(PC) as here:
        yield here


@pytest.fixture(scope="module")
def shared():
    """A machine for tests that leave it as it is."""
    with mounted(PC) as here:
        yield here


@pytest.fixture
def served(tmp_path):
    """Run altmap mount, and end it."""
    from altmap.scenario import scenario_tables, scenario_toml

    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "pc.toml").write_text(scenario_toml(scenario_tables(PC)))
    command = [sys.executable, "-m", "altmap", "mount", str(tmp_path / "pc.toml"), str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith(f"{root}: pc-1GiB is mounted")
    yield root, process
    process.terminate()
    process.communicate(timeout=60)


def is_mounted(root):
    return f" {root} " in Path("/proc/self/mountinfo").read_text()


def waited(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts(served, number):
    root, process = served
    socket_path = (root / "altmap/socket").read_text().strip()
    process.send_signal(number)
    assert process.wait(60) == 0
    assert not is_mounted(root)
    assert not Path(socket_path).exists()


def killed(process):
    process.kill()
    process.wait(60)


def supervisor(root):
    """Return the process that unmounts the folder when its server has ended."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"fusermount3") and os.fsencode(root) in words:
            return int(path.parent.name)
    raise AssertionError(f"no fusermount3 of {root}")


def test_after_kill_9_clients_get_enotconn_and_the_folder_is_unmounted(served):
    root, process = served
    state = root / MEMORY / "memory32/state"
    reader, writer = os.open(state, os.O_RDONLY), os.open(state, os.O_WRONLY)
    folder = os.open(root / MEMORY, os.O_RDONLY | os.O_DIRECTORY)
    assert os.read(reader, 100) == b"offline\n"
    killed(process)
    assert _errno_of(lambda: os.pread(reader, 100, 0)) == "ENOTCONN"
    assert _errno_of(lambda: os.write(writer, b"online")) == "ENOTCONN"
    assert _errno_of(lambda: os.fstat(reader)) == "ENOTCONN"
    assert _errno_of(lambda: os.open("memory32/state", os.O_RDONLY, dir_fd=folder)) == "ENOTCONN"
    for file in (reader, writer, folder):
        _errno_of(lambda file=file: os.close(file))
    assert waited(lambda: not is_mounted(root))
    assert list(root.iterdir()) == []


def test_a_client_that_waits_for_a_server_gets_an_errno_when_that_is_killed(served):
    root, process = served
    file = os.open(root / MEMORY / "memory32/state", os.O_RDONLY)
    answers = []
    process.send_signal(signal.SIGSTOP)
    client = threading.Thread(
        target=lambda: answers.append(_errno_of(lambda: os.pread(file, 100, 0)))
    )
    client.start()
    client.join(0.2)
    assert client.is_alive()
    killed(process)
    client.join(60)
    assert answers in (["ENOTCONN"], ["ECONNABORTED"])
    _errno_of(lambda: os.close(file))


def test_what_a_killed_server_left_is_cleaned_up_by_the_next_mount(served):
    root, process = served
    os.kill(supervisor(root), signal.SIGKILL)
    socket_path = Path((root / "altmap/socket").read_text().strip())
    killed(process)
    assert is_mounted(root)
    assert socket_path.exists()
    assert _errno_of(lambda: list(root.iterdir())) == "ENOTCONN"
    assert main(["ctl", str(root), "show"]) == 2
    with mounted(PC, root) as machine:
        assert (root / MEMORY / "memory32/state").read_text() == "offline\n"
        assert machine.show().startswith("pc-1GiB")
        assert not socket_path.exists()
    assert not is_mounted(root)
    assert list(root.iterdir()) == []


def test_a_mount_ends_with_its_program_however_that_ends(tmp_path):
    program = (
        "import sys, time, altmap\n"
        "with altmap.mount(altmap.Scenario(name='small')) as machine:\n"
        "    print(machine.root, flush=True)\n"
        "    time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    root = Path(process.stdout.readline().strip())
    assert is_mounted(root)
    process.kill()
    process.communicate(timeout=60)
    assert waited(lambda: not list(tmp_path.iterdir()))
    assert not is_mounted(root)


def test_a_folder_that_is_not_empty_or_not_there_is_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    scenario = "scenarios/dimm-1GiB.toml"
    assert main(["mount", scenario, str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"altmap: {tmp_path}: is not empty: need an empty folder\n"
    assert main(["mount", scenario, str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_is_missing_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["mount", "scenarios/dimm-1GiB.toml", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert told.startswith("altmap: mount: fusermount3 is missing: needs FUSE 3 (Debian:")
    assert told.count("\n") == 1
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    assert main(["mount", "scenarios/dimm-1GiB.toml", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "pip install altmap[mount]" in told
    assert told.count("\n") == 1


def test_the_socket_is_its_owners_only(shared):
    path = Path((shared.root / "altmap/socket").read_text().strip())
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.stat().st_uid == os.geteuid()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_another_user_gets_no_answer_though_it_can_connect(machine):
    path = (machine.root / "altmap/socket").read_text().strip()
    Path(path).chmod(0o666)
    ask = (
        "import os, socket\n"
        "os.setresuid(65534, 65534, 65534)\n"
        "peer = socket.socket(socket.AF_UNIX)\n"
        f"peer.connect({path!r})\n"
        'peer.sendall(b\'{"do": "show"}\\n\')\n'
        "print(peer.recv(100))\n"
    )
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True)
    assert done.stdout in ("b''\n", ""), done.stderr
    assert "pc-1GiB" in machine.show()


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b"[1]\n", b'{"do": "perform"}\n', b"\xff\n"])
def test_a_malformed_request_is_answered_with_an_error(shared, line):
    path = (shared.root / "altmap/socket").read_text().strip()
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(path)
        peer.sendall(line)
        assert "error" in json.loads(peer.makefile().readline())


def test_a_request_that_no_machine_can_do_is_an_error_and_changes_nothing(machine):
    with pytest.raises(InputError, match="no such device"):
        machine.perform(Unplug(id="nothing"))
    assert "1 steps so far" in machine.show()


# --- the platform's side ---------------------------------------------------------------------


def test_ctl_plugs_unplugs_explains_and_saves(machine, capsys, tmp_path):
    root = str(machine.root)
    assert main(["ctl", root, "plug", "--size", "256MiB", "--id", "d2"]) == 0
    assert capsys.readouterr().out == "plug d2: ok\n"
    assert (machine.root / MEMORY / "memory40/state").read_text() == "offline\n"
    assert main(["ctl", root, "plug", "--size", "100MiB"]) == 1
    assert capsys.readouterr().out.startswith("plug dimm1: EINVAL by check_hotplug_memory_range")
    assert main(["ctl", root, "resize", "d1", "2GiB"]) == 2
    assert main(["ctl", root, "explain", "memory0"]) == 0
    assert "would not go offline: EINVAL" in capsys.readouterr().out
    assert main(["ctl", root, "explain", "40"]) == 0
    assert capsys.readouterr().out == "memory40 is offline\n"
    assert main(["ctl", root, "unplug", "d2"]) == 0
    assert not (machine.root / MEMORY / "memory40").exists()
    (tmp_path / "more.toml").write_text('[[steps]]\ndo = "fill"\nid = "f"\nsize = "64MiB"\n')
    assert main(["ctl", root, "step", str(tmp_path / "more.toml")]) == 0
    assert main(["ctl", root, "show"]) == 0
    assert "5 steps so far" in capsys.readouterr().out
    assert main(["ctl", root, "save", str(tmp_path / "out.toml")]) == 0
    assert [step.__struct_config__.tag for step in load_scenario(tmp_path / "out.toml").steps] == [
        *("plug", "plug", "plug", "unplug", "fill")
    ]


def test_ctl_says_where_no_machine_is(tmp_path, capsys):
    assert main(["ctl", str(tmp_path), "show"]) == 2
    assert "no machine answers there" in capsys.readouterr().err


def test_what_was_saved_leads_to_the_same_files(machine, tmp_path):
    for block in (32, 33, 34):
        (machine.root / MEMORY / f"memory{block}/state").write_text("online_movable")
    (machine.root / MEMORY / "memory33/online").write_text("0")
    machine.perform(Fill(id="f", size="600MiB"))
    with pytest.raises(OSError, match="Invalid argument"):
        (machine.root / MEMORY / "memory0/state").write_text("offline")
    path = tmp_path / "saved.toml"
    path.write_text(machine.saved())
    files = predict(load_scenario(path)).steps[-1].observation.render().files
    for name in ("proc/meminfo", "proc/zoneinfo", "proc/buddyinfo", "proc/iomem", "proc/vmstat"):
        assert (machine.root / name).read_bytes() == files[name]
    state = f"{MEMORY}/memory33/state"
    assert (machine.root / state).read_bytes() == files[state] == b"offline\n"


def test_page_flags_are_read_at_any_offset(shared):
    words = shared.root.joinpath("proc/kpageflags")
    flags = predict(PC).steps[-1].observation.kpageflags
    with words.open("rb", buffering=0) as file:
        for pfn in (0, 0x100, 0x1FFFF, 0x120000):
            file.seek(pfn * 8)
            assert int.from_bytes(file.read(8), "little") == flags.word_at(pfn)
        file.seek(flags.nr_pages * 8)
        assert file.read(8) == b""
        file.seek(4)
        with pytest.raises(OSError, match="Invalid argument"):
            file.read(8)


# --- after a fault, and hostile clients -------------------------------------------------------


def test_after_a_modelled_fault_every_access_is_eio_and_the_log_says_why():
    with mounted("scenarios/hyperv-64MiB-second-half.toml", settings=["policy=rfc-2018"]) as here:
        with pytest.raises(OSError, match="Input/output error"):
            (here.root / "proc/meminfo").read_text()
        with pytest.raises(OSError, match="Input/output error"):
            (here.root / MEMORY / "auto_online_blocks").write_text("online")
        assert any("fault" in line for line in here.log)
        assert "the kernel has crashed" in here.show()


def _errno_of(call):
    try:
        call()
    except OSError as error:
        return errno.errorcode[error.errno]
    return 0


def test_a_hostile_client_gets_an_errno_and_the_server_goes_on(machine):
    block = machine.root / MEMORY / "memory32"
    state = block / "state"
    huge = os.urandom(1 << 20)
    assert _errno_of(lambda: state.write_bytes(huge)) == "EINVAL"
    assert _errno_of(lambda: state.write_bytes(b"online\n" + b" " * 8000)) == "EINVAL"
    assert _errno_of(lambda: (block / ("x" * 300)).read_text()) == "ENOENT"
    assert _errno_of(lambda: (block / ("x" * 5000)).read_text()) == "ENAMETOOLONG"
    assert _errno_of(lambda: (block / "x" / ".." / "state").read_text()) == "ENOENT"
    assert _errno_of(lambda: os.read(os.open(os.fsencode(block) + b"/\xff\xfe", 0), 1)) == "ENOENT"
    assert _errno_of(lambda: (block / "evil").symlink_to("/etc/passwd")) == "EPERM"
    assert _errno_of(lambda: os.link(state, block / "evil")) == "EPERM"
    assert _errno_of(lambda: (block / "evil").mkdir()) == "EPERM"
    assert _errno_of(lambda: (block / "evil").write_text("")) == "EACCES"
    assert _errno_of(state.unlink) == "EPERM"
    assert _errno_of(lambda: state.rename(block / "evil")) == "EPERM"
    assert _errno_of(lambda: state.chmod(0o777)) == "EPERM"
    assert _errno_of(lambda: os.setxattr(state, "user.x", b"1")) in ("ENOTSUP", "EOPNOTSUPP")
    assert _errno_of(lambda: os.mkfifo(block / "fifo")) == "EPERM"
    with (machine.root / "proc/meminfo").open("rb", buffering=0) as file:
        assert os.pread(file.fileno(), 100, 1 << 62) == b""
    assert state.read_text() == "offline\n"


def act(machine, client, seconds, wrong):
    """Online and offline one block, and read what must always hold."""
    folder = machine.root / MEMORY / f"memory{32 + client}"
    end = time.monotonic() + seconds
    rounds = 0
    while time.monotonic() < end:
        rounds += 1
        for word in ("online_movable", "offline"):
            (folder / "state").write_text(word)
            if (folder / "state").read_text() != f"{word.partition('_')[0]}\n":
                wrong.append(f"memory{32 + client}: {word} is not shown")
        pages = (machine.root / "proc/zoneinfo").read_text()
        if not pages.startswith("Node 0, zone") or not pages.endswith("\n"):
            wrong.append("zoneinfo is cut")
    return rounds


def together(seconds, record):
    wrong, rounds = [], []
    with mounted(PC, record=record) as machine:
        before = (machine.root / "proc/meminfo").read_bytes()
        threads = [
            threading.Thread(target=lambda n=n: rounds.append(act(machine, n, seconds, wrong)))
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 60)
        assert not any(thread.is_alive() for thread in threads)
        after = (machine.root / "proc/meminfo").read_bytes()
    lines = map(json.loads, record.read_text(encoding="utf-8").splitlines())
    nr_writes = sum(
        line["operation"] == "write" and line["path"].endswith("/state") for line in lines
    )
    assert wrong == []
    assert min(rounds) > 0
    assert nr_writes == 2 * sum(rounds)
    assert before.splitlines()[:2] == after.splitlines()[:2]


def test_eight_clients_at_once_are_served_one_after_the_other(tmp_path):
    together(2, tmp_path / "record")


@pytest.mark.slow
def test_eight_clients_for_ten_seconds(tmp_path):
    together(10, tmp_path / "record")


# --- records, and the public names ------------------------------------------------------------


def test_each_read_and_write_is_recorded_with_its_answer(tmp_path):
    record = tmp_path / "record.jsonl"
    with altmap.mount(PC, record=record) as machine:
        block = machine.root / MEMORY / "memory32"
        block.joinpath("state").write_text("online")
        block.joinpath("valid_zones").read_text()
        file = os.open(block / "state", os.O_WRONLY)
        assert _errno_of(lambda: os.write(file, b"bogus")) == "EINVAL"
        os.close(file)
    lines = [json.loads(line) for line in record.read_text().splitlines()]
    mine = [line for line in lines if "memory32" in line["path"]]
    assert [(line["operation"], line["path"].rpartition("/")[2]) for line in mine] == [
        *(("write", "state"), ("read", "valid_zones"), ("write", "state"))
    ]
    assert [line["text"] for line in mine] == ["online", "Normal\n", "bogus"]
    assert [line["answer"] for line in mine][:2] == ["ok", 0]
    assert mine[2]["answer"].startswith("EINVAL by state_store")


def test_a_captured_machine_goes_on_from_its_files():
    captured = Path("tests/recordings/files/linux-6.12-dimm.tar.xz")
    with altmap.mount(captured) as machine:
        seen = altmap.Observation.read(altmap.Sysroot.read(captured))
        for block, shown in seen.memory.blocks.items():
            state = (machine.root / MEMORY / f"memory{block}/state").read_text()
            assert state == f"{shown.state}\n"
        assert (machine.root / "proc/cmdline").read_text() == f"{seen.cmdline}\n"
        block = max(seen.memory.blocks)
        offline = altmap.Scenario(name="offline", steps=[Offline(blocks=block)])
        expected = predict(offline, seen).steps[-1].outcome
        path = machine.root / MEMORY / f"memory{block}/state"
        assert _errno_of(lambda: path.write_text("offline")) == (expected.errno or 0)
        assert machine.log[-1].endswith("ok" if expected else expected.why)
