"""From an image to landmarks in plate pixels; read several times through slightly different windows, and averaged.

A heatmap network answers a little differently when its window moves by half a heatmap pixel or when the image is
mirrored; that part of its error has nothing to do with the face, and the mean of `n` readings has less of it. What the
network gets wrong in every reading stays, and cancels between plate and render as far as it is the same on both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.landmarks.network import CROP_SIZE, HEATMAP_SIZE, HeatmapNetwork, LandmarkSet
from deepenergy.landmarks.soft_argmax import heatmap_covariance, local_soft_argmax
from deepenergy.scene.view_windows import MOST_READINGS, WINDOW_CHANGES
from deepenergy.scene.window import check_boxes, crop_and_resize, heatmap_to_plate


def read_landmarks(
    network: HeatmapNetwork,
    image_in: Callable[[Float[Tensor, "b 4"]], Float[Tensor, "b 3 256 256"]],
    windows: Float[Tensor, "b 4"],
    readings: int = 1,
) -> tuple[Float[Tensor, "b l 2"], Float[Tensor, "b l"], Float[Tensor, "b l 2 2"]]:
    """The mean of several readings of the same faces.

    Args:
        image_in: what is seen in the given windows, float32 sRGB in [0, 1].
        windows: square windows, plate pixels.
        readings: 1 to `MOST_READINGS`; the first is the window itself, the second its mirror image, and so on.

    Returns:
        points in plate pixels; confidence; covariance of each position by its heatmap (of one reading), plate pixels
        squared. All float64.

    Raises:
        ValueError: a number of readings out of range.
    """
    points, confidence, covariance = [], [], []
    for heatmaps, window in _heatmaps(network, image_in, windows, readings):
        points.append(_places(heatmaps, window))
        confidence.append(network.confidence(heatmaps).to(torch.float64))
        unit = (window[:, 2:] - window[:, :2]) / HEATMAP_SIZE
        squared = unit[:, :, None] * unit[:, None, :]
        covariance.append(heatmap_covariance(heatmaps).to(torch.float64) * squared[:, None])
    return tuple(torch.stack(part).mean(0) for part in (points, confidence, covariance))  # pyright: ignore[reportReturnType]


def read_points(
    network: HeatmapNetwork,
    image_in: Callable[[Float[Tensor, "b 4"]], Float[Tensor, "b 3 256 256"]],
    windows: Float[Tensor, "b 4"],
    readings: int = 1,
) -> Float[Tensor, "b l 2"]:
    """The points of `read_landmarks` alone, which takes two thirds of the time."""
    read = [_places(heatmaps, window) for heatmaps, window in _heatmaps(network, image_in, windows, readings)]
    return torch.stack(read).mean(0)


def _heatmaps(
    network: HeatmapNetwork, image_in: Callable[[Tensor], Tensor], windows: Tensor, readings: int
) -> Iterator[tuple[Float[Tensor, "b l 64 64"], Float[Tensor, "b 4"]]]:
    """Heatmaps of every reading, turned back from the mirror, and the windows that they belong to (float64)."""
    if not 1 <= readings <= MOST_READINGS:
        raise ValueError(f"readings: found {readings}; expected 1 to {MOST_READINGS}")
    windows, mirrored = windows.to(torch.float64), list(network.layout.mirror)
    for number, (dx, dy, scale) in enumerate(WINDOW_CHANGES[: (readings + 1) // 2]):
        window = _moved(windows, dx, dy, scale)
        image = image_in(window)
        for mirror in (False, True)[: readings - 2 * number]:
            heatmaps = network(image.flip(-1) if mirror else image)
            yield (heatmaps[:, mirrored].flip(-1) if mirror else heatmaps), window


def _places(heatmaps: Float[Tensor, "b l 64 64"], window: Float[Tensor, "b 4"]) -> Float[Tensor, "b l 2"]:
    return heatmap_to_plate(local_soft_argmax(heatmaps).to(torch.float64), window, HEATMAP_SIZE)


def find_landmarks(
    network: HeatmapNetwork, images: Float[Tensor, "b 3 h w"], boxes: Float[Tensor, "b 4"], readings: int = 1
) -> LandmarkSet:
    """Landmarks of the faces in `boxes`: crop, resize, network, soft-argmax, back to plate pixels.

    Differentiable in the images as far as the network is.

    Args:
        images: float32 display-referred sRGB in [0, 1].
        boxes: face boxes as a detector gives them; a row of NaN says that this image has no face.
        readings: see `read_landmarks`.

    Raises:
        ValueError: shapes that do not match, a box without area, or one that is partly NaN.
    """
    boxes = boxes.to(images.device, torch.float64)
    absent = torch.isnan(boxes).all(-1, keepdim=True)
    check_boxes(torch.where(absent, boxes.new_tensor([0, 0, 1, 1]), boxes), images.shape[0])
    found = (~absent[:, 0]).nonzero()[:, 0]
    seen_in, count = torch.full_like(boxes, torch.nan), network.layout.count
    points = torch.full((len(boxes), count, 2), torch.nan, dtype=torch.float64, device=images.device)
    confidence = torch.zeros(len(boxes), count, dtype=torch.float64, device=images.device)
    covariance = torch.full((len(boxes), count, 2, 2), torch.nan, dtype=torch.float64, device=images.device)
    if len(found):
        windows = network.crop_boxes(boxes[found])
        seen = images[found]
        read = read_landmarks(network, lambda window: crop_and_resize(seen, window, CROP_SIZE), windows, readings)
        seen_in = seen_in.index_copy(0, found, windows)
        points = points.index_copy(0, found, read[0])
        confidence = confidence.index_copy(0, found, read[1])
        covariance = covariance.index_copy(0, found, read[2])
    return LandmarkSet(points, confidence, seen_in, covariance)


def _moved(windows: Float[Tensor, "b 4"], dx: float, dy: float, scale: float) -> Float[Tensor, "b 4"]:
    if (dx, dy, scale) == (0.0, 0.0, 1.0):
        return windows
    side = windows[:, 2:] - windows[:, :2]
    centre = (windows[:, 2:] + windows[:, :2]) / 2 + side * windows.new_tensor([dx, dy]) / CROP_SIZE
    return torch.cat([centre - side * scale / 2, centre + side * scale / 2], 1)
