"""What machine a sysroot is of: architecture, page size and release, each with its ground.

No file names the page size, and before 6.1 none the architecture. So what only one architecture has
is looked for. Two files that name different machines are an error; what only follows from a file by
a rule decides where none names it, and is passed over with a note where one does.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from altmap.errors import InputError
from altmap.linux import version
from altmap.linux.paths import UNAME, UNAME_OF_SOS, text_of

__all__ = (
    "NOTHING_GIVEN",
    "PAGE_SIZES",
    "Evidence",
    "Given",
    "Indication",
    "agreed",
    "config_options",
    "evidence_of",
    "passed_over",
)

_KIB = 1 << 10
#: What Linux can be built with for each machine (``arch/*/Kconfig``).
PAGE_SIZES: tuple[tuple[str, tuple[int, ...]], ...] = (
    ("x86_64", (4 * _KIB,)),
    ("i686", (4 * _KIB,)),
    ("s390x", (4 * _KIB,)),
    ("riscv64", (4 * _KIB,)),
    ("aarch64", (4 * _KIB, 16 * _KIB, 64 * _KIB)),
    ("loongarch64", (4 * _KIB, 16 * _KIB, 64 * _KIB)),
    ("ppc64le", (4 * _KIB, 64 * _KIB)),
    ("ppc64", (4 * _KIB, 64 * _KIB)),
)
_LSCPU = "sos_commands/processor/lscpu"
_CONFIG = re.compile(r"boot/config-(.+)")
_CONFIG_GZ = "proc/config.gz"
_MOST_CONFIG_BYTES = 4 << 20
_GZIP = 31


class Indication(NamedTuple):
    """A value, the file that it is from, and whether it follows from there only by a rule."""

    value: str | int
    ground: str
    inferred: bool = False


class Given(NamedTuple):
    """What a user says of a machine, which no evidence contradicts."""

    machine: str | None = None
    page_size_bytes: int | None = None
    release: str | None = None


NOTHING_GIVEN = Given()


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the files tell of their machine, the strongest first.

    Attributes
    ----------
    machines : tuple of Indication
        As ``uname -m``.
    page_sizes : tuple of Indication
        In bytes.
    releases : tuple of Indication
        As ``uname -r``.
    options : mapping of str to str or None
        Options that the kernel's configuration sets, without ``CONFIG_``; ``None`` without one.
    """

    machines: tuple[Indication, ...] = ()
    page_sizes: tuple[Indication, ...] = ()
    releases: tuple[Indication, ...] = ()
    options: Mapping[str, str] | None = None

    @property
    def machine(self) -> str | None:
        """The machine by the strongest evidence."""
        return str(self.machines[0].value) if self.machines else None


def agreed(what: str, findings: Sequence[Indication]) -> Indication | None:
    """Return the strongest of findings, ``None`` if there is none.

    Raises
    ------
    InputError
        If another one contradicts it, and is named as it is, or inferred as it is.
    """
    for other in findings[1:]:
        if other.value != findings[0].value and other.inferred == findings[0].inferred:
            raise InputError(
                f"the files contradict each other: {what} is {findings[0].value} by "
                f"{findings[0].ground}, and {other.value} by {other.ground}: say which with "
                "--arch and --set page_size="
            )
    return findings[0] if findings else None


def passed_over(what: str, findings: Sequence[Indication]) -> Iterator[str]:
    """Yield a note for each inference that a file which names the value overrules."""
    for other in findings[1:]:
        if other.inferred and not findings[0].inferred and other.value != findings[0].value:
            yield (
                f"{what} is {findings[0].value} by {findings[0].ground}, although "
                f"{other.ground} is of {other.value}"
            )


