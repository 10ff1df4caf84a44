"""Against a scripted apt: an index that names files which the mirror has dropped.

The programs below print what apt 2.6 prints; a package is a plain tar archive.
"""

import io
import os
import tarfile

import pytest

from altmap.errors import LabError
from altmap.lab import fetch, fetch_xen

PROGRAMS = {
    "apt-config": "echo \"LIST='$D/sources.list'\"; echo \"PARTS='$D/parts'\"",
    "apt-cache": """
case $3 in
pkgnames) awk -v p="$4" 'index($1, p) == 1 { print $1 }' "$D/index" ;;
madison) awk -v p="$4" '$1 == p { print $1 " | " $2 " | mirror" }' "$D/index" ;;
show) awk -v p="$4" '$1 "=" $2 == p {
    print "Package: " $1 "\\nVersion: " $2; $1 = $2 = ""; print "Depends:" $0 }' "$D/index" ;;
esac""",
    "apt-get": """
shift 2
echo "$@" >>"$D/calls"
case $1 in
update) if [ -f "$D/index.$(grep -c update "$D/calls")" ]; then
    cp "$D/index.$(grep -c update "$D/calls")" "$D/index"
    fi ;;
download) shift 2; for wanted; do
    if [ -f "$D/pool/$wanted" ]; then
        cp "$D/pool/$wanted" "${wanted%%=*}_${wanted#*=}_amd64.deb"
    else
        echo "E: Failed to fetch http://mirror/$wanted.deb  $(cat "$D/answer")" >&2; exit 100
    fi; done ;;
esac""",
    "dpkg-deb": 'cat "$2"',
}
NOT_FOUND = "404  Not Found [IP: 192.0.2.1 80]"


class Apt:
    """An index, a mirror's pool, and what was asked of them.

    Cheats: a package's files are in the archive itself, and versions are in the index's order.
    """

    def __init__(self, folder):
        self.folder, self.answer = folder, NOT_FOUND
        (folder / "pool").mkdir()
        (folder / "sources.list").touch()
        (folder / "parts").mkdir()
        stanza = "Types: deb\nURIs: http://mirror/debian\nSuites: trixie\nComponents: main\n"
        (folder / "parts/debian.sources").write_text(stanza)

    def set(self, *, pool, index, second=None, answer=NOT_FOUND):
        """Say what the mirror has, and what its index names at each update."""
        for nr, names in enumerate((index, second or index), 1):
            lines = "".join(f"{name.replace('=', ' ', 1)}\n" for name in names)
            (self.folder / f"index.{nr}").write_text(lines)
        for name in pool:
            (self.folder / "pool" / name).write_bytes(package(name))
        (self.folder / "answer").write_text(answer)

    def calls(self, what):
        lines = (self.folder / "calls").read_text().splitlines()
        return [line.split()[1:] for line in lines if line.startswith(what)]


def package(name):
    """Return an archive with a file for each role; the kernel's content is the package's name."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as archive:
        for path in ("./boot/vmlinuz-x", "./bin/busybox", "./boot/xen-4-amd64.gz"):
            member = tarfile.TarInfo(path)
            member.size = len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    return raw.getvalue()


@pytest.fixture
def apt(tmp_path, monkeypatch):
    folder = tmp_path / "apt"
    (folder / "bin").mkdir(parents=True)
    for name, script in PROGRAMS.items():
        program = folder / "bin" / name
        program.write_text(f"#!/bin/sh\nD='{folder}'\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}/bin{os.pathsep}{os.environ['PATH']}")
    return Apt(folder)


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


def image(patch):
    """Name the image package of a patch level, in two flavours of which one is x86_64's."""
    return f"linux-image-6.12.{patch}+deb13-amd64=6.12.{patch}-1"


BUSYBOX, OLD_BUSYBOX = "busybox-static=1.37", "busybox-static=1.35"


def test_the_newest_image_is_the_one_with_the_highest_numbers(apt, cache):
    names = [image(9), image(118), image(95), BUSYBOX, OLD_BUSYBOX]
    apt.set(index=names, pool=names)
    kernel = fetch("6.12", cache)
    assert kernel.vmlinuz.read_text() == image(118)
    assert kernel.busybox.read_text() == BUSYBOX
    assert kernel.versions == dict(name.split("=") for name in (image(118), BUSYBOX))
    assert len(apt.calls("update")) == 1


