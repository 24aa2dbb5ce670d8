"""glTF rigs: small files written here with pygltflib, and real ones against trimesh and the shot's truth."""

from __future__ import annotations

import base64
import io
import json
import lzma
import re
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib as gl
import pytest
import torch
import trimesh
from gltf_builder import GltfBuilder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from refusals import refused
from scipy.spatial.transform import Rotation

from deepenergy import InputError, Rig, State

SQUARE = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]], float) * 0.1
FACES = [[0, 1, 2], [0, 2, 3]]
OPEN = np.array([[0, -1, 0], [0, -1, 0], [0, 0, 0], [0, 0, 0]], float) * 0.02
SMILE = np.array([[0, 0, 0], [0, 0, 0], [1, 0, 0], [-1, 0, 0]], float) * 0.01


def close(found: torch.Tensor | None, expected: Any, atol: float = 1e-7) -> None:
    assert found is not None
    np.testing.assert_allclose(found.numpy(), np.asarray(expected), atol=atol)


def plain(builder: GltfBuilder | None = None, **node: Any) -> GltfBuilder:
    """A square with two targets at one node."""
    b = builder or GltfBuilder()
    mesh = b.mesh(b.primitive(SQUARE, FACES, [OPEN, SMILE]), names=["jawOpen", "mouthSmile_L"])
    b.node(mesh, **node)
    return b


@pytest.mark.parametrize("name", ["a.glb", "a.gltf"])
@pytest.mark.parametrize("data_uri", [False, True])
def test_containers(tmp_path: Path, name: str, data_uri: bool) -> None:
    rig = Rig.load(plain().save(tmp_path / name, data_uri))
    assert rig.name == "a"
    assert rig.weight_names == ("jawOpen", "mouthSmile_L")
    close(rig.neutral, SQUARE)
    close(rig.faces, FACES)
    close(rig.blendshapes, [OPEN, SMILE])
    assert {t.dtype for t in (rig.neutral, rig.blendshapes)} == {torch.float32}
    assert rig.faces.dtype == torch.int64
    assert rig.region_names == ("head",)
    assert rig.jaw is None and rig.uvs is None and rig.vertex_albedo is None and rig.texture is None


def test_targets_without_names_are_numbered(tmp_path: Path) -> None:
    b = GltfBuilder()
    b.node(b.mesh(b.primitive(SQUARE, FACES, [OPEN, SMILE])))
    assert Rig.load(b.save(tmp_path / "a.glb")).weight_names == ("target_000", "target_001")


def test_names_may_be_on_the_primitive(tmp_path: Path) -> None:
    b = GltfBuilder()
    primitive = b.primitive(SQUARE, FACES, [OPEN])
    primitive.extras = {"targetNames": ["jawOpen"]}
    b.node(b.mesh(primitive))
    assert Rig.load(b.save(tmp_path / "a.glb")).weight_names == ("jawOpen",)


@pytest.mark.parametrize("index_kind", ["B", "H", "I"])
def test_sparse_targets(tmp_path: Path, index_kind: str) -> None:
    b = GltfBuilder()
    on_zeros = b.sparse(4, [1, 3], [[1, 2, 3], [4, 5, 6]], index_kind=index_kind)
    on_base = b.sparse(4, [2], [[7, 8, 9]], base=OPEN, index_kind=index_kind)
    b.gltf.accessors.append(gl.Accessor(componentType=5126, count=4, type="VEC3"))
    b.node(b.mesh(b.primitive(SQUARE, FACES, [on_zeros, on_base, len(b.gltf.accessors) - 1])))
    rig = Rig.load(b.save(tmp_path / "a.glb"))
    close(rig.blendshapes[0], [[0, 0, 0], [1, 2, 3], [0, 0, 0], [4, 5, 6]])
    close(rig.blendshapes[1], [*OPEN[:2], [7, 8, 9], OPEN[3]])
    close(rig.blendshapes[2], np.zeros((4, 3)))


def test_interleaved_buffers(tmp_path: Path) -> None:
    b = GltfBuilder()
    record = np.zeros(4, dtype=[("position", "<f4", 3), ("uv", "<f4", 2), ("colour", "u1", 4), ("pad", "u1", 8)])
    record["position"], record["uv"] = SQUARE, [[0, 0], [1, 0], [1, 1], [0, 1]]
    record["colour"] = [[255, 0, 0, 9], [0, 255, 0, 9], [0, 0, 255, 9], [51, 102, 255, 9]]
    view = b.view(record.tobytes(), byteStride=record.itemsize)
    for offset, kind, count in ((0, 5126, "VEC3"), (12, 5126, "VEC2"), (20, 5121, "VEC4")):
        b.gltf.accessors.append(
            gl.Accessor(
                bufferView=view, byteOffset=offset, componentType=kind, count=4, type=count, normalized=kind == 5121
            )
        )
    b.node(b.mesh(b.primitive(0, FACES, [OPEN], TEXCOORD_0=1, COLOR_0=2)))
    rig = Rig.load(b.save(tmp_path / "a.glb"))
    close(rig.neutral, SQUARE)
    close(rig.vertex_albedo, [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.2, 0.4, 1]])
    close(rig.uvs, [[0, 1], [1, 1], [1, 0], [0, 0]])  # v turned up
    assert rig.uv_faces is not None and rig.uv_faces.tolist() == FACES


