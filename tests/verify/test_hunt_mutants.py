"""The defects that the benchmark of the hunt plants: each fits the model as it is."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "benchmarks/hunt_mutants.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("mutant", tomllib.loads(TEXT)["mutant"], ids=lambda each: each["rule"])
def test_a_planted_defect_has_one_place_and_is_python(mutant):
    text = (ROOT / "src/altmap/model" / mutant["module"]).read_text(encoding="utf-8")
    assert text.count(mutant["before"]) == 1
    compile(text.replace(mutant["before"], mutant["after"]), mutant["module"], "exec")
