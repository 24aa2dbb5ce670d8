"""What the plates say where the detector says nothing: faces are searched and followed by the landmark network."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy import Camera, Plates
from deepenergy.landmarks import network_from_name
from deepenergy.landmarks.detector import Candidates, Detections, DlibHog, choose_face, pick
from deepenergy.landmarks.network import HeatmapNetwork
from deepenergy.landmarks.observe import Observations, ObserveSettings, observe
from deepenergy.landmarks.search import search_face
from deepenergy.scene.views import Views

STEP = 12


class Blind:
    """HOG that looks at some images only, counted from the first."""

    name = "blind"

    def __init__(self, *seeing: int) -> None:
        self.seeing, self.count, self.hog = seeing, 0, DlibHog()

    def candidates(self, images: Float[Tensor, "b 3 h w"]) -> list[Candidates]:
        nothing = Candidates(torch.zeros(0, 4, dtype=torch.float64), torch.zeros(0, dtype=torch.float64))
        found = []
        for image in images:
            found.append(self.hog.candidates(image[None])[0] if self.count in self.seeing else nothing)
            self.count += 1
        return found

    def detect(self, images: Float[Tensor, "b 3 h w"], near: Float[Tensor, "b 4"] | None = None) -> Detections:
        faces = self.candidates(images)
        return pick(faces, [choose_face(f) for f in faces])


@pytest.fixture(scope="module")
def network() -> HeatmapNetwork:
    return network_from_name("compact", None, "cpu")


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """An astronaut's head and shoulders, 300x400 uint8."""
    return skimage.data.astronaut()[:300, :400]


@pytest.fixture(scope="module")
def passing(photograph: np.ndarray) -> Plates:
    """She moves `STEP` pixels to the left each frame."""
    return Plates.from_array(np.stack([np.roll(photograph, -STEP * t, 1) for t in range(6)]), name="main")


def seen(plates: Plates, detector: Blind | DlibHog, network: HeatmapNetwork, max_gap: int) -> Observations:
    views = Views.match(plates, Camera.look_at(plates.width, plates.height, 400.0, (0.0, 0.0, 1.0)))
    return observe(views, plates.frames, detector, network, ObserveSettings(max_gap=max_gap))


def test_a_face_that_no_detector_sees_is_searched_and_followed(passing: Plates, network: HeatmapNetwork) -> None:
    known = seen(passing, DlibHog(), network, 2)
    found = seen(passing, Blind(), network, 2)
    assert not found.problems
    apart = (found.points - known.points).norm(dim=-1)
    assert float(apart.median()) < 0.7 and float(apart.max()) < 4


def test_a_face_is_followed_for_longer_than_gaps_are_bridged(passing: Plates, network: HeatmapNetwork) -> None:
    known = seen(passing, DlibHog(), network, 1)
    # Backwards and forwards from the one frame that the detector looks at.
    found = seen(passing, Blind(2), network, 1)
    assert float((found.points - known.points).norm(dim=-1).median()) < 0.7
    moved = found.points[1:].mean((1, 2)) - found.points[:-1].mean((1, 2))
    assert torch.allclose(moved, torch.tensor([-float(STEP), 0.0], dtype=torch.float64), atol=1.0)


def test_nothing_is_searched_unless_asked_for(passing: Plates, network: HeatmapNetwork) -> None:
    found = seen(passing, Blind(), network, 0)
    assert len(found.problems) == len(passing.frames) and bool(torch.isnan(found.points).all())


@pytest.mark.slow
def test_what_is_no_face_is_not_found(photograph: np.ndarray, network: HeatmapNetwork) -> None:
    for other in (skimage.data.astronaut()[220:, :250], skimage.data.chelsea(), skimage.data.coffee()[:300, :300]):
        image = torch.from_numpy(np.ascontiguousarray(other)).permute(2, 0, 1).float() / 255
        assert search_face(network, image) is None
    assert search_face(network, torch.full((3, 90, 120), 0.4)) is None
    face = search_face(network, torch.from_numpy(photograph.copy()).permute(2, 0, 1).float() / 255)
    assert face is not None and 0.9 < face.confidence <= 1
    x0, y0, x1, y1 = face.box.tolist()
    assert x0 < 222 < x1 and y0 < 125 < y1 and 60 < x1 - x0 < 130