@pytest.mark.parametrize(("kind", "top"), [("b", 127), ("h", 32767), ("B", 255), ("H", 65535)])
def test_quantised_positions_and_targets(tmp_path: Path, kind: str, top: int) -> None:
    """KHR_mesh_quantization: normalised integers, with the scale in the node."""
    b = GltfBuilder()
    b.gltf.extensionsUsed = b.gltf.extensionsRequired = ["KHR_mesh_quantization"]
    stored = np.round(SQUARE / 0.1 * top).astype(kind)
    padded = np.zeros((4, 4), kind)
    padded[:, :3] = stored
    view = b.view(padded.tobytes(), byteStride=padded.strides[0])
    code = {"b": 5120, "B": 5121, "h": 5122, "H": 5123}[kind]
    b.gltf.accessors.append(gl.Accessor(bufferView=view, componentType=code, count=4, type="VEC3", normalized=True))
    b.node(b.mesh(b.primitive(0, FACES, [b.accessor(stored, kind, normalized=True)])), scale=[0.1, 0.1, 0.1])
    rig = Rig.load(b.save(tmp_path / "a.glb"))
    close(rig.neutral, SQUARE)
    close(rig.blendshapes[0], SQUARE)


def test_integers_that_are_not_normalised(tmp_path: Path) -> None:
    b = GltfBuilder()
    stored = b.accessor(SQUARE * 100, "h")
    b.node(b.mesh(b.primitive(stored, FACES, [stored])), scale=[0.01, 0.01, 0.01])
    close(Rig.load(b.save(tmp_path / "a.glb")).neutral, SQUARE)


@pytest.mark.parametrize("kind", ["B", "H", "I"])
def test_index_types(tmp_path: Path, kind: str) -> None:
    b = GltfBuilder()
    b.node(b.mesh(b.primitive(SQUARE, b.accessor(np.ravel(FACES), kind), [OPEN])))
    assert Rig.load(b.save(tmp_path / "a.glb")).faces.tolist() == FACES


def test_primitives_without_indices_strips_and_fans(tmp_path: Path) -> None:
    strip, fan = [0, 1, 3, 2], [0, 1, 2, 3]
    expected = {4: [[0, 1, 2]], 5: [[0, 1, 3], [1, 2, 3]], 6: FACES}
    for mode, indices in ((4, None), (5, strip), (6, fan)):
        b = GltfBuilder()
        positions = SQUARE[:3] if mode == 4 else SQUARE
        b.node(b.mesh(b.primitive(positions, indices, [positions], mode=mode)))
        found = Rig.load(b.save(tmp_path / "a.glb")).faces
        assert [sorted(t) for t in found.tolist()] == [sorted(t) for t in expected[mode]]
        a, c, d = (torch.from_numpy(positions).float()[found[:, i]] for i in range(3))
        assert bool((torch.linalg.cross(c - a, d - a)[:, 2] > 0).all())  # all wound alike


def test_strips_lose_their_joining_triangles(tmp_path: Path) -> None:
    b = GltfBuilder()
    b.node(b.mesh(b.primitive(SQUARE, [0, 1, 3, 3, 1, 1, 2, 3], [OPEN], mode=5)))
    assert len(Rig.load(b.save(tmp_path / "a.glb")).faces) == 2


TURN = Rotation.from_euler("xyz", [20, -35, 50], degrees=True)


def test_node_transforms_go_down_the_tree(tmp_path: Path) -> None:
    b = GltfBuilder()
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = 2 * Rotation.from_euler("z", 90, degrees=True).as_matrix(), [0, 0, 1]
    plain(b, root=False, translation=[0.1, 0.2, 0.3], rotation=TURN.as_quat().tolist(), scale=[1, 2, 3])
    b.node(children=[0], matrix=matrix.T.ravel().tolist())
    rig = Rig.load(b.save(tmp_path / "a.glb"))
    linear = matrix[:3, :3] @ TURN.as_matrix() @ np.diag([1, 2, 3])
    shift = matrix[:3, :3] @ [0.1, 0.2, 0.3] + matrix[:3, 3]
    close(rig.neutral, SQUARE @ linear.T + shift, atol=1e-6)
    close(rig.blendshapes, [OPEN @ linear.T, SMILE @ linear.T])


def test_a_mirrored_node_keeps_the_outside_out(tmp_path: Path) -> None:
    rig = Rig.load(plain(scale=[-1, 1, 1]).save(tmp_path / "a.glb"))
    a, b, c = (rig.neutral[rig.faces[:, i]] for i in range(3))
    assert bool((torch.linalg.cross(b - a, c - a)[:, 2] > 0).all())


def test_meshes_are_merged_the_face_first(tmp_path: Path) -> None:
    b = GltfBuilder()
    b.node(b.mesh(b.primitive(SQUARE, FACES), name="eye"), translation=[0, 0, 1])
    b.node(b.mesh(b.primitive(SQUARE, FACES, [OPEN]), names=["jawOpen"], name="teeth"), translation=[0, 0, 2])
    plain(b)
    rig = Rig.load(b.save(tmp_path / "a.glb"))
    assert rig.weight_names == ("jawOpen", "mouthSmile_L")
    close(rig.neutral, np.concatenate([SQUARE, SQUARE + np.array([0, 0, 2]), SQUARE + np.array([0, 0, 1])]))
    still = np.zeros((4, 3))
    close(rig.blendshapes, [np.concatenate([OPEN, OPEN, still]), np.concatenate([SMILE, still, still])])
    close(rig.faces, np.concatenate([np.array(FACES) + 4 * i for i in range(3)]))
    assert rig.region_names == ("head", "teeth", "eye")
    close(rig.face_regions, [0, 0, 1, 1, 2, 2])


