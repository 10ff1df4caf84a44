"""A finding: a scenario on which a real kernel and the model differ, and all that repeats it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from altmap.trace import StepRecord, Trace
from altmap.verify.hunt.coverage import KERNEL_LOG

__all__ = ("HuntFinding", "finding_text", "log_of")


class HuntFinding(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """What differs, on which kernel, and how often.

    Attributes
    ----------
    key : str
        Name of its group: findings with the same reason have the same key.
    reason : tuple of str
        Kinds of step, files and fields that differ, and complaints of the kernel.
    lines : tuple of str
        Predicted and observed value of each field that differs, with the source of the rule.
    nr_runs, nr_shown : int
        Runs of the first scenario, and how many of them showed it. Where not all did, it is chance.
    drawn : str
        Name of the scenario that was drawn, before it was made smaller.
    scenario : str
        The smallest scenario, as TOML.
    kernel : dict of str to str
        Packages, QEMU and accelerator.
    predicted_log, kernel_log : tuple of str
        The model's events and the kernel's messages, each after the name of its step.
    """

    key: str
    reason: tuple[str, ...]
    lines: tuple[str, ...]
    nr_runs: int
    nr_shown: int
    drawn: str
    scenario: str
    kernel: dict[str, str] = {}
    predicted_log: tuple[str, ...] = ()
    kernel_log: tuple[str, ...] = ()

    @property
    def certain(self) -> bool:
        """Whether every run showed it."""
        return self.nr_shown == self.nr_runs


def log_of(trace: Trace) -> tuple[str, ...]:
    """Return events and refusals step by step; of a real kernel, the events are its messages."""
    return tuple(f"{step.name}: {line}" for step in trace.steps for line in _lines(step))


def _lines(step: StepRecord) -> Iterator[str]:
    for event in step.events:
        if event.message is None:
            by = f" ({event.function})" if event.function else ""
            yield event.text if event.kind == KERNEL_LOG else f"{event.kind}: {event.text}{by}"
    outcome = step.outcome
    if outcome.status != "ok":
        words = (outcome.status, outcome.errno, outcome.function)
        yield f"{' '.join(filter(None, words))}: {outcome.why}"


def finding_text(finding: HuntFinding, folder: str) -> str:
    """Return a finding as a mail to the developers of the kernel, in plain text."""
    how = (
        f"in each of {finding.nr_runs} runs"
        if finding.certain
        else f"in {finding.nr_shown} of {finding.nr_runs} runs, so by chance"
    )
    version = finding.kernel.get("kernel", "").removeprefix("Linux version ").partition(" ")[0]
    recording = (
        "or without QEMU, from the files of that kernel:",
        f"  altmap compare --recording {folder}/recording.tar.xz",
    )
    parts = [
        f"Subject: memory hotplug: {version or 'kernel ended'}: {finding.reason[0]}",
        "",
        f"The state of a real kernel differs from the expected one {how}.",
        "",
        "Kernel:" if finding.kernel else "Kernel: of the scenario's release; its guest ended.",
        *(f"  {name}: {value}" for name, value in finding.kernel.items()),
        "",
        "What differs, in the first step that does:",
        *(f"  {line}" for line in finding.lines),
        "",
        "To repeat it:",
        f"  altmap compare {folder}/scenario.toml",
        *(recording if finding.kernel else ()),
        "",
        "Scenario:",
        *(f"  {line}".rstrip() for line in finding.scenario.splitlines()),
        "",
        "What the model expects, and by which function of the kernel:",
        *(f"  {line}" for line in finding.predicted_log[-20:]),
        "",
        "What the kernel logged:",
        *(f"  {line}" for line in finding.kernel_log[-40:]),
    ]
    return "\n".join(parts) + "\n"
