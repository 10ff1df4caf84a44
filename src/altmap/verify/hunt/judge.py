"""What a run shows: nothing, differences from the prediction, or complaints of the kernel.

Two runs show the same if they have the same *reason*: kinds of step, files and fields that differ,
without block numbers and sizes. Findings are grouped by it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from altmap.compare import Comparison, Verdict
from altmap.trace import Trace
from altmap.verify.hunt.complaints import complaints_of
from altmap.verify.hunt.coverage import KERNEL_LOG, without_numbers

__all__ = ("Judgement", "judge")


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one run of a scenario on a real kernel shows.

    Attributes
    ----------
    reason : tuple of str
        Sorted; empty if the prediction holds and the kernel does not complain.
    lines : tuple of str
        For the reader: step, file, field, predicted and observed value, source of the rule.
    """

    reason: tuple[str, ...] = ()
    lines: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Name of the group that the finding belongs to: 10 hexadecimal digits."""
        return hashlib.sha256("\n".join(self.reason).encode()).hexdigest()[:10]


def judge(comparison: Comparison, observed: Trace) -> Judgement:
    """Return what a comparison and the log of the real kernel show.

    Only the first step that differs counts: what follows starts from another state.
    """
    folders = dict(zip(observed.folder_names(), observed.steps, strict=True))
    reason, lines = set[str](), list[str]()
    first = None
    for file in comparison.files:
        if file.verdict is not Verdict.DIFFERENT or first not in (None, file.step):
            continue
        first = file.step
        step = folders.get(file.step)
        request = str(step.action.get("do", "start")) if step else file.step
        for each in file.differences:
            if not each.within:
                reason.add(f"{request} {without_numbers(file.file)} {without_numbers(each.field)}")
                lines.append(
                    f"{file.step} {file.file} {each.field}: predicted {each.predicted}, "
                    f"observed {each.observed} ({each.source})"
                )
    for step in observed.steps:
        log = [event.text for event in step.events if event.kind == KERNEL_LOG]
        for complaint in complaints_of(log):
            reason.add(complaint)
            lines.append(f"{step.name}: {complaint}")
    return Judgement(tuple(sorted(reason)), tuple(lines))
