"""The Xen balloon of a guest: told a target, and waited for until its driver has come to rest.

Effects: clock.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from altmap.errors import LabError
from altmap.lab.guest import Guest
from altmap.lab.state import write_file

__all__ = ("AFTER_A_LOOK", "Rest", "gave_up", "set_balloon_target", "wait_for_balloon")

_FOLDER = "/sys/devices/system/xen_memory/xen_memory0"
_LOOK = (
    f"cd {_FOLDER} && cat target_kb info/current_kb info/low_kb retry_count schedule_delay"
    " && ls -d /sys/devices/system/memory/memory[0-9]* | wc -l"
)
# A driver that waits for blocks to be onlined looks once a second (balloon_thread, BP_WAIT).
_STILL_SECONDS = 2.5
_POLL_SECONDS = 0.2
#: Shell commands that end right after the driver's thread has run, if it does within two seconds:
#: a thread that waits for blocks sleeps for a second then, while the guest onlines some.
AFTER_A_LOOK = (
    "p=$(pgrep -x xen-balloon); a=$(grep ^vol /proc/$p/status); "
    'for i in $(seq 200); do [ "$a" = "$(grep ^vol /proc/$p/status)" ] || break; done'
)
# Four tries, 1, 2, 4 and 8 seconds apart, before the driver gives up; memory is slow to move here.
_LIMIT_SECONDS = 120.0


#: What the driver logs when no memory can be added (reserve_additional_memory): it does not retry.
_GAVE_UP = re.compile(
    r"xen.balloon: (Cannot allocate new|set_phys_to_machine|Cannot add additional)"
)


@dataclass(frozen=True, slots=True)
class Rest:
    """Where the balloon driver stopped.

    Attributes
    ----------
    target_kb, current_kb : int
    retried : bool
        The hypervisor or the kernel refused, and the driver tried again until it gave up.
    """

    target_kb: int
    current_kb: int
    retried: bool

    @property
    def reached(self) -> bool:
        """Whether the domain has what it was told to have."""
        return self.target_kb == self.current_kb


def gave_up(log: list[str]) -> bool:
    """Tell whether the driver logged that it stops (ECANCELED), which its files do not tell."""
    return any(_GAVE_UP.search(line) for line in log)


def set_balloon_target(guest: Guest, size_bytes: int) -> Rest:
    """Tell the balloon its target and wait until its driver rests.

    Raises
    ------
    LabError
        If the guest dies, refuses the write, or its driver does not come to rest.
    """
    number = write_file(guest, f"{_FOLDER}/target_kb", str(size_bytes // 1024))
    if number:
        raise LabError(f"{_FOLDER}/target_kb: errno {number}", guest.console())
    return wait_for_balloon(guest)


def wait_for_balloon(guest: Guest) -> Rest:
    """Wait until the balloon driver has reached its target, waits for another driver, or gave up.

    Raises
    ------
    LabError
        If the guest dies, or the driver does not come to rest.
    """
    limit = time.monotonic() + _LIMIT_SECONDS
    seen, since, retried = "", time.monotonic(), False
    while time.monotonic() < limit:
        look = guest.run(_LOOK)
        if look.status:
            raise LabError(f"{_FOLDER}: {look.text.strip()}", guest.console())
        words = look.text.split()
        target_kb, current_kb, retrying = int(words[0]), int(words[1]), words[3] != "1"
        retried |= retrying
        if look.text != seen:
            seen, since = look.text, time.monotonic()
        rest = Rest(target_kb, current_kb, retried)
        still = time.monotonic() - since
        if rest.reached or (still >= _STILL_SECONDS and not retrying):
            return rest
        time.sleep(_POLL_SECONDS)
    raise LabError(
        f"balloon: at no rest within {_LIMIT_SECONDS:g} s: {seen.split()}", guest.console()
    )
