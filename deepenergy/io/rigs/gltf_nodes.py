"""Where the nodes and skins of a glTF scene put a mesh's vertices, and how much of the jaw joint is in each."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from deepenergy.io.rigs.gltf_file import GltfFile

JAW_NAMES = (re.compile(r"jaw|mandible", re.IGNORECASE), re.compile(r"chin", re.IGNORECASE))
NOT_JAW = re.compile(r"upper|top", re.IGNORECASE)


@dataclass(frozen=True)
class Placement:
    """Affine maps from a primitive's space to object space, and the share of the jaw joint.

    Attributes:
        matrices: `[4, 4]`, or `[V, 4, 4]` where a skin bends the mesh.
        jaw: `[V]` in [0, 1].
    """

    matrices: np.ndarray
    jaw: np.ndarray

    @property
    def mirrored(self) -> bool:
        """Whether triangles turn inside out."""
        return bool(np.mean(np.linalg.det(self.matrices[..., :3, :3])) < 0)

    def points(self, values: np.ndarray) -> np.ndarray:
        """`[V, 3]` positions, placed."""
        return self.vectors(values) + self.matrices[..., :3, 3]

    def vectors(self, values: np.ndarray) -> np.ndarray:
        """`[V, 3]` displacements, placed."""
        linear = self.matrices[..., :3, :3]
        if linear.ndim == 2:
            # The identity is worth an exception: the vertices of most files come out bit for bit.
            return values if (linear == np.eye(3)).all() else values @ linear.T
        return np.einsum("vij,vj->vi", linear, values)


class NodeTree:
    """World matrices of all nodes, the scene's nodes in order, and the jaw joint."""

    def __init__(self, file: GltfFile) -> None:
        self.file = file
        self.nodes: list[Any] = file.gltf.nodes or []
        self.worlds: dict[int, np.ndarray] = {}
        self.parents: dict[int, int] = {}
        for index, node in enumerate(self.nodes):
            for child in node.children or []:
                file.item(self.nodes, child, "node")
                if child in self.parents:
                    raise file.error(f"node {child} with two parents", "a tree of nodes")
                self.parents[child] = index
        for index in range(len(self.nodes)):
            if index not in self.parents:
                self._descend(index)
        if len(self.worlds) != len(self.nodes):
            raise file.error("nodes that are their own ancestors", "a tree of nodes")
        self.jaw_joint = self._find_jaw()
        self._jaw_nodes = set() if self.jaw_joint is None else set(self._subtree(self.jaw_joint))

    def mesh_nodes(self) -> list[int]:
        """Nodes with a mesh, in the order of the scene's tree."""
        scenes = self.file.gltf.scenes or []
        if scenes:
            scene = self.file.item(scenes, self.file.gltf.scene or 0, "scene")
            roots = scene.nodes or []
        else:
            roots = [i for i in range(len(self.nodes)) if i not in self.parents]
        ordered = []
        for root in roots:
            self.file.item(self.nodes, root, "node")
            ordered += self._subtree(root)
        return [i for i in dict.fromkeys(ordered) if self.nodes[i].mesh is not None]

    @property
    def jaw_pivot(self) -> np.ndarray | None:
        """`[3]` position of the jaw joint in object space."""
        return None if self.jaw_joint is None else self.worlds[self.jaw_joint][:3, 3]

    def place(self, index: int, attributes: dict[str, int], count: int) -> Placement:
        """The placement of a primitive with `count` vertices at a node."""
        node = self.nodes[index]
        if node.skin is None:
            return Placement(self.worlds[index], np.full(count, float(index in self._jaw_nodes)))
        skin = self.file.item(self.file.gltf.skins, node.skin, "skin")
        joints, weights = self._influences(attributes, count, len(skin.joints))
        inverse = np.tile(np.eye(4), (len(skin.joints), 1, 1))
        if skin.inverseBindMatrices is not None:
            columns = self.file.accessor(skin.inverseBindMatrices, ("MAT4",)).astype(np.float64)
            if len(columns) < len(skin.joints):
                raise self.file.error(f"{len(columns)} inverse bind matrices", f"{len(skin.joints)}, one per joint")
            inverse = columns[: len(skin.joints)].reshape(-1, 4, 4).transpose(0, 2, 1)
        matrices = np.stack([self.worlds[joint] for joint in skin.joints]) @ inverse
        is_jaw = np.array([joint in self._jaw_nodes for joint in skin.joints], dtype=np.float64)
        jaw = (is_jaw[joints] * weights).sum(1)
        if np.abs(matrices - matrices[0]).max() < 1e-6:
            return Placement(_clean(matrices[0]), jaw)
        return Placement(np.einsum("vj,vjab->vab", weights, matrices[joints]), jaw)

    def _influences(self, attributes: dict[str, int], count: int, joints: int) -> tuple[np.ndarray, np.ndarray]:
        """Joint numbers and weights `[V, 4 * sets]`; the weights of a vertex sum to one."""
        sets = [i for i in range(len(attributes)) if f"JOINTS_{i}" in attributes and f"WEIGHTS_{i}" in attributes]
        if not sets:
            raise self.file.error("a skinned mesh without JOINTS_0 and WEIGHTS_0", "both, or no skin")
        chosen = [self.file.accessor(attributes[f"JOINTS_{i}"], ("VEC4",), normalise=False) for i in sets]
        shares = [self.file.accessor(attributes[f"WEIGHTS_{i}"], ("VEC4",)) for i in sets]
        if any(len(a) != count for a in (*chosen, *shares)):
            raise self.file.error("skin weights for another number of vertices", f"{count}")
        numbers, weights = np.concatenate(chosen, 1).astype(np.int64), np.concatenate(shares, 1).astype(np.float64)
        total = weights.sum(1, keepdims=True)
        if not (total > 0).all():
            raise self.file.error(
                f"{int((~(total > 0)).sum())} vertices whose skin weights sum to zero",
                "weights that sum to one",
                "bind every vertex to a joint",
            )
        if numbers.min() < 0 or numbers.max() >= joints:
            raise self.file.error(f"joint number {numbers.max()} in the skin weights", f"0..{joints - 1}")
        return numbers, weights / total

    def _find_jaw(self) -> int | None:
        joints = [joint for skin in self.file.gltf.skins or [] for joint in skin.joints or []]
        for joint in joints:
            self.file.item(self.nodes, joint, "node")
        for pattern in JAW_NAMES:
            found = [j for j in joints if pattern.search(self._name(j)) and not NOT_JAW.search(self._name(j))]
            if found:
                return min(found, key=self._depth)
        return None

    def _name(self, index: int) -> str:
        return self.nodes[index].name or ""

    def _depth(self, index: int) -> int:
        depth = 0
        while index in self.parents:
            index, depth = self.parents[index], depth + 1
        return depth

    def _subtree(self, root: int) -> list[int]:
        found, waiting = [], [root]
        while waiting:
            index = waiting.pop()
            found.append(index)
            waiting.extend(reversed(self.nodes[index].children or []))
        return found

    def _descend(self, root: int) -> None:
        for index in self._subtree(root):
            parent = self.parents.get(index)
            local = self._local(self.nodes[index])
            self.worlds[index] = local if parent is None else self.worlds[parent] @ local

    def _local(self, node: Any) -> np.ndarray:
        """The node's own 4x4 matrix, from `matrix` (column-major) or translation, rotation (x, y, z, w), scale."""
        parts = {"matrix": 16, "translation": 3, "rotation": 4, "scale": 3}
        for name, length in parts.items():
            value = getattr(node, name)
            if value is not None and (len(value) != length or not np.isfinite(np.asarray(value, float)).all()):
                raise self.file.error(f"{name} {value} of node '{node.name}'", f"{length} finite numbers")
        if node.matrix is not None:
            return np.array(node.matrix, dtype=np.float64).reshape(4, 4).T
        local = np.eye(4)
        if node.rotation is not None:
            x, y, z, w = np.asarray(node.rotation, float) / max(float(np.linalg.norm(node.rotation)), 1e-12)
            local[:3, :3] = [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        if node.scale is not None:
            local[:3, :3] *= np.asarray(node.scale, float)
        if node.translation is not None:
            local[:3, 3] = node.translation
        return local


def _clean(matrix: np.ndarray) -> np.ndarray:
    """The identity for a matrix that is one but for float32 rounding of inverse bind matrices."""
    return np.eye(4) if np.abs(matrix - np.eye(4)).max() < 1e-6 else matrix
