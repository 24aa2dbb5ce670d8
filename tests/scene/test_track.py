"""The track and its files."""

from __future__ import annotations

import csv
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from tiny_shot import WEIGHTS, fail_frame, tiny_rig, tiny_track

from deepenergy.runtime.errors import InputError
from deepenergy.scene.track import Cause, Track


def assert_same(a: Track, b: Track) -> None:
    for f in fields(Track):
        left, right = getattr(a, f.name), getattr(b, f.name)
        if isinstance(left, dict):
            assert list(left) == list(right)
            for camera in left:
                np.testing.assert_array_equal(left[camera], right[camera])
        elif isinstance(left, np.ndarray):
            np.testing.assert_array_equal(left, right)
            assert left.dtype.kind == right.dtype.kind
        else:
            assert left == right


def test_euler_is_scipys_xyz() -> None:
    track = fail_frame(tiny_track(), 3)
    good = track.usable
    expected = Rotation.from_matrix(track.rotation[good]).as_euler("xyz")
    np.testing.assert_allclose(track.euler[good], expected, atol=1e-12)
    assert np.isnan(track.euler[3]).all()
    assert len(track) == 10


def test_vertices_and_landmarks_are_the_rigs() -> None:
    rig, track = tiny_rig(), fail_frame(tiny_track(20), 18)
    vertices, landmarks = track.vertices(rig), track.landmarks(rig)
    assert vertices.shape == (20, rig.neutral.shape[0], 3)
    assert vertices.dtype == np.float32
    for row in (0, 15, 16, 19):
        local = rig.neutral.double() + torch.einsum(
            "k,kvc->vc", torch.from_numpy(track.weights[row]), rig.blendshapes.double()
        )
        assert rig.jaw is not None
        turn = Rotation.from_rotvec(track.jaw[row, :3]).as_matrix()
        pivot, skin = rig.jaw.pivot.double().numpy(), rig.jaw.skin_weights.double().numpy()[:, None]
        local = local.numpy()
        opened = (local - pivot) @ turn.T + pivot + track.jaw[row, 3:]
        world = (local + skin * (opened - local)) @ track.rotation[row].T + track.translation[row]
        np.testing.assert_allclose(vertices[row], world, atol=1e-7)
        assert rig.landmark_faces is not None
        assert rig.landmark_barycentrics is not None
        corner = rig.faces[rig.landmark_faces, rig.landmark_barycentrics.argmax(1)].numpy()
        np.testing.assert_allclose(landmarks[row], world[corner], atol=1e-9)
    assert np.isnan(vertices[18]).all()
    assert np.isnan(landmarks[18]).all()


def test_parameters_are_a_copy() -> None:
    track = tiny_track()
    track.parameters().weights.zero_()
    assert track.weights.any()


@pytest.mark.parametrize("cameras", [True, False])
def test_npz_keeps_everything(tmp_path: Path, cameras: bool) -> None:
    track = fail_frame(tiny_track(), 2, "the plate cannot be read: Größe, 平")
    if not cameras:
        track = replace(track, landmarks_px={}, render_landmarks_px={})
    path = tmp_path / "shot.track.npz"
    track.save(path)
    assert_same(Track.load(path), track)
    assert [p.name for p in tmp_path.iterdir()] == ["shot.track.npz"]
    with np.load(path, allow_pickle=False) as file:
        assert not any(file[name].dtype.hasobject for name in file.files)


