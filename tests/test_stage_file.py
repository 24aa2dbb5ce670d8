"""Schedules as TOML: what is printed is read back, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from deepenergy import InputError
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