def evidence_of(files: Mapping[str, bytes], given: Given = NOTHING_GIVEN) -> Evidence:
    """Return what the files tell, or what is given instead."""
    texts = _Texts(files)
    releases = tuple(_releases(texts))
    if given.release is not None:
        releases = (Indication(given.release, "--release"),)
    machines: tuple[Indication, ...] = tuple(_machines(texts))
    sizes: tuple[Indication, ...] = tuple(_page_sizes(texts, machines))
    if given.machine is not None:
        machines = (Indication(given.machine, "--arch"),)
    if given.page_size_bytes is not None:
        sizes = (Indication(given.page_size_bytes, "what was given"),)
    return Evidence(machines, sizes, releases, config_options(texts.config) or None)


def config_options(config: str) -> dict[str, str]:
    """Return the options that the text of a kernel's configuration sets, without ``CONFIG_``."""
    return dict(re.findall(r"^CONFIG_(\w+)=(\S+)", config, re.MULTILINE))


class _Texts:
    """Texts of the files by path, empty where there is none."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self._config: str | None = None

    def __getitem__(self, path: str) -> str:
        return text_of(self.files.get(path, b""))

    @property
    def config(self) -> str:
        """The kernel's configuration: of the kernel that runs, if there are several."""
        if self._config is None:
            self._config = self._find_config()
        return self._config

    def _find_config(self) -> str:
        names = [path for path in self.files if _CONFIG.fullmatch(path)]
        running = [f"boot/config-{each.value}" for each in _releases(self)]
        for path in (*(path for path in running if path in names), *names[:1]):
            if path in running or len(names) == 1:
                return self[path]
        raw = self.files.get(_CONFIG_GZ, b"")
        try:
            return text_of(zlib.decompressobj(_GZIP).decompress(raw, _MOST_CONFIG_BYTES))
        except zlib.error:
            return ""


# --- the release -----------------------------------------------------------------------------


def _releases(texts: _Texts) -> Iterator[Indication]:
    for path, pattern in (
        ("proc/version", r"Linux version (\S+)"),
        ("proc/sys/kernel/osrelease", r"(\S+)"),
        (UNAME, r"release (\S+)"),
        (UNAME_OF_SOS, r"\S+ (?:\S+ )?([0-9]+\.[0-9]+\S*) "),
    ):
        match = re.match(pattern, texts[path])
        if match and re.match(r"[0-9]+\.[0-9]+", match[1]):
            yield Indication(match[1], path, path == UNAME_OF_SOS)


# --- the architecture ------------------------------------------------------------------------

#: Other names of machines, as distributions have them.
_ALIASES = (
    ("amd64", "x86_64"),
    ("arm64", "aarch64"),
    ("powerpc64le", "ppc64le"),
    ("ppc64el", "ppc64le"),
)
_WORD = "x86_64|amd64|aarch64|arm64|ppc64le|powerpc64le|ppc64el|s390x|riscv64|loongarch64"
#: What Linux calls its machines (``arch/*/Makefile: UTS_MACHINE``); another word is damage.
_UTS_MACHINE = re.compile(
    r"x86_64|i[3-6]86|aarch64(?:_be)?|arm(?:v[4-8]\w*)?|ppc(?:64)?(?:le)?|s390x?|riscv(?:32|64)?"
    r"|loongarch(?:32|64)|mips(?:64)?|sparc(?:64)?|alpha|parisc(?:64)?|m68k|sh\w*|xtensa|arc|csky"
    r"|hexagon|microblaze|nios2|openrisc|um|ia64"
)
#: Places where a machine is named: path, and a pattern of the word.
_NAMED: tuple[tuple[str, str], ...] = (
    ("proc/sys/kernel/arch", r"^(\S+)$"),
    (UNAME, r"^machine (\S+)$"),
    (UNAME_OF_SOS, rf" (?:{_WORD}|i[3-6]86)(?= )(?!.* (?:{_WORD}) )"),
    (_LSCPU, r"^Architecture: +(\S+)$"),
)
#: What a kernel's own text names: the flavour of its release, its compiler, who built it.
_BUILT: tuple[tuple[str, str], ...] = (
    ("proc/version", rf"\b({_WORD})-(?:[a-z0-9]+-)*linux[a-z-]*-(?:gcc|clang|ld)\b"),
    ("proc/version", rf"\(buildd@[a-z0-9-]+-({_WORD})-[0-9]+\)"),
)
#: Options of the configuration that one architecture sets.
_OPTIONS: tuple[tuple[str, str], ...] = (
    ("CONFIG_X86_64", "x86_64"),
    ("CONFIG_ARM64", "aarch64"),
    ("CONFIG_S390", "s390x"),
    ("CONFIG_RISCV", "riscv64"),
    ("CONFIG_LOONGARCH", "loongarch64"),
)


