"""Readers of definitions: each returns what a file of a hypervisor says, in one form."""

from __future__ import annotations

from altmap.vm.readers.reading import MOST_BYTES, read_definition, read_definitions

__all__ = ("MOST_BYTES", "read_definition", "read_definitions")
