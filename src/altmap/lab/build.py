"""The lab's kernel modules, compiled for one guest's kernel and kept in the cache.

The sources are in ``guest_modules``. The compiler gets the headers of Debian's package with the
options of the kernel's build, but that build does not run: its programs (modpost, objtool) are
binaries that need the C library and the compiler of the kernel's Debian release. ``altmap.h`` has
what modpost would write. What objtool would add (tables for unwinding and for patched calls) is
optional.

Effects: files, processes.
"""

from __future__ import annotations

import hashlib
import importlib.resources as resources
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from altmap.errors import LabError
from altmap.lab.kernels import KernelFiles, cache_folder, disk_errors, fetch_headers
from altmap.lab.tools import first_error
from altmap.storage.files import write_file

__all__ = ("build_module", "check_compiler", "rename_symbols", "with_module")

#: What compiles, and Debian's package of it.
_PROGRAMS = {"gcc": "gcc", "ld": "binutils", "objcopy": "binutils"}
_HEADER = "altmap.h"
#: As the kernel's Makefile and arch/x86/Makefile have them, as far as every compiler knows them.
_FLAGS = (
    *("-std=gnu11", "-O2", "-fms-extensions", "-fshort-wchar", "-funsigned-char"),
    *("-Wall", "-Wno-pointer-sign", "-Wno-address-of-packed-member"),
    *("-fno-common", "-fno-PIE", "-fno-strict-aliasing", "-fno-delete-null-pointer-checks"),
    *("-fno-jump-tables", "-fno-asynchronous-unwind-tables", "-fno-stack-protector"),
    *("-m64", "-mno-sse", "-mno-mmx", "-mno-sse2", "-mno-3dnow", "-mno-avx", "-mno-80387"),
    *("-mno-fp-ret-in-387", "-mpreferred-stack-boundary=3", "-mskip-rax-setup", "-mno-red-zone"),
    "-mcmodel=kernel",
    *("-fcf-protection=branch", "-DCC_USING_FENTRY", "-D__KERNEL__", "-DMODULE"),
)
#: Only where the kernel has the functions that such calls go through; since 6.9 by another name.
_RETPOLINE_OPTIONS = ("CONFIG_RETPOLINE=y", "CONFIG_MITIGATION_RETPOLINE=y")
_RETPOLINE = ("-mindirect-branch=thunk-extern", "-mindirect-branch-register")
_LINK = ("-m", "elf_x86_64", "-r", "-z", "noexecstack", "--build-id=none")


def check_compiler() -> None:
    """Check that modules can be compiled at all.

    Raises
    ------
    LabError
        Naming the program that is missing, and Debian's package of it.
    """
    for program, package in _PROGRAMS.items():
        if shutil.which(program) is None:
            raise LabError(
                f"{program} is missing: a module for the guest's kernel is compiled here: "
                f"apt install {package}"
            )


def with_module(kernel: KernelFiles, source: str, name: str) -> KernelFiles:
    """Return a kernel with one of the lab's modules at hand.

    Raises
    ------
    LabError
        If it cannot be built.
    """
    built = build_module(kernel, source, name)
    return replace(kernel, modules=(*kernel.modules, name), built=(*kernel.built, (name, built)))


def build_module(
    kernel: KernelFiles, source: str, name: str, *, prefix: str = "", cache: Path | None = None
) -> Path:
    """Return one of the lab's modules, compiled if the cache has none of these sources.

    Parameters
    ----------
    kernel : KernelFiles
        Debian's, x86_64.
    source : str
        A file of ``guest_modules``.
    name : str
        What the module calls itself.
    prefix : str
        Put before the names that it exports, where the kernel has those names itself.
    cache : Path, optional
        Defaults to the user's cache folder.

    Raises
    ------
    LabError
        If a program is missing, the headers cannot be had, or the source does not fit the kernel.
    """
    cache = cache_folder() if cache is None else cache
    folder = resources.files(__package__).joinpath("guest_modules")
    texts = {file: folder.joinpath(file).read_bytes() for file in (source, _HEADER)}
    what = (kernel.versions, name, prefix, _FLAGS, _RETPOLINE, _LINK, texts)
    target = cache / "modules" / f"{hashlib.sha256(repr(what).encode()).hexdigest()[:24]}.ko"
    if target.is_file():
        return target
    check_compiler()
    arch, common = fetch_headers(kernel, cache)
    with disk_errors(cache, "a kernel module"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            place = Path(work)
            for file, text in texts.items():
                (place / file).write_bytes(text)
            words = _words(arch, common, name, prefix)
            _run("gcc", *words, "-c", source, "-o", "module.o", folder=place)
            _run("ld", *_LINK, "module.o", "-o", "module.ko", folder=place)
            write_file(target, (place / "module.ko").read_bytes())
    return target


def rename_symbols(
    module: bytes, names: Sequence[str], prefix: str, cache: Path | None = None
) -> Path:
    """Return a module that uses other names than it was compiled with; nothing else changes.

    Raises
    ------
    LabError
        If a program is missing or fails.
    """
    cache = cache_folder() if cache is None else cache
    what = (hashlib.sha256(module).digest(), tuple(names), prefix)
    target = cache / "modules" / f"{hashlib.sha256(repr(what).encode()).hexdigest()[:24]}.ko"
    if target.is_file():
        return target
    check_compiler()
    with disk_errors(cache, "a kernel module"):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target.parent) as work:
            place = Path(work)
            (place / "before.ko").write_bytes(module)
            options = [word for name in names for word in _renaming(name, prefix)]
            _run("objcopy", *options, "before.ko", "after.ko", folder=place)
            write_file(target, (place / "after.ko").read_bytes())
    return target


def _renaming(name: str, prefix: str) -> tuple[str, str]:
    return "--redefine-sym", f"{name}={prefix}{name}"


def _words(arch: Path, common: Path, name: str, prefix: str) -> list[str]:
    """Return the compiler's options: LINUXINCLUDE of the kernel's Makefile, names, flags."""
    included = [
        common / "arch/x86/include",
        arch / "arch/x86/include/generated",
        common / "include",
        arch / "include",
        common / "arch/x86/include/uapi",
        arch / "arch/x86/include/generated/uapi",
        common / "include/uapi",
        arch / "include/generated/uapi",
    ]
    options = (arch / "include/config/auto.conf").read_text().splitlines()
    has_retpolines = any(option in options for option in _RETPOLINE_OPTIONS)
    first = ("compiler-version.h", "kconfig.h", "compiler_types.h")
    named = ("MODNAME", "BASENAME", "MODFILE")
    return [
        *("-nostdinc", "-isystem", _run("gcc", "-print-file-name=include").strip()),
        *(f"-I{folder}" for folder in included),
        *(word for file in first for word in ("-include", str(common / "include/linux" / file))),
        *(f'-DKBUILD_{what}="{name}"' for what in named),
        f"-D__KBUILD_MODNAME=kmod_{name}",
        *((f"-DALTMAP_PREFIX={prefix}",) if prefix else ()),
        *_FLAGS,
        *(_RETPOLINE if has_retpolines else ()),
    ]


def _run(program: str, *words: str, folder: Path | None = None) -> str:
    done = subprocess.run(
        [program, *words], cwd=folder, capture_output=True, text=True, errors="replace", check=False
    )
    if done.returncode:
        said = first_error(done.stderr)
        raise LabError(f"a module does not fit the guest's kernel: {program}: {said}")
    return done.stdout
