"""Calibrated cameras: OpenCV axes, pixel centres at half-integers, crops as cameras.

`x_cam = world_to_camera @ [x_world, 1]` (+X right, +Y down, +Z forward), `u = fx * x/z + cx`, `v = fy * y/z + cy` after
OpenCV's distortion [k1, k2, p1, p2, k3]. (0, 0) is the image's top-left corner, the centre of its top-left pixel
(0.5, 0.5). A batch of crops is one `Camera` with batched intrinsics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from deepenergy.runtime import registry
from deepenergy.runtime.errors import InputError


@dataclass(frozen=True)
class Camera:
    """A calibrated pinhole camera, or a batch of them of one image size.

    A camera that moves, zooms or changes its lens has a row for each of its `frames`; `at` gives those of some frames.
    A camera without a batch is the same in every frame, and goes with a batch of any length.

    Attributes:
        width, height: image size in pixels.
        intrinsics: `[*b, 4]` float64, (fx, fy, cx, cy) in pixels.
        world_to_camera: `[*b, 4, 4]` float64, rigid.
        distortion: `[*b, 5]` float64, OpenCV's k1 k2 p1 p2 k3.
        name: how the shot names it.
        frames: numbers of the frames that the rows of the batch belong to, ascending; None for a camera that is the
            same in every frame, and for batches of another kind.

    Raises:
        InputError: a non-finite value, a focal length or size that is not positive, a matrix that is not rigid
            (a mirrored or scaled matrix is a wrong axis convention).
    """

    width: int
    height: int
    intrinsics: Tensor
    world_to_camera: Tensor
    distortion: Tensor
    name: str = "camera"
    frames: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        field = f"camera '{self.name}'"
        for attribute in ("intrinsics", "world_to_camera", "distortion"):
            value = torch.as_tensor(getattr(self, attribute), dtype=torch.float64)
            if not bool(torch.isfinite(value).all()):
                raise InputError(f"{field} {attribute}", "NaN or infinity", "finite numbers", "export the camera again")
            object.__setattr__(self, attribute, value)
        shapes = {"intrinsics": (4,), "world_to_camera": (4, 4), "distortion": (5,)}
        for attribute, shape in shapes.items():
            found = tuple(getattr(self, attribute).shape)
            if found[-len(shape) :] != shape:
                raise InputError(f"{field} {attribute}", f"shape {found}", f"[..., {shape}]", "check the layout")
        if self.width < 1 or self.height < 1:
            raise InputError(
                f"{field} size", f"{self.width}x{self.height}", "at least 1x1", "set width and height in pixels"
            )
        wrong = (self.intrinsics[..., :2] <= 0).any(-1)
        if bool(wrong.any()):
            first = int(wrong.reshape(-1).nonzero()[0])
            where = "" if self.frames is None else f" in frame {self.frames[first]}"
            raise InputError(
                f"{field} fx, fy",
                f"{self.intrinsics.reshape(-1, 4)[first, :2].tolist()}{where}",
                "positive focal lengths in pixels",
                "flip the camera axes in world_to_camera instead (OpenCV: +X right, +Y down, +Z forward)",
            )
        self._check_rigid(field)
        if self.frames is not None:
            self._check_frames(field)

    def _check_frames(self, field: str) -> None:
        assert self.frames is not None
        if list(self.frames) != sorted(set(self.frames)) or not self.frames:
            found = f"{list(self.frames)[:6]}"
            raise InputError(f"{field} frames", found, "frame numbers in ascending order, each once", "sort the frames")
        for attribute, ndim in (("intrinsics", 2), ("world_to_camera", 3), ("distortion", 2)):
            shape = tuple(getattr(self, attribute).shape)
            if len(shape) != ndim or shape[0] != len(self.frames):
                expected = f"a row for each of {len(self.frames)} frames"
                raise InputError(f"{field} {attribute}", f"shape {shape}", expected, "give every frame its own values")

    def at(self, frames: Sequence[int]) -> Camera:
        """The camera in some frames: a batch with a row for each, or this camera itself where it does not change.

        Args:
            frames: B frame numbers, in any order.

        Raises:
            InputError: a frame that the camera has no values for.
        """
        if self.frames is None:
            return self
        place = {number: row for row, number in enumerate(self.frames)}
        absent = sorted({int(number) for number in frames} - place.keys())
        if absent:
            raise InputError(
                f"camera '{self.name}' frames",
                f"no values for frame {absent[0]}" + (f" and {len(absent) - 1} more" if len(absent) > 1 else ""),
                f"every frame that is solved; there are {self.frames[0]}-{self.frames[-1]}",
                "export the camera for the whole range, or solve the frames that it has",
            )
        rows = torch.tensor([place[int(number)] for number in frames], dtype=torch.long)
        return self[rows]

    def __getitem__(self, rows: Tensor | slice | list[int]) -> Camera:
        """Some rows of a batch; a camera without a batch is the same in every row."""
        return self._each_row(lambda part: part[rows])

    def unsqueeze(self) -> Camera:
        """A batch `[B]` as `[B, 1]`, for points that have another axis between frames and points."""
        return self._each_row(lambda part: part[:, None])

    def _each_row(self, change: Callable[[Tensor], Tensor]) -> Camera:
        """The camera with what has a row for each of the batch changed; itself where nothing has."""
        axes = {"intrinsics": 1, "world_to_camera": 2, "distortion": 1}
        batched = {name: getattr(self, name) for name, own in axes.items() if getattr(self, name).ndim > own}
        if not batched:
            return self
        return replace(self, **{name: change(part) for name, part in batched.items()}, frames=None)

    def moved(self, transform: Float[Tensor, "t 4 4"]) -> Camera:
        """The same camera in another world, where points are at `transform @ [x, 1]`.

        Args:
            transform: rigid, one for all frames, or one for each: then the camera is a batch over them.
        """
        back = inverse_rigid(transform.to(torch.float64))
        if len(transform) == 1 and self.world_to_camera.ndim == 2:
            return replace(self, world_to_camera=self.world_to_camera @ back[0])
        matrix = self.world_to_camera @ back
        count = len(matrix)
        lens, distortion = self.intrinsics.expand(count, 4), self.distortion.expand(count, 5)
        return replace(self, intrinsics=lens, world_to_camera=matrix, distortion=distortion)

    def at_rest(self, tolerance: float) -> Camera:
        """Without a batch where all rows are the same, and without what rounding leaves of an identity.

        Args:
            tolerance: that entries of world-to-camera matrices may differ by; the lens has to be the same exactly.
        """
        matrix, lens, distortion = self.world_to_camera, self.intrinsics, self.distortion
        if matrix.ndim == 3:
            same = bool((lens == lens[:1]).all()) and bool((distortion == distortion[:1]).all())
            if not same or float((matrix - matrix[:1]).abs().max()) > tolerance:
                return self
            matrix, lens, distortion = (part[0] for part in (matrix, lens, distortion))
        eye = torch.eye(4, dtype=matrix.dtype)
        matrix = eye if float((matrix - eye).abs().max()) <= tolerance else matrix
        return replace(self, intrinsics=lens, world_to_camera=matrix, distortion=distortion, frames=None)

    @property
    def centre(self) -> Float[Tensor, "*b 3"]:
        """Where the camera is, metres, world."""
        matrix = self.world_to_camera
        if matrix.ndim == 2:
            return -(matrix[:3, :3].mT @ matrix[:3, 3])
        return -(matrix[..., :3, :3].mT @ matrix[..., :3, 3:])[..., 0]

    def _check_rigid(self, field: str) -> None:
        rotation = self.world_to_camera.detach()[..., :3, :3]
        eye = torch.eye(3, dtype=torch.float64, device=rotation.device)
        off = float((rotation @ rotation.transpose(-1, -2) - eye).abs().max())
        if off > 1e-3:
            raise InputError(
                f"{field} world_to_camera",
                f"a 3x3 part that is not a rotation (R R^T differs from I by {off:.2g})",
                "a rigid matrix without scale",
                "remove the scale, or transpose a row-major export",
            )
        if bool((torch.linalg.det(rotation) < 0).any()):
            raise InputError(
                f"{field} world_to_camera",
                "a mirrored matrix (determinant -1)",
                "a rotation (determinant +1)",
                "flip Y and Z together, as OpenGL to OpenCV needs, and never one axis alone",
            )
        last = torch.tensor([0.0, 0, 0, 1], dtype=torch.float64, device=rotation.device)
        if bool((self.world_to_camera[..., 3, :] - last).abs().max() > 1e-6):
            raise InputError(
                f"{field} world_to_camera",
                f"a last row of {self.world_to_camera[..., 3, :].tolist()}",
                "[0, 0, 0, 1]",
                "transpose a row-major (Maya, USD) matrix",
            )

    @staticmethod
    def look_at(  # more than six: what a camera is made of, and by name
        width: int,
        height: int,
        focal: float,
        eye: tuple[float, float, float],
        target: tuple[float, float, float] = (0.0, 0.0, 0.0),
        up: tuple[float, float, float] = (0.0, 1.0, 0.0),
        name: str = "camera",
    ) -> Camera:
        """A camera at `eye` (metres, world) that looks at `target`; `focal` in pixels, principal point centred."""
        e, t, u = (torch.tensor(v, dtype=torch.float64) for v in (eye, target, up))
        forward = torch.nn.functional.normalize(t - e, dim=0)
        right = torch.linalg.cross(forward, u)
        if float(right.norm()) < 1e-9 or not bool(torch.isfinite(forward).all()):
            raise InputError("look_at", f"eye {eye}, target {target}, up {up}", "a view not along up", "change up")
        right = right / right.norm()
        rotation = torch.stack([right, torch.linalg.cross(forward, right), forward])
        matrix = torch.eye(4, dtype=torch.float64)
        matrix[:3, :3] = rotation
        matrix[:3, 3] = -rotation @ e
        intrinsics = torch.tensor([focal, focal, width / 2, height / 2], dtype=torch.float64)
        return Camera(width, height, intrinsics, matrix, torch.zeros(5, dtype=torch.float64), name)

    @staticmethod
    def load(path: str | Path, name: str | None = None) -> Camera:
        """Read one camera of a camera file (`name` may be left out where the file holds one).

        Raises:
            InputError: no such file, no such camera, or a field that is missing or wrong.
        """
        path = Path(path)
        return registry.lookup("read camera", path, "camera")(path, name)

    def camera_points(self, world: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 3"]:
        """World points (metres) in camera axes; the last component is the depth."""
        matrix = self.world_to_camera.to(world)
        return world @ matrix[..., :3, :3].transpose(-1, -2) + matrix[..., None, :3, 3]

    def pixels(self, camera_points: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 2"]:
        """Camera-space points to pixels. Points at or behind the camera give meaningless pixels: check the depth."""
        depth = camera_points[..., 2:]
        safe = torch.where(depth.abs() < 1e-9, torch.full_like(depth, 1e-9), depth)
        normalised = camera_points[..., :2] / safe
        if bool((self.distortion != 0).any()):
            normalised = self._distort(normalised)
        k = self.intrinsics.to(camera_points)
        return normalised * k[..., None, :2] + k[..., None, 2:]

    def project(self, world: Float[Tensor, "*b n 3"]) -> Float[Tensor, "*b n 2"]:
        """World points (metres) to pixels (x, y), distortion included. Differentiable in both modes."""
        return self.pixels(self.camera_points(world))

    def project_with_jacobian(
        self, world: Float[Tensor, "*b n 3"]
    ) -> tuple[Float[Tensor, "*b n 2"], Float[Tensor, "*b n 2 3"]]:
        """World points (metres) to pixels, and the pixels' derivative by the point (pixels a metre).

        In closed form: forward mode through `project` costs twenty times as much.
        """
        points = self.camera_points(world)
        depth = points[..., 2]
        near = depth.abs() < 1e-9
        inverse = 1 / torch.where(near, torch.full_like(depth, 1e-9), depth)
        # At the camera's centre `pixels` holds the depth, so that it has no derivative there.
        away = torch.where(near, torch.zeros_like(inverse), inverse)
        flat = points[..., :2] * inverse[..., None]
        k, turn = self.intrinsics.to(world), self.world_to_camera.to(world)[..., None, :3, :3]
        # d(x / z) and d(y / z) by the world's axes.
        slope = inverse[..., None, None] * turn[..., :2, :] - (flat * away[..., None])[..., None] * turn[..., 2:, :]
        if bool((self.distortion != 0).any()):
            slope = self._distortion_slope(flat) @ slope
            flat = self._distort(flat)
        return flat * k[..., None, :2] + k[..., None, 2:], slope * k[..., None, :2, None]

    def _distortion_slope(self, normalised: Tensor) -> Tensor:
        """`[..., 2, 2]` derivative of `_distort`."""
        k1, k2, p1, p2, k3 = self.distortion.to(normalised)[..., None, :].unbind(-1)
        x, y = normalised.unbind(-1)
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        grows = 2 * (k1 + r2 * (2 * k2 + 3 * r2 * k3))
        across = x * y * grows + 2 * (p1 * x + p2 * y)
        first = torch.stack([radial + x * x * grows + 2 * p1 * y + 6 * p2 * x, across], -1)
        second = torch.stack([across, radial + y * y * grows + 6 * p1 * y + 2 * p2 * x], -1)
        return torch.stack([first, second], -2)

    def _distort(self, normalised: Tensor) -> Tensor:
        k1, k2, p1, p2, k3 = self.distortion.to(normalised)[..., None, :].unbind(-1)
        x, y = normalised.unbind(-1)
        r2 = x * x + y * y
        radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
        return torch.stack(
            [
                x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x * x),
                y * radial + p1 * (r2 + 2 * y * y) + 2 * p2 * x * y,
            ],
            -1,
        )

    def undistort(self, pixels: Float[Tensor, "*b n 2"], iterations: int = 30) -> Float[Tensor, "*b n 2"]:
        """Normalised image coordinates (x/z, y/z) of pixels: the inverse of `pixels` by fixed-point iteration."""
        k = self.intrinsics.to(pixels)
        target = (pixels - k[..., None, 2:]) / k[..., None, :2]
        found = target
        if bool((self.distortion != 0).any()):
            for _ in range(iterations):
                found = found + (target - self._distort(found))
        return found

    def crop(self, box: Float[Tensor, "*b 4"], size: int | tuple[int, int]) -> Camera:
        """The camera that sees only `box` (x0, y0, x1, y1; pixels of this camera), resized to `size` (width, height).

        Boxes may reach outside the image. Shape `[B, 4]` gives a batch of cameras.

        Raises:
            InputError: a box without area.
        """
        width, height = (size, size) if isinstance(size, int) else size
        box = torch.as_tensor(box, dtype=torch.float64, device=self.intrinsics.device)
        extent = box[..., 2:] - box[..., :2]
        if not bool((extent > 0).all()):
            raise InputError("crop box", f"{box.tolist()}", "x1 > x0 and y1 > y0", "give (x0, y0, x1, y1)")
        scale = torch.tensor([width, height], dtype=torch.float64, device=box.device) / extent
        focal = self.intrinsics[..., :2] * scale
        centre = (self.intrinsics[..., 2:] - box[..., :2]) * scale
        return replace(self, width=width, height=height, intrinsics=torch.cat([focal, centre], -1))

    def resize(self, width: int, height: int) -> Camera:
        """The same camera with its image resized to `width` x `height` pixels."""
        box = torch.tensor([0.0, 0, self.width, self.height], dtype=torch.float64, device=self.intrinsics.device)
        return self.crop(box, (width, height))

    def to(self, device: torch.device | str) -> Camera:
        """The same camera with its tensors on `device`."""
        return replace(
            self,
            intrinsics=self.intrinsics.to(device),
            world_to_camera=self.world_to_camera.to(device),
            distortion=self.distortion.to(device),
        )

    def check_plate_size(self, width: int, height: int) -> None:
        """Refuse plates of another size.

        Raises:
            InputError: the plate's size is not the camera's.
        """
        if (width, height) != (self.width, self.height):
            raise InputError(
                f"camera '{self.name}' size",
                f"{self.width}x{self.height}, while the plates are {width}x{height}",
                "the plates' own size",
                "use the camera that belongs to them; where they were resized, camera.resize(width, height), or scale "
                "fx, fy, cx and cy along with width and height in its file",
            )

    def check_in_front(self, world: Float[Tensor, "n 3"], what: str) -> None:
        """Refuse a camera that has `world` (metres) behind it; a batch of cameras has a point each.

        Raises:
            InputError: a point at or behind the camera plane.
        """
        if len(world) == 0:
            return
        points = world.to(torch.float64)
        if self.world_to_camera.ndim > 2:
            points = points[:, None]
        nearest = float(self.camera_points(points)[..., 2].min())
        if nearest <= 0:
            raise InputError(
                f"camera '{self.name}' world_to_camera",
                f"{what} {-nearest:.3g} m behind the camera",
                "OpenCV axes (+Z forward), world to camera, metres",
                "invert a camera-to-world matrix, or flip Y and Z of an OpenGL, Maya or USD camera",
            )


def inverse_rigid(transform: Float[Tensor, "*b 4 4"]) -> Float[Tensor, "*b 4 4"]:
    """The inverse of a rotation and translation, without the rounding of a general inverse."""
    turn = transform[..., :3, :3].mT
    back = torch.zeros_like(transform)
    back[..., :3, :3] = turn
    back[..., :3, 3] = -(turn @ transform[..., :3, 3:])[..., 0]
    back[..., 3, 3] = 1
    return back
