"""Plans, which may come from anywhere."""

from pathlib import Path

from altmap.host.plan import decode_plan, encode_plan
from altmap.host.planner import plan_free
from altmap.host.planner_add import PlugWish, plan_add
from altmap.linux.sysroot import Sysroot

ROOT = Path(__file__).parents[1]

_SYSROOT = Sysroot.read(ROOT / "tests/recordings/files/linux-6.12-dimm.tar.xz")
SEEDS = [
    encode_plan(plan).encode()
    for plan in (
        plan_free(_SYSROOT, [32, 33]),
        plan_add(_SYSROOT, PlugWish(256 << 20, to="online_movable")),
    )
]


def TestOneInput(data: bytes) -> None:
    plan = decode_plan(data, "plan")
    assert decode_plan(encode_plan(plan).encode(), "again") == plan


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
