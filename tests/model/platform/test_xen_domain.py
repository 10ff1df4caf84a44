"""A Xen domain's pages: as many as its limit allows, counted each time that they are populated."""

import pytest

from altmap.model.platform.backing import Backing
from altmap.model.platform.xen import XenDomain
from altmap.pfn import PfnRange, PfnSet


@pytest.mark.parametrize(
    ("owned", "limit", "wanted", "granted"),
    [
        (100, None, 7, 7),
        (100, 110, 7, 7),
        (100, 107, 7, 7),
        (100, 106, 7, 6),
        (100, 100, 7, 0),
        (100, 90, 7, 0),
    ],
)
def test_a_domain_may_have_what_its_limit_leaves(owned, limit, wanted, granted):
    assert XenDomain(Backing(), owned, limit).may_have(wanted) == granted


def test_pages_are_counted_and_backed_when_populated_and_released():
    domain = XenDomain(Backing(), 100)
    domain.populate_physmap(PfnSet.of(PfnRange(0, 8)))
    domain.populate_physmap(PfnSet.of(PfnRange(4, 8)))
    assert (domain.tot_pages, len(domain.backing.backed)) == (112, 8)
    domain.decrease_reservation(PfnSet.of(PfnRange(4, 8)))
    assert (domain.tot_pages, len(domain.backing.backed)) == (108, 4)
