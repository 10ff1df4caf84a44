"""Explanations of the kernel's log: lines that real kernels wrote, and the formats of others."""

import io
import json
import os
from pathlib import Path

import pytest

from altmap.cli.main import main
from altmap.host import log_reader
from altmap.host.errnos import REASONS, reasons_of_number
from altmap.host.explain import explain_block
from altmap.host.explain_log import explain_log
from altmap.host.log_messages import MESSAGES, message_in
from altmap.host.page_dump import DumpReader
from altmap.linux.kernel_log import kernel_lines
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.machine import ModelMachine
from altmap.model.pageblocks import first_dumped_pfn
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine, Offline

HERE = Path(__file__).parent
DIMM = HERE.parent / "recordings/files/linux-6.12-dimm.tar.xz"
MOVABLECORE = HERE / "machines/movablecore-6.12.tar.gz"

#: A line of each message as the kernel's format writes it, the message, the rule, and what the
#: line names: (start, end) of a range in bytes or a page frame, and the device.
LINES = [
    # the lab: 6.1, 6.12, 7.3
    (
        "memory offlining [mem 0x108000000-0x10fffffff] failed due to failure to isolate range",
        *("offline-isolation", "unmovable-pages", (0x108000000, 0x110000000), None),
    ),
    (
        "memory offlining [mem 0x38000000-0x3fffffff] failed due to memory holes",
        *("offline-holes", "memory-hole", (0x38000000, 0x40000000), None),
    ),
    ("page dumped because: unmovable page", "dump-unmovable", "unmovable-pages", None, None),
    ("Offlined Pages 32768", "offlined", "", None, None),
    (
        "Built 1 zonelists, mobility grouping on.  Total pages: 242120",
        *("zonelists", "", None, None),
    ),
    (
        "Block size [0x8000000] unaligned hotplug range: start 0x120000000, size 0x4000000",
        *("unaligned", "unaligned-range", (0x120000000, 0x124000000), None),
    ),
    ("acpi PNP0C80:01: add_memory failed", "acpi-add", "", None, "PNP0C80:01"),
    (
        "acpi PNP0C80:01: acpi_memory_enable_device() error",
        *("acpi-enable", "", None, "PNP0C80:01"),
    ),
    ("memory memory33: Offline failed.", "acpi-offline", "dimm-block-refused", None, None),
    (
        "Memory failure: 0x109000: memory outside kernel control",
        "poison-outside",
        "",
        0x109000,
        None,
    ),
    ("Memory failure: 0x108000: unhandlable page.", "poison-unhandled", "", 0x108000, None),
    (
        "Memory failure: 0x8100: recovery action for dirty LRU page: Recovered",
        *("poison-recovered", "", 0x8100, None),
    ),
    (
        "virtio_mem virtio0: requested size: 0x20000000",
        *("virtio-mem-request", "", None, "virtio0"),
    ),
    (
        "ACPI: SRAT: Node 0 PXM 0 [mem 0x100000000-0x193fffffff] hotplug",
        *("hotplug-region", "", (0x100000000, 0x1940000000), None),
    ),
    # formats of mm/memory_hotplug.c
    (
        "memory offlining [mem 0x100000000-0x107ffffff] failed",  # to 4.19
        *("offline-no-reason", "unmovable-pages", (0x100000000, 0x108000000), None),
    ),
    (
        "memory offlining [mem 0x100000000-0x107ffffff] failed due to multizone range",
        *("offline-zones", "several-zones", (0x100000000, 0x108000000), None),
    ),
    (
        "memory offlining [mem 0x100000000-0x107ffffff] failed due to notifier failure",
        *("offline-notifier", "offline-vetoed", (0x100000000, 0x108000000), None),
    ),
    (
        "memory offlining [mem 0x82600000000-0x8267fffffff] failed due to signal backoff",
        *("offline-signal", "retries-until-signal", (0x82600000000, 0x82680000000), None),
    ),
    (
        "memory offlining [mem 0x100000000-0x107ffffff] failed due to unmovable page",
        *("offline-unmovable", "referenced-fake-offline", (0x100000000, 0x108000000), None),
    ),
    (
        "memory offlining [mem 0x100000000-0x107ffffff] failed due to failure to dissolve huge "
        "pages",
        *("offline-hugetlb", "promised-huge-page", (0x100000000, 0x108000000), None),
    ),
    (
        "online_pages [mem 0x100000000-0x107ffffff] failed",
        *("online-failed", "online-without-memory", (0x100000000, 0x108000000), None),
    ),
    (
        "page dumped because: migration failure",
        "dump-migration",
        "retries-until-signal",
        None,
        None,
    ),
    ("page dumped because: isolation failed", "dump-isolation", "retries-until-signal", None, None),
    (
        "migrating pfn 10a3f failed ret:1 ",
        *("migrating-failed", "retries-until-signal", 0x10A3F, None),
    ),
    ("failed to isolate pfn 10a3f", "isolate-failed", "retries-until-signal", 0x10A3F, None),
    (
        "Section-unaligned hotplug range: start 0x120000000, size 0x4000000",  # to 4.16
        *("unaligned", "unaligned-range", (0x120000000, 0x124000000), None),
    ),
    (
        "Hotplug memory [0x400000000000-0x400007ffffff] exceeds maximum addressable range "
        "[0x0-0x3fffffffffff]",
        *("exceeds", "beyond-addresses", (0x400000000000, 0x400008000000), None),
    ),
    (
        "Hotplugged memory exceeds maximum addressable address, "  # 5.6 to 5.11
        "range=0x400000000000-0x400007ffffff, maximum=0x3fffffffffff",
        *("exceeds", "beyond-addresses", (0x400000000000, 0x400008000000), None),
    ),
    (
        "Unable to reserve System RAM region: 0000000100000000->0000000108000000",
        *("not-reserved", "addresses-taken", (0x100000000, 0x108000000), None),
    ),
    (
        "System RAM resource [mem 0x100000000-0x107ffffff flags 0x1000200] cannot be added",
        *("resource-taken", "addresses-taken", (0x100000000, 0x108000000), None),
    ),
    ("node 1 was absent from the node_possible_map", "node-absent", "impossible-node", None, None),
    (
        "kworker/u2:1: vmemmap alloc failure: order:9, mode:0x4cc0(GFP_KERNEL), nodemask=0",
        *("vmemmap", "no-memory-for-memmap", None, None),
    ),
    ("memory add fail, invalid altmap", "invalid-altmap", "unaligned-memmap", None, None),
    (
        "removing memory fails, because memory [0x0000000100000000-0x0000000107ffffff] is onlined",
        *("remove-online", "block-still-online", (0x100000000, 0x108000000), None),
    ),
    (
        "try_reonline_memory_block: Failed to re-online memory: -22",
        *("not-onlined-again", "", None, None),
    ),
    # architectures
    (
        "Boot memory [40000000 48000000] offlining attempted",
        *("boot-memory-offline", "arm64-boot-memory", (0x40000000, 0x48000000), None),
    ),
    (
        "[d8200000 e0000000] splits a leaf entry in vmemmap",
        *("leaf-split", "arm64-leaf-split", (0xD8200000, 0xE0000000), None),
    ),
    (
        "Unable to create linear mapping for 0x100000000..0x110000000: -1",
        *("linear-mapping", "no-linear-mapping", (0x100000000, 0x110000000), None),
    ),
    (
        "Unable to create mapping for hot added memory 0x100000000..0x110000000: -28",
        *("linear-mapping", "no-linear-mapping", (0x100000000, 0x110000000), None),
    ),
    (
        "sclp_cmd: Standby memory at 0x40000000 (1024M of 1024M usable)",
        *("standby", "", (0x40000000, 0x40000001), None),
    ),
    (
        "sclp_cmd: assign storage failed (cmd=0x000d0001, response=0x0300, rn=0x0005)",
        *("standby-assign", "standby-refused", None, None),
    ),
    (
        "crashkernel reserved: 0x00000008c0000000 - 0x0000000940000000 (2048 MB)",
        *("crash-kernel", "", (0x8C0000000, 0x940000000), None),
    ),
    (
        "Reserving 512MB of memory at 2544MB for crashkernel (System RAM: 65535MB)",
        *("crash-kernel-old", "", (2544 << 20, 3056 << 20), None),
    ),
    (
        "crash hp: kexec_trylock() failed, kdump image may be inaccurate",
        *("crash-hotplug", "", None, None),
    ),
    # drivers
    ("acpi PNP0C80:00: device is empty", "acpi-empty", "", None, "PNP0C80:00"),
    (
        "acpi PNP0C80:00: Offline disabled.",
        *("acpi-offline-disabled", "eject-disabled", None, "PNP0C80:00"),
    ),
    (
        "acpi PNP0C80:00: Eject disabled",
        *("acpi-eject-disabled", "eject-disabled", None, "PNP0C80:00"),
    ),
    (
        r"ACPI: \_SB_.MHPC.MP00: Eject incomplete - status 0xf",
        *("acpi-eject-incomplete", "", None, None),
    ),
    (
        "kmem dax0.0: rejecting DAX region with invalid node: -1",
        *("kmem-node", "dax-without-node", None, "dax0.0"),
    ),
    (
        "kmem dax0.0: rejecting DAX region [mem 0x240000000-0x43fffffff] with invalid node: -1",
        *("kmem-node", "dax-without-node", (0x240000000, 0x440000000), "dax0.0"),
    ),
    (
        "kmem dax1.0: rejecting DAX region without any memory after alignment",
        *("kmem-nothing-left", "dax-too-small", None, "dax1.0"),
    ),
    (
        "kmem dax0.0: mapping0: 0x240000000-0x243ffffff too small after alignment",
        *("kmem-too-small", "", (0x240000000, 0x244000000), "dax0.0"),
    ),
    (
        "kmem dax0.0: mapping0: 0x240000000-0x247ffffff could not reserve region",
        *("kmem-reserve", "region-taken", (0x240000000, 0x248000000), "dax0.0"),
    ),
    (
        "kmem dax0.0: mapping0: 0x240000000-0x247ffffff memory add failed",
        *("kmem-add", "addresses-taken", (0x240000000, 0x248000000), "dax0.0"),
    ),
    (
        "kmem dax0.0: mapping1: 0x240000000-0x247ffffff cannot be hotremoved until the next reboot",
        *("kmem-stays", "kmem-block-online", (0x240000000, 0x248000000), "dax0.0"),
    ),
    (
        "kmem dax0.0: DAX region [mem 0x240000000-0x247ffffff flags 0x80000200] cannot be "
        "hotremoved until the next reboot",
        *("kmem-stays", "kmem-block-online", (0x240000000, 0x248000000), "dax0.0"),
    ),
    (
        "virtio_mem virtio3: memory block onlining denied",
        *("virtio-mem-denied", "virtio-mem-onlining", None, "virtio3"),
    ),
    (
        "virtio_mem virtio3: The alignment of the physical start address can make some memory "
        "unusable.",
        *("virtio-mem-alignment", "", None, "virtio3"),
    ),
    (
        "virtio_mem virtio3: Some device memory is not addressable/pluggable. This can make some "
        "memory unusable.",
        *("virtio-mem-unpluggable", "beyond-addresses", None, "virtio3"),
    ),
    (
        "virtio_mem virtio3: unknown error, marking device broken: -28",
        *("virtio-mem-broken", "", None, "virtio3"),
    ),
    (
        "virtio_mem virtio3: could not reserve device region",
        *("virtio-mem-region", "region-taken", None, "virtio3"),
    ),
    (
        "virtio_mem virtio3: device still has system memory added",
        *("virtio-mem-stays", "virtio-mem-in-use", None, "virtio3"),
    ),
    ("hv_balloon: Memory hot add failed", "hyperv-none-added", "", None, None),
    (
        "hv_balloon: Balloon request will be partially fulfilled. Balloon floor reached.",
        *("hyperv-partial-balloon", "", None, None),
    ),
    ("hv_balloon: Ignore hot-add request!", "hyperv-ignored", "", None, None),
    ("hv_balloon: Memory hot add disabled on ARM64", "hyperv-off", "", None, None),
    (
        "xen:balloon: Cannot allocate new System RAM resource",
        *("xen-resource", "", None, None),
    ),
    (
        "xen:balloon: Initial ballooning failed, 4096 pages need to be freed.",
        *("xen-initial", "", None, None),
    ),
    (
        "pseries-hotplug-mem: Memory hot-add failed, removing any added LMBs",
        *("dlpar-add-failed", "dlpar-add", None, None),
    ),
    (
        "pseries-hotplug-mem: Failed to hot-add memory, drc index 80000012",
        *("dlpar-lmb-not-added", "dlpar-add", None, None),
    ),
    (
        "pseries-hotplug-mem: Memory at 120000000 (drc index 80000012) was hot-added",
        *("dlpar-moved", "", (0x120000000, 0x120000001), None),
    ),
    (
        "pseries-hotplug-mem: Memory hot-remove failed, adding LMB's back",
        *("dlpar-remove-failed", "dlpar-remove", None, None),
    ),
    (
        "pseries-hotplug-mem: Not enough LMBs available (2 of 4) to satisfy request",
        *("dlpar-not-enough", "dlpar-remove", None, None),
    ),
    (
        "pseries-hotplug-mem: Failed to hot-remove memory at 120000000",
        *("dlpar-lmb-stays", "dlpar-remove", (0x120000000, 0x120000001), None),
    ),
    (
        "soft offline: 0x8100: page already poisoned",  # to 6.4
        *("soft-offline", "", 0x8100, None),
    ),
    (
        "Soft offline: 0x8100: in-use page isolation failed, page count 2, type 0x17ffffc0000000",
        *("soft-offline", "", 0x8100, None),
    ),
]
#: Lines with an errno, which decides the rules.
ERRORS = [
    ("kmem: probe of dax0.0 failed with error -22", "kmem-probe", 22, "add", "dax0.0"),
    (
        "kmem dax0.0: probe with driver kmem failed with error -17",
        "kmem-probe",
        17,
        "add",
        "dax0.0",
    ),
    ("virtio_mem virtio0: adding memory failed: -17", "virtio-mem-add", 17, "add", "virtio0"),
    (
        "virtio_mem virtio0: offlining and removing memory failed: -16",
        *("virtio-mem-remove", 16, "remove", "virtio0"),
    ),
    ("hv_balloon: hot_add memory failed error is -17", "hyperv-add", 17, "add", None),
    ("xen:balloon: Cannot add additional memory (-17)", "xen-add", 17, "add", None),
]


