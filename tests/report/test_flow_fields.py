"""Flow fields written as files, and the temporal settings that a shot file reaches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from small_shot import write_files, write_shot
from tiny_shot import tiny_camera, tiny_rig, tiny_track
from typer.testing import CliRunner

from deepenergy import InputError, Plates, SolverConfig
from deepenergy.commands.cli import app
from deepenergy.fit.fit_context import FitContext
from deepenergy.flow import Flow
from deepenergy.io.flow.flo import read_flo
from deepenergy.landmarks import observe as observing
from deepenergy.landmarks.detector import Candidates
from deepenergy.landmarks.observe import ObserveSettings, observe
from deepenergy.landmarks.one_euro import one_euro
from deepenergy.pipeline.shot import complete
from deepenergy.report import write_flow_fields
from deepenergy.scene.landmark_layout import IBUG_68
from deepenergy.scene.views import Views
from deepenergy.shot_file import Shot


class Right:
    """Everything moves by three pixels to the right."""

    name = "right"

    def __call__(self, a: torch.Tensor, b: torch.Tensor) -> Flow:
        flow = torch.zeros(1, 2, *a.shape[2:])
        flow[:, 0] = 3.0
        return Flow(flow, torch.ones(1, 1, *a.shape[2:]))


def test_a_field_and_a_picture_for_every_pair(tmp_path: Path) -> None:
    images = np.zeros((5, 24, 32, 3), np.float32)
    plates = Plates.from_array(images, first_frame=1001, name="left").select("1001-1003,1005")
    told: list[int] = []
    written = write_flow_fields(tmp_path, [plates], Right(), 3.0, lambda _what, done, _total: told.append(done))
    # 1003 has no successor.
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "left/flow.1001.flo",
        "left/flow.1002.flo",
    ]
    assert told == [1, 2, 3]
    pixels, validity = read_flo(written[0])
    assert pixels.shape == (2, 24, 32) and bool((pixels[0] == 3).all()) and bool(validity.all())
    with Image.open(written[0].with_suffix(".png")) as picture:
        assert picture.size == (32, 24)
        # Middlebury's wheel begins with red, for flow to the right.
        assert picture.convert("RGB").getpixel((5, 5)) == (255, 0, 0)


def test_the_command_writes_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(tmp_path)
    shot = write_shot(tmp_path, rest='[solver]\nflow_network = "compact"')
    asked: list[str] = []

    def named(name: str, *_rest: object) -> Right:
        asked.append(name)
        return Right()

    # The plates are smaller than any network takes.
    monkeypatch.setattr("deepenergy.flow.flow_network_from_name", named)
    done = CliRunner().invoke(app, ["flow", str(shot), "--output", str(tmp_path / "o"), "--frames", "1001-1003"])
    assert done.exit_code == 0, done.output
    assert "2 flows by right written to" in done.output and asked == ["compact"]
    assert sorted(path.name for path in (tmp_path / "o" / "flow" / "left").iterdir()) == [
        f"flow.{number}.{ending}" for number in (1001, 1002) for ending in ("flo", "png")
    ]


def test_a_shot_file_reaches_the_temporal_settings(tmp_path: Path) -> None:
    write_files(tmp_path)
    rest = (
        '[solver]\nrefine = "self_flow"\nrefine_order = "jacobi"\nrefine_sweeps = 2\nrefine_prior = 0.5\n'
        'landmark_filter = "one_euro"\nframe_rate = 25.0\nreestimate = 1'
    )
    config = Shot.load(write_shot(tmp_path, rest=rest)).solver_config()
    assert (config.refine_order, config.refine_sweeps, config.refine_prior) == ("jacobi", 2, 0.5)
    assert (config.landmark_filter, config.frame_rate, config.reestimate) == ("one_euro", 25.0, 1)


@pytest.mark.parametrize(
    "wrong",
    [
        {"refine_order": "random"},
        {"refine_sweeps": 0},
        {"refine_prior": -1.0},
        {"landmark_filter": "kalman"},
        {"frame_rate": 0.0},
    ],
)
def test_wrong_temporal_settings_are_refused(wrong: dict) -> None:
    with pytest.raises(InputError, match=f"solver.{next(iter(wrong))}"):
        SolverConfig(**wrong)


def test_order_sweeps_and_prior_change_the_refinement() -> None:
    rig, track = tiny_rig(), tiny_track(4)
    near = track.rotation[:1].repeat(4, 0)
    still = type(track)(**{**vars(track), "rotation": near, "sigma": {}, "before": {}})
    plates = Plates.from_array(np.zeros((4, 80, 96, 3), np.float32), first_frame=1001)

    def moved_by(order: str = "jacobi", sweeps: int = 1, prior: float = 0.5) -> np.ndarray:
        config = SolverConfig(
            refine="self_flow", refine_order=order, refine_sweeps=sweeps, refine_prior=prior, infill="none"
        )
        found = complete(still, FitContext(Views.match(plates, tiny_camera()), rig, config))
        return np.abs(found.weights - still.weights)

    once = moved_by()
    assert once.max() > 1e-3
    assert not np.allclose(moved_by(sweeps=3), once)
    assert not np.allclose(moved_by(order="gauss_seidel"), once)
    assert not np.allclose(moved_by(prior=100.0), once)


def test_one_euro_filters_boxes_and_landmarks_of_the_plates(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 12
    generator = torch.Generator().manual_seed(0)
    steady = torch.rand(68, 2, generator=generator, dtype=torch.float64) * 40 + 20
    noisy = steady + torch.randn(count, 68, 2, generator=generator, dtype=torch.float64)
    seen_boxes: list[torch.Tensor] = []
    times = iter(range(1000))

    class OneFace:
        name = "stub"

        def candidates(self, images: torch.Tensor) -> list[Candidates]:
            # A box that trembles.
            corners = [10.0 + next(times) % 2 for _ in images]
            boxes = (torch.tensor([[corner, corner, 70.0, 70.0]], dtype=torch.float64) for corner in corners)
            return [Candidates(box, torch.ones(1)) for box in boxes]

    def landmarks(_network: object, images: torch.Tensor, boxes: torch.Tensor, _readings: int) -> SimpleNamespace:
        seen_boxes.append(boxes)
        at = torch.arange(len(images)) + (4 * (len(seen_boxes) - 1)) % count
        return SimpleNamespace(
            points=noisy[at],
            confidence=torch.ones(len(images), 68, dtype=torch.float64),
            windows=boxes,
            covariance=torch.ones(len(images), 68, 2, 2, dtype=torch.float64),
        )

    monkeypatch.setattr(observing, "find_landmarks", landmarks)
    plates = Plates.from_array(np.zeros((count, 80, 96, 3), np.float32))

    def roughness(values: torch.Tensor) -> float:
        return float(values.diff(n=2, dim=0).square().mean())

    network = SimpleNamespace(layout=IBUG_68)
    arguments = (Views.match(plates, tiny_camera()), plates.frames, OneFace(), network)
    plain = observe(*arguments, ObserveSettings(box_window=1))  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(plain.points[:, 0], noisy)
    before = torch.cat(seen_boxes[3:])
    seen_boxes.clear()
    filtered = observe(*arguments, ObserveSettings(box_window=1, frame_rate=24.0))  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(filtered.points[:, 0], one_euro(noisy, 24.0))
    assert roughness(filtered.points[:, 0]) < 0.5 * roughness(noisy)
    assert roughness(torch.cat(seen_boxes[3:])) < 0.5 * roughness(before)
