"""Schedules as TOML: what is printed is read back, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny_shot import tiny_camera, tiny_rig

from deepenergy import InputError, Plates
from deepenergy.params import Parameters
from deepenergy.report import StageRecorder
from deepenergy.stage_file import format_stages, read_stages, stages_of
from deepenergy.stages import DEFAULT_STAGES, Stage


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_what_is_printed_is_read_back(tmp_path: Path) -> None:
    text = format_stages(DEFAULT_STAGES)
    assert read_stages(written(tmp_path / "stages.toml", text)) == DEFAULT_STAGES
    assert text.count("[[stage]]") == len(DEFAULT_STAGES)
    odd = (Stage('say "cheese"', True, False, (), {"nose": 1.0}, blur=2.5),)
    assert read_stages(written(tmp_path / "odd.toml", format_stages(odd))) == odd


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "stages: found none"),
        ("[[stage]\n", "a syntax error"),
        ("[solver]\nl2 = 1\n", "unknown key 'solver'"),
        ("[[stage]]\nname = 'a'\ntranslaton = true\n", "did you mean 'translation'"),
        ("[[stage]]\nname = 'a'\ntranslation = true\n", "no rotation, groups, landmark_weights"),
        (None, "groups: found 'mouht'; expected .*did you mean 'mouth'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str | None, told: str) -> None:
    if text is None:
        text = format_stages(DEFAULT_STAGES).replace('"mouth", "cheeks"', '"mouht", "cheeks"', 1)
    with pytest.raises(InputError, match=told):
        read_stages(written(tmp_path / "stages.toml", text))
    with pytest.raises(InputError, match="no file"):
        read_stages(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"renders": -1}, "stage 'a' renders: found -1; expected 0 or more"),
        ({"iterations": 0}, "iterations"),
        ({"iterations": "many"}, "iterations: found 'many'; expected a whole number"),
        ({"landmark_weights": {"nose": -1.0}}, "factors of 0 or more"),
        ({"landmark_weights": {}}, "a set with a factor above 0"),
        ({"landmark_weights": {"ears": 1.0}}, "'ears'; expected one of jaw, brows"),
        ({"translation": False}, "something free"),
        ({"blur": 0.0}, "blur"),
        ({"photometric": float("nan")}, "photometric"),
        ({"readings": 99}, "readings"),
    ],
)
def test_values_out_of_their_range(change: dict[str, object], told: str) -> None:
    table = {"name": "a", "translation": True, "rotation": False, "groups": [], "landmark_weights": {"nose": 1}}
    assert stages_of([table])[0].groups == ()
    with pytest.raises(InputError, match=told):
        stages_of([{**table, **change}])


def test_the_recorder_writes_every_stage(tmp_path: Path) -> None:
    import numpy as np

    rig, camera = tiny_rig(), tiny_camera()
    plates = Plates.from_array(np.full((3, 80, 96, 3), 90, np.uint8), name="left")
    recorder = StageRecorder(tmp_path / "stages", [plates], rig, [camera], frames=[1002])
    state = Parameters.identity(3, len(rig.weight_names))
    for stage in DEFAULT_STAGES[:2]:
        recorder([1001, 1002, 1003], stage, state, torch.tensor([1.0, 2.0, 3.0]))
    folders = sorted(path.name for path in (tmp_path / "stages").iterdir())
    assert folders == ["01_translation_non_jaw", "02_rigid_non_jaw"]
    for folder in folders:
        here = tmp_path / "stages" / folder
        assert {path.name for path in here.iterdir()} == {"state.npz", "overlay.left.1002.jpg"}
        with np.load(here / "state.npz") as content:
            assert content["frames"].tolist() == [1001, 1002, 1003]
            assert content["residual_px"].tolist() == [1, 2, 3]
            assert content["weights"].shape == (3, len(rig.weight_names))
