"""Code inserted at places found by names; one that is missing, or there twice, is refused."""

import pytest

from altmap.errors import LabError
from altmap.lab.insertions import Insertion, insert, read_insertions

SOURCE = """\
static int later(int value);

static int first(int value)
{
	if (value > LIMIT)
		return 0;
	return later(value);
}

static int later(int value)
{
	int limit = LIMITED;

	return limit;
}
"""


def inserted(**changes):
    return insert(
        SOURCE, [Insertion(**{"file": "a.c", "function": "first", "text": "NEW"} | changes)]
    )


@pytest.mark.parametrize(
    ("place", "before"),
    [
        ({}, "static int first(int value)\n"),
        ({"function": "later"}, "static int later(int value)\n{"),
        ({"before": "LIMIT"}, "\tif (value > LIMIT)\n"),
        ({"after": "LIMIT"}, "\t\treturn 0;\n"),
        ({"after": "later"}, "}\n\nstatic int later(int value)\n{"),
        ({"function": "later", "before": "LIMITED"}, "\tint limit"),
    ],
)
def test_text_is_put_before_or_after_the_line_or_before_the_function(place, before):
    expected = SOURCE.replace(before, f"NEW\n{before}")
    assert inserted(**place) == expected


def test_later_insertions_see_earlier_ones():
    texts = [Insertion(file="a.c", function="first", text=text, before="LIMIT") for text in "AB"]
    assert "A\nB\n\tif" in insert(SOURCE, texts)


def test_text_keeps_its_lines_and_loses_the_empty_ones_around():
    assert "{\n\tone;\n\n\ttwo;\n\tif" in inserted(text="\n\tone;\n\n\ttwo;\n", before="LIMIT")


@pytest.mark.parametrize(
    ("place", "complaint"),
    [
        ({"before": "NONE"}, r"a\.c: 0 lines of first\(\) have NONE: need one"),
        ({"before": "value"}, r"a\.c: 3 lines of first\(\) have value: need one"),
        ({"before": "LIM"}, r"a\.c: 0 lines of first\(\) have LIM: need one"),
        ({"before": "LIMITED"}, r"a\.c: 0 lines of first\(\) have LIMITED"),
        ({"function": "third"}, r"a\.c: 0 functions third\(\): need one"),
    ],
)
def test_a_place_that_is_missing_or_not_the_only_one_is_refused(place, complaint):
    with pytest.raises(LabError, match=complaint):
        inserted(**place)


def test_two_functions_of_a_name_are_refused():
    twice = [Insertion(file="a.c", function="first", text="NEW")]
    with pytest.raises(LabError, match=r"2 functions first\(\)"):
        insert(SOURCE + SOURCE, twice)


def test_a_file_of_insertions_has_no_other_keys():
    text = '[[insertions]]\nfile = "a.c"\nfunction = "f"\ntext = "t"\n'
    assert read_insertions(text) == [Insertion(file="a.c", function="f", text="t")]
    with pytest.raises(Exception, match="whence"):
        read_insertions(text + 'whence = "x"\n')
