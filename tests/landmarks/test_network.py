"""From images to landmarks in plate pixels, with a network whose answer is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deepenergy.landmarks.boxes import square_boxes
from deepenergy.landmarks.compact import Compact
from deepenergy.landmarks.network import landmark_box
from deepenergy.landmarks.readings import find_landmarks
from deepenergy.scene.landmark_layout import IBUG_68

F64 = torch.float64
NAN = float("nan")


class Dots:
    """Heatmaps that are the crop's red channel, averaged over 4 x 4 pixels: finds a red dot."""

    name = "dots"
    layout = IBUG_68

    def __call__(self, crops: Tensor) -> Tensor:
        assert crops.shape[1:] == (3, 256, 256)
        return torch.nn.functional.avg_pool2d(crops[:, :1], 4).expand(-1, 68, -1, -1)

    def crop_boxes(self, face_boxes: Tensor) -> Tensor:
        return square_boxes(face_boxes, 1.5)

    def confidence(self, heatmaps: Tensor) -> Tensor:
        return heatmaps.detach().amax((-2, -1))


def scene(*dots: tuple[float, float], width: float) -> Tensor:
    """One image a dot: a Gaussian spot at plate pixel (x, y)."""
    x, y = torch.arange(320) + 0.5, torch.arange(240) + 0.5
    images = torch.zeros(len(dots), 3, 240, 320)
    for image, (u, v) in zip(images, dots, strict=True):
        image[0] = torch.exp(-((x - u) ** 2 + (y[:, None] - v) ** 2) / (2 * width**2))
    return images


BOXES = torch.tensor([[100.0, 60, 180, 160], [NAN] * 4, [-20, 10, 60, 110]], dtype=F64)


def test_dots_are_found_in_plate_pixels() -> None:
    dots = ((140.3, 101.7), (50.0, 50.0), (12.6, 44.2))
    # A heatmap pixel is 2.1 plate pixels wide; the spot is wide enough for equation 3 to see its slope.
    found = find_landmarks(Dots(), scene(*dots, width=7.0), BOXES)
    assert found.points.shape == (3, 68, 2)
    assert found.points.dtype == F64
    for row in (0, 2):
        assert found.points[row].tolist() == [pytest.approx(dots[row], abs=0.15)] * 68
    assert torch.equal(torch.isnan(found.points).all(-1).all(-1), torch.tensor([False, True, False]))
    assert found.confidence[1].tolist() == [0] * 68
    assert float(found.confidence[[0, 2]].min()) > 0.95
    assert torch.allclose(found.windows, square_boxes(BOXES, 1.5), equal_nan=True)


def test_batched_equals_looped_and_no_face_at_all_is_fine() -> None:
    images = scene((140.3, 101.7), (50, 50), (12.6, 44.2), width=7.0)
    found = find_landmarks(Dots(), images, BOXES)
    for row in range(3):
        alone = find_landmarks(Dots(), images[row : row + 1], BOXES[row : row + 1])
        assert torch.allclose(alone.points[0], found.points[row], equal_nan=True)
    nothing = find_landmarks(Dots(), images[:2], torch.full((2, 4), NAN))
    assert bool(torch.isnan(nothing.points).all())
    assert find_landmarks(Dots(), images[:0], BOXES[:0]).points.shape == (0, 68, 2)


def test_gradients_reach_the_image() -> None:
    image = scene((140.3, 101.7), width=7.0).double()
    shift = torch.zeros(1, dtype=F64, requires_grad=True)
    slope = image.diff(dim=-1, append=image[..., -1:])

    def x_of(s: Tensor) -> Tensor:
        return find_landmarks(Dots(), image + s * slope, BOXES[:1]).points[0, 0, :1]

    assert torch.autograd.gradcheck(x_of, (shift,), atol=1e-4)
    # Moving the image's content left by a pixel moves the landmark left by about a pixel.
    (gradient,) = torch.autograd.grad(x_of(shift), shift)
    assert float(gradient) == pytest.approx(-1, abs=0.3)


def test_bad_boxes() -> None:
    images = torch.zeros(2, 3, 240, 320)
    with pytest.raises(ValueError, match=r"boxes: found shape \(3, 4\); expected \[2, 4\]"):
        find_landmarks(Dots(), images, BOXES)
    with pytest.raises(ValueError, match=r"boxes\[1\]: found"):
        find_landmarks(Dots(), images, torch.tensor([[0.0, 0, 9, 9], [0, NAN, 9, 9]]))


def test_landmark_box_is_tight() -> None:
    points = torch.tensor([[[3.0, 9], [1, 4], [2, 11]], [[0, 0], [5, -2], [1, 1]]])
    assert landmark_box(points).tolist() == [[1, 4, 3, 11], [0, -2, 5, 1]]


def test_compact_is_as_sure_as_the_five_pixels_around_its_peak() -> None:
    heatmaps = torch.randn(2, 68, 64, 64, generator=torch.Generator().manual_seed(0)) / 20
    heatmaps[0, 0, 0, 63] = 1.0
    share = torch.softmax(heatmaps.flatten(2) * 50.0, -1).view_as(heatmaps)
    pooled = torch.nn.functional.avg_pool2d(share, 5, 1, 2, divisor_override=1).flatten(2).amax(-1)
    torch.testing.assert_close(Compact().confidence(heatmaps), pooled.clamp(0, 1))
