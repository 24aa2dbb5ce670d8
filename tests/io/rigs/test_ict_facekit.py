"""The ICT-FaceKit folder: a hand-made kit of the same layout, and the real one."""

from __future__ import annotations

import json
import lzma
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import trimesh
from scipy.spatial import KDTree

from deepenergy import InputError, Rig
from deepenergy.io.rigs.ict_facekit import read_rig

# A 9 x 9 sheet of face, a tooth beside it, and a lash that hangs on vertices of its own. Centimetres.
SIDE = 9


def small_kit(folder: Path, **index_changes: Any) -> Path:
    y, x = np.meshgrid(np.linspace(8, -8, SIDE), np.linspace(-8, 8, SIDE), indexing="ij")
    sheet = np.stack([x, y, 5 - 0.05 * x**2], -1).reshape(-1, 3)
    lash = np.array([[0, 0, 9], [1, 0, 9], [0, 1, 9]], float)
    tooth = np.array([[0, -1, 3], [1, -1, 3], [1, 0, 3], [0, 0, 3]], float)
    # The lash comes before the tooth, so that leaving it out renumbers the tooth.
    vertices = np.concatenate([sheet, lash, tooth])
    lines = [f"vt {i / 100} {1 - i / 100}" for i in range(len(vertices))] + ["usemtl M_Face"]
    for r in range(SIDE - 1):
        for c in range(SIDE - 1):
            quad = [r * SIDE + c, (r + 1) * SIDE + c, (r + 1) * SIDE + c + 1, r * SIDE + c + 1]
            lines.append("f " + " ".join(f"{v + 1}/{v + 1}" for v in quad))
    lines += ["usemtl M_EyeLashes", "f 82/82/1 83/83/1 84/84/1", "usemtl M_Teeth", "f 85/85 86/86 87/87 88/88"]
    folder.mkdir(parents=True, exist_ok=True)

    def obj(name: str, positions: np.ndarray, rest: list[str]) -> None:
        text = [f"v {p[0]:.6f} {p[1]:.6f} {p[2]:.6f}" for p in positions]
        (folder / f"{name}.obj").write_text("\n".join(["# kit", *text, *rest]) + "\n")

    obj("generic_neutral_mesh", vertices, lines)
    obj("jawOpen", vertices - [0, 1.5, 0], [])
    obj("browDown_L", vertices + np.array([0, 0, 0.25]), [])
    obj("identity000", vertices * 1.1, [])
    obj("unlisted", vertices * 2, [])
    index = {"expressions": ["jawOpen", "browDown_L"], "idx_to_landmark_verts": [*range(67), 84]} | index_changes
    (folder / "vertex_indices.json").write_text(json.dumps(index))
    return folder


def test_a_small_kit(tmp_path: Path) -> None:
    rig = Rig.load(small_kit(tmp_path / "kit"))
    assert rig.name == "kit"
    assert rig.weight_names == ("jawOpen", "browDown_L")
    assert rig.neutral.shape == (85, 3)
    assert rig.faces.shape == (2 * 64 + 2, 3)
    torch.testing.assert_close(rig.neutral[0], torch.tensor([-0.08, 0.08, 0.018]))
    torch.testing.assert_close(rig.blendshapes[0], torch.tensor([0, -0.015, 0]).expand(85, 3), atol=1e-7, rtol=0)
    torch.testing.assert_close(rig.blendshapes[1], torch.tensor([0, 0, 0.0025]).expand(85, 3), atol=1e-7, rtol=0)
    assert rig.identity_names == ("identity000",)
    assert rig.identity_basis is not None
    torch.testing.assert_close(rig.identity_basis[0], rig.neutral * 0.1, atol=1e-7, rtol=0)
    assert rig.jaw is None
    assert rig.region_names == ("skin", "teeth")
    assert rig.face_regions is not None and torch.bincount(rig.face_regions).tolist() == [128, 2]


def test_left_out_vertices_renumber_the_rest(tmp_path: Path) -> None:
    rig = read_rig(small_kit(tmp_path / "kit"))
    # Vertex 84 of the kit, the tooth's first, is 81 without the lash; the last landmark sits on it.
    assert rig.faces[-2:].tolist() == [[81, 82, 83], [81, 83, 84]]
    landmarks = rig.landmarks(rig.neutral[None])[0]
    torch.testing.assert_close(landmarks[:67], rig.neutral[:67])
    torch.testing.assert_close(landmarks[67], torch.tensor([0, -0.01, 0.03]))
    assert rig.uvs is not None and rig.uv_faces is not None
    torch.testing.assert_close(rig.uvs[rig.uv_faces[-1, 0]], torch.tensor([0.84, 0.16]))


