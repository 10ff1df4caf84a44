"""Kernels that are built here: Debian's kernel source with the code of a design inserted.

The source is a package of Debian's archive, verified by apt. A kernel is kept in the cache by the
version of its source and the digest of the inserted code; source and objects are not.

Effects: files, processes.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import IO

from altmap.errors import LabError
from altmap.lab.apt import Archive
from altmap.lab.designs import Design, design_of
from altmap.lab.digests import damage_of, seal
from altmap.lab.insertions import insert, read_insertions
from altmap.lab.kernels import KernelFiles, cache_folder, disk_errors, fetch, source_archive
from altmap.lab.packages import download_newest, version_candidates
from altmap.lab.tools import extract_first, run_tool
from altmap.storage.json_files import read_json
from altmap.storage.locks import locked

__all__ = ("build_kernel", "built_folder", "check_build_programs", "kernel_of")

#: What a build of the kernel runs or includes, and Debian's package of it.
_PROGRAMS = {
    "bc": "bc",
    "bison": "bison",
    "flex": "flex",
    "gcc": "gcc",
    "ld": "binutils",
    "make": "make",
    "perl": "perl",
    "xz": "xz-utils",
}
_HEADER, _HEADER_PACKAGE = "gelf.h", "libelf-dev"
#: Kept for modules that are compiled later, as linux-headers has them.
_HEADERS = ("include", "arch/x86/include")
_IMAGE = "arch/x86/boot/bzImage"
_COMPLAINT = re.compile(r"(?:error|Error|ERROR)[: ]+(.*)")
#: With them one source gives one kernel, wherever it is built.
_REPRODUCIBLE = {
    "KBUILD_BUILD_TIMESTAMP": "1970-01-01",
    "KBUILD_BUILD_USER": "altmap",
    "KBUILD_BUILD_HOST": "altmap",
    "LC_ALL": "C",
}
#: Objects of this configuration, about; to say how far a build is.
_NR_OBJECTS = 970
_TELL_EVERY = 100


def kernel_of(release: str, arch: str = "x86_64", cache: Path | None = None) -> KernelFiles:
    """Return the kernel of a release: Debian's, or one that was built here for its design.

    Raises
    ------
    InputError, LabError
        As :func:`altmap.lab.kernels.fetch`; if there is no such design, or it is not built: the
        message has the command that does it.
    """
    design = design_of(release)
    if design is None:
        return fetch(release, cache, arch=arch)
    if arch != design.arch:
        raise LabError(f"kernel release {design.release!r}: for {design.arch} only, not {arch}")
    cache = cache_folder() if cache is None else cache
    folder = built_folder(design, cache)
    if folder is None:
        raise LabError(
            f"kernel release {design.release!r} is not built yet: altmap lab build {design.name} "
            "(about ten minutes)"
        )
    return _files(design, folder, cache)


def built_folder(design: Design, cache: Path) -> Path | None:
    """Return where the cache has the kernel of a design, of the newest source; else ``None``."""
    folders = _folder(design, "", cache).parent.glob(f"*_{design.digest()}")
    return max(folders, key=_source_version, default=None)


def check_build_programs() -> None:
    """Check that a kernel can be built at all.

    Raises
    ------
    LabError
        Naming all that is missing, and what installs it, in one line.
    """
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    packages = {_PROGRAMS[program] for program in missing}
    if "gcc" not in missing and not _has_header():
        missing.append(_HEADER)
        packages.add(_HEADER_PACKAGE)
    if missing:
        raise LabError(
            f"missing to build a kernel: {', '.join(missing)}: "
            f"apt install {' '.join(sorted(packages))}"
        )


def build_kernel(
    design: Design, progress: Callable[[str], None], cache: Path | None = None
) -> KernelFiles:
    """Build the kernel of a design from the newest source that Debian's archive has.

    Nothing is built if the cache has it.

    Parameters
    ----------
    design : Design
    progress : callable
        Told what happens next.
    cache : Path, optional
        Defaults to the user's cache folder. Needs 3 GB while a kernel is built, 90 MB after.

    Raises
    ------
    LabError
        If a program is missing, the source cannot be had or is not the one that the design's
        insertions are for, or the build fails. Nothing half-done stays in the cache.
    """
    check_build_programs()
    cache = cache_folder() if cache is None else cache
    with disk_errors(cache, "a kernel build (about 3 GB)"):
        (cache / "built").mkdir(parents=True, exist_ok=True)
        with locked(cache / "built/lock"), _work_folder(cache / "built") as work:
            package = f"linux-source-{design.base}"
            progress(f"downloading {package} (150 MB)")
            with source_archive(cache) as archive:
                version = _download(archive, package, cache, design, work)
            folder = _folder(design, version, cache)
            if not folder.is_dir():
                _build(design, work, {package: version}, progress)
                folder.parent.mkdir(exist_ok=True)
                seal(work / "kept")
                (work / "kept").rename(folder)
    return _files(design, folder, cache)


@contextlib.contextmanager
def _work_folder(parent: Path) -> Iterator[Path]:
    """Yield an empty folder; none is left, nor one of a build that was killed."""
    for left in parent.glob("work-*"):
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(dir=parent, prefix="work-") as work:
        yield Path(work)


def _folder(design: Design, source_version: str, cache: Path) -> Path:
    return cache / "built" / design.release / f"{source_version}_{design.digest()}"


def _source_version(folder: Path) -> list[tuple[int, int | str]]:
    """Return what sorts versions of one Debian package, as far as those of kernels go."""
    pieces = groupby(folder.name.rpartition("_")[0], str.isdigit)
    texts = [(digits, "".join(piece)) for digits, piece in pieces]
    return [(1, int(text)) if digits else (0, text) for digits, text in texts]


def _files(design: Design, folder: Path, cache: Path) -> KernelFiles:
    damage = damage_of(folder)
    if damage:
        raise LabError(f"{folder}: {damage}: remove it, then altmap lab build {design.name}")
    versions = read_json(folder / "packages.json", dict[str, str])
    return KernelFiles(
        design.release,
        folder / "vmlinuz",
        fetch(design.base, cache, arch=design.arch).busybox,
        folder / "modules",
        versions,
        design.arch,
        headers=folder / "headers",
    )


def _has_header() -> bool:
    done = subprocess.run(
        ["gcc", "-E", "-x", "c", "-"],
        input=f"#include <{_HEADER}>\n",
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0


def _download(archive: Archive, package: str, cache: Path, design: Design, work: Path) -> str:
    """Return the version of the newest source, downloaded unless it has been built before."""
    archive.update()
    newest = next(version_candidates(package, archive))[package]
    if _folder(design, newest, cache).is_dir():
        return newest
    return download_newest(archive, lambda: version_candidates(package, archive), work)[package]


def _build(
    design: Design, work: Path, versions: dict[str, str], progress: Callable[[str], None]
) -> None:
    """Unpack, change, configure and compile; leave in the folder ``kept`` what stays."""
    progress("unpacking the source (1.5 GB)")
    (deb,) = work.glob("*.deb")
    packed = work / "source.tar.xz"
    extract_first(deb, ("./usr/src/linux-source-*.tar.xz",), packed)
    deb.unlink()
    (work / "source").mkdir()
    run_tool("tar", "-xJf", str(packed), "-C", str(work / "source"), "--strip-components=1")
    packed.unlink()
    source = work / "source"
    _change(design, source)
    (source / "altmap.config").write_text(design.text("kernel.config"))
    _make(source, "allnoconfig", "KCONFIG_ALLCONFIG=altmap.config")
    _check_options(design, source)
    progress(f"building Linux {design.release}")
    _make(source, "bzImage", "modules", progress=progress)
    _keep(source, work / "kept")
    versions[f"altmap {design.name}"] = design.digest()
    (work / "kept/packages.json").write_text(json.dumps(versions, indent=1))


def _change(design: Design, source: Path) -> None:
    """Insert the design's code."""
    insertions = read_insertions(design.text("insertions.toml"))
    for name in dict.fromkeys(insertion.file for insertion in insertions):
        file = source / name
        if not file.is_file():
            raise LabError(f"{name}: this kernel source has no such file")
        text = file.read_text(encoding="utf-8")
        file.write_text(insert(text, [each for each in insertions if each.file == name]))
        for header in design.headers:
            (file.parent / header).write_text(design.text(header))


