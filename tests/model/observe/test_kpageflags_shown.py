"""/proc/kpageflags: changed pages by what they are, all others as the base shows them."""

from altmap.linux.kpageflags import PageFlag as F
from altmap.linux.pagewords import PageWords
from altmap.model.boot import boot
from altmap.model.kernel.pool import HugePool
from altmap.model.observe.kpageflags import kpageflags_shown
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine, Size

MIB = 1 << 20
BLOCK = PfnRange(0x10000, 0x18000)  # block 2 of a machine of 512 MiB


def kernel_of(*changed):
    kernel = boot(Machine(memory=Size(512 * MIB), release="6.12"))[0]
    kernel.used, kernel.reserved = PfnSet(), PfnSet()
    kernel.changed.blocks = PfnSet(PfnRange(id_, id_ + 1) for id_ in changed)
    return kernel


def shown(kernel, base=((0, 0x20000, F.SLAB),)):
    return kpageflags_shown(PageWords.of((s, nr, int(f)) for s, nr, f in base), kernel)


def at(kernel, offset):
    return shown(kernel).word_at(BLOCK.start + offset)


def test_pages_of_other_blocks_stay_as_they_were():
    words = shown(kernel_of(2))
    assert words.word_at(BLOCK.start - 1) == F.SLAB
    assert words.word_at(BLOCK.start) == F.BUDDY
    assert words.word_at(BLOCK.end - 1) == F.BUDDY
    assert words.word_at(BLOCK.end) == F.SLAB


def test_a_changed_page_of_another_block_is_shown_anew():
    kernel = kernel_of()
    kernel.changed.pages |= PfnRange(BLOCK.start, BLOCK.start + 1)
    assert (at(kernel, 0), at(kernel, 1)) == (F.BUDDY, F.SLAB)


def test_of_several_sets_the_first_that_has_a_page_gives_its_flags():
    kernel = kernel_of(2)
    order = ("self_hosted", "never_onlined", "fake_offline", "reserved", "poisoned")
    order = (*order, "hugetlb", "movable", "used")
    kernel.hugetlb[4] = HugePool(4, [])
    for nr, name in enumerate(order):
        # Page 8 * nr is of this set and of all that follow it.
        pages = PfnRange(BLOCK.start, BLOCK.start + 8 * nr + 4)
        if name == "hugetlb":
            kernel.hugetlb[4].in_use |= pages
        else:
            setattr(kernel, name, getattr(kernel, name) | pages)
    flags = [at(kernel, 8 * nr) for nr in range(len(order) + 1)]
    assert flags == [
        F.OWNER_PRIVATE,
        F.OFFLINE | F.DIRTY,
        F.OFFLINE,
        F.RESERVED,
        F.HWPOISON,
        F.COMPOUND_HEAD | F.HUGE,
        F.LRU,
        0,
        F.BUDDY,
    ]
    assert at(kernel, 41) == F.COMPOUND_TAIL | F.HUGE


def test_pages_of_offline_blocks_have_no_flags_and_no_page():
    kernel = kernel_of(2)
    kernel.online_blocks -= PfnRange(2, 3)
    assert at(kernel, 0) == kernel.release.nopage_flags == F.NOPAGE


def test_the_file_ends_with_the_last_section_that_was_ever_added():
    kernel = kernel_of()
    kernel.max_pfn = 0x28001
    assert shown(kernel).nr_pages == 0x30000
    assert shown(kernel).word_at(0x2FFFF) == F.NOPAGE
    longer = [(0, 0x20000, F.SLAB), (0x20000, 0x20000, F.NOPAGE)]
    assert shown(kernel, longer).nr_pages == 0x40000
    assert kpageflags_shown(None, kernel) is None
