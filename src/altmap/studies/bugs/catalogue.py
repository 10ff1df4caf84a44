"""All known bugs, in the order of their ids."""

from __future__ import annotations

from altmap.model.kernel.defects import DEFECTS
from altmap.studies.bugs.bug import Bug
from altmap.studies.claims.claim import ClaimCase, Experiment, Measure, Value
from altmap.studies.claims.measure import (
    counter_at,
    fault_at,
    gained_kb,
    marked_pages,
    nr_blocks_gained,
    outcome_of,
)

__all__ = ("BUGS",)

_OFF, _ON = "policy=rfc-2018", "policy=rfc-2018:{}"
_NAMESPACES = "namespaces of persistent memory (devdax) are not modelled"
_CANDIDATES = "only release candidates had it, and none has a record"


def _case(
    where: str,
    scenario: str,
    settings: tuple[str, ...],
    measure: Measure,
    unit: str,
    claimed: Value,
) -> ClaimCase:
    return ClaimCase(where, (Experiment(scenario, settings),), measure, unit, claimed)


def _by_release(
    scenario: str,
    measure: Measure,
    unit: str,
    expected: Value,
    releases: tuple[str, ...],
    note: str = "",
    *settings: str,
) -> tuple[ClaimCase, ...]:
    return tuple(
        _case(f"{r}{note}", scenario, (*settings, f"release={r}"), measure, unit, expected)
        for r in releases
    )


def _by_switch(
    id_: str, scenario: str, measure: Measure, unit: str, on: Value, off: Value, *settings: str
) -> tuple[tuple[ClaimCase, ...], tuple[ClaimCase, ...]]:
    return (
        (_case(f"{id_} on", scenario, (_ON.format(id_), *settings), measure, unit, on),),
        (_case(f"{id_} off", scenario, (_OFF, *settings), measure, unit, off),),
    )


def _failed_add(pages: int, *releases: str, note: str = "") -> tuple[ClaimCase, ...]:
    return _by_release("add-fails", marked_pages, "frames freed wrongly", pages, releases, note)


_D1 = _by_switch(
    "D1", "s390x-add", nr_blocks_gained, "memory blocks gained", 0, 4, "auto_online_blocks=offline"
)
_D3_MARKED = _by_switch("D3", "one-section", marked_pages, "pages misaligned", 31 * 1024, 0)
_D3_FAULT = _by_switch(
    "D3", "one-section", fault_at, "", "fault at online", "no fault", "debug_vm=true"
)
_D3 = (_D3_MARKED[0] + _D3_FAULT[0], _D3_MARKED[1] + _D3_FAULT[1])
_D4 = _by_switch(
    "D4", "smaller-again", gained_kb("MemTotal"), "kB gained", 126 * 1024 - 7 * 2048, 126 * 1024
)
_D6 = _by_switch("D6", "at-16TiB", gained_kb("MemTotal"), "kB gained", 1024 * 1024, 1008 * 1024)
_F1 = _by_switch("F1", "two-sections-leave", fault_at, "", "fault at unplug", "no fault")


def _of_2018(
    id_: str, cases: tuple[tuple[ClaimCase, ...], tuple[ClaimCase, ...]], trigger: str
) -> Bug:
    defect = DEFECTS[id_]
    since = "patches of 2017" if id_ == "F1" else "patches of 2018"
    affected, sound = cases
    return Bug(id_, defect.what, since, "never merged", trigger, affected, sound)


def _not_held(id_: str) -> Bug:
    defect = DEFECTS[id_]
    return Bug(id_, defect.what, "patches of 2018", "never merged", "", reason=defect.reason)


