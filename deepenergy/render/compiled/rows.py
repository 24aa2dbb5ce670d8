"""Rows of images, dealt out to threads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

from deepenergy.runtime.threads import share_out


def in_threads(work: Callable[..., Any], jobs: Sequence[tuple[int, ...]]) -> list[Any]:
    """`work(*job)` of every job, in the jobs' order; they must not write to the same places."""
    return share_out(lambda job: work(*job), jobs)


# What a thread has to have to be worth waking, in samples (or triangles, which take as long as a few samples).
_LEAST = 20_000


def bands(batch: int, height: int, width: int, per_thread: int = 2, most: int = 64) -> list[tuple[int, int, int]]:
    """(image, first row, row after the last): whole images where there are enough of them for all threads.

    Args:
        most: pieces of an image.
    """
    threads = torch.get_num_threads()
    wanted = 1 if threads == 1 else -(-per_thread * threads // max(batch, 1))
    pieces = max(1, min(wanted, most, height, height * width // _LEAST))
    cuts = [height * k // pieces for k in range(pieces + 1)]
    return [(b, low, high) for b in range(batch) for low, high in pairwise(cuts)]
