"""Pairs of equal traces, made of what real kernels did, one for each kind of recording."""

import copy
from dataclasses import replace
from pathlib import Path

from alterations import AT_FLOOR, touch

from altmap.compare import compare, compare_layout
from altmap.pfn import PfnRange, PfnSet
from altmap.protocol.hyperv_messages import decode, encode
from altmap.storage.recording import read_recording
from altmap.trace import Event, Trace

RECORDINGS = Path(__file__).parents[1] / "recordings"
NAMES = {
    "x86_64": "traces/x86_64-6.12-dimm-1GiB",
    "ppc64le": "traces/ppc64le-64k-6.12-dlpar-force",
    "arm64": "traces/aarch64-16k-6.12-virtio-mem",
    "s390x": "traces/s390x-6.12-boot-memory",
    "xen": "traces/x86_64-7.3-xen-balloon",
    "virtio-mem": "traces/x86_64-7.3-virtio-mem",
    "kmem": "kmem/x86_64-6.12-kmem-pmem-online",
    "hyperv": "traces/x86_64-6.12-hyperv-half",
    "huge pages": "traces/x86_64-7.3-hvo-off",
}
BALLOON = "traces/x86_64-6.12-hyperv-balloon"
PAGE_KIB = {"ppc64le": 64, "arm64": 16}


def start_and_last(name):
    """Return the start and the last step that a real kernel shows."""
    trace = read_recording(RECORDINGS / f"{NAMES[name]}.tar.xz").trace
    return trace.steps[0], [step for step in trace.steps if step.observation][-1]


def all_pairs():
    """Return start and last step by kind; one more has faults, which no recording has."""
    made = {name: start_and_last(name) for name in NAMES}
    start, last = (replace(step, backed=PfnSet()) for step in made["x86_64"])
    faults = [touch("write", 0x100000, 0x100008), touch("read", 0x100200, 0x100201)]
    return made | {
        "faults": (start, replace(last, faults=faults)),
        "balloon": ballooned(),
        "floor": short_of_pages(),
        "touched": touched(),
    }


def touched():
    """Return a step of which every touch is known: in an online block, and where none is."""
    start, *steps = read_recording(RECORDINGS / f"{NAMES['x86_64']}.tar.xz").trace.steps
    added = 0x100000 >> 15
    last = next(step for step in steps if added in step.observation.memory.blocks)
    events = [
        Event("touched", ""),
        Event("write", "", PfnSet([PfnRange(0x100000, 0x100200)]), "memmap_init_range"),
        Event("read", "", PfnSet([PfnRange(0x100000, 0x100300)]), "offline_pages"),
        Event("write", "", PfnSet([PfnRange(0x900000, 0x900200)]), "mark_vmemmap_pages"),
        Event("read", "", PfnSet([PfnRange(0x900000, 0x900300)]), "free_pagetable"),
    ]
    assert last.observation.memory.blocks[added].state == "online"
    return start, replace(last, events=events, action={"do": "online"})


def ballooned():
    """Return the start of a Hyper-V guest and the step in which its balloon takes pages.

    The event tells which pages stand for them in a prediction.
    """
    start, step, *_ = read_recording(RECORDINGS / f"{BALLOON}.tar.xz").trace.steps
    taken = Event("ballooned", "", PfnSet([PfnRange(0x100000, 0x100400)]))
    return start, replace(step, events=[*step.events, taken])


def short_of_pages():
    """Return the same with a host that asks for more than the guest gives."""
    start, step = ballooned()
    at = next(n for n, event in enumerate(step.events) if event.message and event.message[0] == 6)
    request = decode(step.events[at].message)
    more = encode(replace(request, num_pages=request.num_pages + (1 << 16)))
    events = [*step.events, Event(AT_FLOOR, "")]
    events[at] = replace(events[at], message=more)
    return start, replace(step, events=events)


def compared(start, mine, other):
    """Return the files of one step, a prediction and an observation that follow an equal start."""
    predicted, observed = (
        Trace("s", "lab", "6.12", "opt-in", {}, [copy.copy(start), step]) for step in (mine, other)
    )
    return [file for file in compare(predicted, observed).files if not file.step.startswith("00")]


def layout(mine, other):
    """Return the files of a synthetic boot state and a real one."""
    return compare_layout(mine.observation, other.observation, "boot")


def differing(files):
    """Return what differs, by file and label."""
    return {(file.file, item.field): item for file in files for item in file.differences}
