"""Releases: a release behaves like the newest record that is not newer."""

import pytest

from altmap.errors import InputError
from altmap.model.releases import RELEASES, release_for


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("4.20", "4.20"),
        ("5.10.0-23-amd64", "4.20"),
        ("6.1", "6.1"),
        ("6.1.192", "6.1"),
        ("6.5", "6.1"),
        ("6.11.3", "6.8"),
        ("6.12", "6.12"),
        ("6.12.95+deb12-amd64", "6.12"),
        ("6.17", "6.12"),
        ("6.100", "6.18"),
        ("7.3.4", "7.3"),
        ("9.9", "7.3"),
    ],
)
def test_a_release_is_the_newest_record_that_is_not_newer(name, record):
    assert release_for(name).name == record


@pytest.mark.parametrize("name", ["six", "", "6"])
def test_what_is_no_release_is_refused(name):
    with pytest.raises(InputError) as caught:
        release_for(name)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("name", "scope", "refuses", "force"),
    [
        ("4.20", "none", False, False),
        ("5.10", "none", False, False),
        ("5.13", "one_block", True, False),
        ("6.1", "one_block", True, False),
        ("6.6", "one_block", False, True),
        ("6.8", "per_block", False, True),
        ("6.12", "per_block", False, True),
        ("7.3", "per_block", False, True),
    ],
)
def test_three_regimes_of_memmap_on_memory(name, scope, refuses, force):
    release = release_for(name)
    assert release.memmap_scope == scope
    assert release.refuses_unsupported_memmap == refuses
    assert release.memmap_force == force


def test_behaviours_are_those_of_the_sources():
    assert RELEASES["7.2"].hyperv_versions == ("2.0", "1.0", "0.3")
    assert not RELEASES["7.2"].kmem_state_file
    veto = [name for name, each in RELEASES.items() if each.rejects_leaf_split]
    assert veto == ["7.2", "7.3"]
    sections = {name for name, each in RELEASES.items() if each.section_size_bytes}
    assert sections == {"6.18", "7.2", "7.3"}
    assert [name for name, each in RELEASES.items() if "s390x" in each.virtio_mem] == [
        *("6.18", "7.2", "7.3"),
    ]
    assert [name for name, each in RELEASES.items() if each.node_notifier] == ["6.18", "7.2", "7.3"]
    old, new, newest = RELEASES["6.1"], RELEASES["6.12"], RELEASES["7.3"]
    assert old.memmap_page_flags == 0x2100000000
    assert new.memmap_page_flags == newest.memmap_page_flags == 0x2000000000
    assert old.nopage_flags == new.nopage_flags == 0x100000
    assert newest.nopage_flags == 0
    assert old.lowmem_includes_movable
    assert not new.lowmem_includes_movable
    assert (old.hyperv_chunk, new.hyperv_chunk) == ("128MiB", "block")
    assert new.hyperv_foreign_pages == "dropped"
    assert newest.hyperv_foreign_pages == "generic"
    leaves_reserved = [name for name, each in RELEASES.items() if each.hyperv_leaves_reserved]
    assert leaves_reserved == ["4.20", "5.13", "5.15", "6.1", "6.6", "6.8"]


def test_every_behaviour_names_its_source():
    for release in RELEASES.values():
        assert set(release.sources) <= set(release.__dataclass_fields__), release.name
        assert all(release.sources.values())
        if release.confirmed:
            told = {"name", "shape", "confirmed", "boot_reserved_bytes", "boot_used_bytes"}
            assert set(release.sources) >= (
                set(release.__dataclass_fields__) - told - {"sources"}
            ), release.name
