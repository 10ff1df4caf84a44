"""Run the fast tests with the oldest versions that pyproject.toml allows.

    python benchmarks/oldest.py FOLDER [ARGUMENT OF PYTEST...]

FOLDER becomes a virtual environment with the lower bound of every direct dependency, extras
included; what these need in turn is as new as they allow. Exit code: pytest's.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
EXTRAS = ("host", "lab", "report", "sweep", "cluster", "docs", "dev")
FAST = ("-m", "not lab and not browser and not slow")


def oldest(project: dict) -> list[str]:
    """Return each direct dependency pinned to its lower bound."""
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(each for name in EXTRAS for each in extras[name])]
    parsed = [re.fullmatch(r"([\w.-]+)>=([\w.]+)(?:,<[\w.]+)?", each) for each in wanted]
    assert all(parsed), "need NAME>=VERSION of each dependency"
    return sorted({f"{each[1]}=={each[2]}" for each in parsed})


def main(folder: str, *arguments: str) -> int:
    pins = oldest(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"])
    print("\n".join(pins), flush=True)
    python = Path(folder).absolute() / "bin/python"
    if not python.exists():
        venv = [sys.executable, "-m", "venv", "--without-pip", folder]
        subprocess.run(venv, check=True)
    install = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet"]
    subprocess.run([*install, "--editable", str(ROOT), *pins], check=True)
    tests = [str(python), "-m", "pytest", *FAST, *arguments]
    return subprocess.run(tests, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
