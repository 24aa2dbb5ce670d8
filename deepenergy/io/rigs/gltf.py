"""Reads a rigged face from glTF 2.0 (.glb, .gltf): meshes with morph targets become one `Rig`.

All meshes of the scene are merged, the one with most morph targets first, so that vertex numbers counted within the
face mesh stay valid; targets of the same name are one blendshape. A mesh without targets (an eye, teeth) is kept and
does not move with the weights. Vertices are placed by their nodes, or by their skin at the joints' own pose.

Exporters split vertices at UV and material seams. The triangles of the rig join such copies again where position,
normal and every displacement agree, so that the surface is closed and smooth there; `uv_faces` keeps the seam. No
vertex is removed or renumbered: a copy may be left in no triangle, and moves like its twin.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deepenergy.io.rigs.gltf_file import GltfFile
from deepenergy.io.rigs.gltf_material import Material, bake_albedo, read_material, shared_texture
from deepenergy.io.rigs.gltf_nodes import NodeTree
from deepenergy.runtime.errors import InputError
from deepenergy.scene.rig import Jaw, Rig

TRIANGLES, TRIANGLE_STRIP, TRIANGLE_FAN = 4, 5, 6
MODE_NAMES = {0: "POINTS", 1: "LINES", 2: "LINE_LOOP", 3: "LINE_STRIP"}
COMPRESSION = "KHR_draco_mesh_compression"


@dataclass
class _Part:
    """The vertices that some primitives of a mesh share, in object space, and those primitives' triangles."""

    positions: np.ndarray
    targets: dict[str, np.ndarray]
    jaw: np.ndarray
    colours: np.ndarray | None
    uvs: np.ndarray | None
    identity: np.ndarray | None
    triangles: list[np.ndarray] = field(default_factory=list)
    materials: list[Material] = field(default_factory=list)


def read_rig(path: Path) -> Rig:
    """Read a glTF or GLB file as a rig (metres, +Y up, as glTF has them).

    The weights' names are the mesh's `extras.targetNames` (`target_000`, ... where absent). A skin joint named like a
    jaw becomes the rig's jaw joint with default bounds; all other joints are held. Materials become face regions.
    Vertex colours and base colours become `vertex_albedo`; one texture that serves the whole rig becomes `texture`,
    otherwise textures are sampled into `vertex_albedo`.

    Raises:
        InputError: not a glTF file or a truncated one, a required extension that hides the geometry, primitives other
            than triangles, no morph targets, references that lead nowhere, NaN.
    """
    file = GltfFile(Path(path))
    try:
        # Infinities are the rig's to refuse.
        with np.errstate(over="ignore", invalid="ignore"):
            return _read(file)
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, MemoryError, OverflowError, TypeError, ValueError) as error:
        # The JSON's types are not checked one by one: a text where a number belongs ends here.
        raise file.error(f"a glTF structure that cannot be read ({error})", "valid glTF 2.0") from error


def _read(file: GltfFile) -> Rig:
    tree = NodeTree(file)
    meshes = {node: file.item(file.gltf.meshes, tree.nodes[node].mesh, "mesh") for node in tree.mesh_nodes()}
    names = {node: _target_names(file, mesh) for node, mesh in meshes.items()}
    if not meshes:
        raise file.error("no mesh in the scene", "a face mesh with morph targets", "export the head mesh")
    if not any(names.values()):
        raise file.error(
            "a mesh without morph targets",
            "blendshapes as glTF morph targets",
            "export with shape keys/blendshapes enabled (Blender: Data > Mesh > Shape Keys)",
        )
    parts: list[_Part] = []
    welds: list[np.ndarray] = []
    for node in sorted(meshes, key=lambda n: -len(names[n])):
        mine = _mesh_parts(file, tree, node, meshes[node], names[node])
        first = sum(len(part.positions) for part in parts)
        welds.append(first + _weld(mine))
        parts += mine
    return _merge(file, tree, parts, np.concatenate(welds))


def _target_names(file: GltfFile, mesh: Any) -> list[str]:
    count = max((len(p.targets or []) for p in mesh.primitives), default=0)
    extras = [mesh.extras, *(p.extras for p in mesh.primitives)]
    names = next((e["targetNames"] for e in extras if isinstance(e, dict) and "targetNames" in e), None)
    if names is None:
        return [f"target_{i:03d}" for i in range(count)]
    if not isinstance(names, list) or len(names) != count:
        found = len(names) if isinstance(names, list) else repr(names)
        raise file.error(f"{found} targetNames in mesh '{mesh.name}'", f"{count}, one per morph target")
    twice = sorted({str(n) for n in names if names.count(n) > 1})
    if twice:
        raise file.error(f"targetNames {twice} twice in mesh '{mesh.name}'", "unique names", "rename the targets")
    return [str(name) for name in names]


