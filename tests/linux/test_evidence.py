"""Architecture, page size and release of a machine, by what its files show."""

import gzip
import struct

import pytest

from altmap.errors import InputError
from altmap.linux.evidence import PAGE_SIZES, Given, agreed, evidence_of, passed_over
from altmap.linux.observation import Observation, page_size_bytes, page_size_found
from altmap.linux.sysroot import Sysroot
from altmap.model.arch import ARCHES

UNAME_A = "sos_commands/kernel/uname_-a"
LSCPU = "sos_commands/processor/lscpu"
X86 = "flags\t\t: fpu vme de pse tsc msr pae lm constant_tsc\n"


def files(**texts):
    return {path: text.encode() for path, text in texts.items()}


def found(path, text):
    return evidence_of({path: text.encode()})


@pytest.mark.parametrize(
    ("path", "text", "machine"),
    [
        ("proc/sys/kernel/arch", "s390x\n", "s390x"),
        ("proc/sys/kernel/arch", "riscv64\n", "riscv64"),
        ("proc/uname", "release 6.1.0\nmachine aarch64\npage_size 4096\n", "aarch64"),
        (
            UNAME_A,
            "Linux db1 4.18.0-553.el8_10.x86_64 #1 SMP Thu Feb 8 2024 x86_64 x86_64 x86_64 "
            "GNU/Linux\n",
            "x86_64",
        ),
        (
            UNAME_A,
            "Linux n1 5.4.0-90-generic #1 SMP ppc64le ppc64le ppc64le GNU/Linux\n",
            "ppc64le",
        ),
        (UNAME_A, "Linux x86_64 6.1.0-1-cloud #1 SMP aarch64 GNU/Linux\n", "aarch64"),
        (LSCPU, "Architecture:        s390x\nCPU op-mode(s): 32-bit, 64-bit\n", "s390x"),
        ("proc/version", "Linux version 6.1.0-1-arm64 (gcc) #1 SMP\n", "aarch64"),
        ("proc/version", "Linux version 5.14.0-1.el9.ppc64le (gcc) #1 SMP\n", "ppc64le"),
        (
            "proc/version",
            "Linux version 6.1.9 (x86_64-linux-gnu-gcc-12 (Debian 12.2) 12.2) #1\n",
            "x86_64",
        ),
        ("proc/version", "Linux version 5.15.0-9-generic (buildd@bos02-arm64-010) #1\n", "aarch64"),
        ("proc/sys/kernel/osrelease", "6.8.5-301.fc40.aarch64\n", "aarch64"),
        ("boot/config-6.1.9", "CONFIG_X86=y\nCONFIG_X86_64=y\n", "x86_64"),
        ("boot/config-6.1.9", "# CONFIG_X86_64 is not set\nCONFIG_ARM64=y\n", "aarch64"),
        ("boot/config-6.1.9", "CONFIG_PPC64=y\nCONFIG_CPU_LITTLE_ENDIAN=y\n", "ppc64le"),
        ("boot/config-6.1.9", "CONFIG_PPC64=y\nCONFIG_CPU_BIG_ENDIAN=y\n", "ppc64"),
        ("proc/iomem", "00000000-00000fff : Reserved\nfee00000-fee00fff : Local APIC\n", "x86_64"),
        ("proc/iomem", "000c0000-000c7fff : Video ROM\n", "x86_64"),
        ("proc/iomem", "09000000-09000fff : pl011@9000000\n", "aarch64"),
        ("proc/iomem", "09000000-09000fff : ARMH0011:00\n", "aarch64"),
        ("proc/cpuinfo", X86, "x86_64"),
        ("proc/cpuinfo", "CPU implementer\t: 0x41\nCPU architecture: 8\n", "aarch64"),
        ("proc/cpuinfo", "cpu\t\t: POWER9\nmachine\t\t: CHRP IBM pSeries (emulated)\n", "ppc64le"),
        ("proc/cpuinfo", "vendor_id       : IBM/S390\n", "s390x"),
        ("proc/cpuinfo", "hart\t: 0\nisa\t: rv64imafdc\n", "riscv64"),
        ("proc/sysinfo", "Manufacturer:         IBM\nType: 8561\n", "s390x"),
        ("proc/ppc64/lparcfg", "lparcfg 1.9\nserial_number=IBM,1\n", "ppc64le"),
        ("proc/meminfo", "DirectMap4k: 1 kB\nDirectMap1M: 1 kB\n", "s390x"),
        ("proc/meminfo", "VmallocTotal:   34359738367 kB\n", "x86_64"),
        ("proc/meminfo", "VmallocTotal:   13743895347199 kB\n", "x86_64"),
        ("proc/meminfo", "Hugepagesize:       1024 kB\n", "s390x"),
        ("proc/meminfo", "Hugepagesize:     524288 kB\n", "aarch64"),
        ("proc/meminfo", "Hugepagesize:      16384 kB\n", "ppc64le"),
        ("proc/vmstat", "direct_map_level2_splits 3\n", "x86_64"),
    ],
)
def test_what_only_one_architecture_shows_names_it(path, text, machine):
    assert found(path, text).machine == machine