def findings(*lines, seen=None):
    return explain_log(lines, seen).findings


@pytest.mark.parametrize(("line", "message", "rule", "place", "device"), LINES)
def test_each_message_names_its_rule_and_place(line, message, rule, place, device):
    (found,) = findings(f"[    1.000000] {line}\n")
    assert found.message == message
    assert [reason.name for reason in found.reasons] == ([rule] if rule else [])
    named = (found.start_address, found.end_address) if isinstance(place, tuple) else found.pfn
    assert named == place
    assert found.device == device
    assert found.reasons or found.says


@pytest.mark.parametrize(("line", "message", "number", "operation", "device"), ERRORS)
def test_an_errno_in_a_message_selects_the_rules(line, message, number, operation, device):
    (found,) = findings(line)
    assert (found.message, found.device) == (message, device)
    assert found.reasons == tuple(reasons_of_number(-number, operation))
    assert {reason.operation for reason in found.reasons} == {operation}


def test_every_message_has_an_example_here():
    assert {message.name for message in MESSAGES} == {
        message for _, message, *_ in (*LINES, *ERRORS)
    }
    assert len({message.name for message in MESSAGES}) == len(MESSAGES)
    assert len({reason.name for reason in REASONS}) == len(REASONS)


@pytest.mark.parametrize(
    "line",
    [
        "systemd[1]: offlining",
        "Freeing unused kernel memory: 2048K",
        "Memory: 987654K/1048576K available",
        "xmemory offlining [mem 0x0-0x1] failed due to memory holes",
        "pstate: offline: 0",
    ],
)
def test_other_messages_are_passed_over(line):
    assert message_in(line) is None