def _attributes(attributes: Any) -> dict[str, int]:
    known = attributes if isinstance(attributes, dict) else vars(attributes)
    return {key: value for key, value in known.items() if value is not None}


def _mesh_parts(file: GltfFile, tree: NodeTree, node: int, mesh: Any, names: list[str]) -> list[_Part]:
    parts: dict[tuple, _Part] = {}
    mirrored: dict[tuple, bool] = {}
    for primitive in mesh.primitives:
        attributes = _attributes(primitive.attributes)
        targets = [_attributes(target) for target in primitive.targets or []]
        material = read_material(file, primitive.material, mesh.name or "mesh")
        # Primitives (one per material) often share their vertices; other texture coordinates make them others.
        key = (tuple(sorted(attributes.items())), tuple(t.get("POSITION") for t in targets), material.uv_set)
        if key not in parts:
            _check_primitive(file, primitive, attributes, mesh)
            parts[key], mirrored[key] = _vertices(file, tree, node, attributes, targets, names, material.uv_set)
        triangles = _triangles(file, primitive, len(parts[key].positions))
        parts[key].triangles.append(triangles[:, ::-1] if mirrored[key] else triangles)
        parts[key].materials.append(material)
    return list(parts.values())


def _check_primitive(file: GltfFile, primitive: Any, attributes: dict[str, int], mesh: Any) -> None:
    if "POSITION" not in attributes:
        raise file.error(f"a primitive without positions in mesh '{mesh.name}'", "a POSITION attribute")
    # An optional compression has plain data to fall back on, or else nothing at all (which would read as zeros).
    accessor = file.item(file.gltf.accessors, attributes["POSITION"], "accessor")
    if COMPRESSION in (primitive.extensions or {}) and accessor.bufferView is None:
        raise file.error(f"the extension {COMPRESSION}", "plain glTF 2.0 accessors", "export without Draco compression")


def _vertices(  # more than six: one primitive of one mesh
    file: GltfFile,
    tree: NodeTree,
    node: int,
    attributes: dict[str, int],
    targets: list[dict[str, int]],
    names: list[str],
    uv_set: int,
) -> tuple[_Part, bool]:
    """The vertices of a primitive without its triangles, and whether their placement mirrors them."""
    positions = file.accessor(attributes["POSITION"], ("VEC3",)).astype(np.float32)
    count = len(positions)
    placement = tree.place(node, attributes, count)

    def read(name: str, kinds: tuple[str, ...]) -> np.ndarray | None:
        if name not in attributes:
            return None
        values = file.accessor(attributes[name], kinds).astype(np.float32)
        if len(values) != count:
            raise file.error(f"{len(values)} values of {name}", f"{count}, one per vertex")
        return values

    displacements: dict[str, np.ndarray] = {}
    for name, target in zip(names, targets, strict=False):
        if "POSITION" not in target:
            displacements[name] = np.zeros_like(positions)
            continue
        values = file.accessor(target["POSITION"], ("VEC3",)).astype(np.float32)
        if len(values) != count:
            raise file.error(f"{len(values)} vertices in target '{name}'", f"{count}, as the mesh has")
        displacements[name] = values
    normals, colours = read("NORMAL", ("VEC3",)), read("COLOR_0", ("VEC3", "VEC4"))
    uvs = read(f"TEXCOORD_{uv_set}", ("VEC2",))
    identity = None
    if normals is not None:
        rows = [positions, normals, placement.jaw[:, None], *displacements.values()]
        # Adding zero turns -0 into +0, so that equal values have equal bytes.
        identity = np.concatenate([*rows, *([] if colours is None else [colours])], 1).astype(np.float32) + 0.0
    part = _Part(
        positions=placement.points(positions),
        targets={name: placement.vectors(values) for name, values in displacements.items()},
        jaw=placement.jaw,
        colours=None if colours is None else colours[:, :3],
        # glTF's v runs down from the top-left corner, the rig's runs up from the bottom-left one.
        uvs=None if uvs is None else np.stack([uvs[:, 0], 1 - uvs[:, 1]], 1),
        identity=identity,
    )
    return part, placement.mirrored


