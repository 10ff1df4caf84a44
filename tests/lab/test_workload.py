"""Pages that are used in a guest and given back: what the commands to the guest say."""

from types import SimpleNamespace

import pytest

from altmap.errors import InputError
from altmap.lab.workload import GuestUsage
from altmap.scenario import Fill, Size

MIB = 1 << 20


class Guest:
    """A guest whose commands all succeed."""

    hardware = SimpleNamespace(guest=SimpleNamespace(cache_line_bytes=64))

    def __init__(self):
        self.commands = []

    def run(self, command, limit_seconds=0.0):
        self.commands.append(command)
        return SimpleNamespace(status=0, text="")


def ring_kib(guest):
    """Return the sizes that the trace buffer was given."""
    writes = [command for command in guest.commands if "buffer_size_kb" in command]
    return [int(command.split("echo ")[1].split()[0]) for command in writes]


def test_of_pages_of_the_kernel_a_guest_frees_those_first_that_came_first():
    """Whoever names others would compare with pages of another place."""
    guest = Guest()
    usage = GuestUsage(guest)
    for name in ("f0", "f1"):
        assert usage.fill(Fill(id=name, size=Size(16 * MIB), kind="kernel"))
    with pytest.raises(InputError, match="free 'f1': of pages of the kernel a guest frees 'f0'"):
        usage.free("f1")
    assert usage.free("f0")
    assert usage.free("f1")
    one, two, *back = ring_kib(guest)
    assert two == pytest.approx(2 * one, abs=8)
    assert back == [one, 8]


@pytest.mark.parametrize("free_kib", [8 << 10, 32 << 10])
def test_a_buffer_that_exceeds_what_is_available_is_no_refusal_of_the_kernel(free_kib):
    class Full(Guest):
        def run(self, command, limit_seconds=0.0):
            if "MemAvailable" in command or "MemFree" in command:
                kib = 4 << 10 if "MemAvailable" in command else free_kib
                return SimpleNamespace(status=0, text=f"Mem: {kib} kB\n")
            if "buffer_size_kb" in command:
                why = "sh: write error: Cannot allocate memory"
                return SimpleNamespace(status=1, text=why, output=why, stderr=why)
            return super().run(command)

    usage, step = GuestUsage(Full()), Fill(id="f", size=Size(16 * MIB), kind="kernel")
    if free_kib > 16 << 10:
        with pytest.raises(InputError, match="exceeds MemAvailable"):
            usage.fill(step)
    else:
        assert usage.fill(step).errno == "ENOMEM"


def test_what_was_never_filled_cannot_be_freed():
    with pytest.raises(InputError, match="free 'f': no such file"):
        GuestUsage(Guest()).free("f")
