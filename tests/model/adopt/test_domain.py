"""What the hypervisor backs of an adopted Xen domain."""

from dataclasses import replace

import pytest
from small_machine import RAM, ZONES, files, with_runs

from altmap.linux.kpageflags import PageFlag as F
from altmap.linux.observation import BalloonFolder
from altmap.model.adopt import adopt
from altmap.pfn import PfnRange, PfnSet
from altmap.scenario import Machine

#: Pages of the boot memory's System RAM.
NR_RAM = 0x9E + 0x1FF00
RESERVED = (0x10000, 0x4000, F.RESERVED)
BALLOONED = (0x8000, 0x1000, F.OFFLINE)


def backing(*runs, owned, ram=RAM[:2], **changes):
    balloon = BalloonFolder(owned * 4, owned * 4, 0)
    seen = files(runs=with_runs(*runs)[:-2], ram=ram, balloon=balloon, **changes)
    made = adopt(seen, Machine())
    assert made.backing.write_fault == "page fault"
    return made.backing.backed


def test_a_ballooned_page_is_not_backed():
    backed = backing(BALLOONED, owned=NR_RAM + 1 - 0x1000)
    assert not backed.count(PfnRange(0x8000, 0x9000))
    assert len(backed) == NR_RAM - 0x1000


def test_ram_that_the_domain_does_not_own_is_the_end_of_what_is_reserved():
    backed = backing(BALLOONED, RESERVED, owned=NR_RAM + 1 - 0x1000 - 0x300)
    assert not backed.count(PfnRange(0x13D00, 0x14000))
    assert len(backed) == NR_RAM - 0x1000 - 0x300


def test_a_domain_that_owns_all_has_all_backed():
    # Page 0 is the domain's, and no System RAM.
    assert len(backing(RESERVED, owned=NR_RAM + 1)) == NR_RAM
    assert len(backing(RESERVED, owned=NR_RAM)) == NR_RAM - 1
    assert len(backing(RESERVED, owned=NR_RAM + 100)) == NR_RAM


def test_no_more_than_what_is_reserved_is_taken_to_lack_backing():
    # 256 pages are reserved besides, below 1 MiB the holes of the firmware's map.
    backed = backing(RESERVED, owned=1)
    assert len(backed) == NR_RAM - 0x4000 - 0x100


def test_holes_that_are_reserved_are_not_taken_for_ram():
    ram = [RAM[0], (0x100000, 0x1FF80000 - 0x80000)]
    hole = (0x1FF00, 0x100, F.RESERVED)
    backed = backing(RESERVED, hole, owned=NR_RAM + 1 - 0x100 - 0x300, ram=ram)
    assert not backed.count(PfnRange(0x13D00, 0x14000))
    assert len(backed) == NR_RAM - 0x100 - 0x300


def test_pages_of_offline_blocks_are_not_backed():
    blocks = dict(files().memory.blocks)
    del blocks[32]
    blocks[3] = type(blocks[3])("offline", valid_zones=("DMA32",), nodes=(0,))
    backed = backing(owned=NR_RAM + 1 - 0x8000, blocks=blocks)
    assert len(backed) == NR_RAM - 0x8000
    assert not backed.count(PfnRange(0x18000, 0x20000))


def test_without_a_balloon_all_ram_is_backed():
    made = adopt(files(runs=with_runs(BALLOONED)), Machine())
    assert made.backing.write_fault == "general protection fault"
    assert len(made.backing.backed) == NR_RAM + 0x8000


def with_managed(zone, nr_pages):
    return replace(zone, pages=zone.pages | {"managed": nr_pages, "free": nr_pages})


@pytest.mark.parametrize(
    ("version", "ballooned"),
    [
        ("Linux version 6.12.95+deb13-amd64", (0x100000, 0x101000)),
        ("Linux version 6.1.0-50-amd64", (0x107000, 0x108000)),
    ],
)
def test_without_page_flags_as_many_pages_are_ballooned_as_the_driver_counts(version, ballooned):
    """6.12 backs a section from its end down; 6.1 has ballooned what lies behind boot memory."""
    # The DIMM of the files stands for a section.
    zones = [with_managed(zone, 0x7000) if zone.name == "Movable" else zone for zone in ZONES]
    seen = files(
        version=version,
        zoneinfo=tuple(zones),
        kpageflags=None,
        balloon=BalloonFolder(NR_RAM * 4, NR_RAM * 4, 0x1000 * 4),
    )
    made = adopt(seen, Machine())
    assert made.kernel.fake_offline == PfnSet.of(PfnRange(*ballooned))
    assert not made.backing.backed & made.kernel.fake_offline
    for zone in made.kernel.zones.values():
        assert zone.managed_offset == 0


def test_no_more_pages_are_ballooned_than_a_zone_has_unmanaged():
    seen = files(kpageflags=None, balloon=BalloonFolder(NR_RAM * 4, NR_RAM * 4, 1 << 30))
    made = adopt(seen, Machine())
    for zone in seen.zoneinfo[:4]:
        kept = made.kernel.fake_offline & made.kernel.zones[zone.key].present
        assert len(kept) == zone.pages["present"] - zone.pages["managed"]
