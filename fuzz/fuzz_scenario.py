"""Scenarios in TOML."""

from pathlib import Path

from altmap.errors import InputError
from altmap.scenario import parse_scenario

ROOT = Path(__file__).parents[1]

SEEDS = [path.read_bytes() for path in sorted((ROOT / "scenarios").glob("*.toml"))]


def TestOneInput(data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8 text") from error
    parse_scenario(text, "fuzz")


if __name__ == "__main__":
    from harness import main

    main(Path(__file__).stem)