def test_a_mesh_outside_the_scene_is_left_out(tmp_path: Path) -> None:
    b = plain()
    b.node(b.mesh(b.primitive(SQUARE, FACES), name="spare"), root=False)
    assert len(Rig.load(b.save(tmp_path / "a.glb")).neutral) == 4


def test_a_file_without_scenes_shows_every_root(tmp_path: Path) -> None:
    b = plain()
    path = b.save(tmp_path / "a.gltf")
    structure = json.loads(path.read_text())
    del structure["scenes"], structure["scene"]
    path.write_text(json.dumps(structure))
    assert len(Rig.load(path).neutral) == 4


def test_primitives_that_share_vertices_keep_them_once(tmp_path: Path) -> None:
    b = GltfBuilder()
    b.gltf.materials = [gl.Material(name="skin"), gl.Material(name="lips")]
    position, target = b.accessor(SQUARE), b.accessor(OPEN)
    parts = [b.primitive(position, [face], [target], material=i) for i, face in enumerate(FACES)]
    b.node(b.mesh(*parts, names=["jawOpen"]))
    rig = Rig.load(b.save(tmp_path / "a.glb"))
    assert len(rig.neutral) == 4
    assert rig.region_names == ("skin", "lips")
    close(rig.face_regions, [0, 1])


# -- seams -----------------------------------------------------------------------------------------------------------


def seam(tmp_path: Path, normals: Any, target: Any = None) -> Rig:
    """Two triangles of a square that do not share vertices, as an exporter splits them at a UV seam."""
    b = GltfBuilder()
    order = [0, 1, 2, 0, 2, 3]
    uvs = b.accessor([[0, 0], [0.4, 0], [0.4, 1], [0.6, 0], [1, 0.5], [1, 1]])
    keys = {"TEXCOORD_0": uvs} | ({} if normals is None else {"NORMAL": b.accessor(normals)})
    moved = OPEN[order] if target is None else target
    b.node(b.mesh(b.primitive(SQUARE[order], np.arange(6), [moved]), names=["jawOpen"]))
    for key, value in keys.items():
        setattr(b.gltf.meshes[0].primitives[0].attributes, key, value)
    return Rig.load(b.save(tmp_path / "a.glb"))


def test_uv_seams_are_closed_and_uvs_keep_them(tmp_path: Path) -> None:
    rig = seam(tmp_path, np.tile([0.0, 0, 1], (6, 1)))
    assert len(rig.neutral) == 6  # none is removed or renumbered
    assert rig.faces.tolist() == [[0, 1, 2], [0, 2, 5]]
    assert rig.uv_faces is not None and rig.uv_faces.tolist() == [[0, 1, 2], [3, 4, 5]]


def test_hard_edges_and_lips_stay_open(tmp_path: Path) -> None:
    apart = [[0, 1, 2], [3, 4, 5]]
    hard = np.repeat([[0, 0, 1.0], [0, 1, 0]], 3, axis=0)
    assert seam(tmp_path, hard).faces.tolist() == apart
    lips = OPEN[[0, 1, 2, 0, 2, 3]] + np.repeat([[0, 0, 0], [0, 0.01, 0]], 3, axis=0)
    assert seam(tmp_path, np.tile([0.0, 0, 1], (6, 1)), lips).faces.tolist() == apart
    assert seam(tmp_path, None).faces.tolist() == apart


def test_landmarks_on_a_closed_copy(tmp_path: Path) -> None:
    rig = seam(tmp_path, np.tile([0.0, 0, 1], (6, 1)))
    path = tmp_path / "landmarks.json"
    path.write_text(json.dumps({"indices": [3, 4] * 34}))  # the copies of 0 and 2
    marked = Rig.load(tmp_path / "a.glb", path)
    weights = torch.tensor([[0.7]])
    found = marked.landmarks(marked.local_vertices(weights))[0]
    close(found, rig.local_vertices(weights)[0][[3, 4] * 34])


# -- colours ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "top"), [("f", 1), ("B", 255), ("H", 65535)])
@pytest.mark.parametrize("channels", [3, 4])
def test_vertex_colours_are_linear(tmp_path: Path, kind: str, top: int, channels: int) -> None:
    colours = np.array([[0, 0.2, 1, 0.5], [1, 1, 1, 1], [0.4, 0.6, 0.8, 0], [0.2, 0.2, 0.2, 1]])[:, :channels]
    b = GltfBuilder()
    stored = b.accessor(np.round(colours * top) if top > 1 else colours, kind, normalized=top > 1)
    b.node(b.mesh(b.primitive(SQUARE, FACES, [OPEN], COLOR_0=stored)))
    close(Rig.load(b.save(tmp_path / "a.glb")).vertex_albedo, colours[:, :3], atol=1e-6)


def coloured_material(factor: list[float], texture: int | None = None, name: str = "skin", **info: Any) -> gl.Material:
    reference = None if texture is None else gl.TextureInfo(index=texture, **info)
    return gl.Material(
        name=name, pbrMetallicRoughness=gl.PbrMetallicRoughness(baseColorFactor=factor, baseColorTexture=reference)
    )


