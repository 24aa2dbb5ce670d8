"""Shot files: what they open, and the one line that a wrong one gets."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from refusals import refused
from small_shot import camera_entry, small_rig, write_cameras, write_files, write_shot

from deepenergy import InputError
from deepenergy.shot_file import Shot


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_files(tmp_path)
    return tmp_path


def test_opens_what_it_names(files: Path) -> None:
    shot = Shot.load(write_shot(files))
    plates, rig, cameras = shot.open()
    assert shot.name == "sh010"
    assert shot.output_folder == files / "out"
    assert rig.weight_names == ("jawOpen", "browInnerUp")
    assert [camera.name for camera in cameras] == ["left"]
    assert list(plates[0].frames) == [1001, 1002, 1003, 1004]
    assert (plates[0].width, plates[0].height) == (32, 24)


def test_paths_are_relative_to_the_file(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_shot(files)
    monkeypatch.chdir(files / "plates")
    plates, _, _ = Shot.load(path).open()
    assert list(plates[0].frames) == [1001, 1002, 1003, 1004]


def test_several_cameras_keep_their_order(files: Path) -> None:
    path = write_shot(files, plates={"right": '"plates/right.####.png"', "left": '"plates/left.####.png"'})
    plates, _, cameras = Shot.load(path).open()
    assert [camera.name for camera in cameras] == ["right", "left"]
    assert len(plates) == 2


def test_frames_given_win(files: Path) -> None:
    plates, _, _ = Shot.load(write_shot(files)).open(frames="1002-1003")
    assert list(plates[0].frames) == [1002, 1003]


def test_without_frames_every_plate(files: Path) -> None:
    plates, _, _ = Shot.load(write_shot(files, leave_out="frames")).open()
    assert list(plates[0].frames) == [1001, 1002, 1003, 1004]


def test_a_videos_first_frame_has_the_number_that_is_told(files: Path) -> None:
    with pytest.raises(InputError, match="first_frame for videos only"):
        Shot.load(write_shot(files, first_frame="1001")).open()
    with refused("shot.first_frame", found="'1001'"):
        Shot.load(write_shot(files, first_frame='"1001"'))


def test_rig_groups_move_weights(files: Path) -> None:
    _, rig, _ = Shot.load(write_shot(files, rest='[rig_groups]\nbrows = ["jawOpen"]')).open()
    assert rig.groups["brows"] == (0, 1)


def _told(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        Shot.load(path)
    assert "\n" not in str(caught.value)
    return caught.value


def test_an_unknown_key_suggests_the_near_one(tmp_path: Path) -> None:
    error = _told(write_shot(tmp_path, leave_out="cameras", camera='"cameras.json"'))
    assert error.field == "shot.camera"
    assert "did you mean 'cameras'" in error.remedy


def test_a_missing_key(tmp_path: Path) -> None:
    error = _told(write_shot(tmp_path, leave_out="rig"))
    assert (error.field, error.found) == ("shot.rig", "nothing")
    assert "rig = " in error.remedy


def test_no_plates(tmp_path: Path) -> None:
    assert _told(write_shot(tmp_path, plates={})).field == "shot.plates"


@pytest.mark.parametrize(
    ("key", "value", "field", "found"),
    [
        ("name", "7", "shot.name", "7"),
        ("frames", "1001", "shot.frames", "1001"),
        ("output", '""', "shot.output", "''"),
        ("rig", "[1, 2]", "shot.rig", "[1, 2]"),
        ("landmarks", "2024-01-01", "shot.landmarks", "datetime.date(2024, 1, 1)"),
    ],
)
def test_a_wrong_value(tmp_path: Path, key: str, value: str, field: str, found: str) -> None:
    changes: dict[str, Any] = {key: value}
    error = _told(write_shot(tmp_path, **changes))
    assert (error.field, error.found) == (field, found)
    assert error.expected


def test_a_plate_that_is_no_text_names_its_camera(tmp_path: Path) -> None:
    assert _told(write_shot(tmp_path, plates={"left": "3"})).field == "shot.plates.left"


def test_further_findings_are_counted(tmp_path: Path) -> None:
    assert "1 more" in str(_told(write_shot(tmp_path, leave_out="rig", name="7")))


def test_a_syntax_error_has_its_line(tmp_path: Path) -> None:
    assert "line 2" in str(_told(write_shot(tmp_path, rig='"unclosed')))


def test_no_file_a_folder_and_bytes(tmp_path: Path) -> None:
    assert "no file" in str(_told(tmp_path / "absent.toml"))
    assert "a folder" in str(_told(tmp_path))
    (tmp_path / "photo.toml").write_bytes(b"\xff\xd8\xff\xe0")
    assert "UTF-8" in str(_told(tmp_path / "photo.toml"))


def test_a_byte_order_mark_is_no_error(tmp_path: Path) -> None:
    path = tmp_path / "bom.toml"
    path.write_text(write_shot(tmp_path).read_text(), encoding="utf-8-sig")
    assert Shot.load(path).name == "sh010"


# -- what is opened ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rig": '"absent.glb"'}, "absent.glb"),
        ({"cameras": '"absent.json"'}, "shot.cameras"),
        ({"landmarks": '"absent.json"'}, "shot.landmarks"),
        ({"plates": {"middle": '"plates/left.####.png"'}}, "middle"),
        ({"plates": {"left": '"plates/absent.####.png"'}}, "absent"),
        ({"frames": '"2001-2010"'}, "2001"),
        ({"frames": '"ten to twenty"'}, "ten to twenty"),
        ({"rest": '[rig_groups]\nbrows = ["absent"]'}, "absent"),
    ],
)
def test_what_cannot_be_opened(files: Path, changes: dict[str, Any], told: str) -> None:
    with pytest.raises(InputError) as caught:
        Shot.load(write_shot(files, **changes)).open()[1].groups  # noqa: B018
    assert told in str(caught.value)


def test_a_camera_of_another_size(files: Path) -> None:
    write_cameras(files, camera_entry("left", width=64))
    with refused("camera 'left'", found="64x24"):
        Shot.load(write_shot(files)).open()


def test_a_rig_without_landmarks(files: Path) -> None:
    dataclasses.replace(small_rig(), landmark_faces=None, landmark_barycentrics=None).save(files / "rig.npz")
    with pytest.raises(InputError, match="landmarks: found none"):
        Shot.load(write_shot(files)).open()


# -- [solver] --------------------------------------------------------------------------------------------------


def test_solver_defaults(tmp_path: Path) -> None:
    from deepenergy.settings.config import SolverConfig

    assert Shot.load(write_shot(tmp_path)).solver_config() == SolverConfig()


def test_solver_fields_are_passed_on(tmp_path: Path) -> None:
    config = Shot.load(write_shot(tmp_path, rest='[solver]\ndetector = "cnn"\nnetwork = "fan"')).solver_config()
    assert (config.detector, config.network) == ("cnn", "fan")


def test_an_unknown_solver_field(tmp_path: Path) -> None:
    with refused("shot.solver.detectr", remedy="'detector'"):
        Shot.load(write_shot(tmp_path, rest='[solver]\ndetectr = "cnn"')).solver_config()


def test_a_solver_field_of_another_type(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shot\.solver\.detector: found 3; expected"):
        Shot.load(write_shot(tmp_path, rest="[solver]\ndetector = 3")).solver_config()


def test_a_whole_number_serves_as_a_float(tmp_path: Path) -> None:
    assert Shot.load(write_shot(tmp_path, rest="[solver]\nl2 = 50")).solver_config().l2 == 50.0


def test_a_solver_field_out_of_its_range(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="min_confidence: found 3"):
        Shot.load(write_shot(tmp_path, rest="[solver]\nmin_confidence = 3.0")).solver_config()


def test_the_schedule_is_not_set_in_a_shot_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unknown key"):
        Shot.load(write_shot(tmp_path, rest="[solver]\nstages = []")).solver_config()
