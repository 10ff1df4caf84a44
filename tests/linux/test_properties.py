"""``parse(render(x)) == x`` for values that no kernel has shown us."""

from hypothesis import given
from hypothesis import strategies as st

from altmap.linux import buddyinfo, iomem, meminfo, node, vmstat, zoneinfo
from altmap.linux.observation import (
    Block,
    MemoryFolder,
    NodeFolder,
    Observation,
    PageRun,
    Resource,
    ZoneInfo,
)
from altmap.linux.pagewords import PageWords

U64 = st.integers(0, 2**64 - 1)
SMALL = st.integers(0, 1023)
NAMES = st.from_regex(r"[a-zA-Z][a-zA-Z0-9_()]{0,30}", fullmatch=True)
COUNTERS = st.dictionaries(NAMES, U64, max_size=5)
# The names that open another section of zoneinfo.
OTHERS = COUNTERS.map(
    lambda table: {k: v for k, v in table.items() if k not in ("cpu", "pagesets")}
)
WORDS = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_ .=-]{0,20}", fullmatch=True)


@st.composite
def tables(draw):
    table = draw(COUNTERS)
    huge = draw(st.dictionaries(NAMES.map("HugePages_{}".format), U64, max_size=3))
    return table | huge


@st.composite
def zones(draw):
    pages = {name: draw(U64) for name in ("free", "min", "low", "high", "spanned", "managed")}
    pages["present"] = draw(st.sampled_from([0, 1, 2**64 - 1]))
    node_nr, name = draw(SMALL), draw(st.from_regex("[A-Z][A-Za-z0-9]{1,8}", fullmatch=True))
    protection = tuple(draw(st.lists(U64, max_size=5)))
    if not pages["present"]:
        return ZoneInfo(node_nr, name, pages, protection)
    pagesets = [
        {"cpu": cpu} | draw(OTHERS) | {"vm stats threshold": draw(U64)}
        for cpu in draw(st.lists(SMALL, max_size=3))
    ]
    tail = {"node_unreclaimable": draw(U64), "start_pfn": draw(U64)} | draw(OTHERS)
    return ZoneInfo(
        node_nr, name, pages, protection, draw(OTHERS), tuple(pagesets), tail, draw(OTHERS)
    )


@st.composite
def trees(draw):
    resources, deepest = [], 0
    for name in draw(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=9))):
        depth = draw(st.integers(0, deepest))
        start, last = sorted(draw(st.tuples(U64, U64)))
        resources.append(Resource(depth, start, last + 1, name))
        deepest = depth + 1
    return tuple(resources)


@st.composite
def page_runs(draw):
    runs, pfn = [], 0
    for nr_pages, flags in draw(st.lists(st.tuples(st.integers(1, 2**36), U64), max_size=9)):
        runs.append(PageRun(pfn, nr_pages, flags))
        pfn += nr_pages
    return PageWords.of(runs)


BLOCKS = st.builds(
    Block,
    state=st.sampled_from(["online", "offline", "going-offline"]),
    phys_device=st.none() | U64,
    removable=st.none() | st.booleans(),
    valid_zones=st.none() | st.lists(st.sampled_from(["none", "Normal", "Movable"])).map(tuple),
    nodes=st.sets(SMALL, max_size=3).map(sorted).map(tuple),
    firmware_node=st.none() | st.just("../../../LNXSYSTM:00/PNP0C80:00"),
)
MEMORY = st.builds(
    MemoryFolder,
    st.integers(20, 40).map(lambda n: 1 << n),
    st.none() | st.sampled_from(["online", "offline", "online_movable"]),
    st.dictionaries(st.integers(0, 10**6), BLOCKS, max_size=6),
)
NODES = st.builds(
    NodeFolder,
    st.dictionaries(
        st.sampled_from(["online", "possible", "has_memory"]),
        st.sets(SMALL).map(sorted).map(tuple),
        min_size=1,
    ),
    st.dictionaries(SMALL, tables(), max_size=3),
    st.booleans(),
)


@given(tables())
def test_meminfo(value):
    assert meminfo.parse(meminfo.render(value)) == value


@given(SMALL, tables(), st.booleans())
def test_meminfo_of_a_node(nr, value, narrow):
    text = node.render_meminfo(nr, value, narrow_file_pages=narrow)
    assert node.parse_meminfo(nr, text) == value


@given(COUNTERS)
def test_vmstat(value):
    assert vmstat.parse(vmstat.render(value)) == value


@given(st.lists(zones(), max_size=4, unique_by=lambda zone: zone.key).map(tuple))
def test_zoneinfo(value):
    assert zoneinfo.parse(zoneinfo.render(value)) == value


@given(
    st.dictionaries(
        st.tuples(SMALL, st.from_regex(r"[A-Z][A-Za-z0-9]*", fullmatch=True)),
        st.lists(U64, min_size=1, max_size=14).map(tuple),
        max_size=4,
    )
)
def test_buddyinfo(value):
    assert buddyinfo.parse(buddyinfo.render(value)) == value


@given(trees())
def test_iomem(value):
    assert iomem.parse(iomem.render(value)) == value


@given(page_runs())
def test_kpageflags(value):
    assert PageWords.parse(value.render()) == value


@given(st.sets(st.integers(0, 2**16 - 1)))
def test_list_of_ids_agrees_with_a_loop(ids):
    text = node.render_list(sorted(ids))
    assert node.parse_list(text) == tuple(sorted(ids))
    covered = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        covered |= set(range(int(first), int(last or first) + 1))
    assert covered == ids


@given(
    st.builds(
        Observation,
        version=st.none() | WORDS,
        cmdline=st.none() | WORDS,
        memory=st.none() | MEMORY,
        nodes=st.none() | NODES,
        parameters=st.dictionaries(st.from_regex("[a-z_]+", fullmatch=True), WORDS, max_size=3),
    )
)
def test_observation_of_folders(value):
    assert Observation.read(value.render()) == value
