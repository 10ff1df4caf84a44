"""Colours of verdicts on a terminal: faults and differences red, refusals yellow, equality green.

Texts are made without colours, so that a pipe and a file have none. Colours are added to a few
words of a text that is shown on a terminal, and change nothing of its width.

Effects: environment.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import TextIO

__all__ = ("coloured", "has_colour")

_RED, _YELLOW, _GREEN = "31", "33", "32"
#: What has a colour: words of a line that has the pattern before them, if there is one.
_WORDS: tuple[tuple[str, str], ...] = (
    # run: a row of each step, or a line for each run
    (_RED, r"\bfault: the(?: kernel crashes)?|\bfault at step \d+(?=:)"),
    (_RED, r"\bdoes not end(?=: \w| by \w)"),
    (_YELLOW, r"\brefused: E[A-Z0-9]+(?= by)|\brefused E[A-Z0-9]+(?= by \w)"),
    # compare: a line for each file, a field below it, and the last line
    (_RED, r"(?<=  )different \(\d+ fields\)$|^    !(?= )|\b[1-9]\d* different(?=, \d+ not)"),
    (_YELLOW, r"(?<=  )not compared$|\b[1-9]\d* not compared$"),
    (_GREEN, r"^\d+ equal(?=, \d+ equal within tolerance, 0 different)"),
    # explore, check, hunt, sweep
    (_RED, r"^  BROKEN(?=:)|^different(?=: \d)|\b[1-9]\d* finding(?=,|$)"),
    (_RED, r"(?<=[:,] )[1-9][\d,]* (?:fault|crashed|lost)(?=,|$)"),
    (_YELLOW, r"(?<=[:,] )[1-9][\d,]* (?:refused|invalid)(?=,|$)|^unclear(?=: \d)"),
    (_GREEN, r"^no counterexample(?= within bounds:)|^equal(?=: \d)"),
    (_RED, r"\bfault:[a-z]+(?= |$)"),
    # claims, and what a plan or a definition warns of
    (_RED, r"^[A-Z]\d+ +refuted\b|(?<=known: )(?!none\b).+(?=\.$)"),
    (_YELLOW, r"^risk, \w+(?=:)|^[a-z-]+(?=: (?:virtio-mem|dimm|hyperv|xen|kmem|standby): )"),
)
_PATTERNS = tuple((code, re.compile(pattern, re.MULTILINE)) for code, pattern in _WORDS)


def has_colour(stream: TextIO, environment: Mapping[str, str] = os.environ) -> bool:
    """Tell whether a stream is a terminal with colours, and NO_COLOR does not forbid them."""
    if environment.get("NO_COLOR") or environment.get("TERM", "dumb") in ("", "dumb", "unknown"):
        return False
    return stream.isatty()


def coloured(text: str) -> str:
    """Return the text with its verdicts in colour."""
    for code, pattern in _PATTERNS:
        text = pattern.sub(f"\033[{code}m\\g<0>\033[0m", text)
    return text
