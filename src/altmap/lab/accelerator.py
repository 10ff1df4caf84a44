"""Whether KVM works here: a device that opens may still not run a guest, so it is tried once.

Effects: environment, files.
"""

from __future__ import annotations

import json
import os
import platform
from contextlib import suppress
from pathlib import Path

from altmap.errors import InputError
from altmap.lab.kernels import cache_folder
from altmap.storage.files import write_file
from altmap.storage.json_files import read_json

__all__ = ("KVM", "TCG", "remember_accelerator", "remembered_accelerator")

KVM, TCG = "kvm", "tcg"
_DEVICE = "/dev/kvm"


def _file() -> Path:
    return cache_folder() / "accelerator.json"


def remembered_accelerator(family: str) -> str | None:
    """Return what earlier guests ran with on this kernel, ``None`` if that has to be tried.

    A guest of another architecture (*family*, as ``uname -m`` has it) is always emulated.
    """
    if family != platform.machine() or not os.access(_DEVICE, os.R_OK | os.W_OK):
        return TCG
    with suppress(InputError):
        found = read_json(_file(), dict[str, str]).get(platform.release())
        return found if found in (KVM, TCG) else None
    return None


def remember_accelerator(accelerator: str) -> None:
    """Keep the result of a trial for later guests."""
    # A cache that cannot be written costs a trial per guest, nothing more.
    with suppress(OSError, InputError):
        _file().parent.mkdir(parents=True, exist_ok=True)
        write_file(_file(), json.dumps({platform.release(): accelerator}))
