"""The one error that a user's input can raise: what was found, what was expected, what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Input that cannot be used, reported in one line.

    Args:
        field: what the user named or passed (`rig`, `cameras.left.width`, `plates.frames`, ...).
        found: what was there.
        expected: what should have been there.
        remedy: what to do about it.
    """

    def __init__(self, field: str, found: str, expected: str, remedy: str) -> None:
        self.field, self.found, self.expected, self.remedy = field, found, expected, remedy
        super().__init__(f"{field}: found {found}; expected {expected}; {remedy}")

    def __reduce__(self) -> tuple[type[InputError], tuple[object, ...]]:
        # The default would hand the whole message to `__init__` as its only argument.
        return type(self), (self.field, self.found, self.expected, self.remedy)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """The remedy for a name that is not known: the nearest one that is, where one is near."""
    near = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)
    return f"did you mean '{near[0]}'?" if near else "remove it"
