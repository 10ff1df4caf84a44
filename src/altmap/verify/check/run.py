"""Run the probes on a real kernel; what has run is kept, so that a check resumes.

Effects: files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from altmap.errors import AltmapError, InputError
from altmap.lab.side_by_side import check_interrupted, side_by_side
from altmap.linux.sysroot import Sysroot
from altmap.scenario import Scenario, scenario_text
from altmap.storage.files import private_files
from altmap.storage.recording import read_recording, write_recording
from altmap.trace import Trace
from altmap.verify.check.measure import Probed
from altmap.verify.check.probes import Probe, probe_scenario

__all__ = ("run_probes",)

#: Runs a scenario on a real kernel: its trace, and the files behind it.
Observe = Callable[[Scenario], tuple[Trace, list[Sysroot]]]


def run_probes(
    probes: Iterable[Probe],
    release: str,
    observe: Observe,
    *,
    keep: Path | None = None,
    nr_guests: int = 1,
    progress: Callable[[str], None] = lambda _: None,
) -> list[Probed]:
    """Return each probe as it ran.

    Parameters
    ----------
    probes : iterable of Probe
    release : str
        Of the record that judges, and of the kernel unless it is a user's own.
    observe : callable
        Runs a scenario on the kernel; raises InputError or LabError if it cannot.
    keep : Path, optional
        A folder of recordings, one for each probe. Those that it has are not run again.
    nr_guests : int
        Guests side by side.
    progress : callable
        Takes a line for each probe.

    Raises
    ------
    InputError
        If a kept recording cannot be read, or none can be written.
    """

    def run(probe: Probe) -> Probed:
        scenario = probe_scenario(probe, release)
        path = None if keep is None else keep / f"{probe.name}.tar.xz"
        if path is not None and path.exists():
            progress(f"{probe.name}: was kept")
            recording = read_recording(path)
            return Probed(probe.name, recording.scenario, recording.trace)
        try:
            trace, sysroots = observe(scenario)
        except AltmapError as error:
            check_interrupted()
            why = str(error).splitlines()[0]
            progress(f"{probe.name}: {why}")
            return Probed(probe.name, scenario, None, why)
        if path is not None:
            text = scenario_text(scenario)
            with private_files():
                write_recording(path, text, [], trace, sysroots)
        progress(f"{probe.name}: done")
        return Probed(probe.name, scenario, trace)

    if keep is not None:
        try:
            keep.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"{keep}: {error.strerror}") from error
    with side_by_side(nr_guests) as pool:
        return list(pool.map(run, probes))
