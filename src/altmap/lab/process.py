"""QEMU as a process of ours: it leaves no files, and does not outlive us.

Effects: files, network, processes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import IO

from altmap.errors import LabError
from altmap.lab.arches import GuestArch
from altmap.lab.initramfs import build_initramfs
from altmap.lab.kernels import HypervisorFiles, KernelFiles
from altmap.lab.modules import module_files
from altmap.lab.newer_qemu import newer_qemu
from altmap.lab.pmem import tells_by_tree, tree_with_pmem
from altmap.lab.qemu import Hardware, Payload, Ram, qemu_arguments
from altmap.lab.side_by_side import check_interrupted, guest_started
from altmap.lab.touch_plugin import TouchFiles

__all__ = (
    "QemuProcess",
    "check_device",
    "check_programs",
    "has_device",
    "missing_programs",
    "qemu_command",
    "qemu_version",
    "sandbox_of",
)

_CONSOLE_LINES = 15
_CONSOLE_BYTES = 1 << 16
_PANIC = "Kernel panic - not syncing"
_EXIT_SECONDS = 5.0
_TRIAL_SECONDS = 10.0
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")


def missing_programs(guest: GuestArch) -> dict[str, str]:
    """Return the programs that guests need and that are not here, with Debian's package of each."""
    packages = {guest.program: guest.package, "setpriv": "util-linux"}
    return {name: package for name, package in packages.items() if shutil.which(name) is None}


def check_programs(guest: GuestArch) -> None:
    """Check that guests can be started at all.

    Raises
    ------
    LabError
        Naming the program that is missing, and Debian's package of it.
    """
    for program, package in missing_programs(guest).items():
        raise LabError(f"{program} is missing: apt install {package}")


def qemu_command(hardware: Hardware) -> tuple[str, ...]:
    """Return the program for the hardware, and the arguments that it needs to find its firmware.

    Raises
    ------
    LabError
        If the QEMU here lacks a device, and a newer one cannot be had.
    """
    guest = hardware.guest
    if not hardware.cxl or _has_volatile_cxl(shutil.which(guest.program) or guest.program):
        return (guest.program,)
    return newer_qemu(guest, qemu_version(guest))


@functools.lru_cache
def _has_volatile_cxl(program: str) -> bool:
    """Tell whether QEMU's CXL devices can have volatile memory (8.1)."""
    known = [program, "-device", "cxl-type3,help"]
    result = subprocess.run(known, capture_output=True, text=True, check=False)
    return "volatile-memdev" in result.stdout


def qemu_version(guest: GuestArch, hardware: Hardware | None = None) -> str:
    """Return QEMU's own word on its version: of the one here, or the one for some hardware."""
    program = qemu_command(hardware)[0] if hardware else guest.program
    return _version(shutil.which(program) or program)


@functools.lru_cache
def _version(program: str) -> str:
    """Ask once: it does not change, unlike the folders that programs are looked for in."""
    result = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    return result.stdout.partition("\n")[0]


@functools.lru_cache
def _log_item(program: str) -> str:
    """Return what QEMU calls accesses to unmapped memory; they had no name of their own (7.2)."""
    known = subprocess.run([program, "-d", "help"], capture_output=True, text=True, check=False)
    return "invalid_mem" if "\ninvalid_mem" in known.stdout else "guest_errors"


