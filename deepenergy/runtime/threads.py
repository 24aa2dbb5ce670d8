"""Independent pieces of work, side by side in as many threads as torch may use (`torch.set_num_threads`).

Each piece has one thread, also within torch: a small network or a small matrix gains more from a neighbour than from a
second thread of its own. What a piece finds does not depend on how many there are.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import lru_cache
from threading import Barrier
from typing import TypeVar

import torch

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


def map_in_threads(work: Callable[[_Item], _Found], items: Iterable[_Item]) -> Iterator[_Found]:
    """`work` of every item, in their order; in the caller's thread where it may use only one.

    All are begun with the first that is asked for. The first error that a piece raises is raised here, and what has not
    begun by then, or when no more are asked for, never does.
    """
    given = list(items)
    threads = min(torch.get_num_threads(), len(given))
    if threads <= 1:
        yield from map(work, given)
        return
    gradients = torch.is_grad_enabled()

    def one(item: _Item) -> _Found:
        # Belongs to a thread, and is not inherited.
        with torch.set_grad_enabled(gradients):
            return work(item)

    pool = _pool(os.getpid(), torch.get_num_threads())
    running = [pool.submit(one, item) for item in given]
    try:
        for future in running:
            yield future.result()
    finally:
        for future in running:
            future.cancel()


def share_out(work: Callable[[_Item], _Found], items: Sequence[_Item]) -> list[_Found]:
    """`work` of every item, in their order, the caller's thread taking its part.

    For pieces of a millisecond in compiled code: a thread that waits takes longer to wake than such a piece may last.
    The caller's thread keeps its own setting within torch. After an error, which is raised here, no more are begun.
    """
    threads = min(torch.get_num_threads(), len(items))
    if threads <= 1:
        return [work(item) for item in items]
    left = deque(enumerate(items))
    found: dict[int, _Found] = {}

    def take() -> None:
        while left:
            try:
                place, item = left.popleft()
            except IndexError:
                # Another thread has got the last one in between.
                return
            try:
                found[place] = work(item)
            except BaseException:
                left.clear()
                raise

    pool = _pool(os.getpid(), torch.get_num_threads())
    helpers = [pool.submit(take) for _ in range(threads - 1)]
    try:
        take()
    finally:
        # Those that have not begun, the pool being busy, have nothing left to do; the others are waited for.
        begun = [helper for helper in helpers if not helper.cancel()]
        wait(begun)
    for helper in begun:
        helper.result()
    return [found[place] for place in range(len(items))]


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    # By process: a fork copies the pool and none of its threads.
    pool = ThreadPoolExecutor(threads, "deepenergy", initializer=_alone)
    everyone = Barrier(threads)
    list(pool.map(lambda _: everyone.wait(), range(threads)))
    # What a thread sets for itself is what threads made later begin with.
    torch.set_num_threads(threads)
    return pool


def _alone() -> None:
    # Asked first, since a thread that never was takes the common number when it first needs one.
    torch.get_num_threads()
    torch.set_num_threads(1)