def _triangles(file: GltfFile, primitive: Any, vertices: int) -> np.ndarray:
    mode = TRIANGLES if primitive.mode is None else primitive.mode
    if mode not in (TRIANGLES, TRIANGLE_STRIP, TRIANGLE_FAN):
        raise file.error(
            f"a primitive of mode {MODE_NAMES.get(mode, mode)}", "triangles", "triangulate, remove curves and points"
        )
    if primitive.indices is None:
        indices = np.arange(vertices)
    else:
        indices = file.accessor(primitive.indices, ("SCALAR",), normalise=False)[:, 0]
        if indices.dtype.kind != "u":
            raise file.error(f"vertex indices of type {indices.dtype}", "unsigned integers")
        indices = indices.astype(np.int64)
    if len(indices) < 3 or (mode == TRIANGLES and len(indices) % 3):
        raise file.error(f"{len(indices)} vertex indices in a primitive", "three per triangle")
    if indices.max() >= vertices:
        raise file.error(f"vertex index {indices.max()}", f"0..{vertices - 1}")
    if mode == TRIANGLES:
        return indices.reshape(-1, 3)
    if mode == TRIANGLE_FAN:
        return np.stack([np.broadcast_to(indices[0], len(indices) - 2), indices[1:-1], indices[2:]], 1)
    strip = np.stack([indices[:-2], indices[1:-1], indices[2:]], 1)
    strip[1::2] = strip[1::2][:, [0, 2, 1]]
    # Strips are joined by triangles without area.
    distinct = (strip[:, 0] != strip[:, 1]) & (strip[:, 1] != strip[:, 2]) & (strip[:, 0] != strip[:, 2])
    return strip[distinct]


def _weld(parts: list[_Part]) -> np.ndarray:
    """`[V]` for every vertex of a mesh the first that is the same but for its texture coordinates."""
    count = sum(len(part.positions) for part in parts)
    blocks = [part.identity for part in parts if part.identity is not None]
    if len(blocks) < len(parts) or len({block.shape[1] for block in blocks}) > 1:
        return np.arange(count)
    rows = np.concatenate(blocks)
    _, place, copies = np.unique(rows[:, :3], axis=0, return_inverse=True, return_counts=True)
    twins = np.flatnonzero(copies[place.reshape(-1)] > 1)
    canonical = np.arange(count)
    if len(twins):
        whole = np.ascontiguousarray(rows[twins])
        whole = whole.view(np.dtype((np.void, whole.shape[1] * whole.itemsize))).reshape(-1)
        _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
        canonical[twins] = twins[first[inverse.reshape(-1)]]
    return canonical


def _merge(file: GltfFile, tree: NodeTree, parts: list[_Part], weld: np.ndarray) -> Rig:
    starts = np.cumsum([0, *(len(part.positions) for part in parts)])
    names = tuple(dict.fromkeys(name for part in parts for name in part.targets))
    blendshapes = np.zeros((len(names), starts[-1], 3), np.float32)
    for part, start in zip(parts, starts, strict=False):
        for name, values in part.targets.items():
            blendshapes[names.index(name), start : start + len(values)] = values
    materials = [material for part in parts for material in part.materials]
    triangles = [start + t for part, start in zip(parts, starts, strict=False) for t in part.triangles]
    corners = np.concatenate(triangles)
    region_names = tuple(dict.fromkeys(material.name for material in materials))
    regions = np.repeat([region_names.index(m.name) for m in materials], [len(t) for t in triangles])

    jaw_weights = np.concatenate([part.jaw for part in parts])
    jaw = None
    if tree.jaw_pivot is not None and jaw_weights.max() > 0:
        jaw = Jaw(_float32(tree.jaw_pivot), _float32(jaw_weights), *Jaw.default_bounds())
    uvs = None
    if any(part.uvs is not None for part in parts):
        uvs = np.concatenate([np.zeros((len(p.positions), 2)) if p.uvs is None else p.uvs for p in parts])
    vertex_colours = any(part.colours is not None for part in parts)
    texture = shared_texture(file, materials, vertex_colours, uvs)
    albedo = None
    if texture is None and (vertex_colours or any(m.coloured for m in materials)):
        baked = [bake_albedo(file, p.colours, p.uvs, p.triangles, p.materials, len(p.positions)) for p in parts]
        albedo = _float32(np.concatenate(baked))
    return Rig(
        name=file.path.stem,
        neutral=_float32(np.concatenate([part.positions for part in parts])),
        faces=torch.from_numpy(weld[corners]),
        blendshapes=torch.from_numpy(blendshapes),
        weight_names=names,
        jaw=jaw,
        uvs=None if uvs is None else _float32(uvs),
        uv_faces=None if uvs is None else torch.from_numpy(np.ascontiguousarray(corners)),
        vertex_albedo=albedo,
        texture=None if texture is None else _float32(texture),
        face_regions=torch.from_numpy(regions.astype(np.int64)),
        region_names=region_names,
    )


def _float32(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))
