"""What each value of a record rests on: a comparison, the source of the release, or history.

``docs/checks`` has what ``altmap check KERNEL --arch ARCH --json`` printed, a file for each.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from altmap.model.releases import Release

#: Scenarios of ``docs/conformance.md`` and recordings (a part of their name) whose equal comparison
#: shows a behaviour. A run counts for its release only.
SHOWN_BY: dict[str, tuple[str, ...]] = {
    "memmap_scope": ("dimm-1GiB", "memmap-of-two-blocks", "dimm-sequence-384MiB"),
    "self_hosting": ("dimm-1GiB", "dimm-sequence-128MiB"),
    "refuses_unsupported_memmap": ("kmem-pmem-online",),
    "memmap_force": ("dimm-sequence-128MiB memmap_on_memory=force",),
    "memmap_page_flags": ("dimm-1GiB", "dimm-sequence-128MiB memmap_on_memory=on"),
    "nopage_flags": ("dimm-1GiB",),
    "lowmem_includes_movable": ("dimm-1GiB", "auto-movable"),
    "reserves_follow_managed": ("virtio-mem-grow-and-shrink", "hyperv-64MiB-first-half"),
    "acpi_asks_only_if_supported": ("memmap-of-two-blocks", "dimm-1GiB"),
    "dlpar_asks": ("ppc64-dlpar",),
    "hyperv_chunk": ("hyperv-64MiB-first-half",),
    "hyperv_leaves_reserved": ("hyperv-64MiB-first-half",),
    "hyperv_versions": ("hyperv-64MiB-first-half",),
    "balloon_lowers_managed": ("hyperv-balloon", "xen-balloon"),
    "keeps_poison_offline": ("poisoned-page",),
    "hugetlb_first_in_first_out": ("hugepages-pool",),
    "hugetlb_dequeues_isolated": ("hugepages-2MiB",),
    "hugetlb_migrates_once": ("hugepages-2MiB",),
    "contig_replaces_huge_pages": ("virtio-mem-huge-pages",),
    "hvo_kept_nr_pages": ("hvo-reserved", "hvo-off"),
    "hvo_replaces_first": ("hvo-reserved", "hvo-off"),
    "hvo_loses_restored": ("hvo-lost", "hvo-off"),
    "cxl_advises_block_size": ("cxl-block-size",),
    "has_movable_gigantic": ("hugepages-1GiB-movable",),
    "isolation_splits_gigantic": ("hugepages-1GiB",),
    "rejects_leaf_split": ("kmem-self-hosted arch=aarch64",),
    "kmem_memmap_file": ("kmem-pmem-online", "kmem-self-hosted"),
    "kmem_state_file": ("kmem-pmem-offline", "kmem-state"),
    "virtio_mem": ("virtio-mem-",),
    "virtio_mem_sub_block": ("virtio-mem-sub-blocks", "virtio-mem-grow-and-shrink"),
    "xen_extra_memory": ("xen-balloon",),
    "xen_keeps_ibft": ("xen-balloon",),
    "has_auto_movable": ("auto-movable",),
    "section_size_bytes": ("s390x-boot-memory",),
}
#: Cells of ``docs/drivers.md``, by driver and row, and what shows each, as above. ``MATRIX`` is the
#: comparison behind a dagger of ``docs/matrix.md``.
MATRIX = "matrix"
SEEN_CELLS: dict[str, dict[str, str]] = {
    "ACPI DIMM": {
        "adds": "dimm-1GiB",
        "opts_in": "dimm-sequence-384MiB memmap_on_memory=on",
        "gives_back": "dimm-sequence-384MiB",
        "group": "auto-movable",
        "resource": "dimm-1GiB",
    },
    "dax/kmem: CXL, PMEM, soft-reserved": {
        "adds": "kmem-pmem-online",
        "gives_back": "kmem-pmem-online",
        "resource": "kmem-pmem-online",
    },
    "Hyper-V": {
        "adds": "hyperv-64MiB-first-half",
        "partly_backed": "hyperv-64MiB-second-half",
        "touches_offline": "hyperv-64MiB-second-half",
        "opts_in": "hyperv-64MiB-second-half",
        "gives_back": "hyperv-balloon",
        "resource": "hyperv-64MiB-first-half",
    },
    "pseries DLPAR": {
        "adds": "ppc64-dlpar",
        "opts_in": "ppc64-dlpar",
        "gives_back": "ppc64-dlpar",
        "resource": "ppc64-dlpar",
    },
    "the file probe": {"adds": MATRIX, "opts_in": MATRIX, "resource": MATRIX},
    "virtio-mem, big-block mode": {
        "adds": "virtio-mem-big-blocks",
        "gives_back": "virtio-mem-big-blocks",
        "resource": "virtio-mem-big-blocks",
    },
    "virtio-mem, sub-block mode": {
        "adds": "virtio-mem-sub-blocks",
        "partly_backed": "virtio-mem-sub-blocks",
        "opts_in": MATRIX,
        "gives_back": "virtio-mem-sub-blocks",
        "group": "virtio-mem-auto-movable",
        "resource": "virtio-mem-sub-blocks",
    },
    "Xen balloon": {
        "adds": "xen-above-pci",
        "partly_backed": "xen-balloon",
        "opts_in": "xen-at-its-limit memmap_on_memory=on",
        "gives_back": "xen-balloon",
        "resource": "xen-balloon",
    },
}
_ROW = re.compile(
    r"^\| (\S[^|]*) \| ([\w-]+) \| (\d+\.\d+) \| [^|]* \| equal[^|]* \|", re.MULTILINE
)
_RECORDING = re.compile(r"(\w+(?:-\d+k)?)-(\d+\.\d+)-(.*)\.tar\.xz")
_FILE = re.compile(r"[\w.*-]+/\S+(?:: .*)? \(v(\d+\.\d+)[.\d]*\)")


def compared(docs: Path) -> dict[str, set[str]]:
    """Return what was compared with real kernels: release to names of scenarios and recordings."""
    found: dict[str, set[str]] = {}
    for name, _, release in _ROW.findall((docs / "conformance.md").read_text(encoding="utf-8")):
        found.setdefault(release, set()).add(name)
    for folder in ("kmem", "traces"):
        for path in (docs.parent / "tests/recordings" / folder).glob("*.tar.xz"):
            if match := _RECORDING.fullmatch(path.name):
                arch, release, name = match.groups()
                where = "" if arch == "x86_64" else f" arch={arch}"
                found.setdefault(release, set()).add(name + where)
    return found


def checks(docs: Path) -> list[dict[str, Any]]:
    """Return what ``altmap check`` found, by release and architecture."""
    files = (docs / "checks").glob("*.json")
    found = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return sorted(found, key=lambda each: ([*map(int, each["record"].split("."))], each["arch"]))


def checked_on(behaviour: str, release: str, found: Sequence[dict[str, Any]]) -> list[str]:
    """Return the architectures on which a check found the value of a release's record."""
    return [
        check["arch"]
        for check in found
        if check["record"] == release
        for each in check["behaviours"]
        if each["behaviour"] == behaviour and each["verdict"] == "equal"
    ]


def evidence(
    release: Release,
    behaviour: str,
    done: dict[str, set[str]],
    found: Sequence[dict[str, Any]] = (),
) -> str:
    """Return ``measured``, ``read`` or ``inferred``: what one value of a record rests on."""
    runs = done.get(release.name, set())
    if checked_on(behaviour, release.name, found):
        return "measured"
    if any(run.startswith(part) for part in SHOWN_BY.get(behaviour, ()) for run in runs):
        return "measured"
    source = _FILE.fullmatch(release.sources.get(behaviour, ""))
    return "read" if source is not None and source[1] == release.name else "inferred"


def releases_of(shown_by: str, done: dict[str, set[str]]) -> list[str]:
    """Return the releases on which what shows a cell was compared and equal."""
    if shown_by == MATRIX:
        return ["6.12"]
    return [r for r, runs in done.items() if any(run.startswith(shown_by) for run in runs)]
