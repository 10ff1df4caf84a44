"""Messages between a Hyper-V host and its guest."""

from pathlib import Path

from altmap.protocol.hyperv_messages import (
    BalloonResponse,
    CapabilitiesReport,
    HotAddRequest,
    InfoMessage,
    PageRange,
    StatusReport,
    VersionRequest,
    decode,
    describe,
    encode,
)

RANGE = PageRange(0x100000, 512)
SEEDS = [
    encode(message)
    for message in (
        VersionRequest(trans_id=1, major=2, minor=0, is_last_attempt=False),
        CapabilitiesReport(trans_id=2, balloon=True, hot_add=True, hot_add_alignment=7),
        StatusReport(trans_id=3, num_avail=1 << 20, num_committed=1 << 18),
        BalloonResponse(trans_id=5, more_pages=True, ranges=(RANGE, PageRange(0x200000, 9))),
        HotAddRequest(trans_id=8, pages=RANGE, region=PageRange(0x100000, 0x8000)),
        InfoMessage(trans_id=10, info_type=0, data=bytes(8)),
    )
]


def TestOneInput(data: bytes) -> None:
    message = decode(data)
    assert encode(message) == data
    assert describe(message)


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
