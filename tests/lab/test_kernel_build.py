"""A kernel built for a design: programs are checked, the source changed, the result kept."""

import hashlib
import json
import tarfile
from contextlib import contextmanager

import pytest

from altmap.errors import InputError, LabError
from altmap.lab import kernel_build
from altmap.lab.designs import DESIGNS, design_named, design_of
from altmap.lab.digests import seal
from altmap.lab.hardware import hardware_of
from altmap.lab.inventory import inventory
from altmap.lab.kernels import KernelFiles, fetch_headers
from altmap.scenario import Machine

RFC = DESIGNS["rfc-2018"]
NEWEST = "6.12.118-1"
#: What the insertions need: the functions, and a line with each word, in our own words.
SOURCE = """\
void adjust_present_page_count(struct page *page)
{
	bool movable = is(page, ZONE_MOVABLE);
}

int online_pages(unsigned long pfn)
{
	init_per_zone_wmark_min();
	return pageblock_aligned(pfn);
}

int add_memory_resource(int nid)
{
	return MHP_MEMMAP_ON_MEMORY;
}

int offline_pages(unsigned long pfn)
{
	init_per_zone_wmark_min();
	return pageblock_aligned(pfn);
}

static int try_remove_memory(u64 start)
{
	memory_blocks_have_altmaps(start);
	return CONFIG_ARCH_KEEP_MEMBLOCK;
}
"""
PROGRAMS = ("bc", "bison", "flex", "gcc", "ld", "make", "perl", "xz", "nice", "tar")
MAKE = """
echo make "$@" >>{runs}
case "$*" in
*allnoconfig*) grep ^CONFIG altmap.config >.config;;
*) for number in $(seq 250); do echo "  CC      file$number.o"; done
   mkdir -p arch/x86/boot arch/x86/include include drivers
   grep -c include.*memmap_from_range mm/memory_hotplug.c >arch/x86/boot/bzImage
   echo module >drivers/hv_balloon.ko; echo header >include/a.h;;
esac
"""


class Archive:
    """Debian's archive, which has one version of the source, and counts its downloads."""

    def __init__(self, deb, version=NEWEST):
        self.deb, self.version, self.nr_downloads = deb, version, 0

    def update(self, *, past_caches=False):
        pass

    def names(self, prefix):
        return [prefix]

    def versions(self, package):
        return [self.version]

    def download(self, packages, into):
        self.nr_downloads += 1
        for package, version in packages.items():
            (into / f"{package}_{version}_all.deb").write_bytes(self.deb.read_bytes())


@pytest.fixture
def tools(tmp_path, monkeypatch):
    """Programs that do nothing, and a make that leaves what a build does."""
    folder = tmp_path / "bin"
    folder.mkdir()

    def make(name, text):
        file = folder / name
        file.write_text(f"#!/bin/sh\n{text}\n")
        file.chmod(0o755)

    for name in PROGRAMS[:-2]:
        make(name, "exit 0")
    make("xz", 'exec /usr/bin/xz "$@"')
    make.runs = tmp_path / "runs"
    make("make", MAKE.format(runs=make.runs))
    make.folder = folder
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return make


@pytest.fixture
def archive(tmp_path, monkeypatch):
    """The archive; ``dpkg-deb --fsys-tarfile`` of its package has a packed source."""
    source = tmp_path / "linux/mm"
    source.mkdir(parents=True)
    (source / "memory_hotplug.c").write_text(SOURCE)
    packed = tmp_path / "source.tar.xz"
    with tarfile.open(packed, "w:xz") as file:
        file.add(source.parent, "linux-source-6.12")
    deb = tmp_path / "package"
    with tarfile.open(deb, "w") as file:
        file.add(packed, "./usr/src/linux-source-6.12.tar.xz")
    made = Archive(deb)

    @contextmanager
    def source_archive(cache):
        yield made

    monkeypatch.setattr(kernel_build, "source_archive", source_archive)
    nothing = tmp_path / "busybox"
    monkeypatch.setattr(
        kernel_build, "fetch", lambda *_, **__: KernelFiles("6.12", nothing, nothing, nothing, {})
    )
    return made


