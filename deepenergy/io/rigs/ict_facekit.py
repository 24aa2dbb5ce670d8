"""Reads the ICT-FaceKit face model: a folder of Wavefront OBJ files of one topology, in centimetres.

`generic_neutral_mesh.obj` is the neutral, `<expression>.obj` and `identityNNN.obj` are whole meshes whose difference
from the neutral is the blendshape or identity displacement; `vertex_indices.json` lists the expressions and the 68
iBUG landmark vertices.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepenergy.runtime.errors import InputError
from deepenergy.scene.landmark_layout import IBUG_68
from deepenergy.scene.rig import Rig
from deepenergy.scene.rig_paint import EYE_ALBEDO, IRIS_ALBEDO, SKIN_ALBEDO, paint_brows_and_lips, paint_iris

METRES_PER_UNIT = 0.01
NEUTRAL = "generic_neutral_mesh"
KIT = "a complete copy of the kit's FaceXModel folder"

# Material -> region. The regions of HELPERS are see-through films in front of the eye, and the iris ball lies wholly
# inside the scleral shell: drawn opaque they would hide the eye, or never be seen.
MATERIAL_REGIONS = {
    "M_Face": "skin",
    "M_BackHead": "head",
    "M_GumsTongue": "mouth",
    "M_Teeth": "teeth",
    "M_ScleraLeft": "eyes",
    "M_ScleraRight": "eyes",
    "M_IrisLeft": "iris",
    "M_IrisRight": "iris",
    "M_LacrimalFluid": "lacrimal",
    "M_EyeBlend": "eye_blend",
    "M_EyeOcclusion": "eye_occlusion",
    "M_EyeLashes": "lashes",
}
HELPERS = ("iris", "lacrimal", "eye_blend", "eye_occlusion", "lashes")

# The kit's documentation gives vertex ranges; M_BackHead also covers these cavities, which must not be lit like skin.
KIT_VERTICES = 26719
CAVITIES = {"mouth": (11248, 13294), "eye_socket": (13294, 14062)}

# Scene-linear.
REGION_ALBEDO = {
    "skin": SKIN_ALBEDO,
    "head": SKIN_ALBEDO,
    "mouth": (0.22, 0.045, 0.04),
    "eye_socket": (0.30, 0.12, 0.09),
    "teeth": (0.62, 0.58, 0.48),
    "eyes": EYE_ALBEDO,
    "iris": IRIS_ALBEDO,
    "lashes": (0.02, 0.015, 0.01),
}
OTHER_ALBEDO = SKIN_ALBEDO


@dataclass(frozen=True)
class _Surface:
    """Triangles of the neutral: vertex and texture-coordinate indices `[F, 3]`, and a material index `[F]`."""

    vertices: np.ndarray
    uvs: np.ndarray
    materials: np.ndarray
    material_names: tuple[str, ...]


def read_rig(path: Path, keep_helpers: bool = False) -> Rig:
    """Read an ICT-FaceKit folder as a rig in metres: expressions as blendshapes, identity shapes as identity basis.

    Quads are triangulated. Materials become face regions (skin, head, mouth, teeth, eyes, eye_socket, ...).
    `vertex_albedo` is a plain colour for every region, with irises, brows and lips painted on. `jaw` is None: the kit's
    jaw is blendshapes.

    Args:
        path: the folder with the OBJ files, or one that contains `FaceXModel`.
        keep_helpers: keep the parts that only a renderer with transparency can use (the inner iris balls, lacrimal
            fluid, eye blend, eye occlusion, lashes); their vertices are left out otherwise.

    Raises:
        InputError: no kit in the folder, an OBJ missing or of another topology, a malformed OBJ or index file.
    """
    folder = _model_folder(Path(path))
    index = _read_index(folder / "vertex_indices.json")
    neutral_path = folder / f"{NEUTRAL}.obj"
    text = _read_bytes(neutral_path)
    neutral = _positions(text, neutral_path)
    uvs = _numbers(rb"vt", text, neutral_path)[:, :2]
    surface = _surface(text, neutral_path, neutral.shape[0], uvs.shape[0])
    regions, region_names = _regions(surface, neutral.shape[0])

    expressions = index["expressions"]
    identities = sorted(p.stem for p in folder.glob("identity*.obj"))
    shapes = _displacements(folder, expressions, neutral)
    basis = _displacements(folder, identities, neutral)

    if not keep_helpers:
        wanted = np.isin(regions, [i for i, name in enumerate(region_names) if name not in HELPERS])
        surface = _Surface(
            surface.vertices[wanted], surface.uvs[wanted], surface.materials[wanted], surface.material_names
        )
        regions = regions[wanted]
    if len(surface.vertices) == 0:
        raise InputError(f"rig {neutral_path}", "no triangles to keep", "the kit's face mesh", f"use {KIT}")
    landmarks = np.asarray(index["idx_to_landmark_verts"], dtype=np.int64)
    if landmarks.min() < 0 or landmarks.max() >= neutral.shape[0]:
        raise InputError(
            f"rig {folder / 'vertex_indices.json'} idx_to_landmark_verts",
            f"vertex indices {landmarks.min()}..{landmarks.max()}",
            f"0..{neutral.shape[0] - 1}",
            f"use {KIT}",
        )
    used, corner_vertices = np.unique(surface.vertices, return_inverse=True)
    used_uvs, corner_uvs = np.unique(surface.uvs, return_inverse=True)
    renumbered = np.full(neutral.shape[0], -1, dtype=np.int64)
    renumbered[used] = np.arange(len(used))
    if (renumbered[landmarks] < 0).any():
        raise InputError(
            f"rig {folder / 'vertex_indices.json'} idx_to_landmark_verts",
            f"vertices {landmarks[renumbered[landmarks] < 0].tolist()} that are on no kept triangle",
            "68 vertices of the face",
            f"use {KIT}",
        )

    used_regions, regions = np.unique(regions, return_inverse=True)
    names = tuple(region_names[i] for i in used_regions)
    faces = corner_vertices.reshape(-1, 3)
    positions = neutral[used] * METRES_PER_UNIT
    rig = Rig(
        name=(folder.parent.name or folder.name) if folder.name == "FaceXModel" else folder.name,
        neutral=_float32(positions),
        faces=torch.from_numpy(faces.astype(np.int64)),
        blendshapes=_float32(shapes[:, used] * METRES_PER_UNIT),
        weight_names=tuple(expressions),
        uvs=_float32(uvs[used_uvs]),
        uv_faces=torch.from_numpy(corner_uvs.reshape(-1, 3).astype(np.int64)),
        vertex_albedo=_float32(_albedo(positions, faces, regions, names, renumbered[landmarks])),
        face_regions=torch.from_numpy(regions.reshape(-1).astype(np.int64)),
        region_names=names,
        identity_basis=_float32(basis[:, used] * METRES_PER_UNIT) if identities else None,
        identity_names=tuple(identities),
    )
    return rig.with_landmark_vertices(torch.from_numpy(renumbered[landmarks]))


def _model_folder(path: Path) -> Path:
    for folder in (path, path / "FaceXModel"):
        if (folder / f"{NEUTRAL}.obj").is_file():
            return folder
    raise InputError(
        f"rig {path}",
        f"a folder without {NEUTRAL}.obj",
        "an ICT-FaceKit folder (with the OBJ files, or with FaceXModel in it)",
        "give the kit's folder, or a .glb, .gltf or .npz file",
    )


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"rig {path}", f"no readable file ({error.strerror})", "an OBJ file", f"use {KIT}") from error


def _read_index(path: Path) -> dict[str, list[Any]]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        found = f"no readable file ({error.strerror})"
        raise InputError(f"rig {path}", found, "the index file", f"use {KIT}") from error
    except ValueError as error:
        found = f"text that is not JSON ({error})"
        raise InputError(f"rig {path}", found, "the index file", f"use {KIT}") from error
    for key, kind, what in (("expressions", str, "names"), ("idx_to_landmark_verts", int, "vertex indices")):
        values = index.get(key) if isinstance(index, dict) else None
        good = isinstance(values, list) and all(isinstance(v, kind) and not isinstance(v, bool) for v in values)
        if not good:
            raise InputError(f"rig {path} {key}", f"{str(values)[:60]}", f"a list of {what}", f"use {KIT}")
    count = len(index["idx_to_landmark_verts"])
    if count != IBUG_68.count:
        raise InputError(
            f"rig {path} idx_to_landmark_verts", f"{count} vertices", f"{IBUG_68.count}, in iBUG order", f"use {KIT}"
        )
    return index


def _numbers(keyword: bytes, text: bytes, path: Path) -> np.ndarray:
    """`[N, 2..]` values of all lines of one keyword (v, vt)."""
    lines = re.findall(rb"^" + keyword + rb"[ \t]+(.*)$", text, re.MULTILINE)
    try:
        values = np.array(b" ".join(lines).split(), dtype=np.float64)
        return values.reshape(len(lines), -1) if lines else np.zeros((0, 3))
    except ValueError as error:
        raise InputError(
            f"rig {path}",
            f"a '{keyword.decode()}' line that cannot be read ({error})",
            "numbers, as many in every line",
            f"use {KIT}",
        ) from error


def _positions(text: bytes, path: Path) -> np.ndarray:
    values = _numbers(b"v", text, path)
    if values.shape[0] == 0 or values.shape[1] < 3:
        raise InputError(f"rig {path}", f"vertices of shape {values.shape}", "'v x y z' lines", f"use {KIT}")
    values = values[:, :3]
    if not np.isfinite(values).all():
        raise InputError(f"rig {path}", "NaN or infinity in a vertex", "finite centimetres", f"use {KIT}")
    return values


def _displacements(folder: Path, names: list[str], neutral: np.ndarray) -> np.ndarray:
    """`[N, V, 3]` differences of the named OBJs from the neutral."""
    shapes = np.empty((len(names), *neutral.shape))
    for number, name in enumerate(names):
        path = folder / f"{name}.obj"
        positions = _positions(_read_bytes(path), path)
        if positions.shape != neutral.shape:
            raise InputError(
                f"rig {path}", f"{len(positions)} vertices", f"{len(neutral)}, as {NEUTRAL}.obj has", f"use {KIT}"
            )
        shapes[number] = positions - neutral
    return shapes


def _surface(text: bytes, path: Path, vertices: int, uvs: int) -> _Surface:
    corners: list[tuple[bytes, bytes, bytes]] = []
    materials: list[int] = []
    names: dict[str, int] = {}
    current = 0
    for keyword, rest in re.findall(rb"^(usemtl|f)[ \t]+(.*)$", text, re.MULTILINE):
        if keyword == b"usemtl":
            current = names.setdefault(rest.strip().decode("utf-8", "replace"), len(names))
            continue
        polygon = rest.split()
        if not names:
            names["default"] = 0
        for second, third in pairwise(polygon[1:]):
            corners.append((polygon[0], second, third))
            materials.append(current)
    split = [corner.split(b"/") for triangle in corners for corner in triangle]
    try:
        table = np.array([(c[0], c[1]) for c in split], dtype=np.int64).reshape(-1, 3, 2) - 1
    except (IndexError, ValueError) as error:
        raise InputError(
            f"rig {path}", "a face without vertex/texture indices", "'f v/vt v/vt v/vt ...' lines", f"use {KIT}"
        ) from error
    if len(table) == 0:
        raise InputError(f"rig {path}", "no faces", "'f v/vt v/vt v/vt ...' lines", f"use {KIT}")
    if table.min() < 0 or table[..., 0].max() >= vertices or table[..., 1].max() >= uvs:
        raise InputError(
            f"rig {path}",
            f"face indices up to {table[..., 0].max() + 1}/{table[..., 1].max() + 1}",
            f"1..{vertices} vertices and 1..{uvs} texture coordinates",
            f"use {KIT}",
        )
    return _Surface(table[..., 0], table[..., 1], np.array(materials), tuple(names))


def _regions(surface: _Surface, vertices: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """Region index of every triangle, and the region names. An unknown material is its own region."""
    materials = [MATERIAL_REGIONS.get(name, name) for name in surface.material_names]
    names = tuple(dict.fromkeys([*materials, *CAVITIES]))
    regions = np.array([names.index(name) for name in materials])[surface.materials]
    if vertices == KIT_VERTICES and "M_BackHead" in surface.material_names:
        back = surface.materials == surface.material_names.index("M_BackHead")
        for name, (start, stop) in CAVITIES.items():
            inside = ((surface.vertices >= start) & (surface.vertices < stop)).any(1)
            regions[back & inside] = names.index(name)
    return regions, names


def _albedo(
    positions: np.ndarray, faces: np.ndarray, regions: np.ndarray, names: tuple[str, ...], landmarks: np.ndarray
) -> np.ndarray:
    """`[V, 3]` plain colours; a vertex shared by regions has the colour of the one listed first (skin wins)."""
    albedo = np.tile(np.array(OTHER_ALBEDO), (len(positions), 1))
    for region in reversed(range(len(names))):
        albedo[faces[regions == region].reshape(-1)] = REGION_ALBEDO.get(names[region], OTHER_ALBEDO)
    if "eyes" in names:
        eyes = np.unique(faces[regions == names.index("eyes")])
        for side in (eyes[positions[eyes, 0] > 0], eyes[positions[eyes, 0] <= 0]):
            if len(side):
                paint_iris(albedo, positions, side)
    if "skin" in names:
        skin = np.unique(faces[regions == names.index("skin")])
        paint_brows_and_lips(albedo, positions, skin, positions[landmarks])
    return albedo


def _float32(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
