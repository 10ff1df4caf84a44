"""Traces of a scenario, an exported run, a recording or the files of a machine.

Effects: files.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from altmap.errors import InputError
from altmap.linux.observation import Observation
from altmap.linux.sysroot import Sysroot
from altmap.model.kernel.accounting import Policy
from altmap.model.machine import predict
from altmap.model.policies import load_policy
from altmap.scenario import load_scenario
from altmap.storage.recording import Recording, read_archive
from altmap.storage.saved import Saved, is_saved, read_saved
from altmap.trace import OK, StepRecord, Trace

__all__ = ("gather", "trace_of_files")


def gather(
    sources: Sequence[Path],
    policies: Sequence[str] = (),
    release: str | None = None,
    settings: Sequence[str] = (),
) -> Saved:
    """Return the traces and comparisons that the sources name, in their order.

    Parameters
    ----------
    sources : sequence of Path
        Scenarios in TOML, which run on the model; folders that ``run --export`` wrote; JSON that
        altmap wrote; recordings of real kernels; sysroots in folders or archives.
    policies, release, settings
        For the scenarios; refused if there is none.

    Raises
    ------
    InputError
        If a source cannot be read, or an option is about scenarios and there are none.
    """
    made = Saved([], [])
    chosen = [load_policy(name) for name in policies]
    for source in sources:
        if source.suffix == ".toml":
            made.traces.extend(_predictions(source, chosen, release, settings))
        elif is_saved(source):
            read = read_saved(source)
            made.traces.extend(read.traces)
            made.comparisons.extend(read.comparisons)
        elif source.is_file():
            held = read_archive(source)
            trace = held.trace if isinstance(held, Recording) else _trace_of(source, held)
            made.traces.append(trace)
        else:
            made.traces.append(trace_of_files(source))
    if (policies or release or settings) and not any(s.suffix == ".toml" for s in sources):
        raise InputError(f"{sources[0]}: --policy, --release and --set are for scenarios in TOML")
    return made


def _predictions(
    source: Path, policies: Sequence[Policy], release: str | None, settings: Sequence[str]
) -> list[Trace]:
    scenario = load_scenario(source, settings).with_machine(release=release)
    return [predict(scenario, policy=policy) for policy in policies or (None,)]


def trace_of_files(source: Path) -> Trace:
    """Return a trace of one step, the start: the machine whose files these are."""
    return _trace_of(source, Sysroot.read(source))


def _trace_of(source: Path, sysroot: Sysroot) -> Trace:
    seen = Observation.read(sysroot)
    words = (seen.version or "").split()
    release = words[2] if len(words) > 2 else ""
    notes = [*seen.problems.values(), *(f"the sysroot has no {path}" for path in seen.missing)]
    notes.extend(f"{path} could not be read" for path in sysroot.unreadable)
    start = StepRecord("start", {}, OK, observation=seen)
    return Trace(source.name or str(source), "files", release, "", {}, [start], notes)
