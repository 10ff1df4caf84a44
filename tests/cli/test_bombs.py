"""Small files that stand for gigabytes or for hours: each ends within 10 s and 1 GiB.

The limits are the kernel's, on a process of its own: RLIMIT_CPU and RLIMIT_AS. A machine may be
three times slower than the one that the 10 s are of.
"""

import bz2
import gzip
import io
import json
import lzma
import resource
import subprocess
import sys
import tarfile

import pytest

pytestmark = pytest.mark.slow

SECONDS, BYTES = 30, 1 << 30
MIB = 1 << 20
PACKERS = {"bz2": bz2.compress, "gz": gzip.compress, "xz": lzma.compress}
MEMINFO = "proc/meminfo", b"MemTotal:           1024 kB\n"
VERSION = b"Linux version 6.12.1 (x) #1 SMP\n"


def header(name, size=0):
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


def member(name, content):
    return header(name, len(content)) + content + bytes(-len(content) % 512)


START, END = member(*MEMINFO), bytes(1024)


def zeros(packer, nr_bytes):
    """Return compressed zeros: streams that follow each other are one file."""
    return packer(bytes(64 * MIB)) * (nr_bytes // (64 * MIB))


def pax(number):
    made = io.BytesIO()
    info = tarfile.TarInfo(f"x{number}")
    info.pax_headers = {f"k{n}": "v" for n in range(60_000)}
    with tarfile.open(fileobj=made, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info)
    return made.getvalue()[:-10240] + bytes(-len(made.getvalue()[:-10240]) % 512)


ARCHIVES = {
    "padding": lambda pack: pack(START + END) + zeros(pack, 4 << 30),
    "skipped": lambda pack: pack(START + header("var/log/x", 4 << 30)) + zeros(pack, 4 << 30),
    "page flags": lambda pack: pack(header("proc/kpageflags", 4 << 30)) + zeros(pack, 4 << 30),
    "many folders": lambda pack: b"".join(
        pack(header(f"{n:02d}-x/proc/vmstat", 192 * MIB)) + zeros(pack, 192 * MIB)
        for n in range(20)
    ),
    "empty members": lambda pack: pack(START + header("var/x") * 4000) * 500,
}
FILES = {
    "a size that is claimed": lambda: START + header("x", 1 << 60) + bytes(512),
    "extended headers": lambda: bz2.compress(START + pax(0)) * 200,
    "lines of a zone": lambda: zoneinfo(b" cpu: 0\n" * 1_900_000),
    "numbers of a zone": lambda: zoneinfo(b"        protection: (" + b"1, " * 20_000_000 + b"1)\n"),
    "many zones": lambda: START + member("proc/zoneinfo", many_zones()) + END,
    "counters": lambda: (
        START + member("proc/vmstat", b"".join(b"a%d 1\n" % n for n in range(1_900_000))) + END
    ),
    "runs": lambda: (
        START
        + member("proc/kpageflags.runs", b"".join(b"%#x 1 0x0\n" % n for n in range(1_900_000)))
        + END
    ),
    "blocks of lsmem": lambda: member(LSMEM_PATH, LSMEM + ROWS) + END,
}
ZONE = b"Node 0, zone  %s\n  pages free 1\n min 1\n low 1\n high 1\n spanned 1\n"
ZONE = ZONE.replace(b"%s", b"Normal") + b" present 0\n managed 0\n" + b" cpu: 1\n" * 100
LSMEM_PATH = "sos_commands/memory/lsmem_-a_-o_RANGE.SIZE.STATE.REMOVABLE.ZONES.NODE.BLOCK"
LSMEM = b"RANGE SIZE STATE REMOVABLE ZONES NODE BLOCK\n"
ROWS = b"".join(
    b"0x%016x-0x%016x 1T online yes Normal 0 %d-%d\n"
    % (n << 46, ((n + 1) << 46) - 1, n << 19, ((n + 1) << 19) - 1)
    for n in range(2000)
)


def many_zones():
    return b"".join(ZONE.replace(b"Node 0", b"Node %d" % number) for number in range(14_000))


def zoneinfo(text):
    first = (
        b"Node 0, zone Normal\n  pages free 1\n min 1\n low 1\n high 1\n spanned 1\n present 0\n"
    )
    return START + member("proc/zoneinfo", first + b" managed 0\n" + text) + END


def limited():
    resource.setrlimit(resource.RLIMIT_AS, (BYTES, BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))


def ended(path, *words):
    command = [sys.executable, "-m", "altmap", *words, str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=limited, check=False, timeout=300
    )
    assert done.returncode in (0, 2), (done.returncode, done.stderr[-500:])
    assert "MemoryError" not in done.stderr
    return done


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("name", ARCHIVES)
@pytest.mark.parametrize("command", ["ls -s", "report"])
def test_a_compressed_bomb_is_one_line_within_the_budget(name, packer, command, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(ARCHIVES[name](PACKERS[packer]))
    done = ended(path, *command.split())
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


@pytest.mark.parametrize("name", FILES)
def test_a_bomb_of_lines_or_claims_ends_within_the_budget(name, tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(FILES[name]())
    ended(path, "account")


def trace(**changes):
    made = {
        "schema": "altmap-trace",
        "version": 1,
        **dict.fromkeys(("scenario", "target", "release", "policy"), "x"),
        "machine": {},
        "notes": [],
    }
    step = {"folder": "00-x", "name": "x", "action": {}, "result": {"status": "ok"}}
    step |= {"events": [], "faults": []} | changes
    return json.dumps(made | {"steps": [step]}).encode()


TRACES = {
    "empty lists": lambda: trace(action={"x": [[]] * 5_000_000}),
    "a large set": lambda: trace(backed={"nr_ranges": 1, "ranges": [[0, 1 << 38]]}),
    "depth": lambda: trace(action={"x": 0}).replace(b'"x": 0', b'"x": ' + b"[" * 5_000_000),
    "many runs": lambda: trace(
        backed={"nr_ranges": 1, "ranges": [[n * 70000, n * 70000 + 1] for n in range(500_000)]}
    ),
}


@pytest.mark.parametrize("name", TRACES)
def test_a_bomb_in_a_trace_ends_within_the_budget(name, tmp_path):
    path = tmp_path / "trace.json"
    path.write_bytes(TRACES[name]())
    ended(path, "report")


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "x = " + "[" * 100_000, "x = 1" + "0" * 100_000, "a." * 50_000 + "b = 1"],
    ids=["tables", "lists", "digits", "dots"],
)
def test_a_bomb_in_a_scenario_ends_within_the_budget(text, tmp_path):
    path = tmp_path / "s.toml"
    path.write_text(text)
    assert ended(path, "run").returncode == 2


def test_a_scenario_without_an_end_ends_within_the_budget():
    assert ended("/dev/zero", "run").returncode == 2
