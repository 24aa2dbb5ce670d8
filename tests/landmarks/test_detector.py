"""Detectors on a photograph and on real clips; which of several faces is taken; missing files and packages."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import skimage.data
import torch
from refusals import refused
from torch import Tensor
from torch.nn.functional import interpolate, pad

from deepenergy.landmarks import detector as detector_module
from deepenergy.landmarks.boxes import iou
from deepenergy.landmarks.detector import (
    Candidates,
    Detector,
    DlibCnn,
    DlibHog,
    choose_face,
    detector_from_name,
    images_for_search,
    track_faces,
)
from deepenergy.runtime.errors import InputError

F64 = torch.float64
NAN = float("nan")
# Brows to chin, ear to ear, read off the photograph by hand.
ASTRONAUT_FACE = torch.tensor([178.0, 75, 270, 190], dtype=F64)


@pytest.fixture(scope="module")
def astronaut() -> Tensor:
    return torch.from_numpy(skimage.data.astronaut().copy()).permute(2, 0, 1)[None].float() / 255


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DEEPENERGY_WEIGHTS", raising=False)
    return tmp_path


def candidates(*rows: tuple[float, float, float, float, float]) -> Candidates:
    table = torch.tensor(rows, dtype=F64).reshape(-1, 5)
    return Candidates(table[:, :4], table[:, 4])


def clip_frames(data: Path, name: str, indices: list[int]) -> tuple[Tensor, Tensor]:
    """Frames as images, and the boxes of their FaceMesh points (another detector's)."""
    labels = np.load(data / "labels" / f"{name}_facemesh478.npz")["xy_sixteenth_px"][indices] / 16
    boxes = torch.from_numpy(np.concatenate([labels.min(1), labels.max(1)], 1))
    frames = []
    with av.open(str(data / "clips" / f"{name}.mp4")) as container:
        for index, frame in enumerate(container.decode(video=0)):
            if index in indices:
                frames.append(frame.to_ndarray(format="rgb24"))
            if index >= max(indices):
                break
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).float() / 255, boxes


def test_hog_finds_the_astronaut(astronaut: Tensor) -> None:
    found = DlibHog().detect(astronaut)
    assert found.boxes.shape == (1, 4)
    assert found.boxes.dtype == found.scores.dtype == F64
    assert float(iou(found.boxes[0], ASTRONAUT_FACE)) > 0.6
    assert float(found.scores[0]) > 0.5


def test_boxes_of_a_shrunk_image_are_in_its_own_pixels(astronaut: Tensor) -> None:
    large = interpolate(pad(astronaut, (64, 0, 0, 32)), scale_factor=3, mode="bilinear")
    found = DlibHog(max_side=600).detect(large)
    expected = 3 * (ASTRONAUT_FACE + torch.tensor([64.0, 0, 64, 0], dtype=F64))
    assert float(iou(found.boxes[0], expected)) > 0.55


def test_upsampling_finds_a_face_below_80_pixels(astronaut: Tensor) -> None:
    small = interpolate(astronaut, size=(240, 240), mode="bilinear", antialias=True)
    without, once = DlibHog(upsample=0).detect(small), DlibHog(upsample=1).detect(small)
    assert bool(torch.isnan(without.boxes).all())
    assert float(iou(once.boxes[0], ASTRONAUT_FACE * 240 / 512)) > 0.5


def test_no_face_is_nan_and_a_batch_equals_a_loop(astronaut: Tensor) -> None:
    images = torch.cat([torch.zeros_like(astronaut), astronaut, astronaut.flip(-1)])
    hog = DlibHog()
    found = hog.detect(images)
    assert torch.isnan(found.boxes).all(-1).tolist() == [True, False, False]
    assert torch.isnan(found.scores).tolist() == [True, False, False]
    for i in range(3):
        alone = hog.detect(images[i : i + 1])
        assert torch.allclose(alone.boxes[0], found.boxes[i], equal_nan=True)
    mirrored = torch.tensor([512.0, 0, 512, 0]) + found.boxes[1, [2, 1, 0, 3]] * torch.tensor([-1.0, 1, -1, 1])
    assert float(iou(found.boxes[2], mirrored)) > 0.8