def test_after_a_404_a_second_index_past_caches_names_what_the_mirror_has(apt, cache):
    apt.set(
        index=[image(117), image(90), BUSYBOX],
        second=[image(118), image(90), BUSYBOX],
        pool=[image(118), image(90), BUSYBOX],
    )
    assert fetch("6.12", cache).vmlinuz.read_text() == image(118)
    first, second = apt.calls("update")
    assert "Acquire::http::No-Cache=true" not in first
    assert "Acquire::http::No-Cache=true" in second


@pytest.mark.parametrize(
    "answer",
    [NOT_FOUND, "403  Forbidden", "File has unexpected size (1 != 2)", "Hash Sum mismatch"],
)
def test_what_the_mirror_lacks_for_good_is_passed_over(apt, cache, answer):
    names = [image(118), image(117), image(90), BUSYBOX]
    apt.set(index=names, pool=[image(117), image(90), BUSYBOX], answer=answer)
    kernel = fetch("6.12", cache)
    assert kernel.vmlinuz.read_text() == image(117)
    assert kernel.versions == dict(name.split("=") for name in (image(117), BUSYBOX))
    assert len(apt.calls("update")) == 2


def test_an_older_version_of_the_same_package_is_a_candidate(apt, cache):
    apt.set(index=[image(118), BUSYBOX, OLD_BUSYBOX], pool=[image(118), OLD_BUSYBOX])
    kernel = fetch("6.12", cache)
    assert kernel.vmlinuz.read_text() == image(118)
    assert kernel.busybox.read_text() == OLD_BUSYBOX
    assert kernel.versions["busybox-static"] == "1.35"


def test_parts_of_a_split_image_are_of_its_version(apt, cache):
    def parts(patch):
        return [
            f"linux-{part}-7.3.{patch}+deb13-amd64=7.3.{patch}-1" for part in ("binary", "modules")
        ]

    def split(patch):
        depends = ", ".join(f"{part.replace('=', ' (= ')})" for part in parts(patch))
        return f"linux-image-7.3.{patch}+deb13-amd64=7.3.{patch}-1 kmod, {depends}"

    images = [split(patch).split()[0] for patch in (2, 1)]
    # The newest image and its kernel are there; its modules are not.
    apt.set(
        index=[split(2), split(1), *parts(2), *parts(1), BUSYBOX],
        pool=[*images, parts(2)[0], *parts(1), BUSYBOX],
    )
    kernel = fetch("7.3", cache)
    assert kernel.vmlinuz.read_text() == parts(1)[0]
    assert kernel.modules_deb.read_bytes() == package(parts(1)[1])
    assert set(kernel.versions.values()) == {"7.3.1-1", "1.37"}


def test_when_the_mirror_has_nothing_the_error_says_what_was_tried(apt, cache):
    names = [image(patch) for patch in range(100, 110)]
    apt.set(index=[*names, BUSYBOX], pool=[BUSYBOX])
    with pytest.raises(LabError, match="the mirror lacks what its index names") as caught:
        fetch("6.12", cache)
    message = str(caught.value)
    tried = [name for name in names if name in message]
    assert tried == [image(patch) for patch in (106, 107, 108, 109)]
    assert "404  Not Found" in message
    assert "\n" not in message
    assert len(apt.calls("download")) == 5  # the newest again, after the second update
    assert sorted(path.name for path in cache.rglob("*")) == ["kernels", "lock"]


def test_a_mirror_that_does_not_answer_is_asked_once(apt, cache):
    answer = "Could not connect to 192.0.2.1:80 (192.0.2.1)."
    apt.set(index=[image(118), image(117), BUSYBOX], pool=[], answer=answer)
    with pytest.raises(LabError, match="Could not connect"):
        fetch("6.12", cache)
    assert (len(apt.calls("download")), len(apt.calls("update"))) == (1, 1)


def test_a_release_without_an_image_is_one_error(apt, cache):
    apt.set(index=[image(118), BUSYBOX], pool=[])
    rule = r"kernel release '6\.1': no such image for x86_64 .*: need one of 6\.12$"
    with pytest.raises(LabError, match=rule):
        fetch("6.1", cache)
    with pytest.raises(LabError, match=r"xen-hypervisor-4\.17-amd64: no such package in Debian"):
        fetch_xen(cache)
