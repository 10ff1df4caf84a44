"""A plugin for pytest: machines for the tests of programs that hotplug memory.

The fixture is documented in ``docs/live.md``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from altmap.live.mounting import MountedMachine

__all__ = ("altmap_machine",)


@pytest.fixture
def altmap_machine() -> Iterator[Callable[..., MountedMachine]]:
    """Return a function that mounts a machine until the test ends.

    It takes the arguments of ``altmap.mount``.
    """
    from altmap.live.mounting import mounted

    with ExitStack() as stack:

        def mount(source: Any, **arguments: Any) -> MountedMachine:
            return stack.enter_context(mounted(source, **arguments))

        yield mount
