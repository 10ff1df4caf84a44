"""How a step ended: done, refused, ended by a fault, never, or not reached."""

from __future__ import annotations

import errno as errno_module
from dataclasses import dataclass, replace
from typing import Literal

from altmap.pfn import Pages

__all__ = ("OK", "Certainty", "Outcome", "Status")

#: How a step ends.
Status = Literal["ok", "refused", "fault", "does_not_end", "not_reached"]

#: How sure a prediction is: ``certain``; ``likely`` where a real kernel may end there by chance;
#: ``unknown`` where nothing that is modelled decides it.
Certainty = Literal["certain", "likely", "unknown"]

#: The kernel's names: Python lacks one, and calls another as POSIX does.
_ERRNO_NAMES = {**errno_module.errorcode, 95: "EOPNOTSUPP", 133: "EHWPOISON"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a step ended.

    Attributes
    ----------
    status : str
        ``ok``, ``refused`` (by the kernel), ``fault`` (the kernel crashed), ``does_not_end`` (the
        kernel retries or waits, and no signal can end it) or ``not_reached`` (it had crashed
        before).
    errno : str or None
        Name of the error, such as ``EBUSY``.
    function : str or None
        The kernel function that refuses, or that touched the frame.
    why : str
        One sentence for the reader.
    pfns : PfnSet, PfnRange, PfnStride or None
        The page frames that prevent the step.
    kind : str or None
        What they are, such as ``unmovable``, ``reserved``, ``fake-offline``, ``pinned``.
    certainty : str
        ``certain``, ``likely`` or ``unknown``.
    doubt : str
        Why it is not certain.
    """

    status: Status
    errno: str | None = None
    function: str | None = None
    why: str = ""
    pfns: Pages | None = None
    kind: str | None = None
    certainty: Certainty = "certain"
    doubt: str = ""

    def __bool__(self) -> bool:
        return self.status == "ok"

    @property
    def ends(self) -> bool:
        """Whether the step ends at all."""
        return self.status != "does_not_end"

    @classmethod
    def refused(
        cls,
        errno: int | str,
        function: str,
        why: str,
        *,
        pfns: Pages | None = None,
        kind: str | None = None,
    ) -> Outcome:
        """Return a refusal; *errno* is a number or a name."""
        name = errno if isinstance(errno, str) else _ERRNO_NAMES.get(errno, str(errno))
        return cls("refused", name, function, why, pfns, kind)

    def doubted(self, certainty: Certainty, doubt: str) -> Outcome:
        """Return the same outcome, less sure; *doubt* says why."""
        return replace(self, certainty=certainty, doubt=doubt)


OK = Outcome("ok")
