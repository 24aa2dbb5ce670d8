"""Rigs survive `.npz` bit for bit, and other files are refused."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from rigs import grid_rig
from torch import Tensor

from deepenergy import InputError, Jaw, Rig


def full_rig() -> Rig:
    """A rig that uses every field, with values that a lossy format would change."""
    rig = grid_rig()
    generator = torch.Generator().manual_seed(0)
    return replace(
        rig,
        name="actör 'A'",
        weight_bounds=torch.tensor([[-1.0, 1], [0, 1.5], [0, math.pi]]),
        uvs=torch.rand(60, 2, generator=generator),
        uv_faces=torch.randint(0, 60, rig.faces.shape, generator=generator),
        vertex_albedo=torch.rand(48, 3, generator=generator),
        texture=torch.rand(4, 6, 3, generator=generator),
        face_regions=torch.arange(len(rig.faces)) % 2,
        region_names=("skin", "eyes"),
        group_overrides={"neck": ["browInnerUp"], "jaw": ("jawOpen",)},
    )


def assert_same(a: Rig, b: Rig) -> None:
    for field in fields(Rig):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, Tensor):
            assert isinstance(other, Tensor), field.name
            assert one.dtype == other.dtype, field.name
            assert torch.equal(one, other), field.name
        elif isinstance(one, Jaw):
            assert isinstance(other, Jaw)
            assert all(torch.equal(x, y) for x, y in zip(vars(one).values(), vars(other).values(), strict=True))
        elif field.name == "group_overrides":
            assert {k: tuple(v) for k, v in one.items()} == {k: tuple(v) for k, v in other.items()}
        else:
            assert one == other, field.name


def test_round_trip_of_everything(tmp_path: Path) -> None:
    full_rig().save(tmp_path / "rig.npz")
    assert_same(Rig.load(tmp_path / "rig.npz"), full_rig())


def test_round_trip_of_little(tmp_path: Path) -> None:
    bare = grid_rig(jaw=False, identity=False)
    bare = replace(bare, landmark_faces=None, landmark_barycentrics=None)
    bare.save(tmp_path / "rig.npz")
    assert_same(Rig.load(tmp_path / "rig.npz"), bare)


def test_round_trip_of_no_blendshapes(tmp_path: Path) -> None:
    still = replace(grid_rig(), blendshapes=torch.zeros(0, 48, 3), weight_names=(), weight_bounds=None)
    still.save(tmp_path / "rig.npz")
    assert_same(Rig.load(tmp_path / "rig.npz"), still)


def test_same_rig_same_bytes(tmp_path: Path) -> None:
    full_rig().save(tmp_path / "a.npz")
    full_rig().save(tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_nothing_is_pickled_and_nothing_is_left_beside(tmp_path: Path) -> None:
    path = tmp_path / "rig.npz"
    full_rig().save(path)
    full_rig().save(path)
    assert list(tmp_path.iterdir()) == [path]
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)
        assert json.loads(str(file["weight_names"])) == list(full_rig().weight_names)


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rig.npz"
    full_rig().save(path)
    before = path.read_bytes()

    def fail(file: object, **_: object) -> None:
        file.write(b"half")  # type: ignore[attr-defined]
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez_compressed", fail)
    with pytest.raises(OSError, match="disk full"):
        grid_rig().save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def saved(tmp_path: Path) -> dict[str, np.ndarray]:
    full_rig().save(tmp_path / "good.npz")
    with np.load(tmp_path / "good.npz", allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": np.array("deepenergy.track")}, "format 'deepenergy.track'.*a rig written by"),
        ({"format": None}, r"found arrays \["),
        ({"version": np.array(99)}, "version: found 99; expected at most 1; .*newer deepenergy"),
        ({"version": np.array("one")}, "version: found one"),
        ({"version": None}, "version: found None"),
        ({"neutral": None}, "no array 'neutral'"),
        ({"weight_names": None}, "no array 'weight_names'"),
        ({"jaw_lower": None}, "no array 'jaw_lower'"),
        ({"jaw_pivot": np.zeros(2, np.float32)}, r"jaw_pivot: found float32 of shape \(2,\)"),
        ({"jaw_skin_weights": np.zeros(3, np.float32)}, r"jaw_skin_weights.*expected floats of shape \(48\)"),
        ({"weight_bounds": np.zeros((3, 3), np.float32)}, "weight_bounds: found"),
        ({"faces": np.zeros((4, 3), np.float32)}, "faces: found float32.*expected integers"),
        ({"identity_basis": np.zeros((3, 48, 3), np.float32)}, r"identity_basis.*\(2, 48, 3\)"),
        ({"texture": np.zeros((4, 4), np.float32)}, "texture: found"),
        ({"weight_names": np.array("[1, 2, 3]")}, "weight_names: found"),
        ({"weight_names": np.array("not json")}, "weight_names: found text that is not JSON"),
        ({"neutral": np.full((48, 3), math.nan, np.float32)}, "neutral: found NaN"),
    ],
)
def test_damaged_rigs_are_refused(tmp_path: Path, changes: dict[str, np.ndarray | None], message: str) -> None:
    content = {k: v for k, v in (saved(tmp_path) | changes).items() if v is not None}
    np.savez(tmp_path / "bad.npz", **content)  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=message):
        Rig.load(tmp_path / "bad.npz")


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rig.npz"
    full_rig().save(path)
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 0xFF
    objects = tmp_path / "objects.npz"
    np.savez(objects, format=np.array([{"a": 1}], dtype=object))
    for content in (b"", b"text", whole[: len(whole) // 2], bytes(damaged), objects.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"rig.npz: found a file that cannot be read.*a rig written by deepenergy"):
            Rig.load(path)
    with path.open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(InputError, match="cannot be read"):
        Rig.load(path)


def test_save_refuses_other_endings_and_absent_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"ending '\.glb'"):
        full_rig().save(tmp_path / "rig.glb")
    with pytest.raises(InputError, match="no folder"):
        full_rig().save(tmp_path / "absent" / "rig.npz")