def test_base_colours_multiply_vertex_colours(tmp_path: Path) -> None:
    b = GltfBuilder()
    b.gltf.materials = [coloured_material([0.5, 0.25, 1, 1]), coloured_material([0.1, 0.2, 0.3, 1], name="eye")]
    colours = b.accessor(np.full((4, 3), 0.5))
    b.node(b.mesh(b.primitive(SQUARE, FACES, [OPEN], COLOR_0=colours, material=0)))
    b.node(b.mesh(b.primitive(SQUARE, FACES, material=1)))
    rig = Rig.load(b.save(tmp_path / "a.glb"))
    close(rig.vertex_albedo, [[0.25, 0.125, 0.5]] * 4 + [[0.1, 0.2, 0.3]] * 4)


# One colour per quarter; sRGB bytes, top row first.
PIXELS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [188, 188, 188]]], np.uint8)
UVS = [[0.25, 0.75], [0.75, 0.75], [0.75, 0.25], [0.25, 0.25]]  # glTF's: v runs down
LINEAR = [[0, 0, 1], [0.5029] * 3, [0, 1, 0], [1, 0, 0]]


def png() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, "png")
    return stream.getvalue()


def textured(b: GltfBuilder, image: gl.Image, factor: list[float] | None = None, **info: Any) -> GltfBuilder:
    b.gltf.images, b.gltf.textures = [image], [gl.Texture(source=0)]
    b.gltf.materials = [coloured_material(factor or [1.0, 1, 1, 1], 0, **info)]
    uvs = {f"TEXCOORD_{info.get('texCoord', 0)}": b.accessor(UVS)}
    b.node(b.mesh(b.primitive(SQUARE, FACES, [OPEN], material=0, **uvs)))
    return b


@pytest.mark.parametrize("where", ["embedded", "beside", "data"])
def test_one_texture_serves(tmp_path: Path, where: str) -> None:
    b = GltfBuilder()
    image = gl.Image(mimeType="image/png")
    if where == "embedded":
        image.bufferView = b.view(png())
    elif where == "beside":
        (tmp_path / "skin colour.png").write_bytes(png())
        image.uri = "skin%20colour.png"
    else:
        image.uri = "data:image/png;base64," + base64.b64encode(png()).decode()
    rig = Rig.load(textured(b, image, [1, 0.5, 1, 1]).save(tmp_path / "a.glb"))
    close(rig.texture, np.array([[[1, 0, 0], [0, 0.5, 0]], [[0, 0, 1], [0.5029, 0.25145, 0.5029]]]), atol=1e-4)
    assert rig.vertex_albedo is None
    close(rig.uvs, [[u, 1 - v] for u, v in UVS])


def test_the_material_chooses_its_uvs(tmp_path: Path) -> None:
    b = GltfBuilder()
    textured(b, gl.Image(bufferView=b.view(png()), mimeType="image/png"), texCoord=1)
    b.gltf.meshes[0].primitives[0].attributes.TEXCOORD_0 = b.accessor(np.zeros((4, 2)))
    close(Rig.load(b.save(tmp_path / "a.glb")).uvs, [[u, 1 - v] for u, v in UVS])


