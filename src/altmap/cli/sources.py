"""Traces of a scenario, an exported run, a recording or the files of a machine.

Effects: files.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from altmap.cli import options
from altmap.errors import InputError
from altmap.linux.evidence import NOTHING_GIVEN, Given
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


def gather(sources: Sequence[Path], policies: Sequence[str], args: argparse.Namespace) -> Saved:
    """Return the traces and comparisons that the sources name, in their order.

    Parameters
    ----------
    sources : sequence of Path
        Scenarios in TOML, which run on the model; folders that ``run --export`` wrote; JSON that
        altmap wrote; recordings of real kernels; sysroots in folders or archives.
    policies : sequence of str
        For the scenarios; refused if there is none.
    args : argparse.Namespace
        With the options of :func:`altmap.cli.options.add_machine`, for scenarios and sysroots.

    Raises
    ------
    InputError
        If a source cannot be read, or an option is about scenarios and there are none.
    """
    made = Saved([], [])
    chosen = [load_policy(name) for name in policies]
    given_for = 0
    for source in sources:
        if source.suffix == ".toml":
            made.traces.extend(_predictions(source, chosen, args))
            given_for += 1
        elif is_saved(source):
            read = read_saved(source)
            made.traces.extend(read.traces)
            made.comparisons.extend(read.comparisons)
        elif source.is_file():
            held = read_archive(source)
            if isinstance(held, Recording):
                made.traces.append(held.trace)
            else:
                made.traces.append(_trace_of(source, held, options.given_by(args)))
                given_for += 1
        else:
            made.traces.append(trace_of_files(source, options.given_by(args)))
            given_for += 1
    if policies and not any(source.suffix == ".toml" for source in sources):
        raise InputError(f"{sources[0]}: --policy is for scenarios in TOML")
    if (args.arch or args.release or args.settings) and not given_for:
        raise InputError(
            f"{sources[0]}: --arch, --release and --set are for scenarios and sysroots"
        )
    return made


def _predictions(source: Path, policies: Sequence[Policy], args: argparse.Namespace) -> list[Trace]:
    scenario = load_scenario(source, args.settings)
    scenario = scenario.with_machine(arch=args.arch, release=args.release)
    return [predict(scenario, policy=policy) for policy in policies or (None,)]


def trace_of_files(source: Path, given: Given = NOTHING_GIVEN) -> Trace:
    """Return a trace of one step, the start: the machine whose files these are."""
    return _trace_of(source, Sysroot.read(source), given)


def _trace_of(source: Path, sysroot: Sysroot, given: Given) -> Trace:
    seen = Observation.read(sysroot, given)
    words = (seen.version or "").split()
    shown = str(seen.evidence.releases[0].value) if seen.evidence.releases else ""
    release = words[2] if len(words) > 2 else shown
    notes = [*seen.problems.values(), *(f"the sysroot has no {path}" for path in seen.missing)]
    notes.extend(f"{path} could not be read" for path in sysroot.unreadable)
    start = StepRecord("start", {}, OK, observation=seen)
    return Trace(source.name or str(source), "files", release, "", {}, [start], notes)