def test_near_takes_the_face_that_overlaps(astronaut: Tensor) -> None:
    # The same face twice, the right one larger.
    face = astronaut[..., 20:260, 100:340]
    scene = torch.zeros(1, 3, 400, 700)
    scene[..., 80:320, 0:240] = face
    scene[..., 10:370, 300:660] = interpolate(face, size=(360, 360), mode="bilinear")
    left, right = torch.tensor([[78.0, 135, 170, 250]], dtype=F64), torch.tensor([[417.0, 92, 555, 265]], dtype=F64)
    hog = DlibHog()
    assert len(hog.candidates(scene)[0].scores) == 2
    assert float(iou(hog.detect(scene).boxes, right)) > 0.5
    assert float(iou(hog.detect(scene, near=left).boxes, left)) > 0.5
    assert float(iou(hog.detect(scene, near=torch.full((1, 4), NAN)).boxes, right)) > 0.5
    with pytest.raises(ValueError, match=r"near: found shape \(4,\)"):
        hog.detect(scene, near=left[0])


def test_the_choice_weighs_area_by_score() -> None:
    small_sure, large_sure, huge_unsure = (0, 0, 80, 80, 2.0), (0, 0, 100, 100, 1.0), (0, 0, 110, 110, -0.2)
    assert choose_face(candidates(small_sure, large_sure, huge_unsure)) == 1
    assert choose_face(candidates()) is None
    assert choose_face(candidates(small_sure, large_sure), near=torch.tensor([0.0, 0, 70, 70])) == 0
    assert choose_face(candidates(small_sure, large_sure), near=torch.tensor([500.0, 0, 570, 70])) == 1


def test_a_track_stays_on_one_person() -> None:
    """Two people cross in size; single-frame choices would jump from one to the other."""
    frames = []
    for t in range(20):
        actor = (100 + 4 * t, 100, 200 + 4 * t, 200, 1.5)
        extra = (400, 100, 480 + 4 * t, 180 + 4 * t, 1.0)
        frames.append(candidates(actor, extra) if t % 2 else candidates(extra, actor))
    found = track_faces(frames)
    chosen = {int(b[0] == 400) for b in found.boxes}
    assert len(chosen) == 1
    single = {int(f.boxes[choose_face(f)][0] == 400) for f in frames}
    assert len(single) == 2


def test_a_false_detection_inside_a_dropout_is_not_taken() -> None:
    frames = [candidates((100 + t, 100, 200 + t, 200, 1.0)) for t in range(12)]
    frames[5] = candidates((400, 10, 480, 90, 0.3))
    frames[6] = candidates()
    found = track_faces(frames)
    assert torch.isnan(found.boxes[:, 0]).nonzero()[:, 0].tolist() == [5, 6]
    assert found.boxes[7].tolist() == [107, 100, 207, 200]


def test_an_actor_who_comes_back_elsewhere_is_found() -> None:
    frames = [candidates((100, 100, 200, 200, 1.0)) for _ in range(8)]
    frames += [candidates() for _ in range(5)]
    frames += [candidates((400, 100, 490, 190, 0.8)) for _ in range(6)]
    found = track_faces(frames)
    assert torch.isnan(found.boxes[:, 0]).nonzero()[:, 0].tolist() == list(range(8, 13))
    assert found.boxes[13:, 0].tolist() == [400] * 6
    assert track_faces([]).boxes.shape == (0, 4)
    assert bool(torch.isnan(track_faces([candidates()] * 3).boxes).all())


@pytest.mark.parametrize("name", ["d18", "d3", "s32"])
def test_hog_on_real_clips(test_data: Path, name: str) -> None:
    images, boxes = clip_frames(test_data, name, [0, 75, 150])
    found = DlibHog().detect(images)
    assert bool((iou(found.boxes, boxes) > 0.45).all())


