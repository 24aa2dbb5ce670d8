"""Face boxes: overlap against a count of pixels, gaps against numpy.interp, smoothing against scipy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from deepenergy.landmarks.boxes import box_area, fill_gaps, iou, smooth_boxes, square_boxes

NAN = float("nan")
F64 = torch.float64
corner = st.integers(0, 20)


def moving(frames: int) -> torch.Tensor:
    t = torch.arange(frames, dtype=F64)[:, None]
    return torch.tensor([[10.0, 20, 110, 140]], dtype=F64) + t * torch.tensor([[3.0, -1, 3.5, -0.5]], dtype=F64)


@settings(deadline=None, max_examples=60)
@given(st.tuples(corner, corner, corner, corner), st.tuples(corner, corner, corner, corner))
def test_iou_counts_pixels(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    masks = np.zeros((2, 42, 42), bool)
    boxes = []
    for mask, (x, y, w, h) in zip(masks, (a, b), strict=True):
        mask[y : y + h, x : x + w] = True
        boxes.append(torch.tensor([x, y, x + w, y + h], dtype=F64))
    union = (masks[0] | masks[1]).sum()
    expected = (masks[0] & masks[1]).sum() / union if union else 0.0
    assert float(iou(*boxes)) == pytest.approx(expected)
    assert float(box_area(boxes[0])) == masks[0].sum()


def test_iou_broadcasts_and_is_zero_for_no_face() -> None:
    boxes = torch.tensor([[0.0, 0, 2, 2], [1, 0, 3, 2], [NAN] * 4])
    assert iou(boxes, boxes[0]).tolist() == pytest.approx([1, 1 / 3, 0])
    assert iou(boxes[:, None], boxes[None]).shape == (3, 3)


def test_square_boxes() -> None:
    box = torch.tensor([[10.0, 20, 50, 80]], dtype=F64)
    assert square_boxes(box, 1.0).tolist() == [[5, 25, 55, 75]]
    assert square_boxes(box, 2.0, -0.5).tolist() == [[-20, -30, 80, 70]]
    assert bool(torch.isnan(square_boxes(torch.full((2, 4), NAN), 1.5)).all())
    with pytest.raises(ValueError, match="scale: found 0"):
        square_boxes(box, 0.0)


def test_gaps_are_filled_like_numpy_interp() -> None:
    boxes = torch.rand(20, 4, dtype=F64, generator=torch.Generator().manual_seed(0))
    boxes[[0, 4, 5, 9, 10, 11, 19]] = NAN
    filled = fill_gaps(boxes, 2)
    known = ~torch.isnan(boxes[:, 0]).numpy()
    frames = np.arange(20)
    for column in range(4):
        expected = np.interp(frames, frames[known], boxes[known, column].numpy())
        expected[[0, 9, 10, 11, 19]] = np.nan  # too long, and the ends
        np.testing.assert_allclose(filled[:, column], expected, atol=1e-14)
    assert torch.equal(torch.isnan(fill_gaps(boxes, 0)), torch.isnan(boxes))
    assert bool(torch.isnan(fill_gaps(torch.full((3, 4), NAN), 5)).all())


def test_smoothing_is_a_moving_average_in_the_middle() -> None:
    boxes = torch.rand(30, 4, dtype=F64, generator=torch.Generator().manual_seed(1))
    expected = scipy.ndimage.uniform_filter1d(boxes.numpy(), 7, axis=0)
    np.testing.assert_allclose(smooth_boxes(boxes, 7)[3:-3], expected[3:-3], atol=1e-12)


def test_window_of_one_is_the_identity() -> None:
    boxes = moving(5)
    boxes[2] = NAN
    assert torch.equal(smooth_boxes(boxes, 1).nan_to_num(-1), boxes.nan_to_num(-1))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.booleans(), min_size=1, max_size=25), st.sampled_from([3, 5, 9, 51]))
def test_uniform_motion_is_kept_whatever_frames_are_missing(present: list[bool], window: int) -> None:
    boxes = torch.where(torch.tensor(present)[:, None], moving(len(present)), NAN)
    smoothed = smooth_boxes(boxes, window)
    assert torch.equal(torch.isnan(smoothed), torch.isnan(boxes))
    assert torch.allclose(smoothed, boxes, atol=1e-9, equal_nan=True)


def test_smoothing_halves_jitter() -> None:
    jitter = torch.randn(200, 4, dtype=F64, generator=torch.Generator().manual_seed(2))
    smoothed = smooth_boxes(moving(200) + jitter, 5) - moving(200)
    assert float(smoothed.std()) < 0.55 * float(jitter.std())


def test_smoothing_is_differentiable_next_to_gaps() -> None:
    boxes = moving(9).requires_grad_()
    gap = torch.zeros(9, 1, dtype=torch.bool)
    gap[4] = True

    def smooth(b: torch.Tensor) -> torch.Tensor:
        return smooth_boxes(torch.where(gap, NAN, b), 5)[~gap[:, 0]]

    assert torch.autograd.gradcheck(smooth, (boxes,))


@pytest.mark.parametrize("window", [0, 2, -3])
def test_bad_windows(window: int) -> None:
    with pytest.raises(ValueError, match="window: found"):
        smooth_boxes(moving(5), window)


def test_bad_boxes() -> None:
    with pytest.raises(ValueError, match=r"boxes\[1\]: found \[0.0, nan"):
        smooth_boxes(torch.tensor([[0.0, 0, 1, 1], [0, NAN, 1, 1]]), 3)
    with pytest.raises(ValueError, match=r"boxes: found shape \(4,\)"):
        fill_gaps(torch.zeros(4), 3)
    with pytest.raises(ValueError, match="max_gap: found -1"):
        fill_gaps(moving(3), -1)
