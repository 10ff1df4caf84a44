"""What a hunt has reached: rules and refusals of the model, answers and messages of real kernels.

A *feature* is one line of text, such as ``offline refused EBUSY has_unmovable_pages``. Addresses,
numbers and names that a scenario gave are left out of it, so that two scenarios which do the same
have the same features.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from altmap.trace import StepRecord, Trace

__all__ = ("KERNEL_LOG", "Coverage", "features_of", "without_numbers")

#: Kind of the events that are messages of a real kernel.
KERNEL_LOG = "kernel-log"

_NUMBER = re.compile(r"0x[0-9a-fA-F]+|\b[0-9a-f]*\d[0-9a-f]*\b|(?<=\bmemory)\d+")
_STAMP = re.compile(r"^(<\d+>)?\[ *\d+\.\d+\](\[ *[TC]\d+\])? *")
#: Keys of a step that tell what kind of request it is.
_KINDS = ("driver", "kind", "to", "on", "dax")


def features_of(trace: Trace) -> frozenset[str]:
    """Return the features of a scenario as it ran on the model or on a real kernel."""
    return frozenset(feature for step in trace.steps[1:] for feature in _of_step(step))


def _of_step(step: StepRecord) -> Iterator[str]:
    kinds = (str(step.action[key]) for key in _KINDS if key in step.action)
    request = " ".join((str(step.action.get("do", step.name)), *kinds))
    outcome = step.outcome
    parts = (outcome.status, outcome.errno, outcome.function, outcome.kind)
    yield " ".join((request, *filter(None, parts)))
    for event in step.events:
        if event.kind == KERNEL_LOG:
            yield f"log {without_numbers(event.text)}"
        elif event.message is None:
            yield " ".join(filter(None, ("event", event.kind, event.function)))


def without_numbers(line: str) -> str:
    """Return a line of a kernel's log without its time, and with ``#`` for each number."""
    return _NUMBER.sub("#", _STAMP.sub("", line)).strip()[:100]


@dataclass(slots=True)
class Coverage:
    """How often each feature was reached, by the model and by real kernels.

    Attributes
    ----------
    model, kernel : Counter of str
        Scenarios that reached each feature.
    """

    model: Counter[str] = field(default_factory=Counter)
    kernel: Counter[str] = field(default_factory=Counter)

    def novelty(self, features: Iterable[str]) -> float:
        """Return how new the features of a prediction are: 1 for each that was never reached."""
        return sum(1 / (1 + self.model[feature]) for feature in features)

    def add(self, model: Iterable[str], kernel: Iterable[str]) -> int:
        """Count a scenario that ran; return how many of its features are new."""
        new = 0
        for counter, features in ((self.model, model), (self.kernel, kernel)):
            for feature in features:
                new += not counter[feature]
                counter[feature] += 1
        return new
