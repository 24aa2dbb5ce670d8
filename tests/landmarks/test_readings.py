"""Repeated readings: what they average, and that every window and mirror image lands where it should."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from deepenergy.landmarks.network import CROP_SIZE
from deepenergy.landmarks.readings import MOST_READINGS, find_landmarks, read_landmarks, read_points
from deepenergy.scene.landmark_layout import IBUG_68
from deepenergy.scene.window import crop_and_resize


class Colours:
    """Finds one dot for each landmark by its colour; knows left from right as a landmark network does."""

    name = "colours"
    layout = IBUG_68

    def __init__(self) -> None:
        hue = torch.arange(68) / 68
        self.colours = torch.stack([hue, (3 * hue) % 1, (7 * hue) % 1], 1) * 0.8 + 0.2

    def __call__(self, crops: Tensor) -> Tensor:
        # A mirrored dot is another landmark: the network looks for the left eye on the left.
        pooled = torch.nn.functional.avg_pool2d(crops, 4)
        mirrored = bool(crops[0, 0, 0, 0] > crops[0, 0, 0, -1])
        colours = self.colours[list(self.layout.mirror)] if mirrored else self.colours
        distance = (pooled[:, None] - colours[None, :, :, None, None]).square().sum(2)
        return torch.exp(-20 * distance)

    def crop_boxes(self, face_boxes: Tensor) -> Tensor:
        return face_boxes

    def confidence(self, heatmaps: Tensor) -> Tensor:
        return heatmaps.amax((-1, -2))


def scene(network: Colours) -> tuple[Tensor, Tensor]:
    """68 square dots on black, and their centres; the right border is white, which tells a mirror image."""
    image, places = torch.zeros(3, 300, 300), torch.zeros(68, 2)
    for i in range(68):
        x, y = 42 + 28 * (i % 8), 36 + 27 * (i // 8)
        image[:, y - 5 : y + 5, x - 5 : x + 5] = network.colours[i][:, None, None]
        places[i] = torch.tensor([x, y])
    image[:, :, 262:] = 1
    return image, places


@pytest.mark.parametrize("readings", range(1, MOST_READINGS + 1))
def test_every_reading_lands_on_the_dots(readings: int) -> None:
    network = Colours()
    image, places = scene(network)
    window = torch.tensor([[22.0, 22.0, 278.0, 278.0]])

    def image_in(w: Tensor) -> Tensor:
        return crop_and_resize(image[None], w, CROP_SIZE)

    points, confidence, spread = read_landmarks(network, image_in, window, readings)
    assert torch.equal(points, read_points(network, image_in, window, readings))
    assert points.dtype == torch.float64 and confidence.shape == (1, 68) and spread.shape == (1, 68, 2, 2)
    # A dot is ten pixels wide, and a heatmap pixel is four.
    assert float((points[0] - places).abs().max()) < 4.5


def test_one_reading_is_the_plain_one_and_more_are_its_mean() -> None:
    network = Colours()
    image, _ = scene(network)
    window = torch.tensor([[25.0, 23.0, 275.0, 273.0]])
    once = find_landmarks(network, image[None], window)
    seen: list[Tensor] = []

    def image_in(w: Tensor) -> Tensor:
        seen.append(w)
        return crop_and_resize(image[None], w, CROP_SIZE)

    points, _, _ = read_landmarks(network, image_in, window.double(), 1)
    assert torch.equal(points, once.points) and torch.equal(seen[0], window.double())
    seen.clear()
    read_landmarks(network, image_in, window.double(), 4)
    # Two windows, each rendered once and read twice.
    assert len(seen) == 2
    assert torch.allclose(seen[1] - seen[0], torch.full((1, 4), 2 * 250 / 256, dtype=torch.float64))


@pytest.mark.parametrize("readings", [0, MOST_READINGS + 1])
def test_readings_out_of_range(readings: int) -> None:
    with pytest.raises(ValueError, match=f"readings: found {readings}; expected 1 to {MOST_READINGS}"):
        read_landmarks(Colours(), lambda w: torch.zeros(1, 3, 256, 256), torch.tensor([[0.0, 0, 1, 1]]), readings)
