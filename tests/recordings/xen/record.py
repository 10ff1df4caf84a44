"""Record the files of a first domain of Xen: at its start, grown, and shrunk again.

``python tests/recordings/xen/record.py 6.12`` writes the archives beside this file.
"""

import sys
import tarfile
import tempfile
from pathlib import Path

from altmap.lab import Guest, Hardware, capture, fetch, fetch_xen
from altmap.lab.balloon import set_balloon_target

MIB = 1 << 20
TARGETS = {"start": 512, "grown": 600, "shrunk": 580}


def anonymous(member):
    member.mtime = member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def main(release):
    hardware = Hardware(
        memory_bytes=4096 * MIB,
        slots=0,
        machine="q35",
        dom0_bytes=512 * MIB,
        dom0_max_bytes=1024 * MIB,
    )
    cmdline = "memory_hotplug.memmap_on_memory=1 memhp_default_state=online"
    with Guest(fetch(release), hardware, cmdline, hypervisor=fetch_xen()) as guest:
        for name, mib in TARGETS.items():
            assert set_balloon_target(guest, mib * MIB).reached
            archive = Path(__file__).with_name(f"linux-{release}-xen-{name}.tar.xz")
            with tempfile.TemporaryDirectory() as folder, tarfile.open(archive, "w:xz") as tar:
                root = Path(folder, "root")
                capture(guest).write(root)
                for path in sorted(root.rglob("*")):
                    tar.add(path, path.relative_to(root), recursive=False, filter=anonymous)


main(sys.argv[1])
