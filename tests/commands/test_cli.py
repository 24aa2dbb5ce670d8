"""The command line: results and exit codes, and one clear line for each kind of bad input."""

from __future__ import annotations

import dataclasses
import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from small_shot import HEIGHT, WIDTH, camera_entry, small_rig, write_cameras, write_files, write_shot
from typer.testing import CliRunner

from deepenergy import Rig
from deepenergy.commands.cli import app
from deepenergy.commands.rig_info import units_hint
from deepenergy.report.terminal import summary
from deepenergy.scene.track import Track


def run(*arguments: str | Path) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `deepenergy ARGUMENTS`, in this process."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    return result.exit_code, result.stdout, result.stderr


def assert_one_line(code: int, stdout: str, stderr: str, *told: str) -> None:
    """What every bad input gets: exit code 2, and one line that says what was found, expected, and what to do."""
    assert code == 2, stdout + stderr
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert len(lines) == 1, stderr
    assert lines[0].startswith("error: ")
    assert "Traceback" not in stdout + stderr
    for words in ("found ", "; expected ", *told):
        assert words in lines[0], lines[0]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    write_files(tmp_path)
    return tmp_path


# -- bad input -----------------------------------------------------------------------------------------------------


def test_missing_rig(files: Path) -> None:
    shot = write_shot(files, rig='"actors/absent.glb"')
    assert_one_line(*run("solve", shot), "error: rig:", "absent.glb", "check the path")


def test_rig_without_landmarks(files: Path) -> None:
    shot = write_shot(files)
    bare = dataclasses.replace(small_rig(), landmark_faces=None, landmark_barycentrics=None)
    bare.save(files / "rig.npz")
    assert_one_line(*run("solve", shot), "landmarks: found none", "68 iBUG landmarks", "in the shot file")


def test_glb_without_morph_targets(files: Path) -> None:
    trimesh.creation.icosphere(subdivisions=1).export(files / "ball.glb")
    shot = write_shot(files, rig='"ball.glb"')
    assert_one_line(*run("solve", shot), "ball.glb", "morph targets")
    assert_one_line(*run("rig", "info", files / "ball.glb"), "morph targets")


def test_wrong_camera_size(files: Path) -> None:
    shot = write_shot(files)
    write_cameras(files, camera_entry(width=1920, height=1080))
    assert_one_line(*run("solve", shot), "camera 'left' size", "1920x1080", f"{WIDTH}x{HEIGHT}")


@pytest.mark.parametrize("frames", ["2001-2010", "1004-", "all of them"])
def test_empty_or_wrong_frame_range(files: Path, frames: str) -> None:
    shot = write_shot(files, frames=f'"{frames}"')
    assert_one_line(*run("solve", shot), frames)
    write_shot(files)
    assert_one_line(*run("solve", shot, "--frames", frames), frames)


def test_no_plates_at_all(files: Path) -> None:
    shot = write_shot(files)
    for plate in (files / "plates").iterdir():
        plate.unlink()
    assert_one_line(*run("solve", shot), "plates")


def test_every_plate_truncated(files: Path) -> None:
    shot = write_shot(files)
    for plate in (files / "plates").iterdir():
        plate.write_bytes(plate.read_bytes()[:20])
    assert_one_line(*run("solve", shot), "plates 'left'", "none of 4 frames readable", "frame 1001")


def test_a_video_that_is_no_video(files: Path) -> None:
    (files / "take.mp4").write_bytes(b"this is not a video" * 100)
    shot = write_shot(files, plates={"left": '"take.mp4"'})
    assert_one_line(*run("solve", shot), "take.mp4")


def test_nan_camera(files: Path) -> None:
    shot = write_shot(files)
    write_cameras(files, camera_entry(fx=float("nan")))
    assert_one_line(*run("solve", shot), "left", "fx")


