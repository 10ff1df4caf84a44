"""One guest's life: a kernel booted, commands answered, nothing left behind.

Effects: files.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from altmap.errors import InputError, LabError
from altmap.lab.accelerator import KVM, TCG, remember_accelerator, remembered_accelerator
from altmap.lab.arches import GuestArch
from altmap.lab.kernels import HypervisorFiles, KernelFiles
from altmap.lab.process import QemuProcess
from altmap.lab.qemu import Hardware, Ram
from altmap.lab.qmp import Qmp
from altmap.lab.shell import CommandResult, Shell
from altmap.lab.touch_plugin import TouchFiles

__all__ = ("Guest",)

# Placement must not be random; the log must not be throttled, and has to say why an offline failed.
CMDLINE = 'quiet panic=-1 oops=panic nokaslr printk.devkmsg=on dyndbg="file mm/memory_hotplug.c +p"'
_KVM_BOOT_SECONDS = 15.0
#: An emulated guest initialises a memmap of 16 MiB for each GiB of its memory.
_SECONDS_PER_GIB = 2.0


def _cmdline(guest: GuestArch, console: str, more: str) -> str:
    # What the kernel does not know goes to init as an environment variable.
    words = (f"console={console}", CMDLINE, guest.cmdline, f"lab_shell={guest.shell}", more)
    return " ".join(word for word in words if word)


class Guest:
    """A running kernel in QEMU, from entering the ``with`` block to leaving it.

    QEMU is also ended when the thread that entered the block dies, however that happens.

    Parameters
    ----------
    kernel : KernelFiles
    hardware : Hardware, optional
    cmdline : str, optional
        Kernel parameters in addition to our own.
    accelerator : str, optional
        ``kvm`` or ``tcg``. By default KVM if a guest boots with it, which is tried once and
        remembered in the cache folder.
    boot_seconds, command_seconds : float, optional
        Time limits, of the boot (of an x86_64 guest; others have more) and of one command.
    ram : Ram, optional
        Files for its boot memory.
    state : Path, optional
        The rest of a guest that has booted with that memory; it goes on instead of booting.
    hypervisor : HypervisorFiles, optional
        Xen; the kernel is then its first domain, with the memory that the hardware's
        ``dom0_bytes`` says.
    plugin : Path, optional
        A plugin for QEMU that tells which page frames the kernel touches; emulation only.

    Attributes
    ----------
    hypervisor : HypervisorFiles or None
    accelerator : str
        What is used, known after the boot.
    qmp : Qmp
        QEMU's control connection.

    Raises
    ------
    LabError
        On entering, if QEMU is missing or the guest does not boot in time.
    InputError
        If kernel and hardware are of different architectures.
    """

    def __init__(
        self,
        kernel: KernelFiles,
        hardware: Hardware | None = None,
        cmdline: str = "",
        accelerator: str | None = None,
        boot_seconds: float = 60.0,
        command_seconds: float = 30.0,
        *,
        ram: Ram | None = None,
        state: Path | None = None,
        hypervisor: HypervisorFiles | None = None,
        plugin: Path | None = None,
    ) -> None:
        self.kernel = kernel
        self.hardware = hardware or Hardware(arch=kernel.arch)
        self.accelerator = accelerator or ""
        self.qmp: Qmp
        if kernel.arch != self.hardware.arch:
            raise InputError(f"a kernel for {kernel.arch} in a guest of {self.hardware.arch}")
        self._ram, self._state = ram, state
        self.hypervisor = hypervisor
        self._plugin = plugin
        # Xen keeps the first serial port, and hands on what its first domain says.
        console = "hvc0" if hypervisor else self.hardware.guest.console
        self._cmdline = _cmdline(self.hardware.guest, console, cmdline)
        memory_seconds = _SECONDS_PER_GIB * (self.hardware.memory_bytes >> 30)
        self._boot_seconds = boot_seconds * self.hardware.guest.boot_factor + memory_seconds
        self._command_seconds = command_seconds
        self._process: QemuProcess
        self._shell: Shell
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Guest:
        known = self.accelerator or remembered_accelerator(self.hardware.guest.family)
        if known:
            self._boot(known, self._boot_seconds)
        else:
            self._boot_with_trial()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.close()

    @property
    def pid(self) -> int:
        """QEMU's process id."""
        return self._process.pid

    def run(self, command: str, limit_seconds: float | None = None) -> CommandResult:
        """Run a shell command in the guest, see :meth:`altmap.lab.shell.Shell.run`.

        Raises
        ------
        LabError
            With the console's last lines, if the guest panics, dies or does not finish in time.
        """
        limit_seconds = self._command_seconds if limit_seconds is None else limit_seconds
        with self._console_in_errors():
            return self._shell.run(command, limit_seconds)

    def converse(self, command: str, keyboard: int, screen: int) -> int:
        """Run an interactive command, see :meth:`altmap.lab.shell.Shell.converse`."""
        with self._console_in_errors():
            return self._shell.converse(command, keyboard, screen)

    def reboot(self) -> None:
        """Reset the machine, and wait until it has booted again; devices that were plugged stay.

        A guest that goes on from a snapshot has nothing to boot from.

        Raises
        ------
        LabError
            If it does not boot in time.
        """
        assert self._state is None, "it has booted here"
        self.qmp.execute("set-action", reboot="reset")
        self.qmp.execute("system_reset")
        with self._console_in_errors():
            self._shell.wait_ready(self._boot_seconds)
        self.qmp.execute("set-action", reboot="shutdown")

    def kernel_log(self) -> list[str]:
        """Return the kernel's messages since the previous call, or since boot."""
        return self.run("dmesg -c").text.splitlines()

    def console(self) -> str:
        """Return the last lines of the guest's console."""
        return self._process.console()

    def console_text(self) -> str:
        """Return the last 64 KiB of the guest's console."""
        return self._process.console_text()

    @property
    def access_log(self) -> IO[bytes]:
        """QEMU's log of accesses to page frames that nothing backs, of hardware that has it."""
        return self._process.log

    @property
    def touches(self) -> TouchFiles | None:
        """The files of the plugin; ``None`` without one."""
        return self._process.touches

    @contextlib.contextmanager
    def _console_in_errors(self) -> Iterator[None]:
        try:
            yield
        except LabError as error:
            error.console = error.console or self.console()
            raise

    def _boot_with_trial(self) -> None:
        try:
            self._boot(KVM, min(_KVM_BOOT_SECONDS, self._boot_seconds))
        except LabError:
            self._boot(TCG, self._boot_seconds)
        remember_accelerator(self.accelerator)

    def _boot(self, accelerator: str, limit_seconds: float) -> None:
        with contextlib.ExitStack() as stack:
            self._process = QemuProcess(
                self.kernel,
                self.hardware,
                accelerator,
                self._cmdline,
                self._ram,
                incoming=self._state is not None,
                hypervisor=self.hypervisor,
                plugin=self._plugin,
            )
            stack.callback(self._process.close)
            self._shell = Shell(self._process.shell, self._process.check)
            with self._console_in_errors():
                if self._state is None:
                    self._shell.wait_ready(limit_seconds)
                self.qmp = Qmp(self._process.qmp, self._process.check)
                stack.callback(self.qmp.close)
                if self._state is not None:
                    self._resume(self._state, limit_seconds)
            self.accelerator = accelerator
            self._stack = stack.pop_all()

    def _resume(self, state: Path, limit_seconds: float) -> None:
        with self.qmp.listen("MIGRATION") as events:
            for capabilities in ("x-ignore-shared", "events"):
                self.qmp.execute(
                    "migrate-set-capabilities",
                    capabilities=[{"capability": capabilities, "state": True}],
                )
            self.qmp.execute("migrate-incoming", uri=f"exec:cat {shlex.quote(str(state))}")
            event = events.wait_for(
                lambda e: e["data"]["status"] in ("completed", "failed"), limit_seconds
            )
        if event is None or event["data"]["status"] == "failed":
            raise LabError("the snapshot of a guest does not start", self.console())
        self.qmp.execute("cont")
        self._shell.run("true", limit_seconds)
