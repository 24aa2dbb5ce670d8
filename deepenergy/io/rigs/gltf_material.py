"""Base colours of glTF materials: factors, textures, and both sampled at vertices."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from deepenergy.io.rigs.gltf_file import REMEDIES, GltfFile


@dataclass(frozen=True)
class Material:
    """The albedo of a material.

    Attributes:
        name: the material's, or the mesh's name.
        factor: scene-linear RGB.
        texture: texture number, or None.
        uv_set: which TEXCOORD the texture uses.
    """

    name: str
    factor: tuple[float, float, float] = (1.0, 1.0, 1.0)
    texture: int | None = None
    uv_set: int = 0

    @property
    def coloured(self) -> bool:
        """Whether the material says anything about colour."""
        return self.texture is not None or self.factor != (1.0, 1.0, 1.0)


def read_material(file: GltfFile, index: int | None, mesh_name: str) -> Material:
    """The base colour of a primitive's material; white and named after the mesh where it has none."""
    if index is None:
        return Material(mesh_name)
    material = file.item(file.gltf.materials, index, "material")
    name = material.name or f"material_{index}"
    pbr = material.pbrMetallicRoughness
    if pbr is None:
        return Material(name)
    factor = tuple(float(c) for c in (pbr.baseColorFactor or (1.0, 1.0, 1.0))[:3])
    if len(factor) != 3:
        raise file.error(f"baseColorFactor {pbr.baseColorFactor} of material '{name}'", "four numbers")
    info = pbr.baseColorTexture
    if info is None:
        return Material(name, factor)
    transform = (info.extensions or {}).get("KHR_texture_transform")
    if transform:
        raise file.error(f"KHR_texture_transform in material '{name}'", "plain UVs", REMEDIES["KHR_texture_transform"])
    return Material(name, factor, info.index, info.texCoord or 0)


def shared_texture(
    file: GltfFile, materials: list[Material], vertex_colours: bool, uvs: np.ndarray | None
) -> np.ndarray | None:
    """`[H, W, 3]` scene-linear albedo, where one texture and factor serve every triangle; None otherwise."""
    looks = {(material.texture, material.factor) for material in materials}
    texture, factor = materials[0].texture, materials[0].factor
    if len(looks) != 1 or texture is None or vertex_colours or uvs is None:
        return None
    return file.image(texture) * np.array(factor, np.float32)


def bake_albedo(
    file: GltfFile,
    colours: np.ndarray | None,
    uvs: np.ndarray | None,
    triangles: list[np.ndarray],
    materials: list[Material],
    count: int,
) -> np.ndarray:
    """`[V, 3]` vertex colour times base colour times texture at the vertex; scene-linear."""
    base = np.ones((count, 3), np.float32) if colours is None else colours
    albedo = base.copy()
    for corners, material in zip(triangles, materials, strict=True):
        used = np.unique(corners)
        albedo[used] = base[used] * np.array(material.factor, np.float32)
        if material.texture is not None:
            if uvs is None:
                raise file.error(
                    f"material '{material.name}' with a texture on a mesh without TEXCOORD_{material.uv_set}",
                    "texture coordinates",
                    "export with UVs, or remove the texture",
                )
            albedo[used] *= sample(file.image(material.texture), uvs[used])
    return albedo


def sample(image: np.ndarray, uvs: np.ndarray) -> np.ndarray:
    """`[N, 3]` bilinear samples of `[H, W, 3]` at UVs (origin bottom-left), repeated outside [0, 1]."""
    height, width = image.shape[:2]
    x = (uvs[:, 0] % 1) * width - 0.5
    y = ((1 - uvs[:, 1]) % 1) * height - 0.5
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[:, None], (y - y0)[:, None]
    rows, columns = (y0 % height, (y0 + 1) % height), (x0 % width, (x0 + 1) % width)
    upper = image[rows[0], columns[0]] * (1 - fx) + image[rows[0], columns[1]] * fx
    lower = image[rows[1], columns[0]] * (1 - fx) + image[rows[1], columns[1]] * fx
    return upper * (1 - fy) + lower * fy