MESSAGE = "memory offlining [mem 0x38000000-0x3fffffff] failed due to memory holes"


@pytest.mark.parametrize(
    ("line", "time"),
    [
        (MESSAGE, ""),
        (f"[   86.145664] {MESSAGE}", "86.145664"),
        (f"[   86.145664][  T312] {MESSAGE}", "86.145664"),
        (f"[   86.145664] [ T312] {MESSAGE}", "86.145664"),
        (f"<4>[   86.145664] {MESSAGE}", "86.145664"),
        (f"<12>{MESSAGE}", ""),
        (f"kern  :debug : [   86.145664] {MESSAGE}", "86.145664"),
        (f"[   86.145664 <    0.000012>] {MESSAGE}", "86.145664"),
        (f"[Sat Nov 28 19:16:05 2026] {MESSAGE}", "Sat Nov 28 19:16:05 2026"),
        (f"2026-11-28T19:16:05,145664+00:00 {MESSAGE}", "2026-11-28T19:16:05,145664+00:00"),
        (f"Nov 28 19:16:05 guest kernel: {MESSAGE}", "Nov 28 19:16:05"),
        (f"Nov  8 19:16:05 guest kernel: [   86.145664] {MESSAGE}", "Nov  8 19:16:05"),
        (f"Nov 28 19:16:05.145664 guest kernel: {MESSAGE}", "Nov 28 19:16:05.145664"),
        (f"2026-11-28T19:16:05+0000 guest kernel: {MESSAGE}", "2026-11-28T19:16:05+0000"),
        (
            f"2026-11-28T19:16:05.145664+00:00 g kernel: {MESSAGE}",
            "2026-11-28T19:16:05.145664+00:00",
        ),
        (f"Sat 2026-11-28 19:16:05 UTC guest kernel: {MESSAGE}", "Sat 2026-11-28 19:16:05 UTC"),
        (f"[   86.145664] guest kernel: {MESSAGE}", "86.145664"),
        (f"1795893365.145664 guest kernel: {MESSAGE}", "1795893365.145664"),
        (f"7,1042,86145664,-;{MESSAGE}", "86.145664"),
        (
            json.dumps(
                {
                    "_TRANSPORT": "kernel",
                    "_SOURCE_MONOTONIC_TIMESTAMP": "86145664",
                    "PRIORITY": "7",
                    "MESSAGE": MESSAGE,
                }
            ),
            "86.145664",
        ),
    ],
)
def test_what_stands_before_a_message_is_cut_off(line, time):
    (found,) = kernel_lines([line + "\n"])
    assert (found.time, found.text) == (time, MESSAGE)


