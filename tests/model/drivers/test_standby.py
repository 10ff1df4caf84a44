"""s390x standby memory: when a block can be touched, and in which order that happens."""

import pytest

from altmap.errors import InputError
from altmap.model.drivers.standby import assign_storage_sccb
from altmap.model.machine import ModelMachine
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import (
    Address,
    Configure,
    Machine,
    Offline,
    Online,
    Plug,
    SetTunables,
    Size,
    Unplug,
)
from altmap.trace import OK

MIB, GIB = 1 << 20, 1 << 30
RELEASES = ("5.13", "6.1", "6.6", "6.8", "6.12", "7.3")
AT_BOOT, CONFIGURED = RELEASES[:-1], RELEASES[-1:]


def guest(release="6.12", **changes):
    settings = {
        "arch": "s390x",
        "memory": Size(GIB),
        "release": release,
        "memmap_on_memory": "on",
        "auto_online_blocks": "offline",
    }
    return ModelMachine.start(Machine(**settings | changes))


def plug(model, mib=1024, **keys):
    return model.perform(Plug(id="s", driver="standby", size=Size(mib * MIB), **keys))


def block_mib(model):
    return model.kernel.block_nr_pages * 4096 // MIB


def first(model):
    """The first block of standby memory, and its page frames."""
    block = GIB // (block_mib(model) * MIB)
    return block, model.kernel.block_pfns(block)


def order(record):
    """What happens to the first block: when it is accessible, when its memmap is written."""
    kinds = {"accessible": "take", "inaccessible": "give", "write": "memmap", "onlined": "online"}
    kinds |= {"offlined": "offline", "added": "add", "removed": "remove"}
    found = [kinds[event.kind] for event in record.events if event.kind in kinds]
    return [kind for i, kind in enumerate(found) if not i or found[i - 1] != kind]


@pytest.mark.parametrize("release", AT_BOOT)
def test_standby_memory_is_added_at_boot_offline_and_nobody_can_touch_it(release):
    model = guest(release)
    assert plug(model).outcome
    block, pfns = first(model)
    assert block in model.kernel.added_blocks
    assert block not in model.kernel.online_blocks
    assert not model.backing.backed.count(pfns)


@pytest.mark.parametrize("release", AT_BOOT)
def test_a_block_is_taken_when_it_goes_online_and_given_back_when_it_goes_offline(release):
    model = guest(release)
    plug(model)
    block, pfns = first(model)
    assert model.perform(Online(blocks=block, to="online_movable")).outcome
    assert model.backing.backed.covers(pfns)
    assert model.perform(Offline(blocks=block)).outcome
    assert not model.backing.backed.count(pfns)
    assert model.perform(Online(blocks=block, to="online_movable")).outcome


@pytest.mark.parametrize(
    ("release", "online", "hosted"),
    [
        ("5.13", ["memmap", "take", "online"], 0),
        ("6.6", ["memmap", "take", "online"], 0),
        ("6.8", ["take", "memmap", "online"], 1),
        ("6.12", ["take", "memmap", "online"], 1),
        ("7.3", ["memmap", "online"], 1),
    ],
)
def test_the_memmap_in_a_block_is_written_only_after_the_block_is_taken(release, online, hosted):
    """Up to 6.7 it lies elsewhere and MEM_GOING_ONLINE is early enough; then it is not."""
    model = guest(release)
    plug(model)
    block, pfns = first(model)
    if release in CONFIGURED:
        taken = model.perform(Configure(blocks=block))
        assert order(taken) == ["take", "add"]
    record = model.perform(Online(blocks=block, to="online_movable"))
    assert record.outcome
    assert order(record) == online
    assert bool(model.kernel.self_hosted.count(pfns)) == bool(hosted)
    record = model.perform(Offline(blocks=block))
    assert order(record) == (["offline"] if release in CONFIGURED else ["offline", "give"])


def test_a_kernel_that_poisons_the_memmap_waits_until_the_block_is_online():
    for release in ("6.8", "6.12"):
        model = guest(release, debug_vm=True)
        assert plug(model).outcome
        block, _ = first(model)
        assert model.perform(Online(blocks=block)).outcome
        assert not model.crashed


