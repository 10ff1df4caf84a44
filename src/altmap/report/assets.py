"""The page's style and script, files in the folder of this module.

Effects: files.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ("script", "style")


def style() -> str:
    """Return the style sheet."""
    return _read("page.css")


def script() -> str:
    """Return the script."""
    return _read("page.js")


def _read(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