def test_helpers_are_kept_on_demand(tmp_path: Path) -> None:
    rig = read_rig(small_kit(tmp_path / "kit"), keep_helpers=True)
    assert rig.neutral.shape == (88, 3)
    assert rig.region_names == ("skin", "lashes", "teeth")


def test_quads_keep_their_winding(tmp_path: Path) -> None:
    rig = read_rig(small_kit(tmp_path / "kit"))
    a, b, c = (rig.neutral[rig.faces[:128, i]] for i in range(3))
    assert bool((torch.linalg.cross(b - a, c - a)[:, 2] > 0).all())  # the sheet looks down +Z


def test_the_parent_folder_does_too(tmp_path: Path) -> None:
    small_kit(tmp_path / "ICT" / "FaceXModel")
    assert Rig.load(tmp_path / "ICT").name == "ICT"
    assert Rig.load(tmp_path / "ICT" / "FaceXModel").name == "ICT"


def test_unknown_materials_are_regions_of_their_own(tmp_path: Path) -> None:
    folder = small_kit(tmp_path / "kit")
    neutral = folder / "generic_neutral_mesh.obj"
    neutral.write_text(neutral.read_text().replace("M_Teeth", "M_Horns"))
    assert read_rig(folder).region_names == ("skin", "M_Horns")


def corrupt(folder: Path, name: str, old: str, new: str) -> None:
    path = folder / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("jawOpen.obj", "v -8.000000", "v nan", "jawOpen.obj: found NaN or infinity"),
        ("jawOpen.obj", "v -8.000000", "v minus", "jawOpen.obj: found a 'v' line that cannot be read"),
        ("jawOpen.obj", "v -8.000000 6.500000 1.800000\n", "", "jawOpen.obj: found 87 vertices; expected 88"),
        ("generic_neutral_mesh.obj", "f 1/1", "f 1", "without vertex/texture indices"),
        ("generic_neutral_mesh.obj", "f 1/1", "f 99/1", "face indices up to 99/88; expected 1..88"),
        ("generic_neutral_mesh.obj", "f 1/1", "f 0/1", "face indices"),
        ("generic_neutral_mesh.obj", "f 1/1", "f a/1", "without vertex/texture indices"),
        ("vertex_indices.json", "{", "", "vertex_indices.json: found text that is not JSON"),
        ("vertex_indices.json", '"jawOpen"', '"jawShut"', "jawShut.obj: found no readable file"),
        ("vertex_indices.json", '"jawOpen"', "3", "expressions: found"),
        ("vertex_indices.json", "expressions", "shapes", "expressions: found None; expected a list of names"),
        ("vertex_indices.json", "66, 84", "66", "idx_to_landmark_verts: found 67 vertices; expected 68"),
        ("vertex_indices.json", "66, 84", "66, 88", r"vertex indices 0..88; expected 0..87"),
        ("vertex_indices.json", "66, 84", "66, 81", r"vertices \[81\] that are on no kept triangle"),
    ],
)
def test_damaged_kits_are_refused(tmp_path: Path, name: str, old: str, new: str, message: str) -> None:
    folder = small_kit(tmp_path / "kit")
    corrupt(folder, name, old, new)
    with pytest.raises(InputError, match=message) as caught:
        Rig.load(folder)
    assert str(folder) in str(caught.value)


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"without generic_neutral_mesh\.obj.*\.glb"):
        Rig.load(tmp_path)
    small_kit(tmp_path / "kit")
    (tmp_path / "kit" / "vertex_indices.json").unlink()
    with pytest.raises(InputError, match=r"vertex_indices\.json: found no readable file"):
        Rig.load(tmp_path / "kit")


