"""Modules compiled for a guest's kernel: what is kept, and what a missing or failing tool says."""

import json
import os
from pathlib import Path

import pytest

from altmap.errors import LabError
from altmap.lab import build, kernels
from altmap.lab.digests import seal
from altmap.lab.kernels import KernelFiles, fetch_headers
from altmap.lab.modules import module_files

IMAGE, VERSION = "linux-image-6.12.1-amd64", "6.12.1-1"
NOTHING = Path(os.devnull)


def kernel_of(version=VERSION, image=IMAGE):
    return KernelFiles("6.12", NOTHING, NOTHING, NOTHING, {image: version, "busybox-static": "1"})


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Programs that write what they were told into what they make, and count their runs."""
    folder = tmp_path / "bin"
    folder.mkdir()
    runs = tmp_path / "runs"
    script = """#!/bin/sh
echo {name} >>{runs}
for word; do last=$word; done
case $1 in -print-file-name=*) echo /include; exit;; esac
test -d "$last" || echo {name} "$@" >$last
{more}
"""

    def make(name, more=""):
        file = folder / name
        file.write_text(script.format(name=name, runs=runs, more=more))
        file.chmod(0o755)

    for name in ("gcc", "ld", "objcopy"):
        make(name)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    make.folder, make.runs = folder, runs
    return make


@pytest.fixture
def cache(tmp_path):
    """A cache that has the headers of two versions of a kernel."""
    for version in (VERSION, "6.12.1-2"):
        folder = tmp_path / "cache/headers" / f"6.12.1-amd64_{version}"
        folder.mkdir(parents=True)
        packages = {"linux-headers-6.12.1-amd64": version, "linux-headers-6.12.1-common": version}
        (folder / "packages.json").write_text(json.dumps(packages))
        options = folder / "usr/src/linux-headers-6.12.1-amd64/include/config/auto.conf"
        options.parent.mkdir(parents=True)
        options.write_text("CONFIG_MITIGATION_RETPOLINE=y\n")
        seal(folder)
    (tmp_path / "cache/kernels").mkdir()
    return tmp_path / "cache"


def test_a_module_is_compiled_with_the_headers_of_its_kernel(tools, cache):
    made = build.build_module(kernel_of(), "vmbus.c", "hv_vmbus", prefix="altmap_", cache=cache)
    assert made.read_text().startswith("ld -m elf_x86_64 -r ")
    arch, common = fetch_headers(kernel_of(), cache)
    words = build._words(arch, common, "hv_vmbus", "altmap_")
    assert f"-I{arch}/include" in words
    assert f"-I{common}/include" in words
    assert '-DKBUILD_MODNAME="hv_vmbus"' in words
    assert "-DALTMAP_PREFIX=altmap_" in words
    assert [p.name for p in made.parent.iterdir()] == [made.name]  # no folder of the work is left


@pytest.mark.parametrize(
    ("option", "has"),
    [
        ("CONFIG_RETPOLINE=y", True),
        ("CONFIG_MITIGATION_RETPOLINE=y", True),
        ("CONFIG_MITIGATION_RETHUNK=y", False),
    ],
)
def test_calls_go_through_functions_that_the_kernel_has(tools, tmp_path, option, has):
    options = tmp_path / "include/config/auto.conf"
    options.parent.mkdir(parents=True)
    options.write_text(f"{option}\n")
    words = build._words(tmp_path, tmp_path, "name", "")
    assert ("-mindirect-branch=thunk-extern" in words) is has


def test_a_module_is_compiled_once_for_each_kernel_name_and_prefix(tools, cache):
    def made(kernel, name="a", prefix=""):
        return build.build_module(kernel, "force.c", name, prefix=prefix, cache=cache)

    first = made(kernel_of())
    before = tools.runs.read_text()
    assert made(kernel_of()) == first
    assert tools.runs.read_text() == before
    others = [made(kernel_of("6.12.1-2")), made(kernel_of(), "b"), made(kernel_of(), "a", "p_")]
    assert len({first, *others}) == 4


@pytest.mark.parametrize(("missing", "package"), [("gcc", "gcc"), ("objcopy", "binutils")])
def test_a_missing_program_is_one_line_with_its_package(tools, monkeypatch, missing, package):
    (tools.folder / missing).unlink()
    monkeypatch.setenv("PATH", str(tools.folder))
    with pytest.raises(LabError, match=rf"{missing} is missing: .*: apt install {package}$"):
        build.check_compiler()


def test_a_source_that_does_not_fit_is_one_line_and_leaves_nothing(tools, cache):
    complaint = "vmbus.c:7:2: error: unknown type name 'struct hv'"
    tools("gcc", f'echo "In file included from x.h:" >&2; echo "{complaint}" >&2; exit 1')
    with pytest.raises(LabError) as caught:
        build.build_module(kernel_of(), "vmbus.c", "hv_vmbus", cache=cache)
    assert str(caught.value) == (
        "a module does not fit the guest's kernel: gcc: unknown type name 'struct hv'"
    )
    assert not list((cache / "modules").iterdir())


def test_a_kernel_without_package_has_no_headers(cache):
    own = kernel_of(image="bzImage")
    with pytest.raises(LabError, match="for Debian's kernels only"):
        fetch_headers(own, cache)


HEADERS, COMMON = "linux-headers-6.12.1-amd64", "linux-headers-6.12.1-common"


class Archive:
    """Debian's archive, which has headers of some versions; a package is a file with its name."""

    def __init__(self, *versions):
        self._versions = list(versions)

    def names(self, prefix):
        return [HEADERS] if HEADERS.startswith(prefix) and self._versions else []

    def versions(self, package):
        assert package == HEADERS
        return self._versions

    def fields(self, package, version):
        return {"Depends": f"linux-kbuild-6.12, {COMMON} (= {version}), gcc-14"}

    def download(self, packages, into):
        for package, version in packages.items():
            (into / f"{package}_{version}_all.deb").write_text(f"{package} {version}")


