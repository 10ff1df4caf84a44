"""Definitions on real kernels: what is answered about them is what their guests show."""

import pytest
from on_kernels import answers_of, guests, judged


@pytest.mark.lab
@pytest.mark.parametrize("table", guests(quick=True), ids=lambda table: table["name"])
def test_a_guest_of_a_definition_is_as_answered_on_a_real_kernel(table):
    assert judged(table).wrong == []


@pytest.mark.parametrize("table", guests(), ids=lambda table: table["name"])
def test_each_definition_for_the_lab_reaches_its_size_as_its_table_says(table):
    _, answer = answers_of(table)
    assert not answer or (answer.rows[-1].result == "ok") == table.get("reached", True)