@pytest.fixture(scope="module")
def kit(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    archive = test_data / "ict-facekit.tar.xz"
    if not archive.is_file():
        pytest.skip(f"test data absent: no file {archive}")
    folder = tmp_path_factory.mktemp("kit")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return next(path.parent for path in folder.rglob("FaceXModel"))


@pytest.fixture(scope="module")
def real(kit: Path) -> Rig:
    return Rig.load(kit)


def test_the_real_kit(real: Rig) -> None:
    assert len(real.weight_names) == 53
    assert real.identity_basis is not None and len(real.identity_basis) == 30
    extent = real.neutral.max(0).values - real.neutral.min(0).values
    assert 0.2 < float(extent[1]) < 0.4  # a head with neck and shoulders' start, in metres
    assert real.groups["other"] == ()
    assert {"skin", "head", "mouth", "teeth", "eyes"} <= set(real.region_names)
    assert not {"lashes", "eye_occlusion", "lacrimal", "eye_blend"} & set(real.region_names)
    assert torch.equal(torch.unique(real.faces), torch.arange(len(real.neutral)))


# trimesh takes a median of nothing on meshes with several materials.
@pytest.mark.filterwarnings("ignore:All-NaN slice:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_the_real_kit_against_trimesh(kit: Path) -> None:
    start = time.process_time()
    whole = read_rig(kit, keep_helpers=True)
    assert time.process_time() - start < 10  # 2 s on an idle core
    mesh: Any = trimesh.load(kit / "FaceXModel" / "mouthSmile_L.obj", process=False, force="mesh")
    smile = whole.neutral + whole.blendshapes[whole.weight_names.index("mouthSmile_L")]
    # trimesh numbers vertices its own way.
    distance, _ = KDTree(np.asarray(mesh.vertices) * 0.01).query(smile.double().numpy())
    assert distance.max() < 1e-6
    assert len(mesh.faces) == len(whole.faces)


def test_the_real_kits_landmarks_look_like_a_face(real: Rig) -> None:
    points = real.landmarks(real.neutral[None])[0]
    left_eye, right_eye = points[42:48].mean(0), points[36:42].mean(0)
    assert 0.05 < float((left_eye - right_eye).norm()) < 0.08
    assert left_eye[0] > 0 > right_eye[0]  # +X is the subject's left
    assert points[27:36, 2].max() > points[:17, 2].max()  # the nose sticks out
    assert points[8, 1] < points[57, 1] < points[33, 1] < points[27, 1] < points[19, 1]
    jaw_open = torch.zeros(1, 53)
    jaw_open[0, real.weight_names.index("jawOpen")] = 1
    opened = real.landmarks(real.local_vertices(jaw_open))[0]
    assert float(points[57, 1] - opened[57, 1]) > 0.01


def test_the_real_kits_eyes_have_irises(real: Rig) -> None:
    assert real.vertex_albedo is not None and real.face_regions is not None
    eyes = torch.unique(real.faces[real.face_regions == real.region_names.index("eyes")])
    dark = eyes[real.vertex_albedo[eyes].sum(1) < 0.2]
    for side in (1, -1):
        iris = real.neutral[dark][real.neutral[dark, 0] * side > 0]
        ball = real.neutral[eyes][real.neutral[eyes, 0] * side > 0]
        assert 20 < len(iris) < len(ball) / 2
        assert float(iris[:, 2].min()) > float(ball[:, 2].mean())


def test_identity_makes_another_person(real: Rig) -> None:
    person = real.with_identity(torch.full((30,), 0.5))
    assert float((person.neutral - real.neutral).norm(dim=1).max()) > 1e-3
    assert person.landmark_faces is not None


def test_another_actor_is_of_this_kit(real: Rig, test_data: Path, tmp_path: Path) -> None:
    # Its neutral is the kit's neutral plus a combination of identity shapes: solve for it.
    path = tmp_path / "ict_b.glb"
    path.write_bytes(lzma.decompress((test_data / "rigs/ict_b.glb.xz").read_bytes()))
    actor = Rig.load(path, test_data / "rigs/ict_b.landmarks.json")
    assert actor.weight_names == real.weight_names
    assert real.identity_basis is not None
    start = real.landmarks(real.neutral[None])[0]
    basis = real.landmarks(real.neutral + real.identity_basis) - start
    target = (actor.landmarks(actor.neutral[None])[0] - start).reshape(-1, 1).double()
    a = basis.reshape(30, -1).T.double()
    solution = torch.linalg.lstsq(a, target).solution
    assert float((a @ solution - target).abs().max()) < 1e-5
