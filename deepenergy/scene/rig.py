"""The rigged blendshape face: neutral, blendshapes, skinned jaw joint, landmarks, albedo (paper, equation 1).

    x(w)  = skin(neutral + sum_i identity_i * I_i + sum_k w_k * B_k, jaw)
    x_R   = R(theta) x(w) + t

Object space: metres, +Y up, the face looks down +Z. The jaw joint turns the jaw-weighted vertices about its pivot
by linear blend skinning: with skin weight s, `x' = x + s * (exp(r) (x - pivot) + pivot + d - x)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from deepenergy.runtime import registry
from deepenergy.runtime.errors import InputError
from deepenergy.scene.control_groups import control_groups
from deepenergy.scene.landmark_layout import IBUG_68, LandmarkLayout
from deepenergy.scene.rotation import so3_exp
from deepenergy.scene.state import State


@dataclass(frozen=True)
class Jaw:
    """The skinned jaw joint.

    Attributes:
        pivot: `[3]` metres, object space; between the condyles.
        skin_weights: `[V]` in [0, 1], the share of the jaw in every vertex.
        lower, upper: `[6]` bounds of (axis-angle radians, translation metres).
    """

    pivot: Tensor
    skin_weights: Tensor
    lower: Tensor
    upper: Tensor

    @staticmethod
    def default_bounds() -> tuple[Tensor, Tensor]:
        """Opening up to 35 degrees about +X, 8 degrees sideways, 4 degrees roll, 12 mm of sliding."""
        lower = torch.tensor([-0.05, -0.14, -0.07, -0.008, -0.008, -0.006])
        upper = torch.tensor([0.61, 0.14, 0.07, 0.008, 0.004, 0.012])
        return lower, upper


@dataclass(frozen=True)
class Rig:
    """A rigged face. Tensors are float32 on one device; `to` moves and converts them.

    Attributes:
        name: the rig's name.
        neutral: `[V, 3]` metres.
        faces: `[F, 3]` int64 vertex indices, counter-clockwise seen from outside.
        blendshapes: `[K, V, 3]` displacements at weight 1.
        weight_names: K names.
        weight_bounds: `[K, 2]` lowest and highest weight (default 0 and 1).
        landmark_faces: `[L]` int64 triangle of every landmark, or None.
        landmark_barycentrics: `[L, 3]`, or None.
        jaw: the jaw joint, or None for a rig whose jaw is blendshapes only.
        uvs: `[N, 2]` texture coordinates (origin bottom-left, +v up), or None; `uv_faces` `[F, 3]` indexes them.
        vertex_albedo: `[V, 3]` scene-linear, or None.
        texture: `[H, W, 3]` scene-linear albedo image (top row first), or None; wins over `vertex_albedo`.
        face_regions: `[F]` int64 into `region_names` (skin, eyes, teeth, ...).
        identity_basis: `[I, V, 3]` identity displacements, or None; `identity_names` names them.
        group_overrides: see `control_groups`.
        layout: the landmarks' scheme, which says how many there are (L) and what each one is.

    Raises:
        InputError: shapes that disagree, non-finite vertices, indices out of range.
    """

    name: str
    neutral: Tensor
    faces: Tensor
    blendshapes: Tensor
    weight_names: tuple[str, ...]
    weight_bounds: Tensor | None = None
    landmark_faces: Tensor | None = None
    landmark_barycentrics: Tensor | None = None
    jaw: Jaw | None = None
    uvs: Tensor | None = None
    uv_faces: Tensor | None = None
    vertex_albedo: Tensor | None = None
    texture: Tensor | None = None
    face_regions: Tensor | None = None
    region_names: tuple[str, ...] = ("skin",)
    identity_basis: Tensor | None = None
    identity_names: tuple[str, ...] = ()
    group_overrides: Mapping[str, Sequence[str]] = field(default_factory=dict)
    layout: LandmarkLayout = IBUG_68

    def __post_init__(self) -> None:
        vertices, shapes = self.neutral.shape[0], len(self.weight_names)
        self._expect("neutral", self.neutral, (vertices, 3))
        self._expect("faces", self.faces, (self.faces.shape[0], 3))
        self._expect("blendshapes", self.blendshapes, (shapes, vertices, 3))
        if vertices == 0 or self.faces.shape[0] == 0:
            raise InputError(f"rig '{self.name}'", "a mesh without triangles", "a face mesh", "export the head mesh")
        if int(self.faces.min()) < 0 or int(self.faces.max()) >= vertices:
            raise InputError(
                f"rig '{self.name}' faces",
                f"indices {int(self.faces.min())}..{int(self.faces.max())}",
                f"0..{vertices - 1}",
                "export the mesh again",
            )
        for what in ("neutral", "blendshapes"):
            if not bool(torch.isfinite(getattr(self, what)).all()):
                raise InputError(
                    f"rig '{self.name}' {what}", "NaN or infinity", "finite metres", "clean the mesh and export again"
                )
        if len(set(self.weight_names)) != shapes:
            twice = sorted({n for n in self.weight_names if self.weight_names.count(n) > 1})
            raise InputError(f"rig '{self.name}' weight names", f"{twice} twice", "unique names", "rename the targets")
        if self.weight_bounds is None:
            bounds = torch.tensor([0.0, 1.0]).expand(shapes, 2).clone().to(self.neutral)
            object.__setattr__(self, "weight_bounds", bounds)
        if self.face_regions is None:
            object.__setattr__(self, "face_regions", torch.zeros_like(self.faces[:, 0]))
        self._check_landmarks()
        for what, shape in (("vertex_albedo", (vertices, 3)), ("uv_faces", tuple(self.faces.shape))):
            if getattr(self, what) is not None:
                self._expect(what, getattr(self, what), shape)
        if self.uvs is not None and self.uv_faces is None:
            object.__setattr__(self, "uv_faces", self.faces)

    def _expect(self, what: str, value: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(value.shape) != shape:
            raise InputError(
                f"rig '{self.name}' {what}", f"shape {tuple(value.shape)}", f"{shape}", "export the rig again"
            )

    def _check_landmarks(self) -> None:
        if self.landmark_faces is None or self.landmark_barycentrics is None:
            return
        self._expect("landmark_faces", self.landmark_faces, (self.layout.count,))
        self._expect("landmark_barycentrics", self.landmark_barycentrics, (self.layout.count, 3))
        if int(self.landmark_faces.min()) < 0 or int(self.landmark_faces.max()) >= self.faces.shape[0]:
            raise InputError(
                f"rig '{self.name}' landmarks",
                f"triangle {int(self.landmark_faces.max())}",
                f"0..{self.faces.shape[0] - 1}",
                "give the landmarks that belong to this mesh",
            )

    # -- loading ---------------------------------------------------------------------------------------------

    @staticmethod
    def load(
        path: str | Path,
        landmarks: str | Path | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
    ) -> Rig:
        """Read a rig: glTF/GLB morph targets, an ICT-FaceKit folder, or deepenergy's own `.npz`.

        Args:
            path: the file or folder, or "builtin" for the procedural head inside the package.
            landmarks: JSON with `indices`, a vertex for every landmark in iBUG order (or `faces` and `barycentrics`).
            groups: weights to move to other control groups, see `control_groups`.

        Raises:
            InputError: no such file, no morph targets, wrong landmarks.
        """
        if str(path) == "builtin":
            rig = registry.lookup("read rig", Path("builtin.builtin"), "rig")()
        else:
            path = Path(path).expanduser()
            if not path.exists():
                raise InputError(
                    "rig", f"no file {path}", "a glTF/GLB, an ICT-FaceKit folder or a .npz", "check the path"
                )
            rig = registry.lookup("read rig", path, "rig")(path)
        if landmarks is not None:
            read = registry.lookup("read landmarks", Path(landmarks), "landmarks")
            rig = read(Path(landmarks), rig)
        return replace(rig, group_overrides=dict(groups)) if groups else rig

    def save(self, path: str | Path) -> None:
        """Write the rig as `.npz` (no pickle), whole."""
        path = Path(path)
        registry.lookup("write rig", path, "rig output")(path, self)

    def with_landmark_vertices(self, indices: Int[Tensor, " l"]) -> Rig:
        """The rig with its landmarks at vertices.

        Raises:
            InputError: not an index for every landmark, out of range, or a vertex that no triangle uses.
        """
        indices = torch.as_tensor(indices, dtype=torch.int64)
        if indices.shape != (self.layout.count,):
            raise InputError(
                "landmarks",
                f"{indices.numel()} vertex indices",
                f"{self.layout.count}, in {self.layout.title} order",
                "leave none out: mark the nearest vertex for each point",
            )
        vertices = self.neutral.shape[0]
        if int(indices.min()) < 0 or int(indices.max()) >= vertices:
            raise InputError(
                "landmarks", f"vertex index {int(indices.max())}", f"0..{vertices - 1}", "use this rig's own landmarks"
            )
        # One triangle per vertex: any will do, but the same one every time.
        flat = self.faces.reshape(-1)
        corner_of = torch.full((vertices,), -1).scatter_reduce(0, flat, torch.arange(flat.numel()), "amax")
        corner = corner_of[indices]
        if bool((corner < 0).any()):
            lost = indices[corner < 0].tolist()
            raise InputError("landmarks", f"vertices {lost} in no triangle", "vertices of the surface", "move them")
        barycentrics = torch.nn.functional.one_hot(corner % 3, 3).to(self.neutral.dtype)
        return replace(self, landmark_faces=corner // 3, landmark_barycentrics=barycentrics)

    def require_landmarks(self) -> tuple[Tensor, Tensor]:
        """`(landmark_faces, landmark_barycentrics)`.

        Raises:
            InputError: the rig has none.
        """
        if self.landmark_faces is None or self.landmark_barycentrics is None:
            raise InputError(
                f"rig '{self.name}' landmarks",
                "none",
                f"{self.layout.count} {self.layout.title} landmarks on the mesh",
                f'pass a JSON {{"indices": [{self.layout.count} vertex numbers]}} as landmarks= '
                "(or `landmarks` in the shot file)",
            )
        return self.landmark_faces, self.landmark_barycentrics

    # -- evaluating ------------------------------------------------------------------------------------------

    @property
    def groups(self) -> dict[str, tuple[int, ...]]:
        """Control group -> indices of its weights."""
        return control_groups(self.weight_names, self.group_overrides)

    def local_vertices(
        self, weights: Float[Tensor, "b k"], jaw: Float[Tensor, "b 6"] | None = None
    ) -> Float[Tensor, "b v 3"]:
        """`x(w)` in object space (metres), in the weights' dtype."""
        shapes = self.blendshapes.to(weights)
        moved = weights @ shapes.flatten(1)
        local = self.neutral.to(weights) + moved.unflatten(1, (-1, 3))
        if self.jaw is None or jaw is None:
            return local
        pivot, skin = self.jaw.pivot.to(weights), self.jaw.skin_weights.to(weights)
        turned = (local - pivot) @ so3_exp(jaw[:, :3]).transpose(-1, -2) + pivot + jaw[:, None, 3:]
        return local + skin[:, None] * (turned - local)

    def vertices(self, state: State) -> Float[Tensor, "b v 3"]:
        """`x_R` in world space (metres), equation 1, in the state's dtype."""
        local = self.local_vertices(state.weights, state.jaw)
        return local @ state.rotation.transpose(-1, -2) + state.translation[:, None]

    def landmarks(self, vertices: Float[Tensor, "b v 3"]) -> Float[Tensor, "b l 3"]:
        """The landmark points of meshes."""
        faces, barycentrics = self.require_landmarks()
        corners = vertices[:, self.faces[faces].to(vertices.device)]
        return (corners * barycentrics.to(vertices)[None, :, :, None]).sum(-2)

    def landmark_rig(self) -> Rig:
        """The small rig of the landmarks' triangles alone: same parameters, few vertices, so evaluating is cheap."""
        faces, barycentrics = self.require_landmarks()
        used, renumbered = torch.unique(self.faces[faces], return_inverse=True)
        jaw = None if self.jaw is None else replace(self.jaw, skin_weights=self.jaw.skin_weights[used])
        return Rig(
            name=self.name,
            neutral=self.neutral[used],
            faces=renumbered,
            blendshapes=self.blendshapes[:, used],
            weight_names=self.weight_names,
            weight_bounds=self.weight_bounds,
            landmark_faces=torch.arange(self.layout.count, device=faces.device),
            landmark_barycentrics=barycentrics,
            jaw=jaw,
            identity_basis=None if self.identity_basis is None else self.identity_basis[:, used],
            identity_names=self.identity_names,
            group_overrides=self.group_overrides,
            layout=self.layout,
        )

    def with_identity(self, coefficients: Float[Tensor, " i"]) -> Rig:
        """The rig of one person: identity coefficients added to the neutral, the basis dropped.

        Raises:
            InputError: the rig has no identity basis, or another number of coefficients.
        """
        if self.identity_basis is None or coefficients.shape != (self.identity_basis.shape[0],):
            have = 0 if self.identity_basis is None else self.identity_basis.shape[0]
            raise InputError(
                "identity",
                f"{coefficients.numel()} coefficients",
                f"{have}, as the rig has",
                "see `deepenergy rig info`",
            )
        moved = torch.einsum("i,ivc->vc", coefficients.to(self.neutral), self.identity_basis)
        return replace(self, neutral=self.neutral + moved, identity_basis=None, identity_names=())

    def to(self, device: torch.device | str) -> Rig:
        """The same rig on `device`."""
        moved = {name: value.to(device) for name, value in self.__dict__.items() if isinstance(value, Tensor)}
        jaw = None
        if self.jaw is not None:
            jaw = Jaw(*(getattr(self.jaw, n).to(device) for n in ("pivot", "skin_weights", "lower", "upper")))
        return replace(self, **moved, jaw=jaw)
