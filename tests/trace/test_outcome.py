"""Outcomes: only ok is true, and an error has its name."""

import errno

from altmap.trace import OK, Outcome


def test_only_ok_is_true():
    assert OK
    assert not Outcome("fault")
    assert not Outcome("not_reached")
    assert not Outcome.refused(errno.EBUSY, "offline_pages", "because")


def test_a_refusal_has_the_name_of_its_error():
    assert Outcome.refused(errno.EBUSY, "f", "w").errno == "EBUSY"
    assert Outcome.refused("EAGAIN", "f", "w").errno == "EAGAIN"


def test_an_errno_that_python_does_not_know_has_its_name():
    assert Outcome.refused(133, "memory_block_online", "").errno == "EHWPOISON"
