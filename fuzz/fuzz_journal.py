"""Journals of an apply."""

import tempfile
from pathlib import Path

from altmap.host.journal import Journal, check_order

SEEDS = [
    b'{"event":"begin","plan":"0123","boot_id":"b"}\n'
    b'{"event":"intend","step":1,"path":"sys/x","value":"online"}\n'
    b'{"event":"done","step":1,"path":"sys/x","value":"online"}\n'
    b'{"event":"intend","step":2}\n{"event":"done","step":2,"errno":"EBUSY"}\n'
    b'{"event":"intend","step":1,"undo":true}\n{"event":"done","step":1,"undo":true}\n'
    b'{"event":"end","found":"rolled back"}\n',
    b'{"event":"begin"}\n{"event":"intend","step":1}\n{"event"',
]
_FILE = Path(tempfile.mkdtemp(prefix="fuzz-journal-")) / "journal"


def TestOneInput(data: bytes) -> None:
    _FILE.write_bytes(data)
    try:
        with Journal(_FILE, new=False) as journal:
            check_order(journal.entries, 2)
    finally:
        assert _FILE.read_bytes() == data


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
