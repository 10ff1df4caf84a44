"""Releases: a release behaves like its record, or like the one that stands in for it."""

import pytest

from altmap.errors import InputError
from altmap.model.neighbours import STAND_INS
from altmap.model.releases import (
    RELEASES,
    STABLE_FIXES,
    name_of,
    release_for,
    release_notes,
    release_with_files,
)


@pytest.mark.parametrize(
    ("name", "record"),
    [
        ("4.20", "4.20"),
        ("4.18.0-553.el8_10.x86_64", "4.20"),
        ("5.4.0-90-generic", "4.20"),
        ("5.10.0-23-amd64", "5.10"),
        ("5.12", "5.10"),
        ("5.14.0-427.el9.x86_64", "5.13"),
        ("6.0", "6.1"),
        ("6.1", "6.1"),
        ("6.1.192", "6.1"),
        ("6.5", "6.1"),
        ("6.10", "6.8"),
        ("6.11.3", "6.12"),
        ("6.12", "6.12"),
        ("6.12.95+deb12-amd64", "6.12"),
        ("6.16", "6.12"),
        ("6.17", "6.18"),
        ("6.19.6", "7.0"),
        ("7.1.3", "7.2"),
        ("6.100", "6.18"),
        ("7.3.4", "7.3"),
        ("9.9", "7.3"),
    ],
)
def test_a_release_is_its_record_or_the_one_that_stands_in(name, record):
    assert release_for(name).name == record


@pytest.mark.parametrize("fix", STABLE_FIXES, ids=lambda fix: f"{fix.behaviour}-{fix.point}")
def test_a_point_release_has_the_fixes_up_to_it(fix):
    newest = getattr(RELEASES[fix.release], fix.behaviour)
    assert newest != fix.before

    def value(*names):
        return getattr(release_for(*names), fix.behaviour)

    name = fix.release
    assert value(f"{name}.{fix.point - 1}+deb13-powerpc64le") == fix.before
    assert value(f"{name}.{fix.point}") == value(f"{name}.{fix.point + 1}") == newest
    # No point release is named: 0 is what distributions with backports write.
    assert value(name) == value(f"{name}.0-55.el10.x86_64") == newest


def test_a_kernel_that_shows_its_point_release_decides_for_a_release_without_one():
    for fix in STABLE_FIXES:
        shown = f"{fix.release}.{fix.point - 1}"
        assert getattr(release_for(fix.release, shown), fix.behaviour) == fix.before
        newer = f"{fix.release}.{fix.point}"
        assert getattr(release_for(newer, shown), fix.behaviour) != fix.before
        assert release_for("7.3", shown) == RELEASES["7.3"]


def test_fixes_of_later_years_are_not_in_releases_that_a_record_stands_in_for():
    assert release_for("6.11").frees_altmap_of_failed_add
    assert not release_for("6.12").frees_altmap_of_failed_add


def test_stand_ins_are_records_for_releases_without_one_and_none_is_given_twice():
    numbers = [(major, minor) for major in range(5, 8) for minor in range(25)]
    for version in numbers:
        found = [each for each in STAND_INS if each.first <= version <= each.last]
        assert len(found) <= 1, version
        assert not found or found[0].record in RELEASES
        assert not (found and name_of(version) in RELEASES), version
    assert all(each.first <= each.last for each in STAND_INS)


def test_a_stand_in_is_told_with_its_reason():
    (note,) = release_notes("7.1.3+deb13-amd64")
    assert "no record of 7.1; that of 7.2 is used: 7.1 brought arm64's veto" in note
    assert release_notes("7.2.12+deb13-amd64") == release_notes("6.12.95") == []
    (old,) = release_notes("3.10")
    assert "no record of 3.10; that of 4.20 is used: it is older than every record" in old


@pytest.mark.parametrize(
    ("name", "vendor", "record"),
    [
        ("4.18.0-553.el8_10.x86_64", "RHEL 8", "4.20"),
        ("5.14.0-427.el9.aarch64+64k", "RHEL 9", "5.13"),
        ("6.12.0-55.9.1.el10_0.x86_64", "RHEL 10", "6.12"),
        ("5.14.21-150500.55.88-default", "SLES 15", "5.13"),
        ("6.4.0-150600.23.25-default", "SLES 15", "6.1"),
        ("6.12.0-160000.5-default", "SLES 16", "6.12"),
        ("5.4.0-90-generic", "Ubuntu", "4.20"),
        ("5.15.0-1053-aws", "Ubuntu", "5.15"),
        ("5.15.0-200.131.27.el8uek.x86_64", "Oracle's UEK", "5.15"),
        ("6.1.112-122.189.amzn2023.x86_64", "Amazon Linux", "6.1"),
    ],
)
def test_a_distributions_kernel_is_taken_with_a_note_about_backports(name, vendor, record):
    note = release_notes(name)[-1]
    assert f"kernel of {vendor}: backports may have changed" in note
    assert f"record of {record} says" in note


@pytest.mark.parametrize(
    ("name", "parameters", "record"),
    [
        ("4.18.0-553.el8_10.x86_64", {}, "4.20"),
        ("4.18.0-553.el8_10.x86_64", {"memmap_on_memory": "N"}, "5.13"),
        (
            "4.18.0-553.el8_10.x86_64",
            {"memmap_on_memory": "N", "auto_movable_ratio": "301"},
            "5.15",
        ),
        ("5.14.0-427.el9.x86_64", {"memmap_on_memory": "Y", "auto_movable_ratio": "301"}, "5.15"),
        ("5.14.0-503.el9.x86_64", {"memmap_on_memory": "force"}, "6.6"),
        ("6.12.0-55.el10.x86_64", {"memmap_on_memory": "force"}, "6.12"),
        # Mainline's files and number agree.
        ("4.20.0", {"memmap_on_memory": "N"}, "4.20"),
    ],
)
def test_parameters_tell_what_a_distribution_backported(name, parameters, record):
    release, note = release_with_files(name, parameters)
    assert release.name == record
    assert bool(note) == (record != release_for(name).name)


@pytest.mark.parametrize("name", ["6.12.95+deb12-amd64", "6.1.192", "7.3.4", "6.12.0-rc3"])
def test_a_kernel_with_few_backports_is_its_number(name):
    assert release_notes(name) == []


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
    assert sections == {"6.18", "7.0", "7.2", "7.3"}
    assert [name for name, each in RELEASES.items() if "s390x" in each.virtio_mem] == [
        *("6.18", "7.0", "7.2", "7.3"),
    ]
    assert next(name for name, each in RELEASES.items() if each.node_notifier) == "6.18"
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
    assert leaves_reserved == ["4.20", "5.10", "5.13", "5.15", "6.1", "6.6", "6.8"]


def test_every_behaviour_names_its_source():
    for release in RELEASES.values():
        assert set(release.sources) <= set(release.__dataclass_fields__), release.name
        assert all(release.sources.values())
        if release.confirmed:
            told = {"name", "shape", "confirmed", "boot_used_bytes"}
            assert set(release.sources) >= (
                set(release.__dataclass_fields__) - told - {"sources"}
            ), release.name