@pytest.mark.parametrize(
    "line",
    [
        f"Nov 28 19:16:05 guest logger[77]: {MESSAGE}",
        f"[   86.145664] guest sshd[1]: {MESSAGE}",
        json.dumps({"_TRANSPORT": "syslog", "MESSAGE": MESSAGE}),
        json.dumps({"_TRANSPORT": "kernel", "MESSAGE": [109, 101]}),
        '{"MESSAGE": ',
        "{" * 1000,
        "",
        "\n",
    ],
)
def test_lines_of_other_programs_and_broken_ones_are_passed_over(line):
    assert list(kernel_lines([line])) == []


def test_json_of_dmesg_is_read():
    # util-linux: dmesg --json
    text = '{\n   "dmesg": [\n      {\n         "pri": 7,\n         "time":     86.145664,\n'
    text += f'         "msg": {json.dumps(MESSAGE)}\n      }}\n   ]\n}}\n'
    (found,) = kernel_lines(text.splitlines())
    assert (found.time, found.text) == ("86.145664", MESSAGE)


@pytest.mark.parametrize(
    ("release", "block", "pfn"),
    [("6.1", 33, 0x108000), ("6.12", 32, 0x100000), ("7.3", 32, 0x100000)],
)
def test_what_the_labs_kernels_log(release, block, pfn):
    log = (HERE / f"logs/x86_64-{release}.txt").read_text(encoding="utf-8")
    found = explain_log(log.splitlines()).findings
    refused = [each for each in found if each.message == "offline-isolation"]
    # The block size is in the log ("Memory block size: 128MB"), and pages of x86 are of 4 KiB.
    assert {(each.blocks, each.pfn) for each in refused} == {((block, block), pfn)}
    assert all(each.page is not None and each.page.pfn == pfn for each in refused)
    (ejected,) = (each for each in found if each.message == "acpi-offline")
    assert ejected.blocks == (block, block)
    (hole,) = (each for each in found if each.message == "offline-holes")
    assert hole.blocks == (7, 7)
    (unaligned,) = (each for each in found if each.message == "unaligned")
    assert [reason.errno for reason in unaligned.reasons] == ["EINVAL"]
    assert not [each for each in found if each.message == "dump-unmovable"]  # merged


