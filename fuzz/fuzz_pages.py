"""Words of page frames: the kernel's files, and runs as text."""

from pathlib import Path

from altmap.linux.pagewords import PageWords
from altmap.linux.paths import text_of

SEEDS = [
    b"r# start_pfn nr_pages flags\n0x0 1 0x400\n0x1 4095 0x0\n0x1000 16 0x80000\n",
    b"w" + b"".join(word.to_bytes(8, "little") for word in (0, 0x400, 0x400, 1 << 26, 0)),
]


def TestOneInput(data: bytes) -> None:
    if data[:1] == b"r":
        words = PageWords.parse(text_of(data[1:]))
    else:
        words = PageWords.from_raw([data[1:]])
    if words.nr_pages <= 1 << 20:
        assert sum(run.nr_pages for run in words) == words.nr_pages


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