class _Mark(NamedTuple):
    """What only one architecture shows in a file."""

    machine: str
    path: str
    pattern: str
    what: str


_MARKS = (
    _Mark(
        "x86_64",
        "proc/iomem",
        r"^ *[0-9a-f]+-[0-9a-f]+ : ((?:Local APIC|IOAPIC [0-9]+|(?:Video|System|Adapter) ROM))$",
        "arch/x86/kernel: probe_roms, insert_resource",
    ),
    _Mark("x86_64", "proc/cpuinfo", r"^flags\t*: .*\b(lm)\b", "X86_FEATURE_LM"),
    _Mark(
        "x86_64",
        "proc/meminfo",
        r"^(VmallocTotal: +(?:34359738367|13743895347199) kB)$",
        "VMALLOC_SIZE_TB_L4, VMALLOC_SIZE_TB_L5",
    ),
    _Mark("x86_64", "proc/vmstat", r"^(direct_map_level2_splits) ", "arch/x86/mm/pat/set_memory.c"),
    _Mark("aarch64", "proc/cpuinfo", r"^(CPU architecture: 8)$", "arch/arm64/kernel/cpuinfo.c"),
    _Mark(
        "aarch64",
        "proc/iomem",
        r"^ *[0-9a-f]+-[0-9a-f]+ : (ARMH[0-9A-F]{4}:[0-9a-f]+|LNRO[0-9]{4}:[0-9a-f]+|.*pl011@.*)",
        "devices of Arm's platforms",
    ),
    _Mark("ppc64le", "proc/cpuinfo", r"^(machine\t*: (?:CHRP IBM|PowerNV))", "setup-common.c"),
    _Mark("ppc64le", "proc/ppc64/lparcfg", r"^(lparcfg [0-9.]+)", "pseries/lparcfg.c"),
    _Mark("s390x", "proc/cpuinfo", r"^(vendor_id +: IBM/S390)", "arch/s390/kernel/processor.c"),
    _Mark("s390x", "proc/sysinfo", r"^(Manufacturer: +IBM)", "arch/s390/kernel/sysinfo.c"),
    _Mark("s390x", "proc/meminfo", r"^(DirectMap1M): ", "arch/s390/mm/pageattr.c"),
    _Mark("riscv64", "proc/cpuinfo", r"^(isa\t*: rv64)", "arch/riscv/kernel/cpu.c"),
    _Mark("loongarch64", "proc/cpuinfo", r"^(CPU Family\t*: Loongson)", "arch/loongarch"),
)
#: Sizes of a PMD, which is the default huge page, that one architecture has alone (``pgtable.h``).
_HUGE_KIB = (("1024", "s390x"), ("16384", "ppc64le"), ("32768", "aarch64"), ("524288", "aarch64"))


def _machines(texts: _Texts) -> Iterator[Indication]:
    for path, pattern in _NAMED:
        match = re.search(pattern, texts[path], re.MULTILINE)
        name = _plain(match[match.lastindex or 0].strip()) if match else ""
        if _UTS_MACHINE.fullmatch(name):
            yield Indication(name, path)
    for each in _releases(texts):
        flavour = version.flavour_of(str(each.value))
        if flavour is not None:
            yield Indication(flavour, f"{each.ground} ({each.value})")
    for option, name in _OPTIONS:
        if re.search(rf"^{option}=y$", texts.config, re.MULTILINE):
            yield Indication(name, f"{option} of the kernel's configuration")
    if re.search("^CONFIG_PPC64=y$", texts.config, re.MULTILINE):
        little = "CONFIG_CPU_LITTLE_ENDIAN=y" in texts.config
        yield Indication("ppc64le" if little else "ppc64", "CONFIG_PPC64 of the configuration")
    for path, pattern in _BUILT:
        match = re.search(pattern, texts[path])
        if match:
            yield Indication(_plain(match[1]), f"{path} ({match[0]})", inferred=True)
    for mark in _MARKS:
        match = re.search(mark.pattern, texts[mark.path], re.MULTILINE)
        if match:
            yield Indication(mark.machine, f"{mark.path} ({match[1]})", inferred=True)
    huge = _huge_page_kib(texts)
    for kib, name in _HUGE_KIB:
        if kib == huge:
            yield Indication(name, f"proc/meminfo (Hugepagesize: {kib} kB)", inferred=True)