@pytest.mark.parametrize(
    ("path", "text"),
    [
        # Shown by several architectures, or by none.
        ("proc/version", "Linux version 6.8.0-45-generic (b) #45\n"),
        ("proc/iomem", "00000000-0fffffff : System RAM\n  00000000-00ffffff : Kernel code\n"),
        ("proc/iomem", "00000000-0fffffff : reserved\n10000000-1fffffff : Reserved\n"),
        ("proc/meminfo", "DirectMap4k: 1 kB\nDirectMap2M: 1 kB\nHugepagesize: 2048 kB\n"),
        ("proc/cpuinfo", "flags\t\t: fpu vme pse almost\n"),
        ("proc/cpuinfo", "CPU architecture: 7\n"),
        ("proc/vmstat", "nr_free_pages 1\n"),
        ("boot/config-6.1.9", "# CONFIG_X86_64 is not set\n"),
    ],
)
def test_what_several_architectures_show_names_none(path, text):
    assert found(path, text).machine is None


def test_a_chosen_default_of_huge_pages_names_no_architecture():
    chosen = {
        "proc/cmdline": b"default_hugepagesz=16M",
        "proc/meminfo": b"Hugepagesize: 16384 kB\n",
    }
    assert evidence_of(chosen).machine is None


def test_the_configuration_of_a_running_kernel_may_be_packed():
    raw = gzip.compress(b"CONFIG_ARM64=y\nCONFIG_ARM64_64K_PAGES=y\n")
    evidence = evidence_of({"proc/config.gz": raw})
    assert (evidence.machine, evidence.page_sizes[0].value) == ("aarch64", 65536)
    assert evidence_of({"proc/config.gz": raw[:-30] + b"x" * 30}).machine in (None, "aarch64")
    assert evidence_of({"proc/config.gz": b"no gzip"}).machine is None


def test_of_several_configurations_that_of_the_running_kernel_counts():
    texts = {"boot/config-6.1.0-1": b"CONFIG_S390=y\n", "boot/config-6.1.0-2": b"CONFIG_ARM64=y\n"}
    assert evidence_of(texts).machine is None
    running = {"proc/version": b"Linux version 6.1.0-2 (b)\n"}
    assert evidence_of(texts | running).machine == "aarch64"


def test_contradictions_are_errors_that_name_both_files():
    texts = {"proc/sys/kernel/arch": b"aarch64\n", "proc/uname": b"machine x86_64\n"}
    seen = Observation.read(Sysroot(texts))
    with pytest.raises(
        InputError, match=r"aarch64 by proc/sys/kernel/arch, and x86_64 by proc/uname"
    ):
        page_size_bytes(seen)
    told = Observation.read(Sysroot(texts), Given(machine="x86_64"))
    assert (told.machine, page_size_bytes(told)) == ("x86_64", 4096)
    with pytest.raises(InputError, match="page size is 4096 by the machine, s390x, and 65536 by"):
        page_size_bytes(
            Observation.read(
                Sysroot({"proc/sys/kernel/arch": b"s390x\n", "proc/uname": b"page_size 65536\n"})
            )
        )


def test_what_a_file_names_overrules_what_follows_from_another_with_a_note():
    """A capture put together from two machines, or a mark that a new kernel shows elsewhere."""
    texts = {"proc/sys/kernel/arch": b"s390x\n", "proc/cpuinfo": X86.encode()}
    seen = Observation.read(Sysroot(texts))
    assert (seen.machine, page_size_bytes(seen)) == ("s390x", 4096)
    assert list(passed_over("the machine", seen.evidence.machines)) == [
        "the machine is s390x by proc/sys/kernel/arch, although proc/cpuinfo (lm) is of x86_64"
    ]
    del texts["proc/sys/kernel/arch"]
    texts["proc/meminfo"] = b"DirectMap1M: 1024 kB\n"
    with pytest.raises(InputError, match="contradict each other"):
        page_size_bytes(Observation.read(Sysroot(texts)))


def auxv(order, page_size):
    pairs = [(33, 0x7FFF0000), (6, page_size), (17, 100), (0, 0)]
    return b"".join(struct.pack(f"{order}QQ", *pair) for pair in pairs)


ARM = {"proc/sys/kernel/arch": b"aarch64\n"}


