"""What the kernel's log says about memory hotplug: block, owner, rule and remedy."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from altmap.host.blockers import Blocks
from altmap.host.errnos import Reason, reason_named, reasons_of_number
from altmap.host.log_messages import LogMessage, message_in
from altmap.host.page_dump import DumpReader, PageDump
from altmap.linux.kernel_log import KernelLine, kernel_lines
from altmap.linux.observation import Observation

__all__ = ("LogExplanation", "LogFinding", "explain_log")

_MOST_FINDINGS = 1000
_MOST_BYTES = 1 << 52
_MIB = 1 << 20
_BLOCK_SIZE = re.compile(
    r"(?:x86/mm: Memory block size: (?P<mib>\d{1,7})MB|Block size \[(?P<a>0x[0-9a-f]{1,12})\]"
    r"|virtio_mem virtio\d{1,6}: memory block size: (?P<b>0x[0-9a-f]{1,12}))"
)
#: Lines that only kernels with pages of 4 KiB write.
_SMALL_PAGES = re.compile(r"x86/|BIOS-e820: |setup: Linux is running as a (?:z/VM|guest)|KVM: hw")
_VERSION = re.compile(r"Linux version (\S{1,100})")


@dataclass(frozen=True, slots=True)
class LogFinding:
    """One message about memory hotplug; equal ones that follow each other are counted.

    Attributes
    ----------
    message : str
        Name in :data:`altmap.host.log_messages.MESSAGES`.
    source : str
        The kernel's file and function.
    text, time : str
        The first such message, and when it was logged.
    line, count : int
        The line of the input, and how many such messages there are.
    says : str
    reasons : tuple of Reason
        The rule behind it; several where the message does not decide.
    blocks : (int, int) or None
        The first and last memory block.
    start_address, end_address : int or None
        Bytes, half-open, as the message names them.
    pfn : int or None
        The page that the message names, or the dump before it.
    page : PageDump or None
        The dump of the page.
    device : str or None
        As the message names it, or the machine's files the owner of the blocks.
    now : str
        What the machine's files say about the blocks now.
    """

    message: str
    source: str
    text: str
    time: str
    line: int
    count: int = 1
    says: str = ""
    reasons: tuple[Reason, ...] = ()
    blocks: tuple[int, int] | None = None
    start_address: int | None = None
    end_address: int | None = None
    pfn: int | None = None
    page: PageDump | None = None
    device: str | None = None
    now: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        """What equal messages have in common."""
        return self.message, self.blocks, self.start_address, self.pfn, self.device, self.says


@dataclass(frozen=True, slots=True)
class LogExplanation:
    """The messages of a log about memory hotplug.

    Attributes
    ----------
    findings : list of LogFinding
    nr_lines : int
        Lines of the kernel that were read.
    notes : list of str
    """

    findings: list[LogFinding]
    nr_lines: int
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        from altmap.host.text.log import log_text

        return log_text(self)


@dataclass(slots=True)
class _Sizes:
    """Sizes that turn addresses and page frames into blocks: of the files, or of the log."""

    page_bytes: int | None
    block_bytes: int | None

    def learn(self, text: str) -> None:
        if self.block_bytes is None and (match := _BLOCK_SIZE.search(text)) is not None:
            size = int(match["mib"]) * _MIB if match["mib"] else int(match["a"] or match["b"], 16)
            self.block_bytes = size or None
        if self.page_bytes is None and _SMALL_PAGES.search(text):
            self.page_bytes = 4096

    def blocks(self, start: int, end: int) -> tuple[int, int] | None:
        if self.block_bytes is None:
            return None
        return start // self.block_bytes, max(start, end - 1) // self.block_bytes


def explain_log(lines: Iterable[str], seen: Observation | None = None) -> LogExplanation:
    """Return what a log says about memory hotplug.

    Parameters
    ----------
    lines : iterable of str
        As :func:`altmap.linux.kernel_log.kernel_lines` reads them.
    seen : Observation, optional
        The files of the same machine: they name owners, and the sizes of pages and blocks.
    """
    blocks = None if seen is None or seen.memory is None else Blocks(seen)
    sizes = _Sizes(
        None if blocks is None else blocks.page_size_bytes,
        None if seen is None or seen.memory is None else seen.memory.block_size_bytes,
    )
    found: list[LogFinding] = []
    nr_lines, nr_left_out, version = 0, 0, ""
    dumps = DumpReader()
    for line in kernel_lines(lines):
        nr_lines += 1
        sizes.learn(line.text)
        if (match := _VERSION.match(line.text)) is not None:
            version = match[1]
        dumps.feed(line.text)
        named = message_in(line.text)
        if named is None:
            continue
        finding = _with_page(_finding(line, *named), dumps, named[0])
        if not _merged(found, finding):
            if len(found) < _MOST_FINDINGS:
                found.append(finding)
            else:
                nr_left_out += 1
    placed = [_placed(finding, sizes) for finding in found]
    if blocks is not None:
        placed = [_owned(each, blocks) for each in placed]
    notes = list(_notes(placed, sizes, version, seen))
    if nr_left_out:
        notes.append(f"{nr_left_out} further messages are left out")
    return LogExplanation(placed, nr_lines, notes)


def _finding(line: KernelLine, message: LogMessage, named: dict[str, str]) -> LogFinding:
    says = message.says
    if message.rule:
        reasons = [reason_named(message.rule)]
    elif "error" in named and message.operation:
        reasons = reasons_of_number(int(named["error"]), message.operation)
    else:
        reasons = []
    start, end = _range(named)
    block = int(named["block"].removeprefix("memory")) if "block" in named else None
    return LogFinding(
        message.name,
        message.source,
        line.text,
        line.time,
        line.number,
        says=says,
        reasons=tuple(reasons),
        blocks=None if block is None else (block, block),
        start_address=start,
        end_address=end,
        pfn=int(named["pfn"], 16) if "pfn" in named else None,
        device=named.get("device") or named.get("other"),
    )


def _range(named: dict[str, str]) -> tuple[int, int] | tuple[None, None]:
    """Return the bytes that a message names, half-open; nothing above what can be addressed."""
    if "mib" in named:
        start = int(named["at_mib"]) * _MIB
        end = start + int(named["mib"]) * _MIB
    elif "start" in named:
        start = int(named["start"], 16)
        end = start + 1
        if "end" in named:
            end = int(named["end"], 16) + 1
        elif "past" in named:
            end = int(named["past"], 16)
        elif "size" in named:
            end = start + int(named["size"], 16)
    else:
        return None, None
    return (start, end) if start < end <= _MOST_BYTES else (None, None)


def _with_page(finding: LogFinding, dumps: DumpReader, message: LogMessage) -> LogFinding:
    """Add the page whose dump the message ends."""
    if not message.name.startswith("dump-"):
        return finding
    page = dumps.take()
    return finding if page is None else replace(finding, page=page, pfn=page.pfn)


def _merged(found: list[LogFinding], finding: LogFinding) -> bool:
    """Join a message with the one before it, if it is the same or explains it."""
    if not found:
        return False
    before = found[-1]
    if before.key == finding.key:
        found[-1] = replace(before, count=before.count + 1)
        return True
    if before.message != "dump-unmovable" or finding.message != "offline-isolation":
        return False
    merged = replace(finding, page=before.page, pfn=before.pfn, line=before.line)
    if len(found) > 1 and found[-2].key == merged.key:
        found[-2] = replace(found[-2], count=found[-2].count + 1)
        found.pop()
    else:
        found[-1] = merged
    return True


def _placed(finding: LogFinding, sizes: _Sizes) -> LogFinding:
    """Add the memory blocks of what a message names."""
    if finding.blocks is not None:
        return finding
    if finding.start_address is not None and finding.end_address is not None:
        blocks = sizes.blocks(finding.start_address, finding.end_address)
        return replace(finding, blocks=blocks)
    if finding.pfn is not None and sizes.page_bytes is not None:
        address = finding.pfn * sizes.page_bytes
        if address < _MOST_BYTES:
            return replace(finding, blocks=sizes.blocks(address, address + 1))
    return finding


def _owned(finding: LogFinding, blocks: Blocks) -> LogFinding:
    """Add the owner of a message's first block, and its state now."""
    if finding.blocks is None:
        return finding
    nr = finding.blocks[0]
    state = blocks.state(nr)
    if state is None:
        return replace(finding, now=f"memory{nr} does not exist now")
    device, zones = blocks.device(nr), "/".join(blocks.zones(nr))
    now = f"memory{nr} is {state} now" + (f", zone {zones}" if zones else "")
    if device is None or finding.device is not None:
        return replace(finding, now=now)
    return replace(finding, now=now, device=f"{device.name} ({device.driver})")


def _notes(
    found: list[LogFinding], sizes: _Sizes, version: str, seen: Observation | None
) -> Iterator[str]:
    if any(each.pfn is not None and each.blocks is None for each in found) and not (
        sizes.page_bytes and sizes.block_bytes
    ):
        yield (
            "the log names page frames, but not the size of pages or memory blocks: name the "
            "machine's SYSROOT (/ for this host) to get blocks and owners"
        )
    if any(each.page is not None and each.page.pfn is None for each in found):
        yield (
            "before 5.9 the log names the address of a struct page, which tells no page frame: "
            "altmap explain BLOCK names the pages"
        )
    if version and seen is not None and seen.version and version not in seen.version.split():
        yield f"the log is of Linux {version}, the files of another kernel: owners may differ"
