"""Pieces of work side by side."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from deepenergy.runtime.threads import map_in_threads, share_out


@pytest.fixture(params=[1, 2, 3], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_results_come_in_order_and_each_piece_has_one_thread(threads: int) -> None:
    def piece(n: int) -> tuple[int, int, str]:
        torch.mm(torch.rand(300, 300), torch.rand(300, 300))
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


def test_shared_out_pieces_come_in_order_and_the_caller_does_its_part(threads: int) -> None:
    # Each waits for the others, the caller among them.
    meeting = threading.Barrier(threads, timeout=30)
    names = set()

    def piece(n: int) -> int:
        if n < threads:
            meeting.wait()
        names.add(threading.current_thread().name)
        return n * n

    assert share_out(piece, range(50)) == [n * n for n in range(50)]
    assert threading.current_thread().name in names
    assert len(names) == threads
    assert share_out(piece, []) == []


@pytest.mark.parametrize("culprit", ["the caller's", "a helper's"])
def test_an_error_of_a_shared_out_piece_is_raised_after_all_have_ended(threads: int, culprit: str) -> None:
    caller = threading.current_thread()
    running, most = set(), []

    def piece(n: int) -> int:
        running.add(n)
        most.append(n)
        time.sleep(0.002)
        running.discard(n)
        if (threading.current_thread() is caller) == (culprit == "the caller's") or threads == 1:
            raise IndexError("of the piece's own")
        return n

    with pytest.raises(IndexError, match="own"):
        share_out(piece, range(300))
    assert not running
    assert len(most) < 20


def test_shared_out_pieces_may_have_pieces_of_their_own() -> None:
    assert share_out(lambda n: sum(share_out(lambda m: n * m, range(4))), range(5)) == [6 * n for n in range(5)]
