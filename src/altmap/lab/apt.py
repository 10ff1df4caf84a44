"""Debian's package archive, asked through apt with a private configuration.

The machine's own sources say which mirror and which keys to use; only the suites are replaced.
Everything apt writes lies below one folder, so neither root nor a change of the system is needed,
and apt verifies every signature as it always does.

Effects: files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from altmap.errors import LabError
from altmap.lab.sources import machine_sources
from altmap.lab.tools import run_tool

__all__ = ("Archive", "MissingPackageError")

#: How apt reports a file that the index names and the mirror does not have, or has otherwise.
_MISSING = re.compile(r"Failed to fetch .*(\s[45]\d\d\s|unexpected size|Hash Sum mismatch)")


class MissingPackageError(LabError):
    """The mirror does not have a package as its index describes it."""


class Archive:
    """Debian's packages, for one architecture and some releases.

    Parameters
    ----------
    folder : Path
        Holds apt's lists and our configuration; is made if missing.
    architecture : str
        Debian's name of it, such as ``ppc64el``; need not be the machine's.
    releases : iterable of str
        Debian releases, such as ``trixie``; one the mirror does not have is left out.

    Attributes
    ----------
    complaint : str
        Why some of the lists could not be had at the last update; empty if all could.
    """

    def __init__(self, folder: Path, architecture: str, releases: Iterable[str]) -> None:
        self._folder = folder.absolute()
        self._architecture = architecture
        self._releases = tuple(releases)
        self.complaint = ""

    @property
    def _configuration(self) -> Path:
        return self._folder / "apt.conf"

    def update(self, *, past_caches: bool = False) -> None:
        """Fetch the package lists, as far as the mirror answers.

        Parameters
        ----------
        past_caches : bool
            Caches between this machine and the mirror must not answer.
        """
        for name in ("lists/partial", "cache/archives/partial", "sources"):
            (self._folder / name).mkdir(parents=True, exist_ok=True)
        stanzas = [s.stanza(suite) for s in machine_sources() for suite in s.suites(self._releases)]
        if not stanzas:
            raise LabError("apt's sources name no Debian archive: kernels are taken from Debian")
        (self._folder / "sources/debian.sources").write_text("\n".join(stanzas))
        self._configuration.write_text(_configuration_text(self._folder, self._architecture))
        try:
            no_cache = ("-o", "Acquire::http::No-Cache=true") if past_caches else ()
            self._run("apt-get", "update", "--error-on=any", *no_cache)
            self.complaint = ""
        except LabError as error:
            # One suite may have left the mirror while the package asked for is in another.
            self.complaint = str(error)

    def describe(self) -> str:
        """Return which releases were asked for, and why a list is missing if one is."""
        complaint = f"; {self.complaint}" if self.complaint else ""
        return f"Debian {', '.join(self._releases)}{complaint}"

    def names(self, prefix: str) -> list[str]:
        """Return the names of all packages that start with the prefix."""
        names = self._run("apt-cache", "pkgnames", prefix).split()
        if not names and self.complaint:
            raise LabError(self.complaint)
        return names

    def versions(self, package: str) -> list[str]:
        """Return the versions of a package, newest first."""
        lines = self._run("apt-cache", "madison", package).splitlines()
        return list(dict.fromkeys(line.split("|")[1].strip() for line in lines))

    def fields(self, package: str, version: str) -> Mapping[str, str]:
        """Return the control fields of one version of a package."""
        text = self._run("apt-cache", "show", f"{package}={version}")
        lines = (line.partition(": ") for line in text.splitlines() if not line.startswith(" "))
        return {name: value for name, _, value in lines if value}

    def download(self, packages: Mapping[str, str], into: Path) -> None:
        """Download one version of each package into a folder.

        Raises
        ------
        MissingPackageError
            If the mirror does not have one of them.
        LabError
            If the mirror does not answer, or the disk is full.
        """
        wanted = [f"{package}={version}" for package, version in packages.items()]
        try:
            self._run("apt-get", "download", "-q", *wanted, folder=into)
        except LabError as error:
            if _MISSING.search(str(error)):
                raise MissingPackageError(*error.args) from error
            raise

    def _run(self, tool: str, *arguments: str, folder: Path | None = None) -> str:
        return run_tool(tool, "-c", str(self._configuration), *arguments, folder=folder)


def _configuration_text(folder: Path, architecture: str) -> str:
    return f"""\
APT::Architecture "{architecture}";
#clear APT::Architectures;
APT::Architectures {{ "{architecture}"; }};
APT::Sandbox::User "root";
#clear APT::Update::Post-Invoke;
#clear APT::Update::Post-Invoke-Success;
#clear DPkg::Post-Invoke;
Acquire::Languages "none";
Acquire::Retries "1";
Dir::State::Lists "{folder}/lists";
Dir::State::status "/dev/null";
Dir::Cache "{folder}/cache";
Dir::Etc::SourceList "/dev/null";
Dir::Etc::SourceParts "{folder}/sources";
"""