@pytest.mark.parametrize(
    ("lines", "pfn", "what"),
    [
        (  # 6.1, of the lab
            [
                "page:0000000037f3a107 refcount:1 mapcount:0 mapping:0000000000000000 index:0x0 "
                "pfn:0x108000",
                "flags: 0x17ffffc0000000(node=0|zone=2|lastcpupid=0x1fffff)",
                "raw: 0017ffffc0000000 0000000000000000 dead000000000122 0000000000000000",
            ],
            *(0x108000, "without a type"),
        ),
        (  # 6.12, of the lab
            [
                "page: refcount:1 mapcount:0 mapping:0000000000000000 index:0xff11000100000b28 "
                "pfn:0x100000",
                "flags: 0x17ffffc0000200(workingset|node=0|zone=2|lastcpupid=0x1fffff)",
                "page_type: f5(slab)",
            ],
            *(0x100000, "slab"),
        ),
        (  # 4.19
            [
                "page:ffffea0004200000 count:1 mapcount:0 mapping:0000000000000000 index:0x0",
                "flags: 0x17ffffc0000800(reserved)",
            ],
            *(None, "reserved"),
        ),
        (  # 5.4
            [
                "page:ffffea0004200000 refcount:1 mapcount:0 mapping:ffff888004002b00 index:0x0 "
                "compound_mapcount: 0",
                "flags: 0x17ffffc0010200(slab|head)",
            ],
            *(None, "slab"),
        ),
        (
            [
                "page:ffffea0004200000 refcount:3 mapcount:1 mapping:ffff88810a2f3001 index:0x7f1",
                "anon flags: 0x17ffffc0080036(referenced|uptodate|lru|active|swapbacked)",
            ],
            *(None, "a page of a process"),
        ),
        (
            [
                "page: refcount:3 mapcount:0 mapping:000000007abd6a1c index:0x40 pfn:0x10a3f",
                'aops:shmem_aops ino:3 dentry name(?):"f3"',
                "flags: 0x17ffffc008001c(uptodate|dirty|lru|swapbacked|node=0|zone=3)",
            ],
            *(0x10A3F, "shmem_aops f3"),
        ),
        (
            [
                "page: refcount:1 mapcount:0 mapping:0000000000000000 index:0x0 pfn:0x10a40",
                "head: order:3 mapcount:0 entire_mapcount:0 nr_pages_mapped:0 pincount:0",
                "flags: 0x17ffffc0000040(head|node=0|zone=2|lastcpupid=0x1fffff)",
            ],
            *(0x10A40, "large kernel allocations"),
        ),
        (
            [
                "page: refcount:1 mapcount:0 mapping:0000000000000000 index:0x0 pfn:0x10a40",
                "flags: 0x17ffffc0000000(node=0|zone=2|lastcpupid=0x1fffff)",
                "page_type: f2(table)",
            ],
            *(0x10A40, "page tables"),
        ),
    ],
)
def test_the_dump_of_a_page_tells_what_it_was(lines, pfn, what):
    (found,) = findings(*lines, "page dumped because: unmovable page")
    assert found.pfn == found.page.pfn == pfn
    assert what in found.page.what