def test_a_camera_that_the_file_does_not_hold(files: Path) -> None:
    shot = write_shot(files)
    write_cameras(files, camera_entry(name="right"))
    assert_one_line(*run("solve", shot), "left")


def test_an_unknown_key_in_the_shot(files: Path) -> None:
    shot = write_shot(files)
    shot.write_text(shot.read_text().replace("cameras =", "camera ="))
    assert_one_line(*run("solve", shot), "shot.camera", "did you mean 'cameras'")


def test_an_unknown_solver_setting(files: Path) -> None:
    shot = write_shot(files)
    shot.write_text(shot.read_text() + '[solver]\nnetwrk = "compact"\n')
    assert_one_line(*run("solve", shot), "shot.solver.netwrk", "did you mean 'network'")


def test_an_output_folder_without_permission(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Raised by hand: the tests may run as root, who may write anywhere.
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    shot = write_shot(files)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert_one_line(*run("solve", shot, "--output", files / "locked"), "Permission denied", "locked")


def test_an_output_that_is_a_file(files: Path) -> None:
    shot = write_shot(files)
    (files / "out").write_text("in the way")
    assert_one_line(*run("solve", shot), "out: found 'File exists'")


def test_eval_without_its_files(tmp_path: Path) -> None:
    write_cameras(tmp_path, camera_entry())
    cameras = ("--cameras", tmp_path / "cameras.json")
    assert_one_line(*run("eval", tmp_path / "absent.npz", tmp_path / "truth.npz", *cameras), "absent.npz")


@pytest.mark.parametrize("name", ["rig.fbx", "rig.npz", "rig.glb"])
def test_a_file_that_is_no_rig(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"not a rig")
    assert_one_line(*run("rig", "info", tmp_path / name), name)


def test_converting_to_another_format(files: Path) -> None:
    assert_one_line(*run("rig", "convert", files / "rig.npz", files / "rig.glb"), ".npz")


def test_a_demo_without_frames(tmp_path: Path) -> None:
    assert_one_line(*run("demo", "--output", tmp_path, "--frames", "0"), "frames: found 0")


# -- the real process ----------------------------------------------------------------------------------------------


def _process(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "deepenergy.commands.cli", *(str(a) for a in arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=False)


def test_bad_input_through_the_real_process(files: Path) -> None:
    shot = write_shot(files, rig='"absent.glb"')
    done = _process("solve", shot)
    assert_one_line(done.returncode, done.stdout, done.stderr, "absent.glb")


def test_unknown_commands_through_the_real_process() -> None:
    done = _process("sovle")
    assert done.returncode == 2
    assert "No such command" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_interrupt_ends_with_a_line_and_130(tmp_path: Path) -> None:
    # A named pipe holds the reader until the signal comes.
    os.mkfifo(tmp_path / "cameras.json")
    # A shell starts what it puts in the background with interrupts ignored.
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
    script += "print('up', flush=True); from deepenergy.commands.cli import main; main()"
    command = [sys.executable, "-c", script, "eval", str(tmp_path / "a.npz"), str(tmp_path / "b.npz")]
    command += ["--cameras", str(tmp_path / "cameras.json")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        # Opening for writing succeeds once the command has opened the pipe for reading.
        deadline = time.monotonic() + 60
        while True:
            try:
                writer = os.open(tmp_path / "cameras.json", os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError:
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        stderr = ""
        # A signal that lands inside a destructor is lost to Python, as a user's first Ctrl-C may be: ask again.
        for _ in range(4):
            process.send_signal(signal.SIGINT)
            try:
                _, stderr = process.communicate(timeout=25)
                break
            except subprocess.TimeoutExpired:
                continue
        os.close(writer)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 130, stderr
    assert stderr.strip() == "interrupted"


# -- good input ----------------------------------------------------------------------------------------------------


def test_version_and_help() -> None:
    import deepenergy

    assert run("--version") == (0, deepenergy.__version__ + "\n", "")
    code, stdout, _ = run("--help")
    assert code == 0
    assert all(command in stdout for command in ("demo", "solve", "eval", "rig", "doctor"))


def test_rig_info(files: Path) -> None:
    code, stdout, _ = run("rig", "info", files / "rig.npz")
    assert code == 0
    for words in ("vertices", "71", "triangles", "69", "jaw_open", "browInnerUp", "0.200 x 0.200 x 0.000 m"):
        assert words in stdout, stdout


@pytest.mark.parametrize(
    ("largest", "told"), [(0.3, ""), (1.8, ""), (30.0, "centimetres"), (300.0, "millimetres"), (0.003, "too small")]
)
def test_units_hint(largest: float, told: str) -> None:
    assert (told in units_hint(largest)) if told else (units_hint(largest) == "")


def test_rig_convert_keeps_the_rig(files: Path, tmp_path: Path) -> None:
    code, _, _ = run("rig", "convert", files / "rig.npz", tmp_path / "again.npz")
    assert code == 0
    before, after = Rig.load(files / "rig.npz"), Rig.load(tmp_path / "again.npz")
    torch.testing.assert_close(after.blendshapes, before.blendshapes)
    assert after.landmark_faces is not None


def _track(status: list[str], reason: list[str]) -> Track:
    count = len(status)
    failed = np.array(status) == "failed"
    return Track(
        frames=np.arange(1001, 1001 + count),
        rotation=np.where(failed[:, None, None], np.nan, np.eye(3)),
        translation=np.where(failed[:, None], np.nan, np.zeros((count, 3))),
        jaw=np.where(failed[:, None], np.nan, np.zeros((count, 6))),
        weights=np.where(failed[:, None], np.nan, np.zeros((count, 2))),
        weight_names=("jawOpen", "browInnerUp"),
        status=np.array(status),
        reason=np.array(reason),
        confidence=np.where(failed, 0.0, 1.0),
        landmark_residual_px=np.full(count, np.nan),
        rig_name="fan",
    )


def test_eval_of_a_track_against_itself(files: Path) -> None:
    track = files / "t.npz"
    _track(["solved"] * 4, [""] * 4).save(track)
    code, stdout, _ = run(
        "eval", track, track, "--cameras", files / "cameras.json", "--camera", "left", "--rig", files / "rig.npz"
    )
    assert code == 0
    assert "0.000 mm" in stdout
    assert "100.0% solved" in stdout


def test_a_rig_that_is_no_face_in_metres(files: Path) -> None:
    assert_one_line(*run("solve", write_shot(files)), "error: rig 'fan'")


def test_frames_left_empty_are_not_the_whole_shot(files: Path) -> None:
    assert_one_line(*run("solve", write_shot(files), "--frames", ""), "frames: found")


def test_a_device_that_there_is_not(files: Path) -> None:
    for name in ("gpu", "mps", "cuda:99"):
        shot = write_shot(files, rest=f'[solver]\ndevice = "{name}"')
        assert_one_line(*run("solve", shot), f"device: found '{name}'")


def test_a_group_that_nothing_solves(files: Path) -> None:
    shot = write_shot(files, rig='"builtin"', rest='[rig_groups]\nbrow = ["browInnerUp"]')
    assert_one_line(*run("solve", shot), "rig_groups 'brow'", "did you mean 'brows'")


@pytest.mark.parametrize("setting", ["network", "flow_network"])
def test_weights_that_are_missing_are_told_before_the_solve(
    files: Path, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(files))
    pytest.importorskip("face_alignment")
    value = {"network": "fan", "flow_network": "raft"}[setting]
    shot = write_shot(files, rig='"builtin"', rest=f'[solver]\n{setting} = "{value}"')
    code, stdout, stderr = run("solve", shot)
    assert code == 2 and "no file" in stderr and "landmarks (" not in stderr and "faces (" not in stderr, stdout


def test_a_shot_without_a_face_fails_and_says_why(files: Path) -> None:
    shot = write_shot(files, rig='"builtin"')
    code, stdout, stderr = run("solve", shot)
    assert code == 1
    assert "4 failed" in stdout
    assert "error: no frame" in stderr
    assert (files / "out" / "track.npz").is_file()


def test_demo_writes_a_shot_and_its_report(demo_folder: Path) -> None:
    names = {path.name for path in demo_folder.iterdir()}
    expected = {"shot.toml", "rig.npz", "cameras.json", "ground_truth.npz", "track.npz", "track.csv", "evaluation.txt"}
    assert expected <= names
    assert any(name.endswith(".mp4") for name in names)
    assert len(list((demo_folder / "plates").iterdir())) == 6
    track = Track.load(demo_folder / "track.npz")
    assert track.solved.all(), summary(track)
    assert "rotation" in (demo_folder / "stdout.txt").read_text(encoding="utf-8")


@pytest.mark.slow
def test_solving_the_demo_again_gives_the_same(demo_folder: Path, tmp_path: Path) -> None:
    code, stdout, stderr = run("solve", demo_folder / "shot.toml", "--output", tmp_path)
    assert code == 0, stdout + stderr
    first, again = Track.load(demo_folder / "track.npz"), Track.load(tmp_path / "track.npz")
    np.testing.assert_array_equal(again.weights, first.weights)
    np.testing.assert_array_equal(again.rotation, first.rotation)


@pytest.mark.slow
def test_a_killed_solve_goes_on_to_the_same_track(demo_folder: Path, tmp_path: Path) -> None:
    start = [sys.executable, "-c", "from deepenergy.commands.cli import main; main()"]
    command = [*start, "solve", str(demo_folder / "shot.toml"), "--output", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        # As soon as there is something to go on from.
        while process.poll() is None and not list((tmp_path / "resume").glob("*.npz")):
            time.sleep(0.05)
        process.kill()
    assert process.returncode == -signal.SIGKILL and not (tmp_path / "track.npz").exists()
    code, stdout, stderr = run("solve", demo_folder / "shot.toml", "--output", tmp_path)
    assert code == 0, stdout + stderr
    first, again = Track.load(demo_folder / "track.npz"), Track.load(tmp_path / "track.npz")
    for name in ("rotation", "translation", "jaw", "weights", "confidence"):
        np.testing.assert_array_equal(getattr(again, name), getattr(first, name))
    assert not (tmp_path / "resume").exists()


@pytest.mark.slow
def test_holes_and_truncated_plates_do_not_stop_a_shot(demo_folder: Path, tmp_path: Path) -> None:
    plates = tmp_path / "plates"
    plates.mkdir()
    for path in (demo_folder / "plates").iterdir():
        with Image.open(path) as image:
            image.save(plates / path.with_suffix(".png").name)
    (plates / "demo.1002.png").unlink()
    truncated = plates / "demo.1004.png"
    truncated.write_bytes(truncated.read_bytes()[:20000])
    text = (demo_folder / "shot.toml").read_text().replace(".jpg", ".png").replace('output = "."', 'output = "out"')
    for name in ("rig.npz", "cameras.json"):
        (tmp_path / name).write_bytes((demo_folder / name).read_bytes())
    (tmp_path / "shot.toml").write_text(text)
    code, stdout, stderr = run("solve", tmp_path / "shot.toml", "--frames", "1001-1006")
    # The shot is solved, and the caller is told that its input was not whole.
    assert code == 2, stdout + stderr
    assert "found frames 1002,1004 missing or unreadable" in stderr
    assert "Traceback" not in stderr
    track = Track.load(tmp_path / "out" / "track.npz")
    assert track.frames.tolist() == list(range(1001, 1007))
    bad = {int(frame) for frame in track.frames[track.status != "solved"]}
    assert bad == {1002, 1004}, summary(track)
    assert "1002" in stdout
    assert "1004" in stdout
