from dataclasses import replace

import pytest

from altmap.linux import addedpages
from altmap.linux.kpageflags import PageFlag, is_memmap
from altmap.linux.observation import Observation
from altmap.linux.pagewords import PageWords


def by_loop(seen, test):
    return sum(run.nr_pages for run in seen.kpageflags if test(run.flags))


@pytest.fixture
def large(monkeypatch):
    """Treat every machine as one whose page frames are too many to be read."""
    monkeypatch.setattr(addedpages, "_MOST_READ_NR_PAGES", 0)


def test_memmap_pages_of_a_large_machine_are_those_of_a_loop(recorded, large):
    seen = Observation.read(recorded)
    assert addedpages.self_hosted_nr_pages(seen) == by_loop(seen, is_memmap)


def test_a_block_that_holds_more_of_the_memmap_than_the_first_is_counted_in_full(recording, large):
    seen = Observation.read(recording("linux-6.12-dimm"))
    (start, nr_pages, flags), *_ = [run for run in seen.kpageflags if is_memmap(run.flags)]
    second = start + 32768
    words = {pfn: word for pfn, _, word in seen.kpageflags}
    assert is_memmap(words[second])
    runs = []
    for run in seen.kpageflags:
        if run.start_pfn == second + nr_pages:  # behind the second block's memmap
            runs += [(run.start_pfn, 8, flags), (run.start_pfn + 8, run.nr_pages - 8, run.flags)]
        else:
            runs.append(run)
    more = replace(seen, kpageflags=PageWords.of(runs))
    assert addedpages.self_hosted_nr_pages(more) == by_loop(seen, is_memmap) + 8


@pytest.mark.parametrize("part", ["begins", "ends"])
def test_a_block_that_is_backed_in_part_is_counted(recording, monkeypatch, part):
    monkeypatch.setattr(addedpages, "_MOST_READ_NR_PAGES", 40_000)
    seen = Observation.read(recording("linux-6.12-dimm"))
    first, last = (0x100000, 0x100000 + 99) if part == "begins" else (0x107F00, 0x107FFF)
    runs, done = [], False
    for start, nr_pages, flags in seen.kpageflags:
        end = start + nr_pages
        if end <= first or last < start:
            runs.append((start, nr_pages, flags))
            continue
        if start < first:
            runs.append((start, first - start, flags))
        if not done:
            runs.append((first, last + 1 - first, int(PageFlag.OFFLINE)))
            done = True
        if last + 1 < end:
            runs.append((last + 1, end - last - 1, flags))
    made = replace(seen, kpageflags=PageWords.of(runs))
    assert addedpages.fake_offline_nr_pages(made) == last + 1 - first


def test_nothing_is_said_where_counting_would_take_too_long(recording, large):
    seen = Observation.read(recording("linux-6.12-dimm"))
    words = PageWords.of([(0, seen.kpageflags.nr_pages, int(PageFlag.OFFLINE))])
    assert addedpages.fake_offline_nr_pages(replace(seen, kpageflags=words)) is None