def test_a_dump_ends_with_its_reason_and_is_not_mixed_with_another():
    reader = DumpReader()
    reader.feed("flags: 0x0(slab)")  # no page yet
    assert reader.take() is None
    reader.feed("page: refcount:1 mapcount:0 mapping:0 index:0x0 pfn:0x1")
    reader.feed("flags: 0x0(slab)")
    reader.feed("page: refcount:1 mapcount:0 mapping:0 index:0x0 pfn:0x2")
    page = reader.take()
    assert (page.pfn, page.words) == (2, ())
    assert reader.take() is None


def test_a_machines_files_name_the_owner_and_the_state_now():
    seen = Observation.read(Sysroot.read(DIMM))
    text = "memory offlining [mem {}] failed due to failure to isolate range"
    owned, boot, gone = findings(
        text.format("0x108200000-0x10fffffff"),  # without the block's own memmap
        text.format("0x8000000-0xfffffff"),
        text.format("0x200000000-0x207ffffff"),
        seen=seen,
    )
    assert (owned.blocks, owned.device) == ((33, 33), "PNP0C80:00 (acpi)")
    assert owned.now == "memory33 is online now, zone Normal"
    assert (boot.blocks, boot.device) == ((1, 1), None)
    assert (gone.blocks, gone.now) == ((64, 64), "memory64 does not exist now")


