"""Augmentation of flow pairs: crops of changing scale, mirrored and turned, seen by another camera each time."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from training.flow_pairs import SIZE, STEP, VISIBLE, FlowShard

Array = NDArray[np.float32]


def training_sample(rng: np.random.Generator, shard: FlowShard, index: int, crop: int) -> tuple[Array, Array, Array]:
    """A random variant of a pair: pictures [2, 3, crop, crop] in [0, 1], flow [2, crop, crop], visible [crop, crop]."""
    order = [0, 1] if rng.uniform() < 0.5 else [1, 0]
    scale = float(np.clip(np.exp(rng.normal(0, 0.18)), crop / SIZE, 1.6)) if rng.uniform() < 0.5 else 1.0
    side = min(SIZE, int(np.ceil(crop / scale)))
    top, left = rng.integers(0, SIZE - side + 1, 2)
    window = np.s_[top : top + side, left : left + side]
    images = [shard.images[index, k][window] for k in order]
    flow = shard.flows[index, order[0]][(slice(None), *window)].astype(np.float32) * STEP
    visible = (shard.flags[index, order[0]][window] & VISIBLE).astype(np.float32)
    if side != crop:
        factor = crop / side
        how = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        images = [cv2.resize(i, (crop, crop), interpolation=how) for i in images]
        # Nearest, for a flow between two motions is neither's.
        flow = np.stack([cv2.resize(f, (crop, crop), interpolation=cv2.INTER_NEAREST) for f in flow]) * factor
        visible = cv2.resize(visible, (crop, crop), interpolation=cv2.INTER_NEAREST)
    pictures = np.stack(_seen(rng, images)).transpose(0, 3, 1, 2)
    if rng.uniform() < 0.5:
        pictures, flow, visible = pictures[..., ::-1], flow[..., ::-1] * _SIGN_X, visible[..., ::-1]
    if rng.uniform() < 0.3:
        pictures, flow, visible = pictures[..., ::-1, :], flow[:, ::-1] * _SIGN_Y, visible[::-1]
    if rng.uniform() < 0.3:
        pictures, flow, visible = pictures.swapaxes(-1, -2), flow.swapaxes(-1, -2)[::-1], visible.T
    return tuple(np.ascontiguousarray(v, np.float32) for v in (pictures, flow, visible))  # type: ignore[return-value]


_SIGN_X = np.array([-1, 1], np.float32)[:, None, None]
_SIGN_Y = np.array([1, -1], np.float32)[:, None, None]


def _seen(rng: np.random.Generator, images: list[NDArray[np.uint8]]) -> list[Array]:
    """Both pictures through much the same camera, each with grain of its own."""
    soft = rng.uniform(0.3, 1.3) if rng.uniform() < 0.25 else 0.0
    gamma, gain, lift = np.exp(rng.normal(0, 0.25)), rng.uniform(0.6, 1.25), rng.normal(0, 0.05)
    tint = 1 + rng.normal(0, 0.08, 3).astype(np.float32)
    grey = rng.uniform() < 0.1
    differing = rng.uniform() < 0.3
    grain = rng.uniform(0, 0.04) if rng.uniform() < 0.7 else 0.0
    coarse_grain = rng.uniform() < 0.3
    quality = int(rng.integers(35, 95)) if rng.uniform() < 0.2 else 0
    found = []
    for image in images:
        own_gain = gain * (1 + rng.normal(0, 0.05)) if differing else gain
        own_lift = lift + rng.normal(0, 0.02) if differing else lift
        own_gamma = gamma * np.exp(rng.normal(0, 0.06)) if differing else gamma
        curve = np.clip((np.linspace(0, 1, 256) ** own_gamma - 0.5) * own_gain + 0.5 + own_lift, -0.2, 1.2)
        table = (curve[:, None] * tint).astype(np.float32)
        out = np.stack([np.take(table[:, c], image[..., c]) for c in range(3)], -1)
        if grey:
            out = np.repeat(out.mean(-1, keepdims=True), 3, -1)
        if soft:
            out = cv2.GaussianBlur(out, (0, 0), soft)
        if grain:
            noise = rng.standard_normal(out.shape, dtype=np.float32)
            if coarse_grain:
                noise = 2 * cv2.GaussianBlur(noise, (0, 0), 0.7)
            out = out + grain * noise
        out = np.clip(out, 0, 1)
        if quality:
            coded = cv2.imencode(".jpg", (out * 255).astype(np.uint8), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
            decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
            assert decoded is not None
            out = decoded.astype(np.float32) / 255
        found.append(out)
    return found