def test_npz_is_the_same_bytes_each_time(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        tiny_track().save(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_empty_track_survives_a_round_trip(tmp_path: Path) -> None:
    track = tiny_track(0)
    track.save(tmp_path / "t.npz")
    assert_same(Track.load(tmp_path / "t.npz"), track)
    assert track.euler.shape == (0, 3)


def test_csv_reads_back(tmp_path: Path) -> None:
    track = fail_frame(tiny_track(), 4, 'said "no", twice')
    track.save(tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [int(r["frame"]) for r in rows] == track.frames.tolist()
    assert rows[4]["reason"] == 'said "no", twice'
    assert rows[4]["rx_deg"] == rows[4][WEIGHTS[0]] == rows[4]["landmark_residual_px"] == ""
    assert float(rows[4]["confidence"]) == 0
    for row in (0, 9):
        angles = [float(rows[row][f"r{a}_deg"]) for a in "xyz"]
        rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
        np.testing.assert_allclose(rotation, track.rotation[row], atol=1e-8)
        position = [float(rows[row][f"t{a}_m"]) for a in "xyz"]
        np.testing.assert_allclose(position, track.translation[row], rtol=1e-8)
        np.testing.assert_allclose([float(rows[row][n]) for n in WEIGHTS], track.weights[row], rtol=1e-8)
        np.testing.assert_allclose(float(rows[row]["jaw.rx_deg"]), np.degrees(track.jaw[row, 0]), rtol=1e-8)
        np.testing.assert_allclose(float(rows[row]["jaw.tz_m"]), track.jaw[row, 5], rtol=1e-8)


def changed(name: str, row: int, value: object) -> dict[str, np.ndarray]:
    track = tiny_track()
    array = getattr(track, name).copy()
    if array.dtype.kind == "U":
        array = array.astype("U32")
    array[row] = value
    return {name: array}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"translation": np.zeros((9, 3))}, r"translation.*\(9, 3\).*\(10, 3\)"),
        ({"weight_names": ("a", "b")}, r"weights.*\(10, 3\).*\(10, 2\)"),
        ({"frames": np.arange(10.0)}, "frames.*float64"),
        (changed("frames", 5, 1005), "frame 1005 after 1005.*strictly increasing"),
        ({"landmarks_px": {"left": np.zeros((10, 67, 2))}}, r"landmarks_px 'left'.*67"),
        (changed("rotation", 1, np.diag([1.0, 1.0, -1.0])), "frame 1002.*determinant -1"),
        (changed("rotation", 2, 2 * np.eye(3)), "frame 1003.*rotation matrix"),
        (changed("weights", 3, np.nan), "frame 1004.*NaN or infinity on a frame that is solved"),
        (changed("status", 4, "maybe"), "frame 1005.*'maybe'.*solved, infilled, failed"),
        (changed("status", 4, "failed"), "reason of frame 1005"),
        (changed("reason", 4, "because"), "reason of frame 1005"),
        (changed("confidence", 5, 1.5), "confidence of frame 1006.*1.5"),
        (changed("confidence", 5, np.nan), "confidence of frame 1006"),
        ({**changed("status", 4, "failed"), **changed("reason", 4, "lost")}, "numbers on a failed frame"),
        (changed("cause", 4, "no_face"), "cause of frame 1005.*'no_face' on a frame with status 'solved'"),
        (changed("cause", 4, "bad luck"), "cause of frame 1005.*'bad luck'.*plate_missing"),
        ({"cause": np.full(9, "none")}, r"cause.*\(9,\).*\(10,\)"),
    ],
)
def test_contradictions_are_refused(change: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        replace(tiny_track(), **change)


def test_the_cause_fits_the_status_where_nobody_gives_one() -> None:
    failed = fail_frame(tiny_track(4), 2)
    assert failed.cause.tolist() == ["none", "none", "unknown", "none"]
    status = np.where(failed.status == "failed", "infilled", "solved")
    assert replace(tiny_track(4), status=status, reason=failed.reason).cause[2] == Cause.INFILLED
    # What is known is kept, also through infilling.
    known = replace(failed, cause=np.array([Cause.NONE, Cause.NONE, Cause.JUMP, Cause.NONE]))
    filled = replace(tiny_track(4), status=status, reason=known.reason, cause=known.cause)
    assert known.cause.tolist() == filled.cause.tolist() == ["none", "none", "jump", "none"]


def test_a_file_of_before_causes_had_codes(tmp_path: Path) -> None:
    path = tmp_path / "t.npz"
    replace(fail_frame(tiny_track(4), 2), cause=np.array(["none", "none", "jump", "none"])).save(path)
    assert Track.load(path).cause[2] == Cause.JUMP
    with np.load(path) as file:
        content = {name: file[name] for name in file.files if name not in ("cause", "provenance")}
    np.savez(path, **content)
    assert Track.load(path).cause.tolist() == ["none", "none", "unknown", "none"]


def test_another_rig_is_refused() -> None:
    rig = tiny_rig()
    with pytest.raises(InputError, match="another order"):
        tiny_track().vertices(replace(rig, weight_names=WEIGHTS[::-1]))
    with pytest.raises(InputError, match="cheekPuff"):
        tiny_track().vertices(replace(rig, weight_names=(*WEIGHTS[:2], "cheekPuff")))


def test_files_that_are_no_tracks(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file"):
        Track.load(tmp_path / "absent.npz")
    with pytest.raises(InputError, match="ending"):
        Track.load(tmp_path / "track.txt")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(InputError, match="cannot be read"):
        Track.load(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(InputError, match="without the array 'format'"):
        Track.load(tmp_path / "other.npz")
    tiny_track().save(tmp_path / "t.npz")
    whole = (tmp_path / "t.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="cannot be read"):
        Track.load(tmp_path / "cut.npz")
    with np.load(tmp_path / "t.npz") as file:
        content: dict[str, Any] = dict(file)
    np.savez(tmp_path / "new.npz", **{**content, "version": np.array(99)})
    with pytest.raises(InputError, match=r"99.*newer deepenergy"):
        Track.load(tmp_path / "new.npz")
    np.savez(tmp_path / "rig.npz", **{**content, "format": np.array("deepenergy.rig")})
    with pytest.raises(InputError, match=r"deepenergy\.rig"):
        Track.load(tmp_path / "rig.npz")


def test_a_pickle_is_never_loaded(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    tiny_track().save(tmp_path / "t.npz")
    with np.load(tmp_path / "t.npz") as file:
        content = dict(file)
    content["frames"] = np.array([Bomb()], dtype=object)
    np.savez(tmp_path / "bomb.npz", **content)
    with pytest.raises(InputError, match="cannot be read"):
        Track.load(tmp_path / "bomb.npz")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.npz"
    tiny_track(seed=1).save(path)
    before = path.read_bytes()

    def broken(file, **content) -> None:
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", broken)
    with pytest.raises(OSError, match="disk full"):
        tiny_track(seed=2).save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["t.npz"]
    with pytest.raises(InputError, match="no folder"):
        tiny_track().save(tmp_path / "absent" / "t.npz")