@functools.lru_cache
def sandbox_of(program: str) -> tuple[str, ...]:
    """Return the arguments with which QEMU filters its system calls, none where it cannot.

    It is tried: QEMU may be built without seccomp, and a container may forbid filters. Programs may
    be started, since a snapshot is written through one.
    """
    arguments = ("-sandbox", "on,elevateprivileges=deny")
    trial = [program, *arguments, "-nodefaults", "-display", "none", "-M", "none", "-qmp", "stdio"]
    asked = '{"execute":"qmp_capabilities"}{"execute":"quit"}'
    try:
        result = subprocess.run(
            trial, input=asked, capture_output=True, text=True, check=False, timeout=_TRIAL_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return () if result.returncode else arguments


def has_device(guest: GuestArch, device: str) -> bool:
    """Tell whether this QEMU has a device; asked of it, since versions differ."""
    result = subprocess.run(
        [guest.program, "-device", "help"], capture_output=True, text=True, check=False
    )
    return f'name "{device}"' in result.stdout


def check_device(guest: GuestArch, device: str) -> None:
    """Check that this QEMU has a device.

    Raises
    ------
    LabError
        Naming the device and QEMU's version.
    """
    if not has_device(guest, device):
        raise LabError(f"{qemu_version(guest)} has no {device} for {guest.name}: need a newer one")


class QemuProcess:
    """QEMU with a kernel in it, killed by :meth:`close` or when the starting thread dies.

    Every file is anonymous and every socket a pair, handed over as descriptors: even if both
    processes are killed, nothing is left.

    Attributes
    ----------
    pid : int
    shell, qmp : socket
        The guest's command port and QEMU's control connection.
    log : file
        QEMU's log of accesses to page frames that nothing backs, where the hardware has it.
    touches : TouchFiles or None
        The files of the plugin, if there is one.

    Raises
    ------
    LabError
        If a program is missing.
    """

    def __init__(
        self,
        kernel: KernelFiles,
        hardware: Hardware,
        accelerator: str,
        cmdline: str,
        ram: Ram | None = None,
        *,
        incoming: bool = False,
        hypervisor: HypervisorFiles | None = None,
        plugin: Path | None = None,
    ) -> None:
        check_programs(hardware.guest)
        with contextlib.ExitStack() as stack:
            self._console = _anonymous(stack)
            self._complaints = _anonymous(stack)
            # A guest that has booted elsewhere never reads it; QEMU wants a file all the same.
            initrd = _anonymous(stack, b"" if incoming else _initramfs(kernel))
            tree = _anonymous(stack, tree_with_pmem(hardware)) if tells_by_tree(hardware) else None
            self.log = _anonymous(stack)
            self.touches = TouchFiles(plugin, _anonymous(stack), stack) if plugin else None
            log = (_log_item(hardware.guest.program), self.log.fileno())
            self.shell, guest_shell = _socket_pair(stack)
            self.qmp, guest_qmp = _socket_pair(stack)
            arguments = qemu_arguments(
                hardware,
                accelerator,
                Payload(
                    kernel.vmlinuz,
                    cmdline,
                    initrd.fileno(),
                    hypervisor.image if hypervisor else None,
                    tree.fileno() if tree else None,
                ),
                self._console.fileno(),
                guest_shell.fileno(),
                guest_qmp.fileno(),
                ram,
                incoming=incoming,
                log=log if hardware.hidden_dimms else None,
            )
            handed_over = [
                file.fileno() for file in (self._console, initrd, guest_shell, guest_qmp, self.log)
            ]
            if tree:
                handed_over.append(tree.fileno())
            if self.touches:
                arguments += self.touches.arguments()
                handed_over += [self.touches.lines.fileno(), self.touches.control.fileno()]
            program, *places = qemu_command(hardware)
            command = [program, *sandbox_of(program), *places, *arguments]
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.DEVNULL,
                stdout=self._complaints,
                stderr=self._complaints,
                pass_fds=handed_over,
                # Ctrl-C is for us; a group of its own keeps it from QEMU.
                start_new_session=True,
            )
            stack.callback(self._kill)
            guest_started(self._process)
            # With our copies closed, the death of QEMU ends the connections.
            guest_shell.close()
            guest_qmp.close()
            initrd.close()
            self._stack = stack.pop_all()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def close(self) -> None:
        """Kill QEMU, wait for it and close everything; may be called again."""
        self._stack.close()

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def console(self) -> str:
        """Return the last lines of the guest's console."""
        lines = self.console_text().splitlines()
        return "\n".join(lines[-_CONSOLE_LINES:])

    def console_text(self) -> str:
        """Return the last 64 KiB of the guest's console."""
        return _tail(self._console)

    def check(self, hung_up: bool = False) -> None:
        """Raise ``LabError`` if the guest panicked or QEMU ended.

        Parameters
        ----------
        hung_up : bool
            Whether a connection has ended, so that QEMU is about to.
        """
        check_interrupted()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_EXIT_SECONDS if hung_up else 0)
        self._check_panic()
        if self._process.returncode is not None:
            complaint = _tail(self._complaints).strip() or "no message"
            status = self._process.returncode
            raise LabError(f"QEMU ended with status {status}: {complaint}", self.console())
        if hung_up:
            raise LabError("QEMU closed a connection", self.console())

    def _check_panic(self) -> None:
        lines = _tail(self._console).splitlines()
        at = next((at for at, line in enumerate(lines) if _PANIC in line), None)
        if at is not None:
            message = lines[at][lines[at].index(_PANIC) :]
            raise LabError(f"guest: {message}", "\n".join(lines[at : at + _CONSOLE_LINES]))


def _initramfs(kernel: KernelFiles) -> bytes:
    return build_initramfs(kernel.busybox, module_files(kernel), kernel.tree)


def _anonymous(stack: contextlib.ExitStack, content: bytes = b"") -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115 -- the stack closes it
    stack.enter_context(file)
    file.write(content)
    file.flush()
    return file


def _socket_pair(stack: contextlib.ExitStack) -> tuple[socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    return stack.enter_context(ours), stack.enter_context(theirs)


def _tail(file: IO[bytes]) -> str:
    end = os.fstat(file.fileno()).st_size
    tail = os.pread(file.fileno(), _CONSOLE_BYTES, max(0, end - _CONSOLE_BYTES))
    text = tail.decode(errors="replace").replace("\r", "")
    # A user's terminal would obey what the guest says in control characters.
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
