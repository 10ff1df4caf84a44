"""A person, or a script, at a guest's shell.

Effects: terminal.
"""

from __future__ import annotations

import sys
import termios
import tty

from altmap.lab.guest import Guest

__all__ = ("interact", "run_lines")

#: A shell with a terminal's manners. Its session's end would hang up the port, so the session says
#: itself what init would say (init.sh), and waits for the guest's end.
_SESSION = """\
export token; cd /; stty sane </dev/{port}
setsid -c sh -c 'sh -i; code=$?; stty raw; printf "%s %d\\n" "$token" $code; sleep 999999999' \
    </dev/{port} >/dev/{port} 2>&1"""
_LINE_SECONDS = 3600.0


def interact(guest: Guest) -> int:
    """Connect the terminal with a shell in the guest until that ends; return its exit status.

    No other command can be run after it.
    """
    keyboard, screen = sys.stdin.fileno(), sys.stdout.fileno()
    before = termios.tcgetattr(keyboard)
    try:
        tty.setraw(keyboard)
        return guest.converse(_SESSION.format(port=guest.hardware.guest.shell), keyboard, screen)
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)


def run_lines(guest: Guest) -> int:
    """Run a script from standard input in the guest; return its exit status."""
    result = guest.run(sys.stdin.read(), _LINE_SECONDS)
    sys.stdout.buffer.write(result.output)
    sys.stdout.flush()
    return result.status
