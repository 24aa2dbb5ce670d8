"""Compiled loops that let go of the interpreter, run by as many threads as torch may use (`torch.set_num_threads`)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import pairwise
from typing import Any

import torch


def in_threads(work: Callable[..., Any], jobs: Sequence[tuple[int, ...]]) -> list[Any]:
    """`work(*job)` of every job, in the jobs' order; they must not write to the same places."""
    threads = min(torch.get_num_threads(), len(jobs))
    if threads <= 1:
        return [work(*job) for job in jobs]
    return list(_pool(os.getpid(), threads).map(lambda job: work(*job), jobs))


def bands(batch: int, height: int, per_thread: int = 2) -> list[tuple[int, int, int]]:
    """(image, first row, row after the last): whole images where there are enough of them for all threads."""
    pieces = max(1, min(-(-per_thread * torch.get_num_threads() // max(batch, 1)), height))
    cuts = [height * k // pieces for k in range(pieces + 1)]
    return [(b, low, high) for b in range(batch) for low, high in pairwise(cuts)]


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    # By process: a fork copies the pool and none of its threads.
    return ThreadPoolExecutor(threads, thread_name_prefix="deepenergy-render")