def test_repeated_messages_are_counted():
    line = "migrating pfn 10a3f failed ret:1 "
    (found,) = findings(*[line] * 5)
    assert found.count == 5
    dump = ["page: refcount:1 mapcount:0 mapping:0 index:0x0 pfn:0x38001"]
    dump += ["page dumped because: unmovable page"]
    refused = "memory offlining [mem 0x38000000-0x3fffffff] failed due to failure to isolate range"
    (found,) = findings(*[*dump, refused] * 3)
    assert (found.count, found.pfn) == (3, 0x38001)


def test_without_sizes_a_page_frame_is_in_no_block():
    dump = "page: refcount:1 mapcount:0 mapping:0 index:0x0 pfn:0x13fe00"
    told = explain_log([dump, "page dumped because: unmovable page"])
    assert told.findings[0].blocks is None
    assert any("SYSROOT" in note for note in told.notes)


def test_a_log_of_another_kernel_than_the_files_is_noted():
    seen = Observation.read(Sysroot.read(DIMM))
    lines = ["[    0.000000] Linux version 5.14.0-70.el9.x86_64 (builder) #1 SMP", MESSAGE]
    assert any("5.14.0-70" in note for note in explain_log(lines, seen).notes)
    same = f"[    0.000000] {seen.version}"
    assert explain_log([same, MESSAGE], seen).notes == []


def test_ranges_beyond_all_addresses_are_in_no_block():
    seen = Observation.read(Sysroot.read(DIMM))
    text = "memory offlining [mem 0xfffffffff0000000-0xffffffffffffffff] failed due to memory holes"
    (found,) = findings(text, seen=seen)
    assert (found.blocks, found.start_address) == (None, None)


