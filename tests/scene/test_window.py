"""Crop and resize against grid_sample (enlarging) and Pillow and OpenCV (reducing); coordinates there and back."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample, interpolate

from deepenergy import Camera
from deepenergy.scene.window import crop_and_resize, heatmap_to_plate

F64 = torch.float64
# torch's first forward-mode call loads decompositions that use its own deprecated torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, dtype=F64, generator=torch.Generator().manual_seed(seed))


def sampled(images: Tensor, boxes: Tensor, size: int) -> Tensor:
    """Plain bilinear samples by torch's own sampler; outside is zero."""
    steps = (torch.arange(size, dtype=F64) + 0.5) / size
    xy = boxes[:, None, :2] + steps[None, :, None] * (boxes[:, None, 2:] - boxes[:, None, :2])
    extent = torch.tensor([images.shape[3], images.shape[2]], dtype=F64)
    xy = xy * 2 / extent - 1
    grid = torch.stack([xy[:, None, :, 0].expand(-1, size, -1), xy[:, :, None, 1].expand(-1, -1, size)], -1)
    return grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


ENLARGING = torch.tensor(
    [[3.0, 2, 19, 18], [0.3, 1.7, 12.9, 20.1], [-5.2, -3.1, 9.4, 11.2], [20, 15, 35.5, 31], [100, 3, 120, 20]],
    dtype=F64,
)


@pytest.mark.parametrize("antialias", [True, False])
def test_enlarging_equals_grid_sample_inside_and_outside_the_image(antialias: bool) -> None:
    images = noise(5, 3, 24, 30)
    expected = sampled(images, ENLARGING, 32)
    assert torch.allclose(crop_and_resize(images, ENLARGING, 32, antialias), expected, atol=1e-12)


def test_without_antialiasing_reducing_is_plain_sampling() -> None:
    images, boxes = noise(1, 3, 90, 120), torch.tensor([[-10.5, 4, 110, 93.3]], dtype=F64)
    assert torch.allclose(crop_and_resize(images, boxes, 16, False), sampled(images, boxes, 16), atol=1e-12)


@pytest.mark.parametrize("box", [(30.0, 20.0, 160.0, 150.0), (33.3, 21.8, 177.1, 140.2), (40.0, 30.0, 56.0, 150.0)])
def test_reducing_equals_pillow(box: tuple[float, float, float, float]) -> None:
    image = noise(1, 1, 200, 220, seed=1).float()
    expected = Image.fromarray(image[0, 0].numpy()).resize((32, 32), Image.Resampling.BILINEAR, box=box)
    crop = crop_and_resize(image, torch.tensor([box]), 32)
    np.testing.assert_allclose(crop[0, 0], np.asarray(expected), atol=2e-5)


def test_the_whole_image_equals_antialiased_interpolate_away_from_the_border() -> None:
    image = noise(1, 3, 150, 150, seed=2)
    crop = crop_and_resize(image, torch.tensor([[0.0, 0, 150, 150]]), 40)
    expected = interpolate(image, size=(40, 40), mode="bilinear", antialias=True)
    assert torch.allclose(crop[..., 1:-1, 1:-1], expected[..., 1:-1, 1:-1], atol=1e-12)
    # At the border the filter reaches over it, into black.
    assert bool((crop[..., 0, :] < expected[..., 0, :]).all())


def test_a_photograph_is_reduced_like_opencv_area() -> None:
    photograph = skimage.data.astronaut()
    image = torch.from_numpy(photograph.copy()).permute(2, 0, 1)[None].float() / 255
    crop = crop_and_resize(image, torch.tensor([[100.0, 0, 356, 256]]), 64)
    area = cv2.resize(photograph[0:256, 100:356], (64, 64), interpolation=cv2.INTER_AREA).transpose(2, 0, 1) / 255
    stepped = photograph[0:256, 100:356][2::4, 2::4].transpose(2, 0, 1) / 255
    inner = (..., slice(1, -1), slice(1, -1))
    difference = np.abs(crop[0].numpy() - area)[inner].mean()
    assert difference < 0.02
    assert difference < 0.5 * np.abs(stepped - area)[inner].mean()


@pytest.mark.parametrize("size", [8, 64])
def test_a_constant_image_stays_constant_inside_and_is_black_outside(size: int) -> None:
    images = torch.ones(3, 3, 40, 40, dtype=F64)
    boxes = torch.tensor([[10.0, 10, 30, 30], [60, 60, 90, 90], [-100, 0, -80, 20]], dtype=F64)
    crops = crop_and_resize(images, boxes, size)
    assert torch.allclose(crops[0], torch.ones_like(crops[0]), atol=1e-12)
    assert float(crops[1:].abs().max()) == 0


