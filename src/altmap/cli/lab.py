"""``altmap lab``: real kernels in QEMU.

Effects: terminal.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from altmap.cli import options
from altmap.cli.output import note
from altmap.cli.parser import Example, Verb
from altmap.cli.streams import show
from altmap.errors import InputError

if TYPE_CHECKING:
    from altmap.lab import Guest, KernelFiles

__all__ = ("VERB", "own_kernel")

DONE = 0
_MOST_CPUS = 255
_COMMAND_SECONDS = 3600.0


def own_kernel(args: argparse.Namespace, arch: str | None) -> KernelFiles | None:
    """Return the kernel that ``--kernel`` names, and print what its configuration lacks."""
    from altmap import lab

    if args.kernel is None:
        if args.modules is not None:
            raise InputError(f"--modules {args.modules}: only with --kernel; Debian's are known")
        return None
    kernel, lacks = lab.own_kernel(args.kernel, args.modules, arch=arch or "x86_64")
    for line in lacks:
        note(f"note: {line}")
    return kernel


# --- without a guest -----------------------------------------------------------------------


def _add_fetch(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("release", metavar="RELEASE", help="such as 6.12")
    parser.add_argument(
        "--arch", metavar="GUEST", default="x86_64", help="such as ppc64le-64k; default: x86_64"
    )
    parser.add_argument(
        "--without-qemu", action="store_true", help="fetch although no guest can be booted here"
    )


def _fetch(args: argparse.Namespace) -> int:
    from altmap.cli.progress import progress
    from altmap.lab import guest_arch, kernel_of
    from altmap.lab.process import missing_programs

    lacks = missing_programs(guest_arch(args.arch))
    if lacks and not args.without_qemu:
        named = "; ".join(f"{name} is missing: apt install {pkg}" for name, pkg in lacks.items())
        raise InputError(f"lab fetch: {named} (--without-qemu fetches all the same)")
    with progress(1, lines=False) as (tell, _):
        tell(f"fetching Linux {args.release}")
        files = kernel_of(args.release, args.arch)
    _print_files(files)
    return DONE


def _print_files(files: KernelFiles) -> None:
    for name, version in files.versions.items():
        print(f"{name} {version}")
    print(f"kernel {files.vmlinuz}")


def _add_build(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("design", metavar="DESIGN", help="rfc-2018")


def _build(args: argparse.Namespace) -> int:
    from altmap.cli.progress import progress
    from altmap.lab import build_kernel, design_named

    design = design_named(args.design)
    with progress(1) as (tell, _):
        files = build_kernel(design, tell)
    _print_files(files)
    show(f"release {design.release}, with the policies {', '.join(design.policies)}")
    return DONE


def _list(args: argparse.Namespace) -> int:
    from altmap.lab import inventory
    from altmap.model.releases import RELEASES

    del args
    confirmed = [name for name, release in RELEASES.items() if release.confirmed]
    for each in inventory(confirmed):
        kernel = each.kernel or ("not built" if each.is_built else "not fetched")
        missing = f"; missing: {', '.join(each.missing)}" if each.missing else ""
        show(f"{each.arch:<12} {each.release:<13} {kernel}{missing}")
    return DONE


# --- in a guest ----------------------------------------------------------------------------


def _add_guest(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--arch", metavar="GUEST", default="x86_64", help="default: x86_64")
    options.add_release(parser, "default: 6.12")
    parser.add_argument("--memory", metavar="SIZE", default="1GiB", help="default: 1GiB")
    parser.add_argument("--cpus", metavar="N", type=int, default=1, help="default: 1")
    parser.add_argument("--cmdline", metavar="TEXT", default="", help="kernel parameters")
    options.add_kernel(parser)


def _add_exec(parser: argparse.ArgumentParser) -> None:
    _add_guest(parser)
    parser.add_argument(
        "command", metavar="COMMAND", nargs="+", help="its words, after -- if one begins with -"
    )


def _guest(args: argparse.Namespace) -> Guest:
    from altmap.lab import Guest, Hardware, guest_arch, kernel_of
    from altmap.scenario import DEFAULT_RELEASE
    from altmap.units import parse_size

    guest_arch(args.arch)
    release = DEFAULT_RELEASE if args.release is None else args.release
    memory_bytes = parse_size(args.memory)
    own = own_kernel(args, args.arch)
    if not 1 <= args.cpus <= _MOST_CPUS:
        raise InputError(f"--cpus {args.cpus}: need 1 to {_MOST_CPUS}")
    hardware = Hardware(
        memory_bytes=memory_bytes,
        maxmem_bytes=2 * memory_bytes + (64 << 30),
        smp=args.cpus,
        arch=args.arch,
    )
    kernel = kernel_of(release, args.arch) if own is None else own
    return Guest(kernel, hardware, args.cmdline)


def _boot(args: argparse.Namespace) -> int:
    from altmap.units import counted_size, format_size

    with _guest(args) as guest:
        print(guest.run("uname -srvm").text, end="")
        size = int(guest.run("cat /sys/devices/system/memory/block_size_bytes").text, 16)
        total = guest.run("grep MemTotal /proc/meminfo").text.split()[1]
        online = guest.run("cat /sys/devices/system/memory/auto_online_blocks").text.strip()
        amounts = f"MemTotal {counted_size(int(total))}, blocks of {format_size(size)}"
        show(f"{amounts}, new ones: {online}")
        show(f"booted with {guest.accelerator} by {guest.hardware.guest.program}")
    return DONE


def _exec(args: argparse.Namespace) -> int:
    with _guest(args) as guest:
        result = guest.run(" ".join(args.command), _COMMAND_SECONDS)
    sys.stdout.buffer.write(result.output)
    sys.stdout.flush()
    return result.status


def _shell(args: argparse.Namespace) -> int:
    from altmap.lab.console import interact, run_lines

    with _guest(args) as guest:
        return interact(guest) if sys.stdin.isatty() else run_lines(guest)


_CODES: tuple[tuple[int | str, str], ...] = ((0, "done"), (2, "could not be done"))
_CODES_OF_GUEST: tuple[tuple[int | str, str], ...] = (
    ("N", "the exit code of what ran in the guest"),
    (2, "the guest could not be booted"),
)
_FETCH = Example("altmap lab fetch 6.12", "Debian's kernel, verified by apt, into a cache")
_BUILD = Example(
    "altmap lab build rfc-2018", "6.12 with the design of 2018, as release 6.12+rfc-2018"
)
_SHELL = Example(
    "altmap lab shell --arch s390x", "a shell in a guest, its kernel fetched if need be"
)

VERB = Verb(
    "lab",
    "fetch and boot real kernels in QEMU",
    (_FETCH, _SHELL),
    _CODES,
    verbs=(
        Verb(
            "fetch",
            "fetch Debian's kernel of a release, and busybox",
            (_FETCH, Example("altmap lab fetch 6.1 --arch s390x", "of another architecture")),
            _CODES,
            _add_fetch,
            _fetch,
        ),
        Verb(
            "build",
            "build a kernel that carries a design no release has",
            (_BUILD,),
            _CODES,
            _add_build,
            _build,
        ),
        Verb(
            "list",
            "list the guests, and what each lacks here",
            (Example("altmap lab list", "x86_64, ppc64le, arm64 and s390x"),),
            _CODES,
            run=_list,
        ),
        Verb(
            "boot",
            "boot a guest, describe it, and end it",
            (
                Example("altmap lab boot --release 6.1", "its kernel, memory and accelerator"),
                Example("altmap lab boot --arch ppc64le --memory 2GiB", "of another architecture"),
            ),
            _CODES,
            _add_guest,
            _boot,
        ),
        Verb(
            "shell",
            "open a shell in a guest; from a pipe, run a script",
            (
                _SHELL,
                Example("altmap lab shell --memory 4GiB --cpus 2", "a larger one"),
            ),
            _CODES_OF_GUEST,
            _add_guest,
            _shell,
        ),
        Verb(
            "exec",
            "run one command in a guest",
            (
                Example("altmap lab exec -- uname -a", "its output and exit code are the guest's"),
                Example("altmap lab exec --memory 2GiB -- cat /proc/zoneinfo", "of a larger guest"),
            ),
            _CODES_OF_GUEST,
            _add_exec,
            _exec,
        ),
    ),
)