def test_cnn_agrees_with_hog(test_data: Path, astronaut: Tensor) -> None:
    cnn = DlibCnn(test_data / "weights" / "mmod_human_face_detector.dat", max_side=400)
    clip, _ = clip_frames(test_data, "d18", [0])
    for image in (astronaut, clip):
        found = cnn.detect(image)
        assert float(iou(found.boxes, DlibHog().detect(image).boxes)) > 0.5
        assert 0.5 < float(found.scores[0]) < 1.5


def test_cnn_finds_its_file_where_the_environment_says(
    test_data: Path, no_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEEPENERGY_WEIGHTS", str(test_data / "weights"))
    found = DlibCnn(max_side=64).detect(torch.zeros(1, 3, 64, 64))
    assert bool(torch.isnan(found.boxes).all())
    published = (test_data / "weights" / detector_module.MMOD.name).read_bytes()
    assert hashlib.sha256(published).hexdigest().startswith(detector_module.MMOD.sha256)


def test_cnn_without_its_file_says_what_to_do(no_weights: Path) -> None:
    with pytest.raises(InputError) as error:
        DlibCnn().detect(torch.zeros(1, 3, 64, 64))
    message = str(error.value)
    place = str(no_weights / ".cache" / "deepenergy" / "mmod_human_face_detector.dat")
    for part in (place, "be467b1a76f48269", "davisking/dlib-models", "CC0", "curl -L", "'hog'"):
        assert part in message
    assert "\n" not in message


def test_cnn_with_a_wrong_file(tmp_path: Path) -> None:
    path = tmp_path / "mmod_human_face_detector.dat"
    path.write_bytes(b"not a model")
    blank = torch.zeros(1, 3, 64, 64)
    with refused(found="SHA-256", expected="be467b1a76f48269"):
        DlibCnn(path).detect(blank)
    with pytest.raises(InputError, match="which dlib cannot read"):
        DlibCnn(path, verify=False).detect(blank)
    with pytest.raises(InputError, match=r"no file .*elsewhere"):
        DlibCnn(tmp_path / "elsewhere.dat").detect(blank)


def test_without_dlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    for detector in (DlibHog(), DlibCnn()):
        with pytest.raises(InputError, match="pip install dlib-bin"):
            detector.detect(torch.zeros(1, 3, 64, 64))


def test_detectors_by_name() -> None:
    for name, kind in (("hog", DlibHog), ("cnn", DlibCnn)):
        detector: Detector = detector_from_name(name)
        assert isinstance(detector, kind)
        assert detector.name == name
    with refused("detector", found="'haar'", expected="'cnn'"):
        detector_from_name("haar")
    with pytest.raises(InputError, match="upsample"):
        DlibHog(upsample=-1)
    with pytest.raises(InputError, match="max_side"):
        DlibCnn(max_side=0)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(3, 64, 64), r"torch.float32 \(3, 64, 64\)"),
        (torch.zeros(1, 4, 64, 64), r"torch.float32 \(1, 4, 64, 64\)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), "torch.uint8"),
        (torch.full((1, 3, 8, 8), 255.0), "values from 255 to 255"),
        (torch.full((1, 3, 8, 8), NAN), "values from nan"),
    ],
)
def test_bad_images(images: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=f"images: found {message}"):
        DlibHog().detect(images)


def test_images_are_shrunk_and_rounded() -> None:
    images = torch.rand(2, 3, 90, 160, generator=torch.Generator().manual_seed(0))
    same, shrunk = images_for_search(images, 160), images_for_search(images, 80)
    assert same.shape == (2, 90, 160, 3)
    assert shrunk.shape == (2, 45, 80, 3)
    assert float((same.permute(0, 3, 1, 2) / 255 - images).abs().max()) <= 0.5 / 255 + 1e-6