@settings(deadline=None, max_examples=40)
@given(st.floats(20, 60), st.floats(20, 60), st.floats(2, 50), st.floats(2, 50), st.integers(1, 24))
def test_a_linear_ramp_comes_out_at_the_output_pixels_centres(
    x0: float, y0: float, w: float, h: float, size: int
) -> None:
    """To rounding without antialiasing; with it, the normalised triangle leaves up to a tenth of a pixel."""
    x = (torch.arange(160, dtype=F64) + 0.5).expand(160, 160)
    images = torch.stack([x, x.T])[None]
    crop = crop_and_resize(images, torch.tensor([[x0, y0, x0 + w, y0 + h]], dtype=F64), size, antialias=False)[0]
    steps = (torch.arange(size, dtype=F64) + 0.5) / size
    assert torch.allclose(crop[0], (x0 + steps * w).expand(size, size), atol=1e-9)
    assert torch.allclose(crop[1], (y0 + steps * h)[:, None].expand(size, size), atol=1e-9)
    smooth = crop_and_resize(images, torch.tensor([[x0, y0, x0 + w, y0 + h]], dtype=F64), size)[0]
    assert torch.allclose(smooth, crop, atol=0.1)


def test_gradients_in_every_mode_against_finite_differences() -> None:
    boxes = torch.tensor([[-1.0, 0.5, 7.5, 9], [1.2, 1, 3, 3.5]], dtype=F64)
    assert torch.autograd.gradcheck(
        lambda images: crop_and_resize(images, boxes, 4),
        (noise(2, 2, 8, 7).requires_grad_(),),
        check_forward_ad=True,
        check_batched_grad=True,
        check_batched_forward_grad=True,
    )


def test_it_is_linear_so_that_a_tangent_is_cropped_like_an_image() -> None:
    images, tangents, boxes = noise(5, 3, 24, 30), noise(5, 3, 24, 30, seed=3), ENLARGING
    _, derivative = torch.func.jvp(lambda i: crop_and_resize(i, boxes, 12), (images,), (tangents,))[:2]
    assert torch.allclose(derivative, crop_and_resize(tangents, boxes, 12), atol=1e-14)


def test_batched_equals_looped() -> None:
    images = noise(5, 3, 24, 30)
    looped = torch.cat([crop_and_resize(images[i : i + 1], ENLARGING[i : i + 1], 12) for i in range(5)])
    assert torch.equal(crop_and_resize(images, ENLARGING, 12), looped)
    assert crop_and_resize(images[:0], ENLARGING[:0], 12).shape == (0, 3, 12, 12)
    assert crop_and_resize(images.float(), ENLARGING, 12).dtype == torch.float32


@pytest.mark.parametrize(
    ("images", "boxes", "size", "message"),
    [
        ((3, 8, 8), [[0.0, 0, 4, 4]], 4, r"images: found shape \(3, 8, 8\)"),
        ((1, 3, 8, 8), [0.0, 0, 4, 4], 4, r"boxes: found shape \(4,\); expected \[1, 4\]"),
        ((2, 3, 8, 8), [[0.0, 0, 4, 4]], 4, r"boxes: found shape \(1, 4\); expected \[2, 4\]"),
        ((1, 3, 8, 8), [[4.0, 0, 4, 4]], 4, r"boxes\[0\]: found \[4.0, 0.0, 4.0, 4.0\]"),
        ((1, 3, 8, 8), [[0.0, 0, float("nan"), 4]], 4, r"boxes\[0\]: found .*nan"),
        ((1, 3, 8, 8), [[0.0, 0, float("inf"), 4]], 4, r"boxes\[0\]: found .*inf"),
        ((1, 3, 8, 8), [[0.0, 0, 4, 4]], 0, "size: found 0"),
    ],
)
def test_bad_input(images: tuple[int, ...], boxes: list[list[float]], size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        crop_and_resize(torch.zeros(images), torch.tensor(boxes), size)


def test_heatmap_coordinates_go_to_the_plate() -> None:
    boxes = torch.tensor([[10.0, 20, 138, 148], [-5.5, 3, 58.5, 67]], dtype=F64)
    corners = torch.tensor([[0.0, 0], [64, 64], [32, 32]], dtype=F64).expand(2, 3, 2)
    plate = heatmap_to_plate(corners, boxes)
    assert plate[0].tolist() == [[10, 20], [138, 148], [74, 84]]
    points = 64 * noise(2, 68, 2)
    assert torch.autograd.gradcheck(
        lambda p: heatmap_to_plate(p, boxes), (points.requires_grad_(),), check_forward_ad=True
    )


def test_agrees_with_the_crop_of_a_camera() -> None:
    camera = Camera.look_at(720, 540, 900.0, (0.1, 0.05, 0.6))
    box = torch.tensor([[210.3, 140.7, 470.1, 400.5]], dtype=F64)
    world = 0.1 * (noise(1, 20, 3) - 0.5)
    seen = camera.crop(box, 64).project(world)
    assert torch.allclose(heatmap_to_plate(seen, box), camera.project(world), atol=1e-9)
