"""A counterexample runs unchanged on a real kernel, which breaks the rule too."""

import pytest

from altmap.cli.main import main


@pytest.mark.lab
@pytest.mark.timeout(300)
def test_a_real_kernel_breaks_the_rule_too(tmp_path, capsys):
    """Linux 6.1 loses a HWPoison mark: HardwareCorrupted counts the page, no page has the flag."""
    found = ["--set", "release=6.1", "--rule", "withdrawn", "-o", str(tmp_path)]
    assert main(["explore", "poisoned", *found]) == 1
    assert "offline memory40\n  5. online_movable memory40" in capsys.readouterr().out

    assert main(["compare", str(tmp_path / "poisoned-withdrawn.toml")]) == 0
    assert "proc/kpageflags                        equal" in capsys.readouterr().out
