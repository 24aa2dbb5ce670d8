"""What a refusal of wrong input has to say: which field, what was found there, what to do. Not how it says it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from deepenergy import InputError


@contextmanager
def refused(
    field: str = "", found: str = "", expected: str = "", remedy: str = "", kind: type[InputError] = InputError
) -> Iterator[None]:
    """Expect an `InputError` whose parts contain these words; `kind` may narrow it."""
    with pytest.raises(kind) as caught:
        yield
    error = caught.value
    assert field in error.field, error
    assert found in error.found, error
    assert expected in error.expected, error
    assert remedy in error.remedy, error
