"""A scenario on the model and on a real kernel, compared; no other module runs both.

Effects: files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from altmap.compare import Comparison, compare, compare_layout
from altmap.errors import InputError
from altmap.lab.kernels import KernelFiles
from altmap.lab.target import run_in_guest
from altmap.model.kernel.accounting import Policy
from altmap.model.machine import ModelMachine, predict
from altmap.scenario import Scenario, load_scenario
from altmap.storage.recording import Recording, read_recording, write_recording
from altmap.trace import Trace

__all__ = (
    "compare_with_lab",
    "compare_with_trace",
    "record_in_lab",
    "run_on_both",
)


def compare_with_lab(
    scenario: Scenario,
    release: str | None,
    progress: Callable[[str], None],
    own: KernelFiles | None = None,
    *,
    touched: bool = False,
    policy: Policy | None = None,
) -> Comparison:
    """Run a scenario on a real kernel and on the model, and compare.

    The prediction starts from the files of the booted guest, so that only changes are predicted. A
    synthetic boot state is compared with that start as well, by its layout.

    The release of a user's *own* kernel is read from the guest; *release* then names the record
    that the model uses, for a kernel with another release's behaviours.

    With *touched*, the frames of added memory that each step reads and writes are compared too.
    A *policy* is the model's alone: what a user's own would change shows as differences.

    Raises
    ------
    InputError, LabError
        If the scenario is wrong, or the guest fails.
    """
    scenario = scenario.with_machine(release=release)
    observed, sysroots = run_in_guest(scenario, progress, own=own, touched=touched)
    if own is not None and release is None:
        scenario = scenario.with_machine(release=observed.release)
    comparison = compare_with_trace(scenario, observed, policy)
    comparison.sysroots = sysroots
    return comparison


def record_in_lab(
    path: Path,
    settings: Sequence[str],
    target: Path,
    progress: Callable[[str], None],
    own: KernelFiles | None = None,
    *,
    touched: bool = False,
) -> Recording:
    """Run a scenario on a real kernel, write the recording, and return it as it is read back.

    Parameters
    ----------
    path : Path
        The scenario file.
    settings : sequence of str
        ``key=value`` for its machine; with the release, if it is not the scenario's.
    target : Path
        The recording, a file that does not exist.
    progress : callable
        Takes the name of each step before it is performed.
    own : KernelFiles, optional
        A user's own kernel, instead of Debian's.
    touched : bool
        Record the frames of added memory that each step reads and writes.

    Raises
    ------
    InputError, LabError
        If the scenario is wrong, the guest fails, or the file cannot be written.
    """
    scenario = load_scenario(path, settings)
    if target.exists():
        raise InputError(f"recording {target}: exists already")
    if not target.name.endswith(".tar.xz"):
        raise InputError(f"recording {target}: need a name that ends in .tar.xz")
    trace, sysroots = run_in_guest(scenario, progress, own=own, touched=touched)
    text = path.read_text(encoding="utf-8")
    write_recording(target, text, [*settings, f"release={trace.release}"], trace, sysroots)
    return read_recording(target)


def compare_with_trace(
    scenario: Scenario, observed: Trace, policy: Policy | None = None
) -> Comparison:
    """Predict a real kernel's trace from its start, and compare the two.

    Raises
    ------
    InputError
        If the trace does not show its start.
    """
    start = observed.steps[0].observation
    if start is None:
        raise InputError(f"recording of {scenario.name!r}: has no files of its start")
    predicted = predict(scenario, start, policy=policy, booted=True, chance=observed)
    comparison = compare(predicted, observed)
    comparison.traces = predicted, observed
    comparison.provenance = {
        "scenario": scenario.name,
        "scenario, sha256": observed.scenario_sha256,
        "release in the lab": observed.release,
        "record of the model": predicted.release,
        "kernel": start.version or "",
        "command line": start.cmdline or "",
        **{name: _text(value) for name, value in observed.machine.items()},
    }
    synthetic = ModelMachine.start(scenario.machine).observe()
    comparison.files[:0] = compare_layout(synthetic, start, "boot")
    return comparison


def run_on_both(
    scenario: Scenario, progress: Callable[[str], None], *, touched: bool = False
) -> tuple[Trace, Trace]:
    """Run a scenario on a real kernel, and on the model from the start of that kernel.

    With *touched* the real trace has events for the page frames that each step touches.

    Returns
    -------
    tuple of Trace
        Observed, predicted.
    """
    observed, _ = run_in_guest(scenario, progress, touched=touched)
    return observed, predict(scenario, observed.steps[0].observation, booted=True, chance=observed)


def _text(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items() if each)
    return str(value)