def test_headers_are_those_of_the_kernels_version_and_unpacked(tools, tmp_path):
    tools("dpkg-deb", 'mkdir -p $3/usr/src; cp "$2" $3/usr/src/')
    versions = kernels._headers(IMAGE, VERSION, tmp_path, Archive("6.12.2-1", VERSION), tmp_path)
    assert versions == {HEADERS: VERSION, COMMON: VERSION}
    unpacked = sorted(path.name for path in (tmp_path / "usr/src").iterdir())
    assert unpacked == [f"{HEADERS}_{VERSION}_all.deb", f"{COMMON}_{VERSION}_all.deb"]
    assert not list(tmp_path.glob("*.deb"))


@pytest.mark.parametrize("known", [(), ("6.12.2-1",)])
def test_headers_that_the_archive_has_no_more_are_one_line_with_the_cure(tmp_path, known):
    gone = rf"no headers of this kernel any more; remove {tmp_path} to have"
    with pytest.raises(LabError, match=gone):
        kernels._headers(IMAGE, VERSION, tmp_path, Archive(*known), tmp_path)


def test_names_are_renamed_one_by_one_and_the_result_is_kept(tools, cache):
    made = build.rename_symbols(b"module", ("open", "close"), "altmap_", cache)
    assert "--redefine-sym open=altmap_open --redefine-sym close=altmap_close" in made.read_text()
    before = tools.runs.read_text()
    assert build.rename_symbols(b"module", ("open", "close"), "altmap_", cache) == made
    assert tools.runs.read_text() == before
    assert build.rename_symbols(b"another", ("open", "close"), "altmap_", cache) != made


def test_a_module_that_was_built_stands_in_for_the_packages(tmp_path):
    depends = b"\0depends=hv_vmbus\0"
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "hv_balloon.ko").write_bytes(depends)
    (folder / "hv_vmbus.ko").write_bytes(b"the package's")
    (tmp_path / "ours.ko").write_bytes(b"ours")
    kernel = KernelFiles("6.12", NOTHING, NOTHING, folder, {}, modules=("hv_balloon",))
    assert module_files(kernel) == {"hv_vmbus": b"the package's", "hv_balloon": depends}
    built = KernelFiles(
        *("6.12", NOTHING, NOTHING, folder, {}),
        modules=("hv_balloon",),
        built=(("hv_vmbus", tmp_path / "ours.ko"),),
    )
    assert module_files(built) == {"hv_vmbus": b"ours", "hv_balloon": depends}


@pytest.mark.lab
@pytest.mark.parametrize("release", ["6.1", "6.12", "7.3"])
def test_every_module_of_ours_compiles_without_a_warning(release, monkeypatch):
    from altmap.lab import fetch

    monkeypatch.setattr(build, "_FLAGS", (*build._FLAGS, "-Werror"))
    for source in ("vmbus.c", "force.c", "add.c"):
        assert build.build_module(fetch(release), source, "altmap_test").stat().st_size