def _check_options(design: Design, source: Path) -> None:
    """Check that the configuration has what was asked for: kconfig drops what it does not know."""
    asked = [
        line for line in design.text("kernel.config").splitlines() if line.startswith("CONFIG")
    ]
    found = set((source / ".config").read_text().splitlines())
    dropped = [line for line in asked if line not in found]
    if dropped:
        raise LabError(f"this kernel source does not take the options {', '.join(dropped)}")


def _keep(source: Path, kept: Path) -> None:
    """Copy the kernel, its modules, its configuration and its headers."""
    (kept / "modules").mkdir(parents=True)
    shutil.copy(source / _IMAGE, kept / "vmlinuz")
    shutil.copy(source / ".config", kept / "config")
    for module in source.rglob("*.ko"):
        shutil.copy(module, kept / "modules")
    for name in _HEADERS:
        shutil.copytree(source / name, kept / "headers" / name, symlinks=True)


def _make(source: Path, *words: str, progress: Callable[[str], None] | None = None) -> None:
    """Run make at a low priority; it ends with us."""
    jobs = len(os.sched_getaffinity(0))
    command = ["nice", "make", f"-j{jobs}", "ARCH=x86_64", *words]
    process = subprocess.Popen(
        command,
        cwd=source,
        env=os.environ | _REPRODUCIBLE,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    complaint = ""
    try:
        for line in _followed(process.stdout, progress):
            found = _COMPLAINT.search(line)
            complaint = complaint or (found[1] if found else "")
        status = process.wait()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    if status:
        raise LabError(f"make {words[0]} failed: {complaint or f'status {status}'}")


def _followed(output: IO[str], progress: Callable[[str], None] | None) -> Iterator[str]:
    """Yield the lines that make prints, and say now and then how far it is."""
    nr_compiled = 0
    for line in output:
        yield line
        nr_compiled += line.startswith("  CC ")
        if progress is not None and line.startswith("  CC ") and not nr_compiled % _TELL_EVERY:
            progress(f"compiled {nr_compiled} of about {_NR_OBJECTS} files")
