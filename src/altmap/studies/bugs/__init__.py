"""Known bugs of the kernel and of the patches of 2018, each shown where it is and where it is not.

:data:`BUGS` is the data, :func:`find` runs it on the model, :mod:`altmap.studies.bugs.text`
shows it.
"""

from altmap.studies.bugs.bug import Bug, Shown, bugs_named, find
from altmap.studies.bugs.catalogue import BUGS

__all__ = ("BUGS", "Bug", "Shown", "bugs_named", "find")
