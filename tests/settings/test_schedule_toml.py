"""Schedules as TOML: what is printed is read back, and what is wrong is named."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from small_shot import write_files, write_shot
from typer.testing import CliRunner

from deepenergy import InputError
from deepenergy.commands.cli import app
from deepenergy.landmarks.readings import MOST_READINGS
from deepenergy.runtime.toml_input import tomllib
from deepenergy.scene.control_groups import GROUPS
from deepenergy.scene.landmark_layout import SETS
from deepenergy.settings.schedule import DEFAULT_STAGES, Stage
from deepenergy.settings.schedule_toml import MEANINGS, describe, format_stages, read_stages, stages_of
from deepenergy.shot_file import Shot

TABLE = {"name": "a", "translation": True, "rotation": False, "groups": [], "landmark_weights": {"nose": 1}}
STAGE = '[[stage]]\nname = "a"\ntranslation = true\nrotation = false\ngroups = []\nlandmark_weights = { nose = 1 }\n'


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# -- there and back ------------------------------------------------------------------------------------------------


def test_what_is_printed_is_the_default_schedule(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["stages"], catch_exceptions=False)
    assert result.exit_code == 0
    assert read_stages(written(tmp_path / "stages.toml", result.stdout)) == DEFAULT_STAGES
    assert result.stdout.count("[[stage]]\n") == len(DEFAULT_STAGES)
    # In a shot file the same tables do the same.
    assert Shot.load(write_shot(tmp_path, rest=result.stdout)).solver_config().stages == DEFAULT_STAGES


def test_every_field_is_explained_and_every_stage_has_a_comment() -> None:
    assert list(MEANINGS) == [field.name for field in dataclasses.fields(Stage)]
    lines = format_stages(DEFAULT_STAGES).splitlines()
    for field in MEANINGS:
        assert any(line.startswith(f"#   {field} ") for line in lines)
    before = [lines[i - 1] for i, line in enumerate(lines) if line == "[[stage]]"]
    count = len(DEFAULT_STAGES)
    assert [line.split(": ")[0] for line in before] == [f"# {i} of {count}" for i in range(1, count + 1)]
    assert all(word in before[0] for word in ("translation", "brows", "nose", "eyes", "mouth"))
    assert max(map(len, lines)) <= 120


NUMBERS = st.floats(0, 1e6)
STAGES = st.builds(
    Stage,
    name=st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
    translation=st.booleans(),
    rotation=st.just(True),
    groups=st.lists(st.sampled_from(GROUPS), max_size=4).map(tuple),
    landmark_weights=st.dictionaries(
        st.sampled_from([*SETS, "0", "30", "48-59"]), NUMBERS.map(lambda v: v + 0.1), min_size=1
    ),
    edge_weight=NUMBERS,
    renders=st.integers(0, 9),
    iterations=st.integers(1, 99),
    rigid_prior=NUMBERS,
    fit_light=st.booleans(),
    reweight=st.booleans(),
    readings=st.integers(0, MOST_READINGS),
    photometric=NUMBERS,
    blur=st.floats(1e-6, 50),
    fallback=st.booleans(),
)


@given(st.lists(STAGES, min_size=1, max_size=3).map(tuple))
@settings(max_examples=60, deadline=None)
def test_any_schedule_comes_back(stages: tuple[Stage, ...]) -> None:
    assert stages_of(tomllib.loads(format_stages(stages))["stage"]) == stages


def test_a_whole_number_serves_as_a_float_and_the_rest_has_defaults() -> None:
    (stage,) = stages_of([{**TABLE, "blur": 2}])
    assert stage == Stage("a", True, False, (), {"nose": 1.0}, blur=2.0)
    assert isinstance(stage.landmark_weights["nose"], float) and stage.groups == ()


# -- what is wrong -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"stage: found none; expected one \[\[stage\]\] table or more"),
        ("stage = []", "stage: found none"),
        ("stage = 3", "stage: found 3; expected one"),
        ("stage = [1, 2]", r"stage: found \[1, 2\]"),
        ("[stage]\nname = 'a'", "with two brackets"),
        ("[[stage]\n", r"stages stages\.toml: found a syntax error.*line 1"),
        ("[[stages]]\nname = 'a'", "stages stages: found an unknown key; .*did you mean 'stage'"),
        ("[solver]\nl2 = 1\n" + STAGE, "stages solver: found an unknown key"),
        (STAGE + "translaton = true", "stage 'a' translaton: found an unknown key.*did you mean 'translation'"),
        (STAGE.replace("rotation = false\n", ""), "stage 'a' rotation: found nothing.*add `rotation = ...`"),
        (STAGE.replace('name = "a"\n', ""), "stage 1 name: found nothing"),
        (STAGE + STAGE.replace('"a"', "7"), "stage 2 name: found 7; expected text"),
        (STAGE.replace("[]", '["mouht"]'), "stage 'a' groups: found 'mouht'; expected one of .*did you mean 'mouth'"),
        (STAGE.replace("[]", '"mouth"'), "stage 'a' groups: found 'mouth'; expected a list of control groups"),
        (STAGE.replace("[]", "[1]"), r"stage 'a' groups: found \[1\]; expected a list"),
        (STAGE.replace("nose = 1", '"66-70" = 1'), "stage 'a' landmark_weights: found '66-70'; .*numbers to 67"),
        (STAGE.replace("nose = 1", '"9-3" = 1'), "stage 'a' landmark_weights: found '9-3'"),
        (STAGE.replace("nose", "noze"), "stage 'a' landmark_weights: found 'noze'; .*did you mean 'nose'"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        read_stages(written(tmp_path / "stages.toml", text))
    assert "\n" not in str(caught.value)


def test_no_file_a_folder_and_bytes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="stages: found no file .*`deepenergy stages`"):
        read_stages(tmp_path / "none.toml")
    with pytest.raises(InputError, match="stages: found a folder"):
        read_stages(tmp_path)
    (tmp_path / "photo.toml").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(InputError, match="not UTF-8"):
        read_stages(tmp_path / "photo.toml")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"name": " "}, "stage ' ' name: found ' '"),
        ({"translation": "yes"}, "translation: found 'yes'; expected true or false"),
        ({"translation": 1}, "translation: found 1; expected true or false"),
        ({"translation": False}, "stage 'a' groups: .*something free"),
        ({"renders": -1}, "stage 'a' renders: found -1; expected 0 or more"),
        ({"renders": 1.5}, "renders: found 1.5; expected a whole number"),
        ({"iterations": 0}, "stage 'a' iterations: found 0"),
        ({"iterations": "3"}, "iterations: found '3'; expected a whole number"),
        ({"edge_weight": -0.5}, "stage 'a' edge_weight: found -0.5"),
        ({"edge_weight": True}, "edge_weight: found True; expected a number"),
        ({"rigid_prior": float("inf")}, "stage 'a' rigid_prior: found inf"),
        ({"photometric": float("nan")}, "stage 'a' photometric: found nan"),
        ({"readings": MOST_READINGS + 1}, "stage 'a' readings"),
        ({"blur": 0.0}, "stage 'a' blur: found 0.0"),
        ({"landmark_weights": {"nose": -1.0}}, "stage 'a' landmark_weights: .*factors of 0 or more"),
        ({"landmark_weights": {"nose": "much"}}, "stage 'a' landmark_weights: .*expected set = factor"),
        ({"landmark_weights": {}}, "a set with a factor above 0"),
        ({"landmark_weights": {"jaw": 0}}, "a set with a factor above 0"),
    ],
)
def test_values_out_of_their_range(change: dict[str, Any], told: str) -> None:
    stages_of([TABLE])
    with pytest.raises(InputError, match=told):
        stages_of([{**TABLE, **change}])


def test_single_landmarks_have_factors_of_their_own() -> None:
    # Whatever their order: numbers are the exceptions from sets.
    table = {**TABLE, "landmark_weights": {"5-7": 0, "jaw": 0.5, "30": 2, "nose": 1}}
    stage = stages_of([table])[0]
    expected = torch.zeros(68, dtype=torch.float64)
    expected[:17], expected[27:36] = 0.5, 1.0
    expected[5:8], expected[30] = 0.0, 2.0
    assert torch.equal(stage.weights(), expected)
    # What has no weight is not named.
    assert describe(stage).split(" ")[-3:] == ["jaw,", "nose,", "30"]
    with pytest.raises(InputError, match="a set with a factor above 0"):
        stages_of([{**TABLE, "landmark_weights": {"nose": 1, "27-35": 0}}])


def test_pixels_alone_are_enough() -> None:
    assert stages_of([{**TABLE, "landmark_weights": {}, "photometric": 1}])[0].photometric == 1.0


# -- where schedules are used --------------------------------------------------------------------------------------


def test_a_shot_file_has_a_schedule_of_its_own(tmp_path: Path) -> None:
    config = Shot.load(write_shot(tmp_path, rest=STAGE)).solver_config()
    assert [stage.name for stage in config.stages] == ["a"]
    assert Shot.load(write_shot(tmp_path)).solver_config().stages == DEFAULT_STAGES
    empty, table = write_shot(tmp_path, stage="[]").read_text(), write_shot(tmp_path, rest="[stage]\n").read_text()
    for text, told in ((empty, "stage: found none"), (table, "two brackets")):
        shot = Shot.load(written(tmp_path / "other.toml", text))
        with pytest.raises(InputError, match=told):
            shot.solver_config()


def test_a_group_of_the_shots_own_rig_is_known(tmp_path: Path) -> None:
    text = STAGE.replace("[]", '["whiskers"]')
    groups = '[rig_groups]\nwhiskers = ["jawOpen"]\n'
    assert Shot.load(write_shot(tmp_path, rest=groups + text)).solver_config().stages[0].groups == ("whiskers",)
    with pytest.raises(InputError, match="groups: found 'whiskers'"):
        Shot.load(write_shot(tmp_path, rest=text)).solver_config()
    path = written(tmp_path / "stages.toml", text)
    assert read_stages(path, ["whiskers"])[0].groups == ("whiskers",)


def test_solve_refuses_a_wrong_schedule_before_it_starts(tmp_path: Path) -> None:
    write_files(tmp_path)
    path = written(tmp_path / "stages.toml", STAGE + "blurr = 1\n")
    result = CliRunner().invoke(app, ["solve", str(write_shot(tmp_path)), "--stages", str(path)])
    assert result.exit_code == 2
    assert "stage 'a' blurr" in result.stderr and "'blur'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_group_that_the_rig_lacks_is_refused_in_python_too(tmp_path: Path) -> None:
    from deepenergy import Solver, SolverConfig

    write_files(tmp_path)
    plates, rig, cameras = Shot.load(write_shot(tmp_path, rig='"builtin"')).open()
    solver = Solver(SolverConfig(stages=(Stage("a", True, True, ("whiskers",), {"nose": 1.0}),)))
    with refused("stage 'a' groups", found="'whiskers'", expected="mouth"):
        solver.fit_sequence(plates, rig, cameras)