# --- the page that the log names -----------------------------------------------------------


@pytest.mark.parametrize(
    ("stuck", "ends_first", "named"),
    [
        ((100, 700, 4090), True, 100),  # in the first pageblock
        ((700, 4000, 4090), True, 4000),  # the last pageblock before those between
        ((700, 1500), True, 700),
        ((700, 4000), False, 700),
        ((512, 3583), True, 512),
        ((513, 3584), True, 3584),
        ((511, 3584), True, 511),
    ],
)
def test_the_first_and_the_last_pageblock_are_isolated_before_those_between(
    stuck, ends_first, named
):
    pages = PfnSet.of(*(PfnRange(pfn, pfn + 1) for pfn in stuck))
    assert first_dumped_pfn(pages, PfnRange(0, 4096), 512, ends_first=ends_first) == named


def test_the_page_that_the_log_names_is_the_one_that_is_named():
    # Captured in a guest with movablecore=256M; its log: "page dumped because: unmovable page",
    # pfn:0x13fe00, though 0x13b400 is the lowest reserved page of the block.
    seen = Observation.read(Sysroot.read(MOVABLECORE))
    found = explain_block(seen, 39)
    assert (found.blockers[0].first_pfn, found.logged_pfn) == (0x13B400, 0x13FE00)
    assert "larger movablecore=" in found.blockers[0].cure
    outcome = ModelMachine.start(Machine(), seen, pages=False).perform(Offline(blocks=39)).outcome
    assert (outcome.errno, outcome.function) == ("EBUSY", "has_unmovable_pages")
    assert "the kernel's log names pfn 0x13fe00" in outcome.why
    assert explain_block(seen, 38).logged_pfn is None


# --- the command ---------------------------------------------------------------------------


def test_the_command_explains_a_file_with_the_machines_files(tmp_path, capsys):
    log = tmp_path / "log"
    log.write_text(
        "memory offlining [mem 0x108200000-0x10fffffff] failed due to failure to isolate range\n"
        "\x1b[31mcrash hp: \x1b]0;title\x07\n"
    )
    assert main(["explain", "--log", str(log), str(DIMM)]) == 0
    out = capsys.readouterr().out
    assert "memory33, [0x108200000, 0x110000000), device PNP0C80:00 (acpi), " in out
    assert "altmap explain 33 names the pages" in out
    assert "\x1b" not in out
    assert main(["explain", "--log", str(log), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["log"]["findings"][0]["reasons"][0]["errno"] == "EBUSY"


def test_the_command_reads_standard_input(monkeypatch, capsys):
    class Input:
        buffer = io.BytesIO(b"nothing\n\xff\xfe\n")

    monkeypatch.setattr("sys.stdin", Input)
    assert main(["explain", "--log", "-"]) == 0
    assert "no message about memory hotplug in 2 lines" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [["--log", "/dev/zero"], ["--log", "/nonexistent"], [], ["--log", "-", "a", "b"]]
)
def test_what_is_no_log_is_refused_in_one_line(words, capsys):
    assert main(["explain", *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1


def test_a_large_log_is_read_in_part_and_that_is_noted(tmp_path, monkeypatch):
    monkeypatch.setattr(log_reader, "_MOST_BYTES", 1000)
    log = tmp_path / "log"
    log.write_text("x" * 95 + "\n" + "\n".join("y" * 99 for _ in range(20)) + "\n" + MESSAGE + "\n")
    text = log_reader.LogText(str(log))
    lines = list(text.lines())
    assert lines[-1] == MESSAGE + "\n"
    assert sum(map(len, lines)) <= 1000
    assert "last" in text.cut
    read, write = os.pipe()
    os.write(write, log.read_bytes())
    os.close(write)
    with os.fdopen(read, "rb") as file:
        lines = list(text._lines(file))
    assert sum(map(len, lines)) <= 1100
    assert "up to its line" in text.cut
