"""``altmap new``: a commented file to start from.

Effects: files, terminal.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from altmap.cli.parser import Example, Verb

__all__ = ("TEMPLATES", "VERB")

DONE = 0
_SCENARIO = """\
# What happens to a machine. altmap run FILE predicts it; docs/scenario.md lists every key.
description = "A DIMM is plugged, its blocks are movable, and one goes offline"

[machine]
memory = "1GiB"                  # boot memory
release = "6.12"                 # the kernel; altmap lab list names those that can be booted
memmap_on_memory = "on"          # off, on, force
auto_online_blocks = "offline"   # offline, online, online_kernel, online_movable
# arch = "aarch64"               # default: x86_64
# policy = "rfc-2018"            # default: opt-in, the merged code

[[steps]]
do = "plug"
id = "d1"
size = "512MiB"
# driver = "virtio-mem"          # default: dimm

[[steps]]
do = "online"
id = "d1"
to = "online_movable"            # or online, online_kernel

[[steps]]
do = "offline"
id = "d1"
part = "last"                    # or all, first, middle
"""
_EXPLORATION = """\
# Every order of operations on a small machine: altmap explore FILE finds the shortest that breaks a
# rule; altmap explore --list names the rules, docs/explore.md has every key.
description = "Two memory blocks are added, onlined and removed"

[machine]
release = "6.12"
memory = "1GiB"
memmap_on_memory = "on"
auto_online_blocks = "offline"

[operations]
plug = ["128MiB"]                # sizes that may be plugged
online = ["online_kernel", "online_movable"]
offline = true
unplug = true
# veto = ["going_offline"]       # notifications that a listener may refuse

[bounds]
depth = 4                        # steps of a sequence
blocks = 2                       # memory blocks besides those of boot memory
"""
_GRID = """\
# A scenario for each combination of the lists: altmap sweep FILE -o DIR writes a row each;
# docs/sweep.md has every key.
description = "What a DIMM costs, by release and by memmap_on_memory"

[machine]
release = ["6.1", "6.12"]
memmap_on_memory = ["off", "on"]
memory = "1GiB"
auto_online_blocks = "online"
# policy = ["opt-in", "existing"]

[requests]
driver = "dimm"                  # or a list: dimm, kmem, virtio-mem, ...
added = ["1GiB", "4GiB"]         # a list in the list is several requests, one after the other
"""
_POLICY = '''\
"""A memmap policy: altmap run SCENARIO --policy opt-in --policy MODULE:Policy shows both."""

from altmap.model.arch import Arch
from altmap.model.kernel.memmap import AddRequest, Memmap, memmap_on_memory_nr_pages
from altmap.model.releases import Release


class Policy:
    """Each memory block holds its own memmap, whichever driver adds it."""

    name = "mine"
    #: Pages written when memory is added; None: the memmap is first written at onlining.
    written_at_add = None

    def place(self, arch: Arch, release: Release, request: AddRequest) -> Memmap:
        """Return where the memmap of added memory lies.

        request.pfns are the page frames that are added, request.block_nr_pages those of a memory
        block, request.mode is memmap_on_memory (off, on, force). A memmap has hosted pages at the
        start of each piece of so many pages; 0 hosted pages are existing memory.
        """
        block = request.block_nr_pages
        hosted = memmap_on_memory_nr_pages(arch, release, block, request.mode)
        return Memmap(arch, request.pfns, block if hosted else 0, hosted)
'''
#: The text of each kind of file.
TEMPLATES = {
    "scenario": _SCENARIO,
    "exploration": _EXPLORATION,
    "grid": _GRID,
    "policy": _POLICY,
}


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind",
        metavar="KIND",
        nargs="?",
        choices=tuple(TEMPLATES),
        default="scenario",
        help=f"{', '.join(TEMPLATES)}; default: scenario",
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", type=Path, help="a new file; default: standard output"
    )


def _new(args: argparse.Namespace) -> int:
    text = TEMPLATES[args.kind]
    if args.output is None:
        print(text, end="")
        return DONE
    from altmap.storage.files import write_file

    write_file(args.output, text, new=True)
    return DONE


VERB = Verb(
    "new",
    "write a commented scenario, exploration, grid or policy",
    (
        Example("altmap new scenario -o new.toml", "then altmap run new.toml"),
        Example("altmap new policy -o policy.py", "then --policy policy:Policy"),
    ),
    ((0, "done"), (2, "could not be done")),
    _add_arguments,
    _new,
)