def test_several_looks_are_sampled_at_the_vertices(tmp_path: Path) -> None:
    b = GltfBuilder()
    textured(b, gl.Image(bufferView=b.view(png()), mimeType="image/png"))
    b.gltf.materials.append(coloured_material([0.1, 0.2, 0.3, 1], name="eye"))
    b.node(b.mesh(b.primitive(SQUARE, FACES, material=1)))
    rig = Rig.load(b.save(tmp_path / "a.glb"))
    assert rig.texture is None
    close(rig.vertex_albedo, LINEAR + [[0.1, 0.2, 0.3]] * 4, atol=1e-4)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (gl.Image(uri="absent.png"), "no readable image .*absent.png"),
        (gl.Image(uri="https://example.org/skin.png"), "the image at https.*nothing is fetched"),
        (gl.Image(uri="data:image/png;base64,AAAA"), "texture 0 that cannot be read"),
        (gl.Image(uri="data:image/png;base64,A"), "data: URI of the image that cannot be read"),
    ],
)
def test_unreadable_textures_are_refused(tmp_path: Path, image: gl.Image, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rig.load(textured(GltfBuilder(), image).save(tmp_path / "a.glb"))


def test_a_texture_transform_is_refused(tmp_path: Path) -> None:
    b = GltfBuilder()
    image = gl.Image(bufferView=b.view(png()), mimeType="image/png")
    textured(b, image, extensions={"KHR_texture_transform": {"offset": [0.5, 0]}})
    with refused(found="KHR_texture_transform", remedy="bake"):
        Rig.load(b.save(tmp_path / "a.glb"))


def test_a_texture_without_uvs_is_refused(tmp_path: Path) -> None:
    b = textured(GltfBuilder(), gl.Image(uri="skin.png"))
    (tmp_path / "skin.png").write_bytes(png())
    b.gltf.meshes[0].primitives[0].attributes.TEXCOORD_0 = None
    with refused(found="TEXCOORD_0"):
        Rig.load(b.save(tmp_path / "a.glb"))


# -- skins -----------------------------------------------------------------------------------------------------------


def skinned(
    names: tuple[str, str, str, str] = ("root", "spine", "jaw_jnt", "chin_tip"), scale: float = 1.0
) -> GltfBuilder:
    """The square, bound to root > spine > jaw > tip; the mesh's own node is moved, which skins ignore."""
    b = GltfBuilder()
    joints = b.accessor([[1, 0, 0, 0], [2, 1, 0, 0], [2, 3, 0, 0], [3, 0, 0, 0]], "B")
    weights = b.accessor([[1, 0, 0, 0], [0.25, 0.75, 0, 0], [0.5, 0.5, 0, 0], [1, 0, 0, 0]])
    worlds = [np.eye(4) for _ in range(4)]
    for world, y in zip(worlds, (0.0, 0.1, 0.15, 0.05), strict=True):
        world[1, 3] = y * scale
        world[:3, :3] *= scale
    inverse = b.accessor(np.stack([np.linalg.inv(w).T.ravel() for w in worlds]))
    mesh = b.mesh(b.primitive(SQUARE, FACES, [OPEN], JOINTS_0=joints, WEIGHTS_0=weights), names=["jawOpen"])
    b.node(mesh, skin=0, translation=[5, 5, 5])
    first = len(b.gltf.nodes)
    for i, (name, y) in enumerate(zip(names, (0.0, 0.1, 0.05, -0.1), strict=True)):
        children = [first + i + 1] if i < 3 else []
        b.node(root=i == 0, name=name, children=children, translation=[0, y, 0], scale=[scale if i == 0 else 1.0] * 3)
    b.gltf.skins = [gl.Skin(joints=[first + i for i in range(4)], inverseBindMatrices=inverse)]
    return b


@pytest.mark.parametrize("scale", [1.0, 0.01])
@pytest.mark.parametrize("name", ["jaw_jnt", "Mandible", "CC_Base_JawRoot", "C_JAW"])
def test_a_jaw_joint_becomes_the_rigs_jaw(tmp_path: Path, name: str, scale: float) -> None:
    rig = Rig.load(skinned(("root", "spine", name, "chin_tip"), scale).save(tmp_path / "a.glb"))
    assert rig.jaw is not None
    close(rig.jaw.pivot, [0, 0.15 * scale, 0])
    close(rig.jaw.skin_weights, [0, 0.25, 1, 1])
    close(rig.neutral, SQUARE)
    close(rig.blendshapes[0], OPEN)


def test_a_chin_joint_serves_where_no_jaw_is(tmp_path: Path) -> None:
    rig = Rig.load(skinned(("root", "spine", "upperJaw", "chin")).save(tmp_path / "a.glb"))
    assert rig.jaw is not None
    close(rig.jaw.skin_weights, [0, 0, 0.5, 1])
    close(rig.jaw.pivot, [0, 0.05, 0])


def test_a_skin_without_jaw(tmp_path: Path) -> None:
    assert Rig.load(skinned(("a", "b", "c", "d")).save(tmp_path / "a.glb")).jaw is None


def test_a_jaw_without_weights_is_none(tmp_path: Path) -> None:
    b = skinned(("jaw_end", "b", "c", "d"))
    b.gltf.nodes[1].children = []
    b.roots.append(2)
    assert Rig.load(b.save(tmp_path / "a.glb")).jaw is None


def test_posed_joints_bend_the_mesh_as_viewers_do(tmp_path: Path) -> None:
    b = skinned()
    turn = Rotation.from_euler("x", 30, degrees=True)
    b.gltf.nodes[3].rotation = turn.as_quat().tolist()
    rig = Rig.load(b.save(tmp_path / "a.glb"))
    pivot, share = np.array([0, 0.15, 0]), np.array([0, 0.25, 1, 1])[:, None]
    turned = turn.apply(SQUARE - pivot) + pivot
    close(rig.neutral, SQUARE + share * (turned - SQUARE), atol=1e-6)
    close(rig.blendshapes[0], OPEN + share * (turn.apply(OPEN) - OPEN), atol=1e-6)


def test_teeth_parented_to_the_jaw_follow_it(tmp_path: Path) -> None:
    b = skinned()
    teeth = b.node(b.mesh(b.primitive(SQUARE, FACES), name="teeth"), root=False)
    b.gltf.nodes[3].children = [*(b.gltf.nodes[3].children or []), teeth]
    rig = Rig.load(b.save(tmp_path / "a.glb"))
    assert rig.jaw is not None
    close(rig.jaw.skin_weights, [0, 0.25, 1, 1, 1, 1, 1, 1])
    close(rig.neutral[4:], SQUARE + np.array([0, 0.15, 0]))


def test_normalised_skin_weights_and_a_second_set(tmp_path: Path) -> None:
    b = skinned()
    attributes: Any = b.gltf.meshes[0].primitives[0].attributes
    attributes.WEIGHTS_0 = b.accessor(
        [[255, 0, 0, 0], [64, 191, 0, 0], [0, 255, 0, 0], [255, 0, 0, 0]], "B", normalized=True
    )
    attributes.JOINTS_1 = b.accessor([[1, 0, 0, 0]] * 4, "H")
    attributes.WEIGHTS_1 = b.accessor([[0.0] * 4, [0.0] * 4, [1.0, 0, 0, 0], [0.0] * 4])
    rig = Rig.load(b.save(tmp_path / "a.glb"))
    assert rig.jaw is not None
    close(rig.jaw.skin_weights, [0, 64 / 255, 0.5, 1], atol=1e-6)


# -- files that are refused ------------------------------------------------------------------------------------------


def test_no_morph_targets(tmp_path: Path) -> None:
    b = GltfBuilder()
    b.node(b.mesh(b.primitive(SQUARE, FACES)))
    with refused("a.glb", found="morph targets", remedy="export"):
        Rig.load(b.save(tmp_path / "a.glb"))


def test_no_mesh(tmp_path: Path) -> None:
    b = GltfBuilder()
    b.node()
    with pytest.raises(InputError, match="no mesh in the scene"):
        Rig.load(b.save(tmp_path / "a.glb"))


@pytest.mark.parametrize("extension", ["KHR_draco_mesh_compression", "EXT_meshopt_compression", "ACME_secret"])
def test_required_extensions(tmp_path: Path, extension: str) -> None:
    b = plain()
    b.gltf.extensionsUsed = b.gltf.extensionsRequired = [extension]
    with refused(found=extension, remedy="export without"):
        Rig.load(b.save(tmp_path / "a.glb"))


def test_draco_without_plain_data(tmp_path: Path) -> None:
    b = plain()
    b.gltf.meshes[0].primitives[0].extensions = {"KHR_draco_mesh_compression": {"bufferView": 0, "attributes": {}}}
    b.gltf.accessors[0].bufferView = None
    with refused(found="KHR_draco_mesh_compression", remedy="Draco"):
        Rig.load(b.save(tmp_path / "a.glb"))


@pytest.mark.parametrize(("mode", "name"), [(0, "POINTS"), (1, "LINES"), (3, "LINE_STRIP")])
def test_other_primitives(tmp_path: Path, mode: int, name: str) -> None:
    b = GltfBuilder()
    b.node(b.mesh(b.primitive(SQUARE, FACES, [OPEN], mode=mode)))
    with pytest.raises(InputError, match=f"mode {name}; expected triangles"):
        Rig.load(b.save(tmp_path / "a.glb"))


def with_value(path: Path, where: str, value: Any) -> Path:
    """Put a value into the JSON of a .gltf, at a place such as `accessors[0].count`."""
    structure = json.loads(path.read_text())
    *keys, last = (int(key) if key.isdigit() else key for key in re.findall(r"\w+", where))
    item: Any = structure
    for key in keys:
        item = item[key]
    item[last] = value
    path.write_text(json.dumps(structure))
    return path


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("scene", 3, "reference to scene 3"),
        ("scenes[0].nodes[0]", 9, "reference to node 9"),
        ("nodes[0].mesh", 4, "reference to mesh 4; expected mesh 0..0"),
        ("nodes[0].skin", 0, "reference to skin 0"),
        ("nodes[0].children", [0], "their own ancestors"),
        ("nodes[0].scale", [1, 1], r"scale \[1.0, 1.0\]"),
        ("nodes[0].matrix", [float("nan")] * 16, "matrix"),
        ("meshes[0].primitives[0].indices", 77, "reference to accessor 77"),
        ("meshes[0].primitives[0].material", 0, "reference to material 0"),
        ("meshes[0].primitives[0].attributes.POSITION", None, "without positions"),
        ("meshes[0].primitives[0].attributes.COLOR_0", 1, "type SCALAR; expected VEC3 or VEC4"),
        ("meshes[0].extras", {"targetNames": ["one"]}, "1 targetNames in mesh 'head'; expected 2"),
        ("meshes[0].extras", {"targetNames": ["a", "a"]}, r"targetNames \['a'\] twice"),
        ("accessors[0].type", "VEC2", "type VEC2; expected VEC3"),
        ("accessors[0].componentType", 5130, "component type 5130"),
        ("accessors[0].count", 5, "ends at byte 60 of its view; expected at most 48"),
        ("accessors[0].count", 0, "count 0"),
        ("accessors[0].count", "four", "cannot be read"),
        ("accessors[0].byteOffset", 4, "ends at byte 52"),
        ("accessors[2].count", 3, "3 vertices in target 'jawOpen'; expected 4"),
        ("accessors[1].count", 5, "5 vertex indices in a primitive; expected three per triangle"),
        ("bufferViews[0].byteLength", 10**6, "bufferView 0 that ends at byte 1000000"),
        ("bufferViews[0].buffer", 2, "reference to buffer 2"),
        ("bufferViews[0].byteStride", 4, "stride 4"),
        ("asset.version", "1.0", "glTF version '1.0'"),
        ("nodes[0].translation", "up", "cannot be read|translation"),
    ],
)
def test_broken_references(tmp_path: Path, where: str, value: Any, message: str) -> None:
    path = with_value(plain().save(tmp_path / "a.gltf"), where, value)
    with pytest.raises(InputError, match=message) as caught:
        Rig.load(path)
    assert "a.gltf" in str(caught.value)


