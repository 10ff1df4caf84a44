"""Each file of a machine, by itself beside the rest of a real one."""

import re
from pathlib import Path

from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot

ROOT = Path(__file__).parents[1]

_HOST = Sysroot.read(ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz")
_MEMORY = "sys/devices/system/memory"
_PATHS = [
    *sorted(path for path in _HOST.files if path.startswith("proc/")),
    *(f"{_MEMORY}/{name}" for name in ("block_size_bytes", "auto_online_blocks")),
    *(
        f"{_MEMORY}/memory32/{name}"
        for name in ("state", "valid_zones", "removable", "phys_device")
    ),
    *sorted(path for path in _HOST.files if path.startswith("sys/devices/system/node/"))[:12],
    *sorted(path for path in _HOST.files if path.startswith("sys/module/")),
    "sos_commands/memory/lsmem_-a_-o_RANGE.SIZE.STATE.REMOVABLE.ZONES.NODE.BLOCK",
    "proc/kpagecgroup.names",
    "proc/kpagecount.runs",
]
_LSMEM = b"""RANGE                                 SIZE  STATE REMOVABLE ZONES NODE BLOCK
0x0000000000000000-0x000000003fffffff   1G online       yes  None    0   0-7
0x0000000100000000-0x0000000107ffffff 128M offline           Movable 0    32
"""
_KEPT = re.compile("/memory3|size_bytes$")
#: The first byte says which file the rest is.
SEEDS = [bytes([nr]) + _HOST.files.get(path, _LSMEM) for nr, path in enumerate(_PATHS)]


def TestOneInput(data: bytes) -> None:
    if not data:
        return
    path = _PATHS[data[0] % len(_PATHS)]
    lsmem = path.startswith("sos")
    files = {} if lsmem else {name: raw for name, raw in _HOST.files.items() if _KEPT.search(name)}
    links = {} if lsmem else dict(_HOST.links)
    seen = Observation.read(Sysroot(files | {path: data[1:]}, links))
    for name in dir(seen):
        if not name.startswith("_"):
            getattr(seen, name)


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
