"""Predict, verify and explain Linux memory hotplug.

The names in ``__all__`` are the public API; ``docs/api.md`` describes them with examples. They are
imported when they are first used, so that ``import altmap`` loads neither the model nor NumPy.

Effects: imports.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import altmap

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from _typeshed import StrPath

    from altmap.compare import Comparison
    from altmap.errors import InputError, LabError
    from altmap.host.explain import BlockExplanation
    from altmap.linux.observation import Observation
    from altmap.linux.sysroot import Sysroot
    from altmap.live.mounting import MountedMachine
    from altmap.model.kernel.accounting import Accounting, Policy
    from altmap.model.kernel.memmap import Placement
    from altmap.pfn import PfnRange, PfnSet
    from altmap.report.notebook import Account
    from altmap.scenario import (
        Address,
        Configure,
        Dump,
        Fill,
        Free,
        HugePages,
        Machine,
        Node,
        Offline,
        Online,
        Plug,
        Poison,
        Reboot,
        Resize,
        Scenario,
        SetTunables,
        Size,
        Unplug,
        Veto,
        Write,
        load_scenario,
    )
    from altmap.trace import Trace

__all__ = (
    "Accounting",
    "Address",
    "Configure",
    "Dump",
    "Fill",
    "Free",
    "HugePages",
    "InputError",
    "LabError",
    "Machine",
    "Node",
    "Observation",
    "Offline",
    "Online",
    "PfnRange",
    "PfnSet",
    "Placement",
    "Plug",
    "Poison",
    "Reboot",
    "Resize",
    "Scenario",
    "SetTunables",
    "Size",
    "Sysroot",
    "Trace",
    "Unplug",
    "Veto",
    "Write",
    "__version__",
    "account",
    "compare",
    "explain",
    "load_scenario",
    "mount",
    "predict",
    "run_in_lab",
)

__version__ = "0.1.0"

_STEPS = (
    *(
        "Configure",
        "Dump",
        "Fill",
        "Free",
        "HugePages",
        "Offline",
        "Online",
        "Plug",
        "Poison",
        "Reboot",
    ),
    *("Resize", "SetTunables", "Unplug", "Veto", "Write"),
)
#: The names that are imported when they are first used, by module.
_NAMES = {
    "altmap.errors": ("InputError", "LabError"),
    "altmap.linux.observation": ("Observation",),
    "altmap.linux.sysroot": ("Sysroot",),
    "altmap.model.kernel.accounting": ("Accounting",),
    "altmap.model.kernel.memmap": ("Placement",),
    "altmap.pfn": ("PfnRange", "PfnSet"),
    "altmap.scenario": (
        *("Address", "Machine", "Node", "Scenario", "Size", "load_scenario"),
        *_STEPS,
    ),
    "altmap.trace": ("Trace",),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'altmap' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps ``altmap.compare`` a function when the package of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name == "compare" and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


altmap.__class__ = _Package


# --- functions -------------------------------------------------------------------------------


def predict(
    scenario: Scenario,
    start: Observation | Sysroot | None = None,
    policy: str | Placement | Policy | None = None,
) -> Trace:
    """Return the trace of a scenario on the model.

    Parameters
    ----------
    scenario : Scenario
    start : Observation or Sysroot, optional
        The files of a real machine to start from; without them the boot state is synthetic.
    policy : str, Placement or Policy, optional
        The memmap policy instead of the scenario's: a name such as ``"rfc-2018"``,
        ``"MODULE:CLASS"``, or an object with the members of :class:`Placement`.

    Raises
    ------
    InputError
        If a value of the scenario, the files or the policy cannot be accepted.
    """
    from altmap.model.machine import predict as predict_from

    return predict_from(scenario, start, policy=policy)


def run_in_lab(scenario: Scenario, release: str | None = None) -> Trace:
    """Return the trace of a scenario on a real kernel, in a QEMU guest.

    Kernels are Debian's; a missing one is fetched. Needs the extra ``lab``, QEMU and apt.

    Parameters
    ----------
    scenario : Scenario
    release : str, optional
        Major and minor number of the kernel, instead of the scenario's.

    Raises
    ------
    InputError
        If the guest cannot be what the scenario says, or cannot perform a step.
    LabError
        If the kernel cannot be fetched, or the guest fails.
    """
    from altmap.lab.target import run_in_guest

    return run_in_guest(scenario.with_machine(release=release), lambda _: None)[0]


def mount(
    source: Scenario | StrPath,
    folder: StrPath | None = None,
    *,
    release: str | None = None,
    settings: Sequence[str] = (),
    record: StrPath | None = None,
) -> AbstractContextManager[MountedMachine]:
    """Mount a machine while a ``with`` block runs: programs act on the model through its files.

    Needs the extra ``mount`` and FUSE 3.

    Parameters
    ----------
    source : Scenario, str or Path
        A scenario, or where one lies in TOML, or the files of a real machine.
    folder : str or Path, optional
        An empty folder; by default a new one, which is removed in the end.
    release : str, optional
        The kernel's release instead of the scenario's.
    settings : sequence of str
        ``key=value`` for keys of the scenario's machine.
    record : str or Path, optional
        A file that gets each read and write, as a line of JSON.

    Raises
    ------
    InputError
        If FUSE is missing, the machine cannot exist or the folder cannot be mounted on.
    """
    from altmap.live.mounting import mounted

    return mounted(source, folder, release=release, settings=settings, record=record)


def compare(predicted: Trace, observed: Trace) -> Comparison:
    """Return what differs between two traces of a scenario, step by step and file by file.

    Parameters
    ----------
    predicted, observed : Trace
        A prediction that starts where the other trace starts:
        ``predict(scenario, observed.steps[0].observation)``.
    """
    from altmap.compare import compare as compare_traces

    return compare_traces(predicted, observed)


def account(source: Trace | Observation | Sysroot) -> Account:
    """Return the memory accounting: from requested memory to free memory, each loss with its cause.

    Parameters
    ----------
    source : Trace, Observation or Sysroot
        Of a trace, the machine after the last step after which it could be observed.

    Raises
    ------
    InputError
        If the files do not show zones, memory blocks or meminfo.
    """
    from altmap.report import account as accounting
    from altmap.report.notebook import Account

    if isinstance(source, altmap.Trace):
        return Account(tuple(accounting.account_trace(source)))
    return Account(tuple(accounting.account(_observation(source))))


def explain(block: int | str, sysroot: Sysroot | Observation) -> BlockExplanation:
    """Return why a memory block would not go offline, as far as files tell.

    Parameters
    ----------
    block : int or str
        Its id, or ``memory32``.
    sysroot : Sysroot or Observation

    Raises
    ------
    InputError
        If there is no such block.
    """
    from altmap.host.explain import block_named, explain_block

    number = block_named(str(block))
    if number is None:
        raise altmap.InputError(f"block {block!r}: need a block id such as 32 or 'memory32'")
    return explain_block(_observation(sysroot), number)


def _observation(files: Observation | Sysroot) -> Observation:
    return altmap.Observation.read(files) if isinstance(files, altmap.Sysroot) else files


def _html(shown: Trace | Observation) -> str:
    """Return what a notebook shows of a trace or an observation."""
    from altmap.report.notebook import observation_html, trace_html

    return trace_html(shown) if isinstance(shown, altmap.Trace) else observation_html(shown)
