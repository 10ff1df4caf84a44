"""The table of fields in the documentation is the one of the code."""

import re
from pathlib import Path

from altmap.compare import FIELDS

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "fidelity.md").read_text(encoding="utf-8")


def test_the_table_on_the_page_is_as_generated(generate):
    (shown,) = re.findall(r"<!-- fields -->\n\n(.*)\n<!-- /fields -->", PAGE, re.DOTALL)
    assert shown == generate.fields_table(), "run python docs/generate.py"
    assert generate.fidelity_page(PAGE) == PAGE


def test_only_the_table_of_the_page_is_generated(generate):
    page = "before <!-- fields -->\nold\n<!-- /fields --> after\n"
    made = generate.fidelity_page(page)
    assert made.startswith("before <!-- fields -->\n\n| file |")
    assert made.endswith("|\n\n<!-- /fields --> after\n")
    assert "old" not in made


def test_the_table_has_a_row_for_each_field_with_its_rule_and_source(generate):
    rows = generate.fields_table().splitlines()[2:]
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert all(len(row) == 5 for row in cells)
    assert [(row[0], row[1]) for row in cells] == [
        (f"`{field.file.path}`", f"`{field.name}`") for field in FIELDS
    ]
    for row, field in zip(cells, FIELDS, strict=True):
        assert (row[2] == "tolerance") == (field.tolerance is not None)
        assert bool(row[3]) == (row[2] != "exact")
        assert row[4]
