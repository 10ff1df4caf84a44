import pytest

from altmap.errors import InputError
from altmap.linux import version
from altmap.linux.evidence import evidence_of
from altmap.linux.version import Version


@pytest.mark.parametrize("release", ["6.1", "6.12", "7.3"])
def test_a_recorded_kernel_tells_release_and_machine(recording, release):
    sysroot = recording(f"linux-{release}-start")
    text = sysroot.text("proc/version")
    seen = version.parse(text)
    assert seen.release == release
    assert seen.full == sysroot.text("proc/sys/kernel/osrelease").strip()
    assert seen.machine == sysroot.text("proc/sys/kernel/arch").strip() == "x86_64"
    assert evidence_of(sysroot.files).machine == "x86_64"
    assert version.render(seen) == text


@pytest.mark.parametrize(
    ("full", "release", "machine"),
    [
        ("6.12.95+deb12-amd64", "6.12", "x86_64"),
        ("6.12.95+deb12-cloud-amd64", "6.12", "x86_64"),
        ("6.12.95+deb12-arm64", "6.12", "aarch64"),
        ("6.12.95+deb12-powerpc64le-64k", "6.12", "ppc64le"),
        ("6.1.0-18-s390x", "6.1", "s390x"),
        ("5.14.0-427.el9.aarch64+64k", "5.14", "aarch64"),
        ("6.8.0-45-generic", "6.8", None),
        ("6.18.44", "6.18", None),
    ],
)
def test_uname_r_alone_tells_what_can_be_had(full, release, machine):
    assert version.parse(f"{full}\n") == Version(full, full, release, machine)


@pytest.mark.parametrize("text", ["", "\n", "Darwin Kernel Version 23\n", "Linux version x\n"])
def test_what_is_no_version_is_refused(text):
    with pytest.raises(InputError, match=r"^line 1: '.*': need 'Linux version X.Y...'"):
        version.parse(text)
