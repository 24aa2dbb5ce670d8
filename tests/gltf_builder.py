"""Writes small glTF files with pygltflib, for the tests of the reader."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import numpy as np
import pygltflib as gl

TYPES = {1: "SCALAR", 2: "VEC2", 3: "VEC3", 4: "VEC4", 16: "MAT4"}
COMPONENTS = {"b": 5120, "B": 5121, "h": 5122, "H": 5123, "I": 5125, "f": 5126}


class GltfBuilder:
    """Collects arrays into one buffer; `gltf` is free to be changed before `save`."""

    def __init__(self) -> None:
        self.blob = bytearray()
        self.roots: list[int] = []
        self.gltf = gl.GLTF2(asset=gl.Asset(), scene=0, scenes=[gl.Scene(nodes=self.roots)])

    def view(self, data: bytes, **keys: Any) -> int:
        self.blob.extend(b"\0" * (-len(self.blob) % 4))
        self.gltf.bufferViews.append(gl.BufferView(buffer=0, byteOffset=len(self.blob), byteLength=len(data), **keys))
        self.blob.extend(data)
        return len(self.gltf.bufferViews) - 1

    def accessor(self, values: Any, kind: str = "f", **keys: Any) -> int:
        array = np.asarray(values, dtype=kind)
        array = array.reshape(len(array), -1)
        keys = {"bufferView": self.view(array.tobytes()) if "bufferView" not in keys else None} | keys
        accessor = gl.Accessor(componentType=COMPONENTS[kind], count=len(array), type=TYPES[array.shape[1]], **keys)
        self.gltf.accessors.append(accessor)
        return len(self.gltf.accessors) - 1

    def sparse(self, count: int, where: Any, values: Any, base: Any = None, index_kind: str = "H") -> int:
        """A sparse accessor of VEC3 floats, on zeros (no buffer view) or on `base`."""
        where, values = np.asarray(where, index_kind), np.asarray(values, "f")
        sparse = gl.Sparse(
            count=len(where),
            indices=gl.AccessorSparseIndices(
                bufferView=self.view(where.tobytes()), componentType=COMPONENTS[index_kind]
            ),
            values=gl.AccessorSparseValues(bufferView=self.view(values.tobytes())),
        )
        if base is None:
            self.gltf.accessors.append(gl.Accessor(componentType=5126, count=count, type="VEC3", sparse=sparse))
        else:
            self.accessor(base, sparse=sparse)
        return len(self.gltf.accessors) - 1

    def mesh(self, *primitives: gl.Primitive, names: list[str] | None = None, name: str = "head") -> int:
        extras = {} if names is None else {"targetNames": names}
        self.gltf.meshes.append(gl.Mesh(primitives=list(primitives), name=name, extras=extras))
        return len(self.gltf.meshes) - 1

    def primitive(
        self,
        positions: Any,
        faces: Any = None,
        targets: list[Any] | None = None,
        mode: int = 4,
        material: int | None = None,
        **attributes: int,
    ) -> gl.Primitive:
        """A primitive; positions, faces and targets are arrays, or numbers of accessors."""
        position = positions if isinstance(positions, int) else self.accessor(positions)
        indices = faces if faces is None or isinstance(faces, int) else self.accessor(np.ravel(faces), "H")
        given = [t if isinstance(t, int) else self.accessor(t) for t in targets or []]
        return gl.Primitive(
            attributes=gl.Attributes(POSITION=position, **attributes),
            indices=indices,
            targets=[{"POSITION": t} for t in given],  # type: ignore[misc]
            mode=mode,
            material=material,
        )

    def node(self, mesh: int | None = None, root: bool = True, **keys: Any) -> int:
        self.gltf.nodes.append(gl.Node(mesh=mesh, **keys))
        index = len(self.gltf.nodes) - 1
        if root:
            self.roots.append(index)
        return index

    def save(self, path: Path, data_uri: bool = False) -> Path:
        """Write .glb, or .gltf with its buffer beside it (or inside, as a data URI)."""
        self.gltf.buffers = [gl.Buffer(byteLength=len(self.blob))]
        if path.suffix == ".glb":
            self.gltf.set_binary_blob(bytes(self.blob))
            self.gltf.save_binary(str(path))
        else:
            uri = "data:application/octet-stream;base64," + base64.b64encode(bytes(self.blob)).decode()
            if not data_uri:
                uri = f"{path.stem} data.bin"
                (path.parent / uri).write_bytes(bytes(self.blob))
                uri = uri.replace(" ", "%20")
            self.gltf.buffers[0].uri = uri
            path.write_text(self.gltf.to_json())
        return path
