"""The container of glTF 2.0: header, JSON, buffers, accessors and images as arrays. Knows nothing about faces."""

from __future__ import annotations

import base64
import binascii
import io
import json
import struct
import warnings
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, unquote_to_bytes

import numpy as np
import torch

from deepenergy.runtime.errors import InputError
from deepenergy.scene.colour import srgb_to_linear

T = TypeVar("T")

COMPONENTS: dict[int, Any] = {
    5120: np.int8,
    5121: np.uint8,
    5122: np.int16,
    5123: np.uint16,
    5125: np.uint32,
    5126: np.float32,
}
WIDTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4, "MAT4": 16}

CUT_OFF = "copy the file again, it is cut off"

# What a required extension may ask for without changing the geometry that is read here.
SUPPORTED_EXTENSIONS = ("KHR_mesh_quantization", "KHR_lights_", "KHR_materials_", "KHR_xmp", "EXT_texture_webp")
REMEDIES = {
    "KHR_draco_mesh_compression": "export without Draco compression (or `gltf-transform cp in.glb out.glb`)",
    "EXT_meshopt_compression": "export without meshopt compression (or `gltf-transform cp in.glb out.glb`)",
    "KHR_texture_transform": "bake the texture transform into the UVs",
    "KHR_texture_basisu": "export PNG or JPEG textures",
}


