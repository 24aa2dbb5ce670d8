"""Where a solve's time goes: seconds by part, each without the parts inside of it."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Shares:
    """Seconds by name; a part that runs within another stops the other's clock."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._open: list[str] = []
        self._since = 0.0

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] = self.seconds.get(self._open[-1], 0.0) + now - self._since
        self._since = now

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what runs inside under `name`."""
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    @contextmanager
    def of(self, parts: dict[str, list[tuple[Any, str]]]) -> Iterator[None]:
        """Count calls of `(owner, attribute)` under their part's name, while inside."""
        saved = [(owner, name, getattr(owner, name)) for targets in parts.values() for owner, name in targets]
        for part, targets in parts.items():
            for owner, name in targets:
                setattr(owner, name, self._counted(part, getattr(owner, name)))
        try:
            yield
        finally:
            for owner, name, function in saved:
                setattr(owner, name, function)

    def _counted(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def counted(*arguments: Any, **named: Any) -> Any:
            with self.part(part):
                return function(*arguments, **named)

        return counted

    def percent(self) -> dict[str, float]:
        """Shares of all that was counted."""
        total = sum(self.seconds.values())
        return (
            {name: round(100 * seconds / total, 1) for name, seconds in sorted(self.seconds.items())} if total else {}
        )
