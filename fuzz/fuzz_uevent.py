"""Messages of the kernel about devices."""

from pathlib import Path

from altmap.linux.uevent import parse

SEEDS = [
    b"online@/devices/system/memory/memory32\0ACTION=online\0"
    b"DEVPATH=/devices/system/memory/memory32\0SUBSYSTEM=memory\0SEQNUM=1234\0",
    b"add@/devices/virtual/x\0ACTION=add\0DEVPATH=/devices/virtual/x\0",
]


def TestOneInput(data: bytes) -> None:
    event = parse(data)
    assert event.block is None or event.block >= 0
    assert event.seqnum is None or event.seqnum >= 0


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
