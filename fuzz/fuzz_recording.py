"""Recordings: the trace and the scenario in an archive."""

import io
import tarfile
import tempfile
from pathlib import Path

from altmap.storage.recording import read_recording

ROOT = Path(__file__).parents[1]

_SMALL = min(
    (ROOT / "tests/recordings/traces").glob("*.tar.xz"), key=lambda path: path.stat().st_size
)
with tarfile.open(_SMALL) as _tar:
    _PARTS = {
        name: _tar.extractfile(name).read()  # type: ignore[union-attr]
        for name in ("scenario.toml", "trace.json")
    }
SEEDS = [b"\0" + _PARTS["trace.json"], b"\1" + _PARTS["scenario.toml"]]
_FILE = Path(tempfile.mkdtemp(prefix="fuzz-recording-")) / "r.tar"


def TestOneInput(data: bytes) -> None:
    changed = ("trace.json", "scenario.toml")[bool(data[:1].strip(b"\0"))]
    with tarfile.open(_FILE, "w") as tar:
        for name, raw in (_PARTS | {changed: data[1:]}).items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    read_recording(_FILE)


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
