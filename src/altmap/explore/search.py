"""Breadth-first search: the shortest sequence of steps that breaks each rule."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from altmap.explore.space import Broken, Space, State, Way
from altmap.scenario import Step

__all__ = ("Found", "Result", "search")


@dataclass(frozen=True, slots=True)
class Found:
    """A broken rule, and the shortest way to break it."""

    rule: str
    why: str
    steps: tuple[Step, ...]


@dataclass(slots=True)
class Result:
    """What a search came to.

    Attributes
    ----------
    found : list of Found
        One for each broken rule, the shortest first.
    nr_states, nr_transitions : int
        Different states, and steps tried that the host does.
    depth : int
        Steps up to which every sequence was tried.
    ended_by : str
        Which limit ended it before the bounds did, empty if none.
    """

    found: list[Found] = field(default_factory=list)
    nr_states: int = 1
    nr_transitions: int = 0
    depth: int = 0
    ended_by: str = ""


def search(
    space: Space,
    *,
    seconds: float | None = None,
    first_only: bool = False,
    look: Callable[[Result, int], None] = lambda result, waiting: None,
) -> Result:
    """Search a space level by level."""
    bounds = space.exploration.bounds
    result, open_rules = Result(), {rule.name for rule in space.rules}
    deadline = None if seconds is None else time.monotonic() + seconds
    seen = {space.start.key}

    def tell(broken: tuple[Broken, ...] | list[Broken], way: Way | None) -> None:
        for name, why in broken:
            if name in open_rules:
                open_rules.discard(name)
                result.found.append(Found(name, why, tuple(space.steps_to(way))))

    tell(space.broken(space.start), None)
    level = [space.start]
    while level and result.depth < bounds.depth:
        following: list[State] = []
        for state in level:
            for number in space.moves(state):
                effect = space.effect(state, number)
                if not effect.possible:
                    continue
                result.nr_transitions += 1
                if effect.broken:
                    tell(effect.broken, (state.way, number, 0))
                key = state.key ^ effect.difference
                if key in seen:
                    continue
                seen.add(key)
                new = space.after(state, number, effect)
                following.append(new)
                broken = space.broken(new)
                if broken:
                    tell(broken, new.way)
            if deadline is not None and time.monotonic() > deadline:
                result.ended_by = "time"
                break
            if len(seen) > bounds.states:
                result.ended_by = "states"
                break
            if not open_rules or (first_only and result.found):
                break
        result.nr_states = len(seen)
        if result.ended_by or not open_rules or (first_only and result.found):
            break
        result.depth += 1
        level = following
        look(result, len(level))
    return result