BUGS: tuple[Bug, ...] = (
    Bug(
        "B1",
        "The last block's struct pages behind the end of RAM are read though never initialised",
        "4.x",
        "5.0: two fixes for is_mem_section_removable and test_pages_in_a_zone (efad4e475c31)",
        "boot RAM ends inside a block; the block's file `removable` is read",
        reason="no step reads a file through the kernel: looking at the model is not modelled as "
        "the work of kernel functions",
    ),
    Bug(
        "B2",
        "hv_balloon onlines late pages of a block that is offline, with an uninitialised memmap",
        "deferred initialisation",
        '5.0: "avoid touching uninitialized struct page during tail onlining"',
        "64 MiB arrive, their block stays offline, 64 MiB more arrive in the same block",
        _by_release("hyperv-tail", marked_pages, "struct pages used too early", 16384, ("4.20",)),
        _by_release(
            "hyperv-tail", marked_pages, "struct pages used too early", 0, ("5.13", "6.12")
        ),
        ("6.1.192, 6.12.117 and 7.3.4: handle_pg_range asks online_section_nr first",),
    ),
    Bug(
        "B3",
        "The first chunk behind the memmap is onlined with an order that it is not aligned to: D3",
        "patches of 2018",
        "the patches of March 2019: the order is lowered until it is aligned",
        "a range with an odd number of sections is onlined",
        *_D3,
    ),
    Bug(
        "B4",
        "The memmap of a range is freed forwards, its own description first: F1",
        "patches of 2017",
        "the patches of 2018: backwards",
        "a range of two or more sections is removed",
        *_F1,
    ),
    Bug(
        "B5",
        "arm64 takes a boot block offline whose first page is a hole: its zone is read too early",
        "5.13-rc",
        "5.13-rc: 928130532e19",
        "a boot block that begins with a hole is taken offline",
        reason=_CANDIDATES,
    ),
    Bug(
        "B6",
        "The memmap of a self-hosted block is taken down after the hotplug lock was dropped",
        "5.13",
        '6.7-rc: "add missing mem_hotplug_lock"',
        "a self-hosted block goes offline while a process walks all pages",
        sources=("6.1.192, 6.12.117 and 7.3.4: memory_block_offline takes the lock",),
        reason="steps happen one after the other, nothing runs beside them",
    ),
    Bug(
        "B7",
        "An add that fails late forgets its altmap, and frees the frames of memory that is gone",
        "5.13",
        '6.7-rc: "fix error handling in add_memory_resource()"',
        "memory_hotplug.memmap_on_memory is on, and the memory block cannot be created",
        _failed_add(512, "5.13", "5.15", "6.6"),
        _failed_add(0, "6.1", note=" (with stable fixes)"),
        ("6.1.192: add_memory_resource passes params.altmap on",),
    ),
    Bug(
        "B8",
        "B7 again, in the code that adds a memmap for each block",
        "6.8",
        '2026: "fix incorrect altmap passing in error path"',
        "as B7",
        _failed_add(512, "6.8", "6.18"),
        (*_failed_add(0, "6.12", note=" (with stable fixes)"), *_failed_add(0, "7.3")),
        ("6.12.117 and 7.3.4: create_altmaps_and_memory_blocks passes params.altmap on",),
    ),
    Bug(
        "B9",
        "A self-hosted block's device is never freed",
        "6.8",
        "2026: 93866f55f7e2",
        "add, online, offline, remove with memmap_on_memory",
        sources=(
            "6.12.117 and 7.3.4: remove_memory_blocks_and_altmaps drops its reference",
            "the count of HWPoison pages of a block leaked another one until 6.12.94",
        ),
        reason="what leaks is an object in slab, which no page set holds and no file shows",
    ),
    Bug(
        "B10",
        "The parameter memmap_on_memory always reads N on big-endian machines",
        "6.6",
        "6.8-rc: 11684134140b",
        "the parameter's file is read",
        sources=("6.12.117 and 7.3.4: get_memmap_mode reads an int",),
        reason="the one big-endian architecture here, s390x, got the parameter in the release "
        "that has the fix",
    ),
    Bug(
        "B11",
        "The node of a memmap is read from a struct page that is gone, to count it",
        "6.11-rc1",
        "6.11-rc: 9d8573111024",
        "a devdax namespace is created and destroyed",
        reason=f"{_CANDIDATES}; {_NAMESPACES}",
    ),
    Bug(
        "B12",
        "The memmap of boot memory is taken off the wrong counter when that memory leaves",
        "6.11",
        "2025: c3576889d87b",
        "boot memory is removed",
        sources=("6.12.117 and 7.3.4: free_map_bootmem counts boot memmap",),
        reason="no driver here removes memory that booted",
    ),
    Bug(
        "B13",
        "nr_memmap_pages loses the memmap of a section whose memmap could not be had",
        "2025 (c3576889d87b)",
        '2026: "fix vmemmap accounting underflow"',
        "an add runs out of memory for its memmap",
        _by_release("memmap-does-not-fit", counter_at(-1), "pages gained", -512, ("6.18",)),
        _by_release("memmap-does-not-fit", counter_at(-1), "pages gained", 0, ("6.12",)),
        ("6.12.117 and 7.3.4: populate_section_memmap counts before it knows",),
    ),
    Bug(
        "B14",
        "On ppc64 radix the frame that maps two namespaces' memmaps is freed with the first",
        "6.6",
        "6.15-rc: 9cf7e13fecba",
        "two adjacent namespaces, the first is destroyed",
        reason=_NAMESPACES,
    ),
    Bug(
        "B15",
        "The memmap optimisation of huge pages would free self-hosted memmap pages",
        "5.13 (the two features excluded each other)",
        "6.0: 66361095129b, decided for each huge page",
        "huge pages in a self-hosted block",
        sources=("6.1.192, 6.12.117 and 7.3.4: PageVmemmapSelfHosted is tested",),
        reason="no release has it: until the fix no memmap was self-hosted where the optimisation "
        "is on",
    ),
    Bug(
        "B16",
        "hv_balloon adds 128 MiB at a time, which larger memory blocks refuse",
        "always",
        "6.10: 8852ebf1948d",
        "a guest with blocks of 256 MiB or more is given memory",
        _by_release(
            "hyperv-256MiB-blocks", outcome_of("grow"), "", "refused EINVAL", ("6.1", "6.8")
        ),
        _by_release("hyperv-256MiB-blocks", outcome_of("grow"), "", "ok", ("6.12", "7.3")),
        ("6.1.192 has it: HA_CHUNK is 128 MiB; 6.12.117 and 7.3.4: ha_pages_in_chunk",),
    ),
    Bug(
        "B17",
        "Poisoned pages are forgotten when their block goes offline and online",
        "always",
        "6.2: 5033091de814, a count for each block",
        "a page is poisoned, its block goes offline and online",
        _by_release("poison-comes-back", outcome_of("again"), "", "ok", ("5.15", "6.1")),
        _by_release(
            "poison-comes-back", outcome_of("again"), "", "refused EHWPOISON", ("6.12", "7.3")
        ),
        ("6.1.192 has no such count, 6.12.117 and 7.3.4 have nr_hwpoison",),
    ),
    Bug(
        "B18",
        "A large DIMM takes its memmap from a small guest although memmap_on_memory is on",
        "5.13",
        "6.8: 6b8f0798b85a, a memmap for each block",
        "12 GiB are plugged into a guest of 256 MiB",
        _by_release(
            "big-dimm-small-guest", outcome_of("grow"), "", "refused ENOMEM", ("6.1", "6.6")
        ),
        _by_release("big-dimm-small-guest", outcome_of("grow"), "", "ok", ("6.8", "6.12", "7.3")),
        ("6.1.192 has it: mhp_supports_memmap_on_memory wants exactly one block",),
    ),
    Bug(
        "B19",
        "A confidential guest touches the memmap in memory that it has not accepted yet",
        "open (patches of 2026)",
        "open",
        "a DIMM is added in a TDX guest with memmap_on_memory",
        reason="memory that is backed but not accepted is not modelled",
    ),
    Bug(
        "B20",
        "A range of which only some blocks hold their memmap cannot be removed at once",
        "6.8, by design",
        "not fixed",
        "the parameter changes between two adds, and one remove covers both",
        reason="every driver here removes what it added, as a whole",
    ),
    Bug(
        "B21",
        "On arm64 with 4 KiB pages no block that hosts its own memmap can go offline",
        "7.1: 95a58852b0e5",
        "not in 7.3.4",
        "a self-hosted block is offlined, by hand or because its device is to leave",
        _by_release("arm64-self-hosted", outcome_of("leave"), "", "refused EPERM", ("7.2", "7.3")),
        (
            *_by_release("arm64-self-hosted", outcome_of("leave"), "", "ok", ("6.12", "6.18")),
            *_by_release(
                "arm64-self-hosted",
                outcome_of("leave"),
                "",
                "ok",
                ("7.3",),
                " (memmap in existing memory)",
                "memmap_on_memory=off",
            ),
            *_by_release(
                "arm64-self-hosted",
                outcome_of("leave"),
                "",
                "ok",
                ("7.3",),
                " (pages of 16 KiB)",
                "arch=aarch64-16k",
            ),
        ),
        (
            "7.2.13 and 7.3.4: prevent_memory_remove_notifier is called with the pages behind the "
            "memmap, whose first struct page lies 32 KiB inside a leaf of 2 MiB",
            "6.12.117: prevent_bootmem_remove_notifier looks for boot memory only",
            "with pages of 16 and 64 KiB the vmemmap has no leaves but pages, and blocks of their "
            "usual size do not host their memmap",
        ),
    ),
    Bug(
        "B22",
        "A huge page in use that was migrated within its node cannot be isolated again",
        "2025: ba23f58de896",
        '2026: "fix missing migratable flag on same-node hugetlb migration"',
        "huge pages of a file move from one block to another of the node, which is offlined too",
        _by_release(
            "huge-page-moves-twice", outcome_of("again"), "", "refused EBUSY", ("6.18", "7.0")
        ),
        _by_release("huge-page-moves-twice", outcome_of("again"), "", "ok", ("6.1", "6.12", "7.2")),
        (
            "6.18.15, measured: HPG_migratable is clear when move_hugetlb_state returns, and the "
            'second offline fails with "failure to dissolve huge pages"',
            "7.2.12 and 7.3.4: move_hugetlb_state sets it whichever node the new page is of",
        ),
    ),
    Bug(
        "B23",
        "With hugetlb_free_vmemmap=on, huge pages that are freed are lost",
        "Debian's 6.12.115",
        "not in 6.12.118",
        "huge pages go back to the page allocator, which takes none of them: their block does not "
        "go offline",
        _by_release("hvo-restored", outcome_of("leave"), "", "refused EINTR", ("6.12",)),
        _by_release("hvo-restored", outcome_of("leave"), "", "ok", ("6.1", "6.18", "7.3")),
        (
            '6.12.118, measured: "corrupted mapping in tail page" for each huge page, and MemFree '
            "does not come back",
            '6.12.118: vmemmap_restore_pte copies the shared page, by the backport of "fix '
            'incorrect vmemmap restore in rollback"; there it '
            "describes the head, on 7.2 tail pages only",
            "6.1.192 and 7.3.4, measured: nothing is lost",
        ),
    ),
    Bug(
        "B24",
        "A memory block that cannot be registered is released while its altmap is set",
        "6.8",
        '7.1.2, 6.12.95: "set mem->altmap after successful device registration"',
        "the device of a self-hosted block cannot be registered",
        reason="the kernel warns and goes on; the add fails as that of B8",
    ),
    Bug(
        "B25",
        "A dax device of which one range was not added keeps its driver's data when it is unbound",
        "5.10",
        '2026: "account for partial discontiguous resource upon removal" (6.12.100)',
        "kmem cannot add one of the ranges, and the device is unbound",
        sources=("6.12.118 and 7.3.4: a range that was never added counts as removed",),
        reason="what stays is the driver's own data; memory and files are those of the ranges",
    ),
    Bug(
        "B26",
        "The memmap of devdax memory is counted as if all of it were there",
        "6.11",
        '2026: "fix DAX vmemmap accounting with optimization" (6.12.101)',
        "a devdax namespace with the optimisation for compound pages is created",
        reason=_NAMESPACES,
    ),
    Bug(
        "B27",
        "A large folio with a poisoned page is unmapped, which works for small ones only",
        "5.18",
        '2026: "fix hwpoisoned large folio handling" (6.12.86)',
        "a page of a transparent huge page is poisoned, and its block goes offline",
        reason="transparent huge pages are not modelled",
    ),
    Bug(
        "B28",
        "Memory that just went online is allocated first, where a chunk of the maximum order has "
        "more than two pageblocks (ppc64le with radix, s390x)",
        "6.10",
        "not in 7.3",
        "the kernel allocates after a block went online, and the block goes offline again",
        _by_release("onlined-first", outcome_of("offline-d1"), "", "refused EBUSY", ("6.12",)),
        _by_release("onlined-first", outcome_of("offline-d1"), "", "ok", ("6.1", "6.8")),
        (
            "6.12.117: unset_migratetype_isolate means to put onlined pages at the tail; for the "
            "last pageblock of a chunk, move_freepages_block_isolate frees all of the chunk at "
            "its head (FPI_NONE)",
            "6.12.95, ppc64le with pages of 4 KiB and 64 KiB, measured: EBUSY, of 64 MiB that the "
            "kernel allocates beside a gigabyte of free boot memory",
            "6.12.95 with hash, and 6.1, measured: the block goes offline",
        ),
    ),
    Bug(
        "B29",
        "The first memory of a node without CPUs, such as CXL, never goes offline again if it is "
        "kernel memory: the node's own kswapd lies in it",
        "6.14",
        "not in 7.3.4",
        "the first memory of a node without CPUs goes online in a kernel zone, and offline again",
        _by_release("node-threads", outcome_of("offline-d1"), "", "refused EBUSY", ("6.18", "7.3")),
        _by_release("node-threads", outcome_of("offline-d1"), "", "ok", ("6.1", "6.12")),
        (
            "7.3.4: online_pages calls kswapd_run and kcompactd_run when the node has memory; "
            "kthread_create_on_node takes their task_struct from that memory",
            "6.18.15, 7.2.12 and 7.3.4, measured: EBUSY, an unmovable page of slab with three "
            "objects of 10 KiB",
            "6.12.118, measured: the block goes offline; kthread_run has no node there",
        ),
    ),
    _of_2018("D1", _D1, "memory is added on s390x"),
    _not_held("D2"),
    _of_2018("D3", _D3, "a range with an odd number of sections is onlined"),
    _of_2018("D4", _D4, "1 GiB leaves, its first 128 MiB come back with what they held"),
    _not_held("D5"),
    _of_2018("D6", _D6, "1 GiB is added at 16 TiB"),
    _not_held("D7"),
    _not_held("D8"),
    _of_2018("F1", _F1, "a range of two sections is removed"),
)