class GltfFile:
    """A parsed .gltf or .glb, whose accessors and images are read on demand.

    Attributes:
        field: how errors name the file.
        gltf: the `pygltflib.GLTF2` structure.

    Raises:
        InputError: anything about the file that is broken, or that a required extension hides.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.field = f"rig {path}"
        self.gltf: Any = self._parse()
        self._buffers: dict[int, bytes] = {}
        for extension in self.gltf.extensionsRequired or []:
            if not extension.startswith(SUPPORTED_EXTENSIONS):
                raise self.error(
                    f"the required extension {extension}",
                    "plain glTF 2.0 accessors and textures",
                    REMEDIES.get(extension, f"export without {extension}"),
                )

    def error(self, found: str, expected: str, remedy: str = "export the file again") -> InputError:
        """An error about this file, to be raised."""
        return InputError(self.field, found, expected, remedy)

    def item(self, items: list[T] | None, index: int | None, what: str) -> T:
        """`items[index]`, or an error that names what is missing."""
        if not isinstance(index, int) or items is None or not 0 <= index < len(items):
            raise self.error(f"a reference to {what} {index}", f"{what} 0..{len(items or []) - 1}")
        return items[index]

    # -- container -------------------------------------------------------------------------------------------

    def _parse(self) -> Any:
        import pygltflib

        try:
            data = self.path.read_bytes()
        except OSError as error:
            found = f"no readable file ({error.strerror})"
            raise self.error(found, "a .glb or .gltf file", "check the path") from error
        if data[:4] == b"glTF":
            text, self._blob = self._chunks(data)
        elif self.path.suffix.lower() == ".glb":
            raise self.error(f"a file that starts with {data[:4]!r}", "a GLB, which starts with b'glTF'")
        else:
            text, self._blob = data, None
        try:
            parsed = json.loads(text.decode("utf-8"))
        except ValueError as error:
            raise self.error(f"JSON that cannot be read ({error})", "glTF 2.0 JSON") from error
        asset = parsed.get("asset") if isinstance(parsed, dict) else None
        version = str(asset.get("version", "")) if isinstance(asset, dict) else ""
        if not version.startswith("2"):
            raise self.error(f"glTF version '{version}'", "version 2.0", "export as glTF 2.0")
        structure: Any = pygltflib.GLTF2
        try:
            with warnings.catch_warnings():
                # It warns of every key that a file may leave out.
                warnings.simplefilter("ignore", RuntimeWarning)
                return structure.from_dict(parsed, infer_missing=True)
        except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
            raise self.error(f"a glTF structure that cannot be read ({error})", "valid glTF 2.0") from error

    def _chunks(self, data: bytes) -> tuple[bytes, bytes | None]:
        """The JSON chunk and the binary chunk of a GLB."""
        if len(data) < 20:
            raise self.error(f"a GLB of {len(data)} bytes", "a header and a JSON chunk", CUT_OFF)
        version, length = struct.unpack("<II", data[4:12])
        if version != 2:
            raise self.error(f"GLB version {version}", "version 2", "export as glTF 2.0")
        if length > len(data):
            raise self.error(f"a GLB of {len(data)} bytes", f"{length}, as its header says", CUT_OFF)
        chunks: dict[bytes, bytes] = {}
        start = 12
        while start + 8 <= length:
            size, kind = struct.unpack("<I4s", data[start : start + 8])
            if start + 8 + size > length:
                raise self.error(f"a chunk of {size} bytes that the file does not hold", "whole chunks")
            chunks.setdefault(kind, data[start + 8 : start + 8 + size])
            start += 8 + size
        if b"JSON" not in chunks:
            raise self.error("a GLB without a JSON chunk", "a JSON chunk")
        return chunks[b"JSON"], chunks.get(b"BIN\0")

    def _uri(self, uri: str, what: str) -> bytes:
        if uri.startswith("data:"):
            head, _, body = uri.partition(",")
            try:
                return base64.b64decode(body, validate=True) if head.endswith(";base64") else unquote_to_bytes(body)
            except (binascii.Error, ValueError) as error:
                raise self.error(f"a data: URI of the {what} that cannot be read ({error})", "base64") from error
        if "://" in uri:
            raise self.error(f"the {what} at {uri}", "a file beside it", "download it, nothing is fetched here")
        beside = self.path.parent / unquote(uri)
        try:
            return beside.read_bytes()
        except OSError as error:
            raise self.error(
                f"no readable {what} {beside} ({error.strerror})", "the file it refers to", "keep the files together"
            ) from error

    def _buffer(self, index: int) -> bytes:
        if index not in self._buffers:
            buffer = self.item(self.gltf.buffers, index, "buffer")
            if buffer.uri is not None:
                data = self._uri(buffer.uri, "buffer")
            elif index == 0 and self._blob is not None:
                data = self._blob
            else:
                raise self.error(f"buffer {index} without data", "a uri or the GLB's binary chunk")
            if len(data) < (buffer.byteLength or 0):
                raise self.error(f"a buffer of {len(data)} bytes", f"{buffer.byteLength}", CUT_OFF)
            self._buffers[index] = data
        return self._buffers[index]

    def view_bytes(self, index: int) -> bytes:
        """The bytes of a buffer view."""
        view = self.item(self.gltf.bufferViews, index, "bufferView")
        start, length = view.byteOffset or 0, view.byteLength or 0
        data = self._buffer(view.buffer)
        if start < 0 or length < 0 or start + length > len(data):
            raise self.error(f"bufferView {index} that ends at byte {start + length}", f"at most {len(data)}")
        return data[start : start + length]

    # -- accessors -------------------------------------------------------------------------------------------

    def accessor(self, index: int, kinds: tuple[str, ...], normalise: bool = True) -> np.ndarray:
        """`[count, width]` values of an accessor, sparse and strided ones included.

        Floats are float32. Normalised integers become float32 in [0, 1] or [-1, 1]; other integers keep their type.

        Args:
            index: the accessor's number.
            kinds: allowed types ("SCALAR", "VEC2", "VEC3", "VEC4", "MAT4").
            normalise: apply the accessor's `normalized` flag.
        """
        accessor = self.item(self.gltf.accessors, index, "accessor")
        what = f"accessor {index}"
        if accessor.type not in kinds:
            raise self.error(f"{what} of type {accessor.type}", " or ".join(kinds))
        if accessor.componentType not in COMPONENTS:
            raise self.error(f"{what} with component type {accessor.componentType}", f"one of {sorted(COMPONENTS)}")
        dtype, width, count = np.dtype(COMPONENTS[accessor.componentType]), WIDTHS[accessor.type], accessor.count
        if not isinstance(count, int) or count < 1:
            raise self.error(f"{what} with count {count}", "at least 1")
        if accessor.bufferView is None:
            values = np.zeros((count, width), dtype)
        else:
            values = self._strided(accessor.bufferView, accessor.byteOffset or 0, count, width, dtype, what)
        if accessor.sparse is not None:
            values = self._sparse(values.copy(), accessor.sparse, dtype, what)
        if normalise and accessor.normalized and dtype.kind in "iu":
            values = np.maximum(values.astype(np.float32) / np.iinfo(dtype).max, -1)
        return values

    def _strided(self, view_index: int, offset: int, count: int, width: int, dtype: np.dtype, what: str) -> np.ndarray:
        data = self.view_bytes(view_index)
        stride = self.gltf.bufferViews[view_index].byteStride or width * dtype.itemsize
        if stride < width * dtype.itemsize or offset < 0:
            raise self.error(f"{what} with stride {stride} and offset {offset}", f"at least {width * dtype.itemsize}")
        end = offset + stride * (count - 1) + width * dtype.itemsize
        if end > len(data):
            raise self.error(f"{what} that ends at byte {end} of its view", f"at most {len(data)}")
        return np.ndarray((count, width), dtype.newbyteorder("<"), data, offset, (stride, dtype.itemsize))

    def _sparse(self, values: np.ndarray, sparse: Any, dtype: np.dtype, what: str) -> np.ndarray:
        count, indices, replaced = sparse.count, sparse.indices, sparse.values
        if not isinstance(count, int) or count < 1 or indices is None or replaced is None:
            raise self.error(f"{what} with an incomplete sparse part", "count, indices and values")
        kind = np.dtype(COMPONENTS.get(indices.componentType, np.float32))
        if kind.kind != "u":
            raise self.error(f"{what} with sparse indices of type {indices.componentType}", "unsigned integers")
        where = self._strided(indices.bufferView, indices.byteOffset or 0, count, 1, kind, what)[:, 0]
        if where.max() >= len(values):
            raise self.error(f"{what} with sparse index {where.max()}", f"0..{len(values) - 1}")
        values[where] = self._strided(
            replaced.bufferView, replaced.byteOffset or 0, count, values.shape[1], dtype, what
        )
        return values

    # -- images ----------------------------------------------------------------------------------------------

    def image(self, texture_index: int) -> np.ndarray:
        """`[H, W, 3]` float32 scene-linear pixels of a texture, top row first."""
        from PIL import Image, UnidentifiedImageError

        texture = self.item(self.gltf.textures, texture_index, "texture")
        extra = (texture.extensions or {}).get("EXT_texture_webp", {})
        image = self.item(self.gltf.images, extra.get("source", texture.source), "image")
        embedded = image.bufferView is not None
        data = self.view_bytes(image.bufferView) if embedded else self._uri(image.uri or "", "image")
        try:
            with Image.open(io.BytesIO(data)) as opened:
                srgb = np.asarray(opened.convert("RGB"), dtype=np.float32) / 255
        except (UnidentifiedImageError, OSError, ValueError) as error:
            raise self.error(f"texture {texture_index} that cannot be read ({error})", "a PNG or JPEG image") from error
        return srgb_to_linear(torch.from_numpy(srgb)).numpy()
