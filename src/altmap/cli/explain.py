"""``altmap explain``: why a memory block stays online, what an errno or the kernel's log means.

Effects: files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from altmap.cli import options
from altmap.cli.options import SYSROOT_HELP
from altmap.cli.output import print_json, terminal_width
from altmap.cli.parser import Example, Verb
from altmap.cli.progress import working
from altmap.cli.streams import show
from altmap.errors import InputError

__all__ = ("VERB",)

DONE = 0


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", metavar="BLOCK|ERRNO", nargs="?", help="such as 32, memory32 or EBUSY"
    )
    parser.add_argument("sysroot", metavar="SYSROOT", type=Path, nargs="?", help=SYSROOT_HELP)
    parser.add_argument(
        "--log",
        metavar="FILE",
        help="explain the kernel's log instead (dmesg, journalctl; - for standard input); a "
        "SYSROOT names the owners of blocks",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    options.add_machine(parser)


def _explain(args: argparse.Namespace) -> int:
    if args.log is not None:
        return _explain_log(args)
    if args.what is None:
        raise InputError("explain: need a BLOCK, an ERRNO, or --log FILE")
    return _explain_block(args)


def _explain_log(args: argparse.Namespace) -> int:
    from altmap.cli.file_kinds import LOG_LINE, file_head, kind_of
    from altmap.host.explain_log import explain_log
    from altmap.host.log_reader import LogText
    from altmap.host.text.log import log_text
    from altmap.linux.observation import Observation
    from altmap.linux.sysroot import Sysroot

    if args.sysroot is not None:
        raise InputError(f"explain --log: unexpected argument {str(args.sysroot)!r}")
    seen = None
    if args.what is not None:
        seen = Observation.read(Sysroot.read(Path(args.what), leave="files"))
    text = LogText(args.log)
    with working("reading the log"):
        found = explain_log(text.lines(), seen)
    if not found.findings and args.log != "-":
        kind = kind_of(file_head(Path(args.log)))
        if kind is not None and kind.line != LOG_LINE:
            raise InputError(f"log {args.log}: need a kernel's log")
    if text.cut:
        found.notes.append(text.cut)
    if args.json:
        print_json({"schema": "altmap-explain", "version": 1, "log": found})
    else:
        show(log_text(found, terminal_width()), end="")
    return DONE


def _explain_block(args: argparse.Namespace) -> int:
    from altmap.host.explain import block_named, explain_block
    from altmap.host.text.explanation import block_text
    from altmap.linux.observation import Observation
    from altmap.linux.sysroot import Sysroot

    nr = block_named(args.what)
    if nr is None:
        return _explain_errno(args)
    with working("reading memory blocks and pages"):
        sysroot = Sysroot.read(args.sysroot or Path("/"), uses=True, leave="files")
        found = explain_block(Observation.read(sysroot, options.given_by(args)), nr)
    if args.json:
        print_json({"schema": "altmap-explain", "version": 1, "block": found})
    else:
        show(block_text(found, terminal_width()), end="")
    return DONE


def _explain_errno(args: argparse.Namespace) -> int:
    from altmap.host.errnos import reasons_of
    from altmap.host.explain import refused_now
    from altmap.host.text.explanation import errno_text
    from altmap.linux.observation import Observation
    from altmap.linux.sysroot import Sysroot

    if not args.what.isalpha() and not args.what.upper().startswith("E"):
        raise InputError(f"{args.what!r}: need a block, such as memory33, or an errno, as EBUSY")
    reasons = reasons_of(args.what)
    blocks: dict[str, str] = {}
    if args.sysroot is not None:
        with working("reading memory blocks and pages"):
            seen = Observation.read(Sysroot.read(args.sysroot), options.given_by(args))
            blocks = refused_now(seen, reasons[0].errno)
    if args.json:
        made = {"schema": "altmap-explain", "version": 1, "reasons": reasons, "refused_now": blocks}
        print_json(made)
    else:
        show(errno_text(reasons, blocks, terminal_width()), end="")
    return DONE


VERB = Verb(
    "explain",
    "explain why a block stays online, an errno, or the kernel's log",
    (
        Example("altmap explain memory33", "what keeps this block from going offline"),
        Example("altmap explain EBUSY", "which functions of the kernel return it, and when"),
        Example("altmap explain --log dmesg.txt /", "what the kernel logged about memory hotplug"),
    ),
    ((0, "done"), (2, "could not be done")),
    _add_arguments,
    _explain,
)
