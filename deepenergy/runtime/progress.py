"""How long work says how far it is."""

from __future__ import annotations

from collections.abc import Callable

# Called with (what is done, how much of it, of how much).
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Report nothing: the `Progress` of who does not ask for one."""
