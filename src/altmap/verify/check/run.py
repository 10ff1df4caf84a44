"""Run the probes on a real kernel; what has run is kept, so that a check resumes.

Effects: files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from altmap.errors import AltmapError, InputError
from altmap.lab.side_by_side import check_interrupted, side_by_side
from altmap.linux.sysroot import Sysroot
from altmap.scenario import Scenario, scenario_text
from altmap.storage.files import private_files
from altmap.storage.recording import read_recording, write_recording
from altmap.trace import Trace
from altmap.verify.check.measure import Probed

__all__ = ("run_probes",)

#: Runs a scenario on a real kernel: its trace, and the files behind it.
Observe = Callable[[Scenario], tuple[Trace, list[Sysroot]]]


def run_probes(
    probes: Iterable[Probed],
    observe: Observe,
    *,
    keep: Path | None = None,
    again: bool = False,
    nr_guests: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Probed]:
    """Return each probe as it ran.

    Parameters
    ----------
    probes : iterable of Probed
    observe : callable
        Runs a scenario on the kernel; raises InputError or LabError if it cannot.
    keep : Path, optional
        A folder of recordings, one for each probe. Those that it has are not run again.
    again : bool
        Run them nevertheless.
    nr_guests : int
        Guests side by side.
    progress : callable
        Takes a line for each probe.

    Raises
    ------
    InputError
        If a kept recording cannot be read, or none can be written.
    """

    def run(probe: Probed) -> Probed:
        path = None if keep is None else keep / f"{probe.name}.tar.xz"
        if path is not None and path.exists() and not again:
            recording = read_recording(path)
            if recording.scenario == probe.scenario:
                progress(f"{probe.name}: was kept")
                return replace(probe, trace=recording.trace, kept=True)
        try:
            trace, sysroots = observe(probe.scenario)
        except AltmapError as error:
            check_interrupted()
            why = str(error).splitlines()[0]
            progress(f"{probe.name}: {why}")
            return replace(probe, trace=None, why=why)
        if path is not None:
            path.unlink(missing_ok=True)
            with private_files():
                write_recording(path, scenario_text(probe.scenario), [], trace, sysroots)
        progress(f"{probe.name}: done")
        return replace(probe, trace=trace)

    if keep is not None:
        try:
            keep.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{keep}: {error.strerror}") from error
    with side_by_side(nr_guests) as pool:
        return list(pool.map(run, probes))