def test_a_vertex_index_out_of_range(tmp_path: Path) -> None:
    b = GltfBuilder()
    b.node(b.mesh(b.primitive(SQUARE, [[0, 1, 4]], [OPEN])))
    with pytest.raises(InputError, match=r"vertex index 4; expected 0\.\.3"):
        Rig.load(b.save(tmp_path / "a.glb"))


def test_a_sparse_index_out_of_range(tmp_path: Path) -> None:
    b = GltfBuilder()
    b.node(b.mesh(b.primitive(SQUARE, FACES, [b.sparse(4, [4], [[1, 1, 1]])])))
    with pytest.raises(InputError, match="sparse index 4"):
        Rig.load(b.save(tmp_path / "a.glb"))


def test_nan_positions(tmp_path: Path) -> None:
    b = GltfBuilder()
    bad = SQUARE.copy()
    bad[2, 1] = np.nan
    b.node(b.mesh(b.primitive(bad, FACES, [OPEN])))
    with pytest.raises(InputError, match="rig 'a' neutral: found NaN"):
        Rig.load(b.save(tmp_path / "a.glb"))


def test_skin_weights_that_sum_to_zero(tmp_path: Path) -> None:
    b = skinned()
    b.gltf.meshes[0].primitives[0].attributes.WEIGHTS_0 = b.accessor([[1.0, 0, 0, 0]] * 3 + [[0.0] * 4])
    with pytest.raises(InputError, match="1 vertices whose skin weights sum to zero"):
        Rig.load(b.save(tmp_path / "a.glb"))


