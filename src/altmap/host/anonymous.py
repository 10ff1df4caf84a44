"""A sysroot without what identifies its machine, and with all that a prediction needs."""

from __future__ import annotations

import re
from collections.abc import Iterator

from altmap.host.platforms import platform_of
from altmap.linux.evidence import evidence_of
from altmap.linux.observation import Observation
from altmap.linux.paths import UNAME
from altmap.linux.sysroot import Sysroot

__all__ = ("anonymous",)

#: Words of the kernel's command line that say something about memory, and no more than that.
_WORDS = re.compile(
    r"(?:memory_hotplug\.\w+|memhp_default_state|movable_node|movablecore|kernelcore|mem|cma|numa"
    r"|hugepages|hugepagesz|default_hugepagesz|hugetlb_\w+|transparent_hugepage|crashkernel"
    r"|page_owner|page_poison|debug_pagealloc|init_on_alloc|init_on_free|nokaslr|pci"
    r"|virtio_mmio\.device)(?:=[\w.,:%@+~-]*)?"
)
_NUMBERS = re.compile(r"[0-9]+\.[0-9]+(?:\.[0-9]+)?")
_RULES = re.compile(r"((?:etc|lib|run|usr/lib)/udev/rules\.d)/([0-9]*)([^/]*)")
_DISTRIBUTION = ("lib/", "usr/lib/")
_DROPPED = (
    "boot/",
    "proc/1/",
    "proc/config.gz",
    "proc/cpuinfo",
    "proc/device-tree/",
    "proc/kpagecgroup.names",
    "proc/ppc64/",
    "proc/self/",
    "proc/sysinfo",
    "sos_commands/kernel/",
    "sos_commands/processor/",
    "sys/devices/virtual/dmi/",
    "sys/firmware/devicetree/",
)


def anonymous(sysroot: Sysroot) -> Sysroot:
    """Return a copy without names, builders, UUIDs and vendors, but for that of a hypervisor.

    Of the kernel's version the numbers stay, and the architecture; of its command line the words
    about memory; of udev's rules the lines about memory; the names of an administrator's own rules
    files become numbers.
    """
    made = Sysroot(
        dict(sysroot.files), dict(sysroot.links), sysroot.unreadable, dict(sysroot.pages)
    )
    for path in [path for path in made.files if path.startswith(_DROPPED)]:
        del made.files[path]
    made.files[UNAME] = _uname(sysroot).encode()
    found = platform_of(sysroot)
    if found.path and found.path not in made.files:
        made.files[found.path] = f"{found.word}\n".encode()
    for path, text in _rewritten(sysroot):
        made.files[path] = text.encode()
    _hide_rules(made)
    return made


def _rewritten(sysroot: Sysroot) -> Iterator[tuple[str, str]]:
    for path, before in (("proc/version", "Linux version "), ("proc/sys/kernel/osrelease", "")):
        text = sysroot.text(path)
        if text is not None:
            yield path, f"{before}{_release(sysroot, text)}\n"
    cmdline = sysroot.text("proc/cmdline")
    if cmdline is not None:
        words = [word for word in cmdline.split() if _WORDS.fullmatch(word)]
        yield "proc/cmdline", " ".join(words) + "\n"


def _release(sysroot: Sysroot, text: str) -> str:
    numbers = _NUMBERS.search(text)
    name = evidence_of(sysroot.files).machine
    return (numbers[0] if numbers else "") + (f"-{name}" if name else "")


def _uname(sysroot: Sysroot) -> str:
    """Return release, machine and page size, by whatever evidence they are known."""
    seen = Observation.read(sysroot)
    sizes = seen.evidence.page_sizes
    lines = [] if seen.release is None else [f"release {_release(sysroot, seen.release)}"]
    lines += [] if seen.machine is None else [f"machine {seen.machine}"]
    lines += [f"page_size {each.value}" for each in sizes[:1] if not each.inferred]
    return "".join(f"{line}\n" for line in lines)


def _hide_rules(made: Sysroot) -> None:
    rules = {path: match for path in made.files if (match := _RULES.fullmatch(path))}
    known = {match[2] + match[3] for path, match in rules.items() if path.startswith(_DISTRIBUTION)}
    for number, (path, match) in enumerate(sorted(rules.items())):
        raw = made.files.pop(path)
        if match[2] + match[3] not in known:
            path = f"{match[1]}/{match[2]}-local-memory-{number}.rules"
        made.files[path] = b"".join(line + b"\n" for line in _lines_about_memory(raw))


def _lines_about_memory(raw: bytes) -> Iterator[bytes]:
    joined = raw.replace(b"\\\n", b" ")
    return (line for line in joined.splitlines() if b'"memory"' in line and line[:1] != b"#")