@pytest.fixture
def build(tools, archive, tmp_path):
    """A function that builds the design; what it said is its attribute."""
    tools("dpkg-deb", 'exec cat "$2"')

    def run():
        run.said = []
        return kernel_build.build_kernel(RFC, run.said.append, tmp_path / "cache")

    run.cache = tmp_path / "cache"
    return run


def test_a_build_keeps_kernel_modules_configuration_and_headers(build):
    kernel = build()
    folder = build.cache / "built" / "6.12+rfc-2018" / f"{NEWEST}_{RFC.digest()}"
    assert kernel.release == "6.12+rfc-2018"
    assert kernel.vmlinuz == folder / "vmlinuz"
    assert kernel.vmlinuz.read_text() == "1\n"  # the source was changed before it was compiled
    assert (kernel.modules_deb / "hv_balloon.ko").read_text() == "module\n"
    assert "CONFIG_HYPERV_BALLOON=m" in (folder / "config").read_text().splitlines()
    assert fetch_headers(kernel) == (folder / "headers",) * 2
    assert (folder / "headers/include/a.h").is_file()
    assert kernel.versions == {"linux-source-6.12": NEWEST, "altmap rfc-2018": RFC.digest()}
    assert sorted(path.name for path in (build.cache / "built").iterdir()) == [
        "6.12+rfc-2018",
        "lock",
    ]
    assert "compiled 200 of about" in " ".join(build.said)


def test_what_a_killed_build_left_is_removed(build):
    left = build.cache / "built/work-killed/source"
    left.mkdir(parents=True)
    build()
    assert not left.parent.exists()


def test_a_kernel_is_built_once_for_each_source_and_patch(build, tools, archive, monkeypatch):
    first = build()
    assert build() == first
    assert len(tools.runs.read_text().splitlines()) == 2
    assert archive.nr_downloads == 1
    archive.version = "6.12.119-1"
    assert build().vmlinuz != first.vmlinuz
    monkeypatch.setattr(type(RFC), "digest", lambda _: "0" * 12)
    build()
    assert archive.nr_downloads == 3
    assert len(tools.runs.read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("missing", "packages"),
    [(("flex",), "flex"), (("gcc", "bison"), "bison gcc"), (("ld", "make"), "binutils make")],
)
def test_what_is_missing_is_one_line_with_its_packages(tools, monkeypatch, missing, packages):
    for name in missing:
        (tools.folder / name).unlink()
    monkeypatch.setenv("PATH", str(tools.folder))
    with pytest.raises(LabError) as caught:
        kernel_build.check_build_programs()
    assert str(caught.value) == (
        f"missing to build a kernel: {', '.join(sorted(missing))}: apt install {packages}"
    )


def test_a_missing_header_is_named_like_a_program(tools):
    tools("gcc", "exit 1")
    with pytest.raises(LabError, match=r"kernel: gelf\.h: apt install libelf-dev$"):
        kernel_build.check_build_programs()


def nothing_is_left(cache):
    return [path.name for path in (cache / "built").rglob("*")] == ["lock"]


def test_a_build_that_fails_is_one_line_and_leaves_nothing(build, tools):
    tools("make", 'case "$*" in *allno*) grep ^CONFIG altmap.config >.config; exit;; esac\n'
          'echo "mm/a.c:1:2: error: unknown type"; echo "make: *** Error 2"; exit 2')  # fmt: skip
    with pytest.raises(LabError, match=r"^make bzImage failed: unknown type$"):
        build()
    assert nothing_is_left(build.cache)


