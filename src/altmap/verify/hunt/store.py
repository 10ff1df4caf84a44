"""The folder of a hunt: a line for each scenario that ran, and a folder for each finding.

::

    runs/pc-6.12-1.jsonl    one file for each kind, release and seed; its hunt has it locked
    findings/3f2a90c1de/scenario.toml, recording.tar.xz, finding.json

Hunts with other seeds share the folder. What a killed hunt left is whole: the last line may be
missing, a finding is there or not.

Effects: files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import msgspec

from altmap.errors import InputError
from altmap.linux.sysroot import Sysroot
from altmap.storage.files import new_folder, private_files, read_file
from altmap.storage.json_files import decode_json, read_json
from altmap.storage.lines import LineFile
from altmap.storage.recording import write_recording
from altmap.trace import Trace
from altmap.verify.hunt.coverage import Coverage
from altmap.verify.hunt.finding import HuntFinding

__all__ = ("HuntStore", "RunRow")

_MOST_BYTES = 64 << 20


class RunRow(msgspec.Struct, forbid_unknown_fields=True, frozen=True, kw_only=True):
    """A scenario that ran.

    Attributes
    ----------
    name : str
        Of the scenario: kind, release, seed and number.
    verdict : str
        ``equal``, ``chance`` (a difference that not each run shows), ``finding``, ``failed`` (the
        guest could not be asked) or ``cannot`` (the lab cannot perform a step).
    key : str
        Of the finding, if there is one.
    nr_steps : int
    seconds : float
        Wall-clock time, repetitions and smaller scenarios included.
    model, kernel : list of str
        Features that the prediction and the real kernel reached.
    why, scenario : str
        Why it failed or cannot run, and the scenario then.
    """

    name: str
    verdict: str
    nr_steps: int
    seconds: float
    key: str = ""
    model: list[str] = []
    kernel: list[str] = []
    why: str = ""
    scenario: str = ""


class HuntStore:
    """A folder that hunts write to.

    Parameters
    ----------
    folder : Path
        Made if it does not exist.

    Raises
    ------
    InputError
        If it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def open_runs(self, name: str) -> LineFile:
        """Return the file of one seed's runs, locked.

        Raises
        ------
        InputError
            If another hunt has it open, or it cannot be written.
        """
        path = self.folder / "runs" / f"{name}.jsonl"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            busy = f"{path}: another hunt writes to it; take another --seed"
            return LineFile(path, busy, flags=os.O_CREAT)
        except OSError as error:
            raise InputError(f"{path}: {error.strerror}") from error

    def runs(self) -> Iterator[RunRow]:
        """Yield what ran, of all seeds.

        Raises
        ------
        InputError
            Naming the file and the line that is no run.
        """
        for path in sorted((self.folder / "runs").glob("*.jsonl")):
            lines = read_file(path, _MOST_BYTES).split(b"\n")[:-1]
            for number, line in enumerate(lines, start=1):
                yield decode_json(line, RunRow, f"{path}, line {number}")

    def coverage(self) -> Coverage:
        """Return what all runs reached."""
        reached = Coverage()
        for row in self.runs():
            reached.add(row.model, row.kernel)
        return reached

    def add_finding(
        self, finding: HuntFinding, observed: Trace | None, sysroots: list[Sysroot]
    ) -> bool:
        """Keep a finding; return False if one of the same reason is there already.

        Without *observed*, as where the guest died, it has no recording.
        """
        folder = self.finding_folder(finding.key)
        if folder.exists():
            return False
        with private_files(), new_folder(folder) as draft:
            (draft / "scenario.toml").write_text(finding.scenario, encoding="utf-8")
            raw = msgspec.json.format(msgspec.json.encode(finding), indent=1)
            (draft / "finding.json").write_bytes(raw + b"\n")
            if observed is not None:
                target = draft / "recording.tar.xz"
                write_recording(target, finding.scenario, [], observed, sysroots)
        return True

    def is_certain(self, key: str) -> bool:
        """Tell whether a finding of that key is kept that every run showed."""
        path = self.finding_folder(key) / "finding.json"
        return path.exists() and read_json(path, HuntFinding).certain

    def findings(self) -> list[HuntFinding]:
        """Return all findings, by key.

        Raises
        ------
        InputError
            Naming a file that is none.
        """
        paths = sorted((self.folder / "findings").glob("*/finding.json"))
        return [read_json(path, HuntFinding) for path in paths]

    def finding_folder(self, key: str) -> Path:
        """Return where a finding is."""
        return self.folder / "findings" / key