def test_a_buffer_file_that_is_absent_or_short(tmp_path: Path) -> None:
    path = plain().save(tmp_path / "a.gltf")
    beside = tmp_path / "a data.bin"
    beside.write_bytes(beside.read_bytes()[:-8])
    with pytest.raises(InputError, match="a buffer of .* cut off"):
        Rig.load(path)
    beside.unlink()
    with refused(found="a data.bin", remedy="together"):
        Rig.load(path)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = plain().save(tmp_path / "a.glb").read_bytes()
    path = tmp_path / "cut.glb"
    for length in [*range(0, 40), *range(40, len(whole), 97), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"cut\.glb"):
            Rig.load(path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.glb", b"not a glb at all, but long enough", "starts with b'not '"),
        ("a.glb", struct.pack("<4sII", b"glTF", 1, 20) + b"\0" * 8, "GLB version 1"),
        ("a.glb", struct.pack("<4sIIII", b"glTF", 2, 20, 0, 0x1234), "without a JSON chunk"),
        ("a.gltf", b"{", "JSON that cannot be read"),
        ("a.gltf", b"\xff\xfe", "JSON that cannot be read"),
        ("a.gltf", b"[]", "glTF version ''"),
        ("a.gltf", b'{"asset": 3}', "glTF version ''"),
        ("a.gltf", b'{"asset": {"version": "2.0"}, "meshes": 3}', "cannot be read"),
        ("a.gltf", b'{"asset": {"version": "2.0"}}', "no mesh in the scene"),
    ],
)
def test_other_files(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        Rig.load(tmp_path / name)


VALUES = st.one_of(
    st.none(), st.integers(-2, 9), st.just(10**12), st.floats(), st.text(max_size=3), st.just([]), st.just({})
)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.integers(0, 10_000), VALUES)
def test_any_wrong_value_is_an_input_error(tmp_path: Path, which: int, value: Any) -> None:
    """Replace one value anywhere in the JSON: the file still reads, or an InputError says why not."""
    path = tmp_path / "fuzz.gltf"
    structure = json.loads(_skinned_json(tmp_path))
    places: list[tuple[Any, Any]] = []

    def walk(item: Any) -> None:
        keys = item.keys() if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ()
        for key in keys:
            places.append((item, key))
            walk(item[key])

    walk(structure)
    container, key = places[which % len(places)]
    container[key] = value
    path.write_text(json.dumps(structure))
    assert "\n" not in _complaint(path)


def _complaint(path: Path) -> str:
    try:
        Rig.load(path)
    except InputError as error:
        return str(error)
    return ""


def _skinned_json(folder: Path) -> str:
    path = folder / "whole.gltf"
    if not path.exists():
        b = skinned()
        textured(b, gl.Image(bufferView=b.view(png()), mimeType="image/png"))
        b.save(path, data_uri=True)
        Rig.load(path)
    return path.read_text()


# -- real files ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def actors(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Rig and landmarks of every actor."""
    unpacked = tmp_path_factory.mktemp("rigs") / "ict_b.glb"
    unpacked.write_bytes(lzma.decompress((test_data / "rigs/ict_b.glb.xz").read_bytes()))
    shot, rigs = test_data / "shots/ict_stereo", test_data / "rigs"
    return {
        "actor": (shot / "actor.glb", shot / "landmarks.json"),
        "facecap": (rigs / "facecap.glb", rigs / "facecap.landmarks.json"),
        "ict_b": (unpacked, rigs / "ict_b.landmarks.json"),
    }


@pytest.mark.parametrize("name", ["actor", "facecap", "ict_b"])
def test_real_rigs(actors: dict[str, tuple[Path, Path]], name: str) -> None:
    start = time.perf_counter()
    rig = Rig.load(*actors[name])
    assert time.perf_counter() - start < 4
    scene: Any = trimesh.load(str(actors[name][0]), process=False)
    ordered = sorted(scene.geometry, key=lambda n: -len(scene.geometry[n].vertices))
    theirs = [
        trimesh.transform_points(scene.geometry[n].vertices, scene.graph.get(scene.graph.geometry_nodes[n][0])[0])
        for n in ordered
    ]
    triangles = np.concatenate([t[scene.geometry[n].faces] for n, t in zip(ordered, theirs, strict=True)])
    close(rig.neutral[: len(theirs[0])], theirs[0], atol=1e-6)
    close(rig.neutral.sort(0).values, np.sort(np.concatenate(theirs), 0), atol=1e-6)
    close(rig.neutral[rig.faces].sum((0, 1)), triangles.sum((0, 1)), atol=1e-2)
    assert rig.groups["other"] == ()
    assert rig.uvs is not None and rig.vertex_albedo is not None
    assert 0.01 < float(rig.vertex_albedo.mean()) < 0.9
    eyes = rig.landmarks(rig.neutral[None])[0, [36, 45]]
    assert 0.06 < float((eyes[1] - eyes[0]).norm()) < 0.11
    assert eyes[1, 0] > 0 > eyes[0, 0]


