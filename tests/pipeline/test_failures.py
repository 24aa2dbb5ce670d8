"""Which frames are called failed: limits, outliers of the shot, jumps; and which are not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from deepenergy.pipeline.failures import Evidence, Verdict, judge
from deepenergy.scene.rotation import euler_to_matrix
from deepenergy.scene.state import State
from deepenergy.scene.track import Cause
from deepenergy.settings.config import SolverConfig

COUNT = 40


def evidence(seed: int = 0) -> Evidence:
    """A shot of a lively head without a fault: nods of 20 degrees, a walk of 20 cm."""
    draw = np.random.default_rng(seed)
    time = np.arange(COUNT) / 24
    euler = np.stack([0.35 * np.sin(2 * np.pi * time), 0.5 * np.sin(1.3 * time), 0.1 * np.cos(time)], 1)
    state = replace(
        State.identity(COUNT, 2),
        rotation=euler_to_matrix(torch.from_numpy(euler + 0.01 * draw.normal(size=(COUNT, 3)))),
        translation=torch.from_numpy(
            np.stack([0.2 * time, 0.02 * np.sin(5 * time), 0.01 * draw.normal(size=COUNT)], 1)
        ),
    )
    return Evidence(
        np.arange(1001, 1001 + COUNT),
        state,
        np.full(COUNT, 0.8),
        2 + 0.2 * draw.random(COUNT),
        0.95 - 0.02 * draw.random(COUNT),
        np.ones(COUNT, bool),
    )


def failed(found: list[Verdict]) -> list[int]:
    return [t for t, verdict in enumerate(found) if verdict.cause != Cause.NONE]


def test_a_lively_shot_has_no_failures() -> None:
    for seed in range(5):
        assert failed(judge(evidence(seed), SolverConfig())) == []


def test_landmarks_weaker_than_the_shot_has_them() -> None:
    shot = evidence()
    shot.confidence[[3, 9]] = 0.55, 0.65
    found = judge(shot, SolverConfig())
    assert failed(found) == [3]
    assert all(word in found[3].words for word in ("landmarks", "0.55", "0.80"))


def test_limits_of_the_settings() -> None:
    shot = evidence()
    shot.confidence[3] = 0.1
    shot.residual[5] = 40
    shot.state.translation[7, 1] = torch.nan
    found = judge(shot, SolverConfig())
    assert failed(found) == [3, 5, 7]
    for frame, words in {3: ("landmarks", "0.10", "0.25"), 5: ("disagree", "40.0", "12.0"), 7: ("finite",)}.items():
        assert all(word in found[frame].words for word in words), found[frame].words


def test_outliers_of_the_shot() -> None:
    shot = evidence()
    shot.residual[10] = 7
    shot.correlation[20] = 0.5
    found = judge(shot, SolverConfig())
    assert failed(found) == [10, 20]
    assert "disagree" in found[10].words and "7.0" in found[10].words
    assert "correlation" in found[20].words and "0.50" in found[20].words
    # An even shot: what is far in deviations is near in pixels.
    even = replace(evidence(), residual=np.full(COUNT, 2.0), correlation=np.full(COUNT, np.nan))
    even.residual[10] = 3
    assert failed(judge(even, SolverConfig())) == []


def test_what_covers_a_face_comes_and_goes() -> None:
    shot = evidence()
    shot.residual[18:23] = [3.2, 5.0, 9.0, 3.2, 3.2]
    shot.correlation[30] = 0.85
    found = judge(shot, SolverConfig())
    # Row 30 is as doubtful, and alone.
    assert failed(found) == [18, 19, 20, 21, 22]
    assert all("beside a failed frame" in found[t].words for t in (18, 21, 22))
    assert all("disagree" in found[t].words for t in (19, 20))
    shot.residual[19:21] = 3.2
    assert failed(judge(shot, SolverConfig())) == []


def test_jumps_there_and_back() -> None:
    shot = evidence()
    shot.state.translation[12, 2] += 0.3
    turned = euler_to_matrix(torch.tensor([0.0, 0.6, 0.0], dtype=torch.float64)) @ shot.state.rotation[25]
    shot.state.rotation[25:27] = turned
    found = judge(shot, SolverConfig())
    assert failed(found) == [12, 25, 26]
    assert "the head jumps (3" in found[12].words
    assert found[12].words.endswith("mm from where its neighbours have it)")
    assert "°" in found[25].words


def test_unsolved_frames_are_left_alone_and_short_shots_have_no_outliers() -> None:
    shot = evidence()
    shot.solved[4] = False
    shot.state.translation[4] = torch.nan
    assert failed(judge(shot, SolverConfig())) == []
    shot = evidence()
    few = Evidence(
        shot.frames[:5],
        shot.state[slice(0, 5)],
        shot.confidence[:5],
        np.array([2, 2, 2, 2, 9.0]),
        shot.correlation[:5],
        np.ones(5, bool),
    )
    assert failed(judge(few, SolverConfig())) == []


def test_a_cut_is_not_a_jump() -> None:
    shot = evidence()
    shot.state.translation[20:, 0] += 0.5
    assert failed(judge(shot, SolverConfig())) == []
