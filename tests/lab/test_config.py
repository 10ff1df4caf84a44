"""What a kernel's configuration lacks, wherever the configuration is found."""

import gzip
import lzma

import pytest

from altmap.errors import LabError
from altmap.lab.arches import GUESTS
from altmap.lab.config import check_config, kernel_config

EVERYTHING = [
    *("BLK_DEV_INITRD", "RD_GZIP", "BINFMT_ELF", "BINFMT_SCRIPT", "DEVTMPFS", "PROC_FS", "SYSFS"),
    *("MEMORY_HOTPLUG", "MEMORY_HOTREMOVE", "MHP_MEMMAP_ON_MEMORY", "PROC_PAGE_MONITOR", "TMPFS"),
    *("DYNAMIC_DEBUG", "SERIAL_8250_CONSOLE", "ACPI_HOTPLUG_MEMORY"),
]
TEXT = "".join(f"CONFIG_{name}=y\n" for name in EVERYTHING)
PC = GUESTS["x86_64"]


def embedded(text):
    return b"code" + b"IKCFG_ST" + gzip.compress(text.encode()) + b"IKCFG_ED" + b"more code"


@pytest.mark.parametrize(
    "image",
    [
        embedded(TEXT),
        b"loader" + gzip.compress(embedded(TEXT)),
        b"\x1f\x8b\x08 no gzip" + b"loader" + lzma.compress(embedded(TEXT)) + b"tail",
    ],
    ids=["plain", "gzip", "xz"],
)
def test_it_is_read_out_of_the_image(tmp_path, image):
    path = tmp_path / "bzImage"
    path.write_bytes(image)
    assert kernel_config(path) == dict.fromkeys(EVERYTHING, "y")
    assert check_config(path, PC) == []


@pytest.mark.parametrize(
    ("image", "beside"),
    [
        ("boot/vmlinuz-6.12.1", "boot/config-6.12.1"),
        ("boot/vmlinux", "boot/config"),
        ("tree/vmlinux", "tree/.config"),
        ("tree/arch/x86/boot/bzImage", "tree/.config"),
    ],
)
def test_else_it_is_the_file_beside_the_image(tmp_path, image, beside):
    for name in (image, beside):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / image).write_bytes(b"no configuration")
    (tmp_path / beside).write_text("# CONFIG_NUMA is not set\nCONFIG_TMPFS=m\n")
    assert kernel_config(tmp_path / image) == {"TMPFS": "m"}


def test_an_unknown_configuration_is_said_not_guessed(tmp_path):
    (tmp_path / "Image").write_bytes(b"no configuration")
    assert kernel_config(tmp_path / "Image") is None
    (note,) = check_config(tmp_path / "Image", PC)
    assert "unknown" in note


def test_what_no_guest_can_do_without_is_an_error(tmp_path):
    (tmp_path / "vmlinux").write_bytes(embedded(TEXT.replace("DEVTMPFS=y", "DEVTMPFS=m")))
    with pytest.raises(LabError, match="CONFIG_DEVTMPFS is a module: it finds no device"):
        check_config(tmp_path / "vmlinux", PC)


def test_what_only_limits_a_guest_is_a_note_with_its_consequence(tmp_path):
    (tmp_path / "vmlinux").write_bytes(embedded(TEXT.replace("CONFIG_PROC_PAGE_MONITOR=y\n", "")))
    (note,) = check_config(tmp_path / "vmlinux", PC)
    assert note.startswith("CONFIG_PROC_PAGE_MONITOR is not set: ")


@pytest.mark.parametrize(
    ("arch", "option"),
    [
        ("ppc64le", "HVC_CONSOLE"),
        ("aarch64", "SERIAL_8250_PCI"),
        ("s390x", "SCLP_VT220_TTY"),
    ],
)
def test_ports_that_a_guest_cannot_do_without_depend_on_its_architecture(tmp_path, arch, option):
    (tmp_path / "vmlinux").write_bytes(embedded(TEXT))
    with pytest.raises(LabError, match=f"CONFIG_{option} is not set: its console"):
        check_config(tmp_path / "vmlinux", GUESTS[arch])


def test_an_image_that_is_not_there_is_one_error(tmp_path):
    with pytest.raises(LabError, match="nothing: No such file"):
        kernel_config(tmp_path / "nothing")
