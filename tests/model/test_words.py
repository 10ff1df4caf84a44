"""What the kernel reads from a written word, as its own comments and tables of 6.12 say."""

import pytest

from altmap.model.words import (
    boolean,
    c_string,
    number,
    one_of,
    signed_number,
    sysctl_number,
    uevent_action,
)


@pytest.mark.parametrize("text", ["1", "1\n", "y", "Yes", "t", "T", "on", "oN", "ON\n", "10"])
def test_a_truth_value_is_true_by_its_first_character(text):
    assert boolean(text) is True


@pytest.mark.parametrize("text", ["0", "n", "No", "f", "F\n", "off", "OF", "01"])
def test_a_truth_value_is_false_by_its_first_character(text):
    assert boolean(text) is False


@pytest.mark.parametrize("text", ["", "\n", "2", "o", "ox", " 1", "true"[1:], "-1"])
def test_other_words_are_no_truth_value(text):
    assert boolean(text) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("10\n", 10),
        ("+7", 7),
        ("0x1F", 31),
        ("0X1f\n", 31),
        ("010", 8),
        ("00", 0),
        (str(2**64 - 1), 2**64 - 1),
    ],
)
def test_a_number_is_decimal_hex_or_octal_by_its_prefix(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    ["", "\n", "08", "0x", "0xg", "1 ", " 1", "1\n\n", "-1", "++1", "1k", str(2**64), "9" * 5000],
)
def test_what_is_no_number_of_64_bits_is_refused(text):
    assert number(text) is None


def test_a_base_of_ten_takes_no_prefix():
    assert number("010", base=10) == 10
    assert number("0x10", base=10) is None


def test_the_bits_bound_a_number():
    assert number(str(2**32 - 1), bits=32) == 2**32 - 1
    assert number(str(2**32), bits=32) is None


@pytest.mark.parametrize(("text", "value"), [("-12\n", -12), ("12", 12), ("-0x10", -16)])
def test_a_signed_number_may_begin_with_a_minus(text, value):
    assert signed_number(text) == value


@pytest.mark.parametrize("text", ["--1", "-", "- 1", ""])
def test_other_signs_are_refused(text):
    assert signed_number(text) is None


@pytest.mark.parametrize(
    ("text", "word"),
    [("online", "online"), ("online\n", "online"), ("online\n\n", None), ("Online", None)],
)
def test_a_word_may_end_with_one_newline(text, word):
    assert one_of(text, ("offline", "online")) == word


def test_the_kernel_sees_a_buffer_up_to_its_first_nul():
    assert c_string(b"online\0junk") == "online"
    assert c_string(b"\xff") == "\xff"


@pytest.mark.parametrize(
    ("text", "value"),
    [("5", 5), ("5\n", 5), (" \t5 \n", 5), ("8 9", 8), ("5\n6x", 5), ("0x10", 16), ("010", 8)],
)
def test_a_sysctl_is_the_first_number_between_blanks(text, value):
    assert sysctl_number(text) == value


@pytest.mark.parametrize("text", ["", " ", "\n", "8x", "-1", "+4", "08", "x 8", "9" * 20])
def test_what_is_no_number_of_a_sysctl_is_refused(text):
    assert sysctl_number(text) is None


UUID = "12345678-1234-1234-1234-123456789abc"


@pytest.mark.parametrize(
    "text", ["change", "change\n", f"change {UUID}", f"change {UUID} A=b 1=2\n"]
)
def test_an_action_may_have_a_uuid_and_variables(text):
    assert uevent_action(text) == "change"


@pytest.mark.parametrize(
    "text",
    [
        *("", "\n", "changed", "Change", "change ", "change\n\n", "change x", f"change  {UUID}"),
        *(f"change {UUID[:-1]}", f"change {UUID}0", f"change {UUID} A", f"change {UUID} A="),
        *(f"change {UUID} =b", f"change {UUID} A=b ", f"change {UUID} A_=b"),
    ],
)
def test_other_words_announce_nothing(text):
    assert uevent_action(text) is None
