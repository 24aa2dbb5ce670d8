"""Positions of the whole mesh: the neutral head, each expression's displacements, the jaw's skin weights."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from deepenergy.builtin_head import chart, expressions, parts, shape
from deepenergy.builtin_head.expressions import Skin
from deepenergy.builtin_head.identity import Identity
from deepenergy.builtin_head.layout import BAG_RINGS, Layout

Array = NDArray[Any]

# How much of the lips' motion the rings of the mouth's inside follow.
_BAG_FOLLOWS = np.array([0.97, 0.8, 0.45, 0.15, 0.0, 0.0])
# mouthClose brings the lips together at this opening of the jaw, radians.
CLOSE_AT = 0.24
_CLOSE_FROM_BELOW = 0.6


class Sculpt:
    """One person's head on the common topology, millimetres, before `shape.reshape`.

    Args:
        plan: the mesh without positions.
        who: proportions.
    """

    def __init__(self, plan: Layout, who: Identity) -> None:
        self.plan, self.who = plan, who
        skin = plan.skin
        self.p = np.where(
            np.cos(skin.lon) > 0.17, chart.front_width(skin.q) * np.sin(skin.lon), 1e3 * np.sign(skin.lon)
        )
        opening = 10.0 * (who.eye_opening - 1)
        # Eyes that are wider or narrower by nature: the lids' neutral place is a slide of its own.
        slide = expressions.lid_slide(np.abs(self.p), skin.q, 0.7 * opening, -0.3 * opening)
        self.q = skin.q + slide
        self.context = Skin(self.p, skin.q, skin.offset, skin.is_upper)
        carried = shape.carried_relief(np.abs(self.p), skin.q, skin.offset, skin.is_upper, who)
        self.carried = np.where(np.abs(self.p) < 500, carried, 0.0)
        self.skin = self._surface(skin.lon, self.q) + self.carried[:, None] * [0, 0, 1]
        self.jaw_weights = self._jaw_weights()

    def _surface(self, lon: Array, q: Array) -> Array:
        points = shape.smooth_skin(np.abs(lon), q, self.who)
        points[:, 0] *= np.where(lon < 0, -1, 1)
        return points

    # -- neutral -----------------------------------------------------------------------------------------------

    @functools.cached_property
    def _neutral(self) -> Array:
        plan = self.plan
        out = np.zeros((plan.vertices, 3))
        out[plan.ranges["skin"]] = self.skin
        ball = parts.eyeball()
        out[plan.ranges["eye_left"]], out[plan.ranges["eye_right"]] = ball.points, parts.mirrored(ball).points
        for index, side in enumerate(("left", "right")):
            out[plan.ranges[f"rim_{side}"]] = self._rims(self.skin, index)
        out[plan.ranges["teeth_upper"]] = parts.teeth(True).part.points
        out[plan.ranges["teeth_lower"]] = parts.teeth(False).part.points
        out[plan.ranges["bag"]] = self._bag()
        out[plan.ranges["tongue"]] = parts.tongue().points
        ear = parts.ear()
        out[plan.ranges["ear_left"]], out[plan.ranges["ear_right"]] = ear.points, parts.mirrored(ear).points
        return out

    def neutral(self) -> Array:
        """`[V, 3]`."""
        return self._neutral

    def _rims(self, skin: Array, index: int) -> Array:
        flip = np.array([1 if index == 0 else -1, 1, 1])
        return np.concatenate(parts.lid_rim(skin[self.plan.skin.eye_rings[index][0]] * flip)) * flip

    def _bag(self) -> Array:
        loop = self.plan.skin.lip_rings[0]
        rings, end = parts.mouth_bag(self.skin[loop], self.plan.skin.is_upper[loop])
        return np.concatenate([rings.reshape(-1, 3), end[None]])

    # -- jaw ---------------------------------------------------------------------------------------------------

    def _jaw_weights(self) -> Array:
        plan, skin = self.plan, self.plan.skin
        ap = np.minimum(np.abs(self.p), 120)
        lon = np.abs(skin.lon)
        t = np.clip(ap / chart.MOUTH_X, 0, 1)
        band = 11.0 + 0.30 * np.maximum(ap - chart.MOUTH_X, 0)
        # Above the mouth's line the jaw has no share, below it all; at the corners it passes from one to the other.
        apart = 13.0 * np.sqrt(1 - t**2)
        flat = np.where(np.abs(self.p) < 500, chart.mouth_line(ap), -68.0)
        signed = np.where(lon < 1.38, np.where(skin.is_upper, skin.offset + apart, -skin.offset - apart), skin.q - flat)
        weight = shape.smoothstep(1.0, -1.0, signed / band)
        weight *= 1 - shape.smoothstep(np.radians(62), np.radians(100), lon)
        weight *= shape.smoothstep(-150, -114, skin.q)
        out = np.zeros(plan.vertices)
        out[plan.ranges["skin"]] = weight
        out[plan.ranges["teeth_lower"]] = 1.0
        out[plan.ranges["tongue"]] = np.clip(0.6 + 0.4 * parts.tongue().uv[:, 1] * 1.6, 0, 1)
        loop = weight[skin.lip_rings[0]]
        # Behind the lips the upper half belongs to the skull and the lower one to the jaw; the throat is half-way.
        firm = np.where(skin.is_upper[skin.lip_rings[0]], np.minimum(loop, 0.5), np.maximum(loop, 0.5))
        to_throat = np.array([0, 0, 0, 0.1, 0.4, 0.8])[:, None]
        out[plan.ranges["bag"]] = np.append((firm + to_throat * (0.5 - firm)).ravel(), 0.5)
        return out

    # -- expressions -------------------------------------------------------------------------------------------

    def displacement(self, name: str) -> Array:
        """`[V, 3]` of one of `expressions.NAMES` at weight 1."""
        if name.endswith("Right") and name != "mouthRight":
            return self._mirror(self.displacement(name.removesuffix("Right") + "Left"))
        if name == "mouthRight":
            return self._mirror(self.displacement("mouthLeft"))
        return self._left(name)

    @functools.cache  # noqa: B019 - a Sculpt lives as long as one build
    def _left(self, name: str) -> Array:
        stem = name.removesuffix("Left")
        moved = np.zeros((self.plan.vertices, 3))
        skin = np.zeros_like(self.skin)
        if name == "mouthClose":
            skin = self._close()
        elif name == "mouthLeft":
            skin = self._slide(*expressions.sideways(self.context))
        elif stem in expressions.SIDED:
            skin = self._slide(*expressions.SIDED[stem](self.context))
        elif stem in expressions.CENTRAL:
            skin = self._slide(*expressions.CENTRAL[stem](self.context))
        else:
            upper, lower = expressions.LIDS.get(stem, (None, None))
            target = self.plan.skin.q + expressions.lid_slide(self.p, self.plan.skin.q, upper, lower)
            if upper is not None:
                target = target + self.q - self.plan.skin.q
            skin = self._slide(0 * target, np.where(self.p > 0, target - self.q, 0), 0 * target)
        if stem in expressions.GAZE:
            moved[self.plan.ranges["eye_left"]] = self._gaze(*expressions.GAZE[stem])
        moved[self.plan.ranges["skin"]] = skin
        for index, side in enumerate(("left", "right")):
            if np.abs(skin[self.plan.skin.eye_rings[index][0]]).max() > 0:
                rims = self._rims(self.skin + skin, index) - self._rims(self.skin, index)
                moved[self.plan.ranges[f"rim_{side}"]] = rims
        loop = skin[self.plan.skin.lip_rings[0]]
        bag = _BAG_FOLLOWS[:, None, None] * loop
        moved[self.plan.ranges["bag"]][: BAG_RINGS * len(loop)] = bag.reshape(-1, 3)
        return moved

    def _slide(self, dp: Array, dq: Array, dz: Array) -> Array:
        size = np.abs(dp) + np.abs(dq) + np.abs(dz)
        active = np.nonzero((size > 0.02) & (np.abs(self.p) < 62))[0]
        # What is nearly nothing fades out, so that there is no step where the field is cut off.
        fade = shape.smoothstep(0.02, 0.12, size[active]) * (1 - shape.smoothstep(52, 62, np.abs(self.p[active])))
        p, q = self.p[active] + fade * dp[active], self.q[active] + fade * dq[active]
        out = np.zeros_like(self.skin)
        points = self._surface(np.sign(p) * chart.longitude(np.abs(p), q), q)
        points[:, 2] += self.carried[active] + fade * dz[active]
        out[active] = points - self.skin[active]
        return out

    def _gaze(self, up: float, out: float) -> Array:
        ball = parts.eyeball().points - shape.EYE_CENTRE
        a, b = np.radians(up), np.radians(out)
        about_x = np.array([[1, 0, 0], [0, np.cos(a), np.sin(a)], [0, -np.sin(a), np.cos(a)]])
        about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
        return ball @ (about_y @ about_x).T - ball

    def _close(self) -> Array:
        """mouthClose: what brings the lips together again when the jaw is open by `CLOSE_AT`."""
        skin = self.plan.skin
        loop = skin.lip_rings[0]
        n = len(loop)
        half = n // 2
        top, bottom = loop[: half + 1], np.concatenate([loop[:1], loop[: half - 1 : -1]])
        c, s = np.cos(CLOSE_AT), np.sin(CLOSE_AT)
        turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])

        def opened(index: Array) -> tuple[Array, Array, Array]:
            w = self.jaw_weights[index][:, None, None]
            matrix = (1 - w) * np.eye(3) + w * turn
            shift = w[:, :, 0] * (shape.JAW_PIVOT - turn @ shape.JAW_PIVOT)
            return matrix, shift, np.einsum("nij,nj->ni", matrix, self.skin[index]) + shift

        upper_matrix, upper_shift, upper = opened(top)
        lower_matrix, lower_shift, lower = opened(bottom)
        meet = _CLOSE_FROM_BELOW * upper + (1 - _CLOSE_FROM_BELOW) * lower
        p = self.p[top]
        out = np.zeros_like(self.skin)
        near = np.nonzero((np.abs(self.p) < chart.MOUTH_X + 4) & (skin.offset < 40))[0]
        fall = np.exp(-((skin.offset[near] / 15.0) ** 2))
        for is_upper, matrix, shift, index in (
            (True, upper_matrix, upper_shift, top),
            (False, lower_matrix, lower_shift, bottom),
        ):
            move = np.linalg.solve(matrix, (meet - shift)[..., None])[..., 0] - self.skin[index]
            mine = skin.is_upper[near] == is_upper
            for axis in range(3):
                out[near[mine], axis] = fall[mine] * np.interp(self.p[near[mine]], p, move[:, axis])
        return out

    def _mirror(self, moved: Array) -> Array:
        out = np.zeros_like(moved)
        plan = self.plan
        out[plan.ranges["skin"]] = moved[plan.skin.mirror]
        for name in ("eye", "rim", "ear"):
            out[plan.ranges[f"{name}_right"]] = moved[plan.ranges[f"{name}_left"]]
            out[plan.ranges[f"{name}_left"]] = moved[plan.ranges[f"{name}_right"]]
        rings = moved[plan.ranges["bag"]]
        n = len(plan.skin.lip_rings[0])
        # The loop runs from the right corner over the upper lip: its mirror image runs the other way round.
        flip = np.concatenate([np.arange(n // 2, -1, -1), np.arange(n - 1, n // 2, -1)])
        body = rings[: BAG_RINGS * n].reshape(BAG_RINGS, n, 3)[:, flip].reshape(-1, 3)
        out[plan.ranges["bag"]] = np.concatenate([body, rings[BAG_RINGS * n :]])
        return out * [-1, 1, 1]