def test_options_that_a_source_does_not_take_are_named(build, tools):
    tools("make", "grep ^CONFIG altmap.config | grep -v HYPERV= >.config")
    with pytest.raises(LabError, match=r"does not take the options CONFIG_HYPERV=m$"):
        build()
    assert nothing_is_left(build.cache)


def test_a_source_without_the_places_is_refused(build, archive, tmp_path):
    (tmp_path / "linux/mm/memory_hotplug.c").write_text(SOURCE.replace("try_remove", "remove"))
    packed = tmp_path / "source.tar.xz"
    with tarfile.open(packed, "w:xz") as file:
        file.add(tmp_path / "linux", "linux-source-6.12")
    with tarfile.open(archive.deb, "w") as file:
        file.add(packed, "./usr/src/linux-source-6.12.tar.xz")
    with pytest.raises(LabError, match=r"0 functions try_remove_memory\(\)"):
        build()
    assert nothing_is_left(build.cache)


def make_built(cache, *versions):
    for version in versions:
        folder = cache / "built/6.12+rfc-2018" / f"{version}_{RFC.digest()}"
        folder.mkdir(parents=True)
        (folder / "packages.json").write_text(json.dumps({"linux-source-6.12": version}))
        seal(folder)


def test_the_newest_of_several_built_kernels_is_taken(archive, tmp_path):
    make_built(tmp_path, "6.12.99-1", "6.12.117-1~deb12u1", "6.12.118-1", "6.12.9-1")
    kernel = kernel_build.kernel_of("6.12+rfc-2018", cache=tmp_path)
    assert kernel.versions == {"linux-source-6.12": "6.12.118-1"}
    listed = {each.release: each for each in inventory([], tmp_path)}["6.12+rfc-2018"]
    assert (listed.kernel, listed.is_built) == ("linux-source-6.12 6.12.118-1", True)


def test_a_design_that_is_not_built_names_the_command(tmp_path):
    with pytest.raises(LabError, match="is not built yet: altmap lab build rfc-2018"):
        kernel_build.kernel_of("6.12+rfc-2018", cache=tmp_path)
    listed = {each.release: each for each in inventory([], tmp_path)}["6.12+rfc-2018"]
    assert (listed.kernel, listed.is_built) == ("", True)


def test_a_design_is_for_its_architecture(tmp_path):
    with pytest.raises(LabError, match="for x86_64 only, not ppc64le"):
        kernel_build.kernel_of("6.12+rfc-2018", "ppc64le", tmp_path)


def test_a_release_names_its_design():
    assert design_of("6.12") is None
    assert design_of("6.12+rfc-2018") is design_named("rfc-2018") is design_named("6.12+rfc-2018")
    for name in ("6.1+rfc-2018", "6.12+rfc-2019"):
        with pytest.raises(InputError, match=r"there is 6\.12\+rfc-2018"):
            design_of(name)
    with pytest.raises(InputError, match="need one of rfc-2018"):
        design_named("rfc")


def test_policies_are_those_of_the_kernel_that_runs():
    for policy in (None, "opt-in", "rfc-2018", "rfc-2018+hidden", "rfc-2018+total"):
        hardware_of(Machine(release="6.12+rfc-2018", policy=policy))
    with pytest.raises(
        InputError, match=r"6\.12 follows opt-in, per-block only; --release 6\.12\+"
    ):
        hardware_of(Machine(release="6.12", policy="rfc-2018"))
    with pytest.raises(InputError, match=r"follows opt-in, .*rfc-2018\+total only$"):
        hardware_of(Machine(release="6.12+rfc-2018", policy="hinted"))


def test_the_digest_covers_every_source(monkeypatch):
    seen = []
    monkeypatch.setattr(type(RFC), "text", lambda _, file: seen.append(file) or "")
    assert RFC.digest() == hashlib.sha256(b"\0\0").hexdigest()[:12]
    assert seen == ["insertions.toml", "kernel.config", "memmap_from_range.h"]