@pytest.mark.parametrize("name", ["actor", "facecap", "ict_b"])
def test_real_rigs_have_no_open_uv_seams(actors: dict[str, tuple[Path, Path]], name: str) -> None:
    rig = Rig.load(*actors[name])
    # No two vertices that triangles use agree in place, and in every displacement, and in their normals' side.
    used = torch.unique(rig.faces)
    rows = torch.cat([rig.neutral[used], rig.blendshapes[:, used].permute(1, 0, 2).reshape(len(used), -1)], 1)
    doubles = len(used) - len(torch.unique(rows, dim=0))
    assert doubles < 0.01 * len(used)


def test_the_shots_landmarks_are_the_ground_truth(actors: dict[str, tuple[Path, Path]], test_data: Path) -> None:
    rig = Rig.load(*actors["actor"])
    truth = np.load(test_data / "shots/ict_stereo/ground_truth.npz")
    assert tuple(truth["target_names"]) == rig.weight_names
    count = len(truth["frame"])
    state = State(
        torch.from_numpy(truth["R"]).double(),
        torch.from_numpy(truth["t"]).double(),
        torch.zeros(count, 6, dtype=torch.float64),
        torch.from_numpy(truth["weights"]).double(),
    )
    close(rig.landmarks(rig.vertices(state)), truth["landmarks_world"], atol=1e-6)


def test_facecap_keeps_its_eyes(actors: dict[str, tuple[Path, Path]]) -> None:
    rig = Rig.load(*actors["facecap"])
    assert len(rig.neutral) == 3308 + 2 * 530
    assert not bool(rig.blendshapes[:, 3308:].any())
    for side in (1, -1):
        ball = rig.neutral[3308:][rig.neutral[3308:, 0] * side > 0]
        corners = rig.landmarks(rig.neutral[None])[0, 42 : 48 if side > 0 else 42] if side > 0 else None
        assert 0.005 < float((ball.max(0).values - ball.min(0).values).max()) < 0.05
        if corners is not None:
            assert float((ball.mean(0) - corners.mean(0)).norm()) < 0.025


# -- landmark files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[1]", "a JSON list"),
        ("{}", r"the keys \[\]; expected"),
        ({"indices": list(range(4)) * 16}, "64 numbers; expected 68"),
        ({"indices": [0] * 67 + [4]}, r"indices: found 0\.\.4; expected 0\.\.3"),
        ({"indices": [0] * 67 + [-1]}, r"-1\.\.0"),
        ({"indices": [0] * 67 + [1.5]}, "whole numbers"),
        ({"indices": [0] * 67 + [True]}, "whole numbers"),
        ({"indices": "all"}, "whole numbers"),
        ({"faces": [0] * 68}, "the keys"),
        ({"faces": [2] * 68, "barycentrics": [[1, 0, 0]] * 68}, r"faces: found 2\.\.2; expected 0\.\.1"),
        ({"faces": [0] * 68, "barycentrics": [[1, 0, 0]] * 67}, "barycentrics: found shape"),
        ({"faces": [0] * 68, "barycentrics": [[1, 0, 0]] * 67 + [[0.5, 0, 0]]}, "at point 67; expected shares"),
        ({"faces": [0] * 68, "barycentrics": [[float("nan"), 0, 0]] * 68}, "at point 0; expected shares"),
        ({"faces": [0] * 68, "barycentrics": [[1, 0]] * 67 + [[1]]}, "68 triples"),
    ],
)
def test_wrong_landmarks_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    rig, path = plain().save(tmp_path / "a.glb"), tmp_path / "marks.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(InputError, match=message) as caught:
        Rig.load(rig, path)
    assert "marks.json" in str(caught.value)


def test_landmarks_as_points_in_triangles(tmp_path: Path) -> None:
    path = tmp_path / "marks.json"
    path.write_text(json.dumps({"faces": [1] * 68, "barycentrics": [[0.2, 0.3, 0.5]] * 68, "note": "x"}))
    rig = Rig.load(plain().save(tmp_path / "a.glb"), path)
    close(rig.landmarks(rig.neutral[None])[0, 5], np.array([0.2, 0.3, 0.5]) @ SQUARE[[0, 2, 3]])


def test_absent_landmarks_and_a_stray_vertex(tmp_path: Path) -> None:
    b = GltfBuilder()
    b.node(b.mesh(b.primitive(np.concatenate([SQUARE, [[9, 9, 9]]]), FACES, [np.zeros((5, 3))])))
    rig, path = b.save(tmp_path / "a.glb"), tmp_path / "marks.json"
    with pytest.raises(InputError, match=r"marks\.json: found no readable file"):
        Rig.load(rig, path)
    path.write_text(json.dumps({"indices": [0] * 67 + [4]}))
    with pytest.raises(InputError, match="vertex 4 at point 67, which no triangle uses"):
        Rig.load(rig, path)
