"""Predict, verify and explain Linux memory hotplug.

Start with :mod:`altmap.scenario` (what to do), :mod:`altmap.model.machine` (the model that does it)
and :mod:`altmap.trace` (what happened).
"""

__all__ = ("__version__",)

__version__ = "0.1.0"