def _plain(word: str) -> str:
    return next((name for alias, name in _ALIASES if alias == word), word)


def _huge_page_kib(texts: _Texts) -> str | None:
    """Return the size of a PMD: that of huge pages, unless the command line chose another."""
    if "default_hugepagesz=" in texts["proc/cmdline"]:
        return None
    match = re.search(r"^Hugepagesize: +([0-9]+) kB$", texts["proc/meminfo"], re.MULTILINE)
    return match[1] if match else None


# --- the page size ---------------------------------------------------------------------------

#: A PMD of 8-byte entries maps ``page * page / 8`` bytes, where page tables have one page each
#: (``arch/arm64/include/asm/pgtable-hwdef.h: PMD_SHIFT``).
_PMD_KIB = (("2048", 4 * _KIB), ("32768", 16 * _KIB), ("524288", 64 * _KIB))
_AT_PAGESZ = 6


def _page_sizes(texts: _Texts, machines: Sequence[Indication]) -> Iterator[Indication]:
    match = re.search(r"^page_size ([0-9]{1,7})$", texts[UNAME], re.MULTILINE)
    if match:
        yield Indication(int(match[1]), UNAME)
    match = re.search(
        r"^CONFIG_(?:ARM64|PPC)?_?(?:PAGE_SIZE_)?(4|16|64)K(?:B|_PAGES)=y$",
        texts.config,
        re.MULTILINE,
    )
    if match:
        yield Indication(int(match[1]) * _KIB, f"the kernel's configuration ({match[0]})")
    for path in ("proc/self/auxv", "proc/1/auxv"):
        size = _page_size_of_auxv(texts.files.get(path, b""))
        if size is not None:
            yield Indication(size, f"{path} (AT_PAGESZ)")
    for path in ("proc/self/smaps", "proc/1/smaps"):
        sizes = re.findall(r"^KernelPageSize: +([0-9]{1,9}) kB$", texts[path], re.MULTILINE)
        if sizes:
            yield Indication(min(map(int, sizes)) * _KIB, f"{path} (KernelPageSize)")
    for each in _releases(texts):
        match = re.search(r"[-+.](4|16|64)k(?:[-+][a-z]+)?$", str(each.value))
        if match:
            yield Indication(int(match[1]) * _KIB, f"{each.ground} ({each.value})")
    huge = _huge_page_kib(texts)
    for kib, size in _PMD_KIB:
        if kib == huge and machines and machines[0].value in _WITH_PMD_OF_A_PAGE:
            yield Indication(size, f"proc/meminfo (Hugepagesize: {kib} kB)", inferred=True)


_WITH_PMD_OF_A_PAGE = frozenset({name for name, sizes in PAGE_SIZES if len(sizes) > 2})


def _page_size_of_auxv(raw: bytes) -> int | None:
    """Return AT_PAGESZ of ``/proc/PID/auxv``: pairs of words, in the machine's byte order."""
    for order in "<>":
        whole = raw[: len(raw) - len(raw) % 16]
        table = dict(struct.iter_unpack(f"{order}QQ", whole))
        size = table.get(_AT_PAGESZ, 0)
        if size in {size for _, sizes in PAGE_SIZES for size in sizes}:
            return int(size)
    return None
