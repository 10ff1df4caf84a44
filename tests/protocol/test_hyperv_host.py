"""A Hyper-V host by itself: what it sends, and what it makes of the answers."""

import pytest

from altmap.errors import InputError
from altmap.pfn import PfnRange, PfnSet
from altmap.protocol.hyperv_host import DynamicMemoryHost, check_hot_add
from altmap.protocol.hyperv_messages import (
    MAX_RANGES,
    BalloonRequest,
    BalloonResponse,
    CapabilitiesReport,
    HotAddRequest,
    HotAddResponse,
    MessageError,
    PageRange,
    UnballoonResponse,
    VersionRequest,
)
from altmap.trace import Outcome

MIB, GIB = 1 << 20, 1 << 30
PAGES = PfnRange(0x100000, 0x104000)


def version(major=2, minor=0, *, last=True):
    return VersionRequest(trans_id=1, major=major, minor=minor, is_last_attempt=last)


def capabilities(*, balloon=True, hot_add=True):
    return CapabilitiesReport(trans_id=2, balloon=balloon, hot_add=hot_add, hot_add_alignment=7)


def added(nr_pages):
    return HotAddResponse(trans_id=3, page_count=nr_pages, result=1)


def given(*ranges, more=False):
    pages = tuple(PageRange(*each) for each in ranges)
    return BalloonResponse(trans_id=4, more_pages=more, ranges=pages)


class Guest:
    """A guest that answers as it is told."""

    end_pfn = 0x123456

    def __init__(self, *answers, assigned_nr_pages=GIB // 4096):
        self.answers = list(answers)
        self.assigned_nr_pages = assigned_nr_pages
        self.sent, self.backed, self.notes = [], [], []
        self.taken, self.returned = PfnSet(), PfnSet()
        self.opened = 0

    def open(self):
        self.opened += 1

    def send(self, message):
        self.sent.append(message)

    def receive(self):
        return self.answers.pop(0)

    def back(self, id_, pages):
        self.backed.append((id_, pages))

    def back_again(self, pages):
        self.returned |= pages

    def take(self, pages):
        self.taken |= pages

    def why_not_added(self, pages):
        return Outcome.refused("EINVAL", "add_memory", str(pages))

    def note(self, text, function):
        self.notes.append(text)


def connected(*answers, **changes):
    guest = Guest(version(), capabilities(), *answers, **changes)
    host = DynamicMemoryHost(guest)
    assert host.connect()
    guest.sent.clear()
    return guest, host


def test_a_host_connects_once():
    guest, host = connected()
    assert host.connect()
    assert guest.opened == 1


def test_versions_are_refused_until_one_is_accepted():
    guest = Guest(version(2, last=False), version(1, last=False), capabilities())
    assert DynamicMemoryHost(guest, ("1.0",)).connect()
    assert [message.is_accepted for message in guest.sent] == [False, True, True]


def test_no_version_in_common_closes_the_channel_for_good():
    guest = Guest(version(2, last=False), version(1))
    host = DynamicMemoryHost(guest, ("0.3",))
    for _ in range(2):
        assert host.hot_add("a", PAGES, None).errno == "EPROTO"
    assert (guest.opened, guest.backed) == (1, [])


def test_an_answer_of_another_kind_is_an_error():
    _, host = connected(UnballoonResponse(trans_id=5))
    with pytest.raises(MessageError, match="the host waits for MEM_HOT_ADD_RESPONSE"):
        host.hot_add("a", PAGES, None)
    with pytest.raises(MessageError, match="before its version"):
        DynamicMemoryHost(Guest(added(1))).connect()


def test_a_range_is_backed_before_it_is_named():
    guest, host = connected(added(0x4000), added(0))
    assert host.hot_add("a", PAGES, PAGES)
    assert guest.backed == [("a", PAGES)]
    pages = PageRange(0x100000, 0x4000)
    assert guest.sent == [HotAddRequest(trans_id=1, pages=pages, region=pages)]
    assert host.hot_add("b", PAGES, None).errno == "EINVAL"
    assert guest.sent[1].trans_id == 2


def test_a_guest_that_cannot_is_not_asked():
    guest = Guest(version(), capabilities(balloon=False, hot_add=False))
    host = DynamicMemoryHost(guest)
    assert host.hot_add("a", PAGES, None).function == "hot_add_enabled"
    assert host.resize("balloon", GIB // 2).function == "ballooning_enabled"
    assert guest.backed == []


@pytest.mark.parametrize("nr_pages", [(1 << 24) - 1, 1 << 24])
def test_a_request_holds_24_bits_of_pages(nr_pages):
    pages = PfnRange(0, nr_pages)
    if nr_pages < 1 << 24:
        check_hot_add("a", pages, pages)
        return
    for what in ((pages, None), (PfnRange(0, 1), pages)):
        with pytest.raises(InputError, match="16777215 at most"):
            check_hot_add("a", *what)


def test_a_host_adds_whole_pieces_behind_all_memory():
    guest, host = connected(added(1))
    assert host.resize("balloon", GIB + 300 * MIB)
    start = 0x128000  # the next multiple of 128 MiB
    assert guest.backed == [("balloon:1", PfnRange(start, start + 256 * MIB // 4096))]
    assert guest.notes == [
        "the host adds multiples of 128 MiB only: the guest has 44 MiB less than it should"
    ]


def test_a_host_takes_until_it_has_enough():
    guest, host = connected(
        given((0x100, 510), more=True), given((0x1000, 2)), given((0x2000, 512))
    )
    assert host.resize("balloon", GIB - 1024 * 4096)
    assert guest.sent == [
        BalloonRequest(trans_id=1, num_pages=1024),
        BalloonRequest(trans_id=2, num_pages=512),
    ]
    assert len(guest.taken) == len(host.removed) == 1024


def test_a_guest_that_gives_nothing_ends_it():
    _, host = connected(given((0x100, 512)), given())
    outcome = host.resize("balloon", GIB - 1024 * 4096)
    assert (outcome.errno, outcome.function) == ("ENOMEM", "balloon_up")
    assert "512 of 1024 pages" in outcome.why


def test_one_request_asks_for_585728_pages_at_most():
    guest, host = connected(given(), assigned_nr_pages=1 << 20)
    host.resize("balloon", 0)
    assert guest.sent == [BalloonRequest(trans_id=1, num_pages=585728)]


def test_what_was_taken_goes_back_first_and_in_messages_of_a_page():
    guest, host = connected(UnballoonResponse(trans_id=5))
    host.removed |= PfnSet([PfnRange(at, at + 1) for at in range(0, 2 * (MAX_RANGES + 1), 2)])
    assert host.resize("balloon", GIB + (MAX_RANGES + 1) * 4096)
    assert [(len(m.ranges), m.more_pages) for m in guest.sent] == [(MAX_RANGES, True), (1, False)]
    assert len(guest.returned) == MAX_RANGES + 1
    assert not host.removed
    assert guest.backed == []


def test_only_the_balloon_has_a_size_of_whole_pages():
    _, host = connected()
    with pytest.raises(InputError, match="a range keeps its size"):
        host.resize("hv1", GIB)
    with pytest.raises(InputError, match="need whole pages"):
        host.resize("balloon", GIB + 1)
