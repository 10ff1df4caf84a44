"""Archives of sysroots, plain and compressed."""

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
from pathlib import Path

from altmap.linux.archive import read_several
from altmap.linux.sysroot import Sysroot
from altmap.storage.recording import read_archive


def _tar(form: int, members: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=form) as tar:
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
        link = tarfile.TarInfo("host/sys/devices/system/memory/memory0/node0")
        link.type, link.linkname = tarfile.SYMTYPE, "../../node/node0"
        tar.addfile(link)
    return made.getvalue()


_MEMBERS = {
    "host/proc/meminfo": b"MemTotal: 1024 kB\n",
    "host/proc/kpageflags": bytes(64),
    "host/" + "long/" * 40 + "x": b"",
    "host/sys/devices/system/memory/memory0/state": b"online\n",
}
_RECORDED = {
    "00-start/proc/meminfo": b"MemTotal: 1 kB\n",
    "trace.json": b"{}",
    "scenario.toml": b"",
}
_PLAIN = [
    _tar(form, members)
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)
    for members in (_MEMBERS, _RECORDED)
]
SEEDS = [*_PLAIN, gzip.compress(_PLAIN[0]), bz2.compress(_PLAIN[0]), lzma.compress(_PLAIN[0])]
_FILE = Path(tempfile.mkdtemp(prefix="fuzz-archive-")) / "a.tar"


def TestOneInput(data: bytes) -> None:
    _FILE.write_bytes(data)
    read_several(_FILE)
    read_archive(_FILE)
    Sysroot.read(_FILE)


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