@pytest.mark.parametrize(
    ("path", "raw", "kib"),
    [
        ("proc/uname", b"page_size 16384\n", 16),
        ("boot/config-6.1", b"CONFIG_ARM64_4K_PAGES=y\n", 4),
        ("boot/config-6.1", b"CONFIG_ARM64_16K_PAGES=y\n", 16),
        ("boot/config-6.9", b"CONFIG_PAGE_SIZE_64KB=y\n", 64),
        ("proc/self/auxv", auxv("<", 65536), 64),
        ("proc/1/auxv", auxv("<", 16384) + b"\0\0\0", 16),
        ("proc/1/smaps", b"KernelPageSize:     2048 kB\nKernelPageSize:       64 kB\n", 64),
        ("proc/version", b"Linux version 5.14.0-427.el9.aarch64+64k (b)\n", 64),
        ("proc/version", b"Linux version 6.12.9+deb13-arm64-16k (b)\n", 16),
        ("proc/meminfo", b"Hugepagesize:       2048 kB\n", 4),
        ("proc/meminfo", b"Hugepagesize:      32768 kB\n", 16),
        ("proc/meminfo", b"Hugepagesize:     524288 kB\n", 64),
    ],
)
def test_what_names_the_page_size_decides(path, raw, kib):
    assert page_size_bytes(Observation.read(Sysroot(ARM | {path: raw}))) == kib << 10


def test_auxv_is_read_in_either_order_of_bytes():
    assert evidence_of({"proc/1/auxv": auxv(">", 4096)}).page_sizes[0].value == 4096
    assert evidence_of({"proc/1/auxv": auxv("<", 5000)}).page_sizes == ()


ZONE = """Node 0, zone   Normal
  pages free     {free}
        min      0
        low      0
        high     0
        spanned  {pages}
        present  {pages}
        managed  {managed}
        protection: (0)
  node_unreclaimable:  0
  start_pfn:           0
"""


def machine_of(page_kib, nr_blocks, offline=0, managed_share=1.0):
    """Return the files of an arm64 machine of blocks of 512 MiB, some of the last ones offline."""
    pages = nr_blocks * (512 << 10) // page_kib
    managed = int(pages * managed_share)
    texts = {
        "proc/zoneinfo": ZONE.format(pages=pages, managed=managed, free=managed).encode(),
        "proc/meminfo": f"MemTotal: {pages * page_kib} kB\n".encode(),
        "proc/iomem": f"0-{((nr_blocks + offline) << 29) - 1:x} : System RAM\n".encode(),
        "sys/devices/system/memory/block_size_bytes": b"20000000\n",
    }
    for nr in range(nr_blocks + offline):
        state = b"online\n" if nr < nr_blocks else b"offline\n"
        texts[f"sys/devices/system/memory/memory{nr}/state"] = state
    return texts | ARM


@pytest.mark.parametrize("page_kib", [4, 16, 64])
@pytest.mark.parametrize("offline", [0, 60])
@pytest.mark.parametrize("managed_share", [1.0, 0.1])
def test_the_page_size_follows_from_where_zones_and_blocks_end(page_kib, offline, managed_share):
    """Neither offline blocks nor pages that are not initialised yet change it."""
    texts = machine_of(page_kib, 4, offline, managed_share)
    size = page_size_found(Observation.read(Sysroot(texts)))
    assert (size.value, size.inferred) == (page_kib << 10, True)
    assert "zones" in size.ground


@pytest.mark.parametrize("kib", [1, 2, 3, 17, 64])
def test_x86_has_pages_of_4_kib_whatever_memtotal_says(kib):
    texts = machine_of(4, 4) | {"proc/sys/kernel/arch": b"x86_64\n"}
    texts["proc/meminfo"] = f"MemTotal: {kib << 20} kB\n".encode()
    assert page_size_bytes(Observation.read(Sysroot(texts))) == 4096


def test_the_release_is_had_from_uname_where_proc_version_is_missing():
    said = "Linux db1 4.18.0-553.el8_10.x86_64 #1 SMP Thu x86_64 x86_64 x86_64 GNU/Linux\n"
    seen = Observation.read(Sysroot({UNAME_A: said.encode()}))
    assert (seen.release, seen.machine) == ("4.18.0-553.el8_10.x86_64", "x86_64")
    both = Sysroot({UNAME_A: said.encode(), "proc/version": b"Linux version 6.1.0 (b)\n"})
    assert Observation.read(both).release == "6.1.0"
    assert Observation.read(both, Given(release="6.12")).release == "6.12"


def test_no_finding_agrees_with_nothing():
    assert agreed("the machine", ()) is None


def test_the_page_sizes_of_each_machine_are_those_of_the_model():
    known = dict(PAGE_SIZES)
    for arch in ARCHES.values():
        assert arch.page_size_bytes in known[arch.family]
    for family in {arch.family for arch in ARCHES.values()}:
        modelled = {arch.page_size_bytes for arch in ARCHES.values() if arch.family == family}
        assert modelled == set(known[family])
