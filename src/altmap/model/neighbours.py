"""Which record stands in for a kernel without one, and why: mainline's releases, distributions'.

The numbers of a distribution's kernel are those of the release that it began with; what was
backported since is in no number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ("DISTRIBUTIONS", "STAND_INS", "Distribution", "StandIn", "distribution_of", "stand_in")


@dataclass(frozen=True, slots=True)
class StandIn:
    """The record that stands in for a run of releases.

    Attributes
    ----------
    first, last : tuple of (int, int)
        Major and minor number of the first and the last of them.
    record : str
        Name of the record.
    why : str
        What it shares with them, and where it differs.
    """

    first: tuple[int, int]
    last: tuple[int, int]
    record: str
    why: str


#: Releases for which another record is nearer than the newest one that is not newer, and those
#: for which a difference is known.
STAND_INS = (
    StandIn(
        (5, 0),
        (5, 7),
        "4.20",
        "no release before 5.13 has memmap_on_memory, none before 5.8 virtio-mem; before 5.1 there "
        "is no dax/kmem",
    ),
    StandIn((5, 11), (5, 12), "5.10", "5.11 takes ballooned pages out of MemTotal, 5.10 does not"),
    StandIn((5, 14), (5, 14), "5.13", "memory groups and auto-movable came with 5.15"),
    StandIn(
        (5, 16),
        (5, 19),
        "5.15",
        "5.19 isolates a range's ends first, and virtio-mem's sub-blocks may be single pageblocks",
    ),
    StandIn((6, 0), (6, 0), "6.1", "6.0 marks self-hosted memmap pages as 6.1 does, 5.15 does not"),
    StandIn((6, 2), (6, 5), "6.1", "6.2 keeps blocks with HWPoison pages offline, 6.1 does not"),
    StandIn((6, 7), (6, 7), "6.6", "a memmap for each block of a request came with 6.8"),
    StandIn((6, 9), (6, 10), "6.8", "6.10 lets Hyper-V add whole memory blocks, 6.8 does not"),
    StandIn(
        (6, 11),
        (6, 11),
        "6.12",
        "6.11 counts memmap pages and no longer marks them reserved, as 6.12 and unlike 6.8",
    ),
    StandIn(
        (6, 13),
        (6, 16),
        "6.12",
        "6.13 has virtio-mem on s390x and sections of 128 MiB there, 6.14 lets hv_balloon online "
        "other drivers' pages and creates kswapd in its node's memory; 6.17 changes the notifiers "
        "of nodes and /proc/kpageflags; 6.15 moves huge pages to none of the block that they "
        "leave; some of them let a huge page move within its node only once, as 6.18",
    ),
    StandIn((6, 17), (6, 17), "6.18", "6.17 brought what tells 6.18 from 6.12"),
    StandIn(
        (6, 19),
        (6, 19),
        "7.0",
        "6.19 configures standby memory of s390x and dropped MEM_PREPARE_ONLINE, as 7.0 and unlike "
        "6.18",
    ),
    StandIn(
        (7, 1), (7, 1), "7.2", "7.1 brought arm64's veto of a split leaf, which 7.0 does not have"
    ),
)


def stand_in(version: tuple[int, int]) -> StandIn | None:
    """Return the entry for a release, ``None`` if the newest record that is not newer serves."""
    return next((each for each in STAND_INS if each.first <= version <= each.last), None)


@dataclass(frozen=True, slots=True)
class Distribution:
    """Kernels of a distribution, known by their name.

    Attributes
    ----------
    name : str
        For people.
    pattern : str
        A regular expression for the whole of ``uname -r``.
    """

    name: str
    pattern: str


DISTRIBUTIONS = (
    Distribution("RHEL 8", r"4\.18\.0-\d.*\.el8.*"),
    Distribution("RHEL 9", r"5\.14\.0-\d.*\.el9.*"),
    Distribution("RHEL 10", r"6\.12\.0-\d.*\.el10.*"),
    Distribution("Oracle's UEK", r"\d+\.\d+\.\d+-.*\.el\d+uek\..*"),
    Distribution("SLES 15", r"(?:4\.12\.14|5\.3\.18|5\.14\.21|6\.4\.0)-1?5\d*\..*"),
    Distribution("SLES 16", r"6\.12\.0-16\d*\..*"),
    Distribution(
        "Ubuntu",
        r"\d+\.\d+\.0-\d+-(?:generic|lowlatency|kvm|virtual|aws|azure|gcp|gke|oracle|ibm|nvidia)"
        r"(?:-.*)?",
    ),
    Distribution("Amazon Linux", r"\d+\.\d+\.\d+-.*\.amzn\d+\..*"),
)


def distribution_of(full: str) -> Distribution | None:
    """Return the distribution that ``uname -r`` names, ``None`` if none with many backports."""
    return next((each for each in DISTRIBUTIONS if re.fullmatch(each.pattern, full)), None)