def test_a_policy_that_writes_the_memmap_at_add_meets_memory_on_standby():
    model = guest("6.12")
    plug(model)
    block, pfns = first(model)
    assert not model.kernel.online_blocks.count(PfnRange(block, block + 1))
    with pytest.raises(Exception, match="addressing exception"):
        model.kernel.touch("write", pfns, "mark_vmemmap_pages", "marks")


@pytest.mark.parametrize("release", RELEASES)
def test_auto_online_takes_the_blocks_at_once(release):
    model = guest(release, auto_online_blocks="online_movable")
    plug(model)
    if release in CONFIGURED:
        assert model.perform(Configure(id="s")).outcome
    _, pfns = first(model)
    assert model.backing.backed.covers(PfnRange(pfns.start, pfns.start + GIB // 4096))
    assert len(model.kernel.movable_zone(0).present) == GIB // 4096


@pytest.mark.parametrize("release", RELEASES)
def test_only_whole_blocks_are_usable_and_the_rest_is_told(release):
    model = guest(release)
    size = block_mib(model)
    record = plug(model, 2 * size + size // 2, increment=Size(size // 2 * MIB))
    assert f"({2 * size} MiB of {2 * size + size // 2} MiB usable)" in record.events[0].text
    block, _ = first(model)
    if release in CONFIGURED:
        assert model.perform(Configure(id="s")).outcome
    assert [b for b in model.kernel.added_blocks if b >= block] == [block, block + 1]


def test_each_increment_is_a_message_of_its_own_with_its_number():
    model = guest("6.12")
    size = block_mib(model)
    plug(model, increment=Size(size // 4 * MIB))
    block, _ = first(model)
    record = model.perform(Online(blocks=block))
    asked = [e.message for e in record.events if e.message and e.text.startswith("guest")]
    numbers = [GIB // (size // 4 * MIB) + 1 + i for i in range(4)]
    assert asked == [assign_storage_sccb(number) for number in numbers]
    answers = [e.message for e in record.events if e.message and e.text.startswith("host")]
    assert answers == [assign_storage_sccb(number, 0x20) for number in numbers]


def test_the_command_of_a_message_is_that_of_what_is_done():
    """drivers/s390/char/sclp_mem.c: SCLP_CMDW_ASSIGN_STORAGE 0x000d0001, UNASSIGN 0x000c0001."""
    model = guest("6.12")
    plug(model)
    block, _ = first(model)
    for step, words in (
        (Online(blocks=block, to="online_movable"), "SCLP assign storage 0x000d0001 increment"),
        (Offline(blocks=block), "SCLP unassign storage 0x000c0001 increment"),
    ):
        texts = [event.text for event in model.perform(step).events]
        sent = [text for text in texts if text.startswith("guest") and "SCLP" in text]
        assert sent
        assert all(words in text for text in sent)


def test_the_bytes_of_an_assign_are_big_endian_with_the_length_of_a_page():
    assert assign_storage_sccb(5).hex(" ") == "10 00 00 00 00 00 00 00 00 05"
    assert assign_storage_sccb(0x1234, 0x20).hex(" ") == "10 00 00 00 00 00 00 20 12 34"


def test_boot_memory_is_made_of_increments_too():
    model = guest("6.12")
    plug(model)
    # A block in which nothing is used, so that it can go offline.
    block = 1
    pfns = model.kernel.block_pfns(block)
    model.kernel.used -= pfns
    model.kernel.reserved -= pfns
    record = model.perform(Offline(blocks=block))
    assert record.outcome
    assert order(record) == ["offline", "give"]
    assert not model.backing.backed.count(pfns)
    assert model.perform(Online(blocks=block)).outcome
    assert model.backing.backed.covers(pfns)


def test_a_block_with_an_increment_on_standby_does_not_go_offline():
    model = guest("6.12")
    size = block_mib(model)
    plug(model, increment=Size(size // 2 * MIB))
    block, pfns = first(model)
    model.perform(Online(blocks=block, to="online_movable"))
    driver = model._drivers["standby"]
    driver.standby |= PfnRange(pfns.start, pfns.start + len(pfns) // 2)
    outcome = model.perform(Offline(blocks=block)).outcome
    assert (outcome.errno, outcome.function) == ("EPERM", "sclp_mem_notifier")


# --- since 6.19 -----------------------------------------------------------------------------


def test_nothing_is_added_before_it_is_configured():
    model = guest("7.3")
    plug(model)
    block, pfns = first(model)
    assert block not in model.kernel.added_blocks
    assert model.perform(Online(blocks=block)).outcome.errno == "ENOENT"
    assert model.perform(Configure(blocks=block)).outcome
    assert model.backing.backed.covers(pfns)
    # The value that it has changes nothing.
    assert order(model.perform(Configure(blocks=block))) == []


def test_an_online_block_is_not_given_back_and_an_offline_one_is_before_it_is_removed():
    model = guest("7.3")
    plug(model)
    block, pfns = first(model)
    model.perform(Configure(blocks=block))
    model.perform(Online(blocks=block, to="online_movable"))
    outcome = model.perform(Configure(blocks=block, config=False)).outcome
    assert (outcome.errno, outcome.function) == ("EBUSY", "sclp_config_mem_store")
    model.perform(Offline(blocks=block))
    record = model.perform(Configure(blocks=block, config=False))
    assert record.outcome
    assert record.name == f"deconfigure-memory{block}"
    assert order(record) == ["give", "remove"]
    assert not model.backing.backed.count(pfns)


def test_each_block_says_by_itself_whether_it_hosts_its_memmap():
    model = guest("7.3")
    plug(model)
    block, _ = first(model)
    assert model.perform(Configure(blocks=block, memmap_on_memory=False)).outcome
    assert model.perform(Configure(blocks=block + 1)).outcome
    hosted = model.kernel.self_hosted
    assert not hosted.count(model.kernel.block_pfns(block))
    assert hosted.count(model.kernel.block_pfns(block + 1))
    outcome = model.perform(Configure(blocks=block, memmap_on_memory=True)).outcome
    assert (outcome.errno, outcome.function) == ("EBUSY", "sclp_memmap_on_memory_store")


def test_a_block_that_is_not_configured_is_deconfigured_without_effect():
    model = guest("7.3")
    plug(model)
    block, _ = first(model)
    record = model.perform(Configure(blocks=block, config=False))
    assert (record.outcome, order(record)) == (OK, [])


def test_a_memmap_in_the_block_that_is_not_possible_is_refused():
    model = guest("7.3", memmap_on_memory="off")
    plug(model)
    block, _ = first(model)
    outcome = model.perform(Configure(blocks=block, memmap_on_memory=True)).outcome
    assert outcome.errno == "EOPNOTSUPP"
    assert model.perform(Configure(blocks=block)).outcome
    assert not model.kernel.self_hosted


def test_an_add_that_is_refused_gives_the_increments_back():
    model = guest("7.3", memmap_on_memory="off")
    plug(model)
    block, pfns = first(model)
    kernel = model.kernel
    kernel.used |= PfnSet().copy() | kernel.free(kernel.zones[0, "DMA"])
    record = model.perform(Configure(blocks=block))
    assert record.outcome.errno == "ENOMEM"
    assert order(record) == ["take", "give"]
    assert not model.backing.backed.count(pfns)


def test_before_6_19_there_is_no_such_file():
    model = guest("6.12")
    plug(model)
    assert model.perform(Configure(id="s")).outcome.errno == "ENOENT"


# --- what cannot be asked -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"address": Address(512 * MIB)}, "overlaps memory"),
        ({"mib": 100}, "whole increments"),
        ({"increment": Size(3 * MIB)}, "power of two"),
        ({"increment": Size(8 * GIB)}, "power of two"),
    ],
)
def test_storage_that_cannot_be_is_an_error(keys, why):
    with pytest.raises(InputError, match=why):
        plug(guest(), **keys)


def test_other_architectures_have_none():
    with pytest.raises(InputError, match="'standby': on s390x only, not x86_64"):
        plug(guest(arch="x86_64"))
    with pytest.raises(InputError, match="'standby': on s390x only"):
        guest(arch="x86_64").perform(Configure(blocks=8))


def test_standby_memory_is_never_unplugged_and_a_machine_has_one_increment():
    model = guest()
    plug(model)
    with pytest.raises(InputError, match="never removes"):
        model.perform(Unplug(id="s"))
    with pytest.raises(InputError, match="one size"):
        model.perform(Plug(id="t", driver="standby", size=Size(GIB), increment=Size(MIB)))
    assert model.perform(SetTunables(auto_online_blocks="online")).outcome


def test_only_blocks_of_standby_memory_are_configured():
    model = guest("7.3")
    plug(model)
    with pytest.raises(InputError, match="memory0: not a block of standby"):
        model.perform(Configure(blocks=0))
