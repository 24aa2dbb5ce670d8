"""Pieces of work side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from deepenergy.threads import map_in_threads


@pytest.fixture(params=[1, 2, 3], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_each_piece_has_one_thread(threads: int) -> None:
    def piece(n: int) -> tuple[int, int, str]:
        torch.rand(300, 300) @ torch.rand(300, 300)
        return n * n, torch.get_num_threads(), threading.current_thread().name

    found = list(map_in_threads(piece, range(20)))
    assert [n for n, _, _ in found] == [n * n for n in range(20)]
    assert {count for _, count, _ in found} == {1}
    assert torch.get_num_threads() == threads
    assert (threading.current_thread().name in {name for _, _, name in found}) == (threads == 1)


def test_they_run_at_once(threads: int) -> None:
    # Each waits for the others: one after the other they would never end.
    meeting = threading.Barrier(threads, timeout=30)
    assert sorted(map_in_threads(lambda n: meeting.wait() * 0 + n, range(threads))) == list(range(threads))


@pytest.mark.parametrize("wanted", [True, False])
def test_gradients_are_on_where_the_caller_has_them_on(wanted: bool) -> None:
    with torch.set_grad_enabled(wanted):
        assert set(map_in_threads(lambda _: torch.is_grad_enabled(), range(6))) == {wanted}


def test_an_error_is_raised_and_what_has_not_begun_never_does() -> None:
    begun = []

    def piece(n: int) -> int:
        begun.append(n)
        if n == 3:
            raise ValueError("three")
        time.sleep(0.01)
        return n

    found = []
    with pytest.raises(ValueError, match="three"):
        found.extend(map_in_threads(piece, range(300)))
    assert len(begun) < 300


def test_pieces_may_have_pieces_of_their_own() -> None:
    def piece(n: int) -> int:
        return sum(map_in_threads(lambda m: n * m, range(4)))

    assert list(map_in_threads(piece, range(5))) == [6 * n for n in range(5)]


def test_nothing() -> None:
    assert list(map_in_threads(lambda n: n, [])) == []
