"""A million malformed messages: none crashes the decoder, and none is read as another message.

    python benchmarks/fuzz_messages.py [NR_INPUTS [SEED]]

Inputs are Hyper-V's messages with bytes changed, cut off or put behind, and plain noise. Each one
is either refused with a reason, or decodes to a message whose bytes are the input.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter

from altmap.protocol.hyperv_messages import (
    BalloonRequest,
    BalloonResponse,
    CapabilitiesReport,
    CapabilitiesResponse,
    HotAddRequest,
    HotAddResponse,
    InfoMessage,
    MessageError,
    PageRange,
    StatusReport,
    UnballoonRequest,
    UnballoonResponse,
    VersionRequest,
    VersionResponse,
    decode,
    encode,
)

NR_INPUTS = 1_000_000
RANGES = tuple(PageRange(0x100000 + 512 * i, 512) for i in range(6))
SEEDS = [
    encode(message)
    for message in (
        VersionRequest(trans_id=1, major=2, minor=0, is_last_attempt=False),
        VersionResponse(trans_id=1, is_accepted=True),
        CapabilitiesReport(trans_id=2, balloon=True, hot_add=True, hot_add_alignment=7),
        CapabilitiesResponse(trans_id=2, is_accepted=True),
        StatusReport(trans_id=3, num_avail=1 << 20, num_committed=1 << 18),
        BalloonRequest(trans_id=4, num_pages=0x8000),
        BalloonResponse(trans_id=5, more_pages=True, ranges=RANGES),
        UnballoonRequest(trans_id=6, more_pages=False, ranges=RANGES),
        UnballoonResponse(trans_id=7),
        HotAddRequest(trans_id=8, pages=RANGES[0]),
        HotAddRequest(trans_id=8, pages=RANGES[0], region=PageRange(0x100000, 0x8000)),
        HotAddResponse(trans_id=9, page_count=0x4000, result=1),
        InfoMessage(trans_id=10, info_type=0, data=bytes(8)),
    )
]
#: Values at which a length, a count or a bit field turns.
EDGES = (0, 1, 7, 8, 15, 16, 24, 32, 127, 128, 254, 255)


def mutated(chance: random.Random) -> bytes:
    """Return one input."""
    kind = chance.random()
    if kind < 0.05:
        return chance.randbytes(chance.randrange(40))
    raw = bytearray(chance.choice(SEEDS))
    for _ in range(chance.randrange(1, 4)):
        value = chance.choice(EDGES) if chance.random() < 0.5 else chance.randrange(256)
        raw[chance.randrange(len(raw))] = value
    if kind < 0.25:
        del raw[chance.randrange(len(raw) + 1) :]
    elif kind < 0.35:
        raw += chance.randbytes(chance.randrange(1, 17))
    return bytes(raw)


def main(nr_inputs: int = NR_INPUTS, seed: int = 1) -> int:
    """Feed the decoder; return 1 at the first input that it reads wrongly."""
    chance = random.Random(seed)
    seen: Counter[str] = Counter()
    started = time.perf_counter()
    for _ in range(nr_inputs):
        raw = mutated(chance)
        try:
            message = decode(raw)
        except MessageError:
            seen["refused"] += 1
            continue
        if encode(message) != raw:
            print(f"{raw.hex()}: decodes to {message}, which has other bytes")
            return 1
        seen["decoded"] += 1
    seconds = time.perf_counter() - started
    print(
        f"{nr_inputs} inputs, seed {seed}: {seen['refused']} refused, {seen['decoded']} decoded "
        f"to the same bytes, {seconds:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
