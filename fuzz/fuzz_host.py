"""What commands say of a machine with one file changed."""

from pathlib import Path

from altmap.host.metrics import samples
from altmap.host.plan import encode_plan
from altmap.host.planner import plan_free
from altmap.host.text.plan import plan_text
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.report.account import account

ROOT = Path(__file__).parents[1]

_HOST = Sysroot.read(ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz")
_PATHS = [path for path in sorted(_HOST.files) if path.startswith("proc/") or "/memory3" in path]
SEEDS = [bytes([nr]) + _HOST.files[path] for nr, path in enumerate(_PATHS) if nr < 256]


def TestOneInput(data: bytes) -> None:
    if not data:
        return
    path = _PATHS[data[0] % len(_PATHS)]
    sysroot = Sysroot(_HOST.files | {path: data[1:]}, _HOST.links, pages=_HOST.pages)
    seen = Observation.read(sysroot)
    list(samples(seen))
    account(seen)
    plan = plan_free(sysroot, [32])
    plan_text(plan, 80)
    encode_plan(plan)


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
