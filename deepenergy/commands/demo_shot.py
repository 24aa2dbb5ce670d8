"""The demo's shot: the built-in head, filmed with a camera's faults.

The plates are made here, so nothing is downloaded: motion blur over a 180-degree shutter, defocus, a backdrop that the
solver's own render does not have, and sensor grain. What is written is an ordinary shot, which
`deepenergy solve OUTPUT/shot.toml` solves again.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from deepenergy.render import Renderer
from deepenergy.render.ambient_occlusion import ambient_occlusion
from deepenergy.runtime.progress import Progress, silent
from deepenergy.scene.camera import Camera
from deepenergy.scene.colour import linear_to_srgb, srgb_to_linear
from deepenergy.scene.rig import Rig
from deepenergy.scene.rotation import so3_exp, so3_log
from deepenergy.scene.state import State
from deepenergy.scene.track import Track
from deepenergy.shot_file import Shot

WIDTH, HEIGHT, FOCAL = 640, 480, 1050.0
FIRST_FRAME = 1001
SEED = 20181207
SUB_FRAMES = 4
SHUTTER = 0.5  # 180 degrees, centred on the frame's time
DEFOCUS_PX = 0.7
# Sensor noise in linear light: variance = GRAIN_SHOT * signal + GRAIN_READ.
GRAIN_SHOT, GRAIN_READ = 2.5e-4, 4e-6
BACKDROP = ((0.16, 0.19, 0.23), (0.52, 0.50, 0.47))  # sRGB, top and bottom
_STUDIO = (0.35, 0.35, 0.35)


def demo_camera(rig: Rig) -> Camera:
    """A portrait lens 0.9 m away, a little to the side and above, so that no axis is special."""
    face = rig.neutral[rig.faces[rig.require_landmarks()[0]]].reshape(-1, 3).mean(0).tolist()
    eye = (face[0] + 0.12, face[1] + 0.06, face[2] + 0.9)
    return Camera.look_at(WIDTH, HEIGHT, FOCAL, eye, (face[0], face[1], face[2]), name="demo")


def between(states: State, time: float) -> State:
    """The state at a fractional frame index, along the geodesic and the straight lines between its neighbours."""
    time = min(max(time, 0.0), len(states) - 1.0)
    first = min(int(time), len(states) - 2)
    fraction = time - first
    a, b = states[[first]], states[[first + 1]]
    turn = so3_exp(fraction * so3_log(b.rotation @ a.rotation.transpose(-1, -2)))
    return State(
        turn @ a.rotation,
        torch.lerp(a.translation, b.translation, fraction),
        torch.lerp(a.jaw, b.jaw, fraction),
        torch.lerp(a.weights, b.weights, fraction),
    )


@torch.no_grad()
def write_plates(folder: Path, rig: Rig, states: State, camera: Camera, progress: Progress = silent) -> None:
    """Film the performance: one JPEG a frame, `demo.1001.jpg` and on.

    Args:
        folder: where they go; made where it does not exist.
        rig, states: what is filmed, a state for each frame.
        camera: what it is filmed by.
        progress: called with (stage, done, total).
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A shorter demo must not leave the frames of a longer one behind it.
    for old in folder.glob("demo.*.jpg"):
        old.unlink()
    renderer = Renderer(rig, ambient_occlusion(rig), background=_STUDIO)
    # The renderer's even background is swapped for the backdrop in linear light, by coverage.
    swap = _backdrop() - srgb_to_linear(torch.tensor(_STUDIO))[:, None, None]
    generator = torch.Generator().manual_seed(SEED)
    offsets = [SHUTTER * ((k + 0.5) / SUB_FRAMES - 0.5) for k in range(SUB_FRAMES)]
    for frame in range(len(states)):
        exposed = State.stack([between(states, frame + offset) for offset in offsets])
        render = renderer(rig.vertices(exposed), camera)
        linear = srgb_to_linear(render.image) + (1 - render.mask) * swap
        plate = _grain(_defocus(linear.mean(0, keepdim=True)), generator)
        pixels = (linear_to_srgb(plate[0].clamp(0, 1)) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(folder / f"demo.{FIRST_FRAME + frame}.jpg", quality=92)
        progress("plates", frame + 1, len(states))


def _backdrop() -> Float[Tensor, "3 h w"]:
    top, bottom = (srgb_to_linear(torch.tensor(colour))[:, None, None] for colour in BACKDROP)
    return torch.lerp(top, bottom, torch.linspace(0, 1, HEIGHT)[None, :, None]).expand(3, HEIGHT, WIDTH)


def _defocus(image: Float[Tensor, "1 3 h w"]) -> Float[Tensor, "1 3 h w"]:
    radius = math.ceil(3 * DEFOCUS_PX)
    x = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (x / DEFOCUS_PX) ** 2)
    kernel = (kernel / kernel.sum()).expand(3, 1, 1, -1)
    padded = torch.nn.functional.pad(image, [radius] * 4, mode="replicate")
    rows = torch.nn.functional.conv2d(padded, kernel, groups=3)
    return torch.nn.functional.conv2d(rows, kernel.transpose(-1, -2), groups=3)


def _grain(image: Float[Tensor, "1 3 h w"], generator: torch.Generator) -> Float[Tensor, "1 3 h w"]:
    deviation = (GRAIN_SHOT * image + GRAIN_READ).clamp_min(0).sqrt()
    return image + deviation * torch.randn(image.shape, generator=generator)


def write_shot(folder: Path, rig: Rig, camera: Camera) -> Shot:
    """Write rig, camera and shot file next to the plates, and read them back as a user's own shot is read."""
    rig.save(folder / "rig.npz")
    fx, fy, cx, cy = camera.intrinsics.tolist()
    described = {
        "cameras": [
            {
                "name": camera.name,
                "width": camera.width,
                "height": camera.height,
                **{"fx": fx, "fy": fy, "cx": cx, "cy": cy},
                "distortion": camera.distortion.tolist(),
                "world_to_camera": camera.world_to_camera.tolist(),
            }
        ]
    }
    (folder / "cameras.json").write_text(json.dumps(described, indent=1), encoding="utf-8")
    lines = (
        'name = "demo"',
        'rig = "rig.npz"',
        'cameras = "cameras.json"',
        'output = "."',
        "[plates]",
        f'{camera.name} = "plates/demo.####.jpg"',
    )
    path = folder / "shot.toml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Shot.load(path)


def known_track(rig: Rig, truth: State) -> Track:
    """The truth as a track, so that `deepenergy eval` reads it."""
    count = len(truth)
    return Track(
        frames=np.arange(FIRST_FRAME, FIRST_FRAME + count),
        rotation=truth.rotation.numpy(),
        translation=truth.translation.numpy(),
        jaw=truth.jaw.numpy(),
        weights=truth.weights.numpy(),
        weight_names=rig.weight_names,
        status=np.full(count, "solved"),
        reason=np.full(count, ""),
        confidence=np.ones(count),
        landmark_residual_px=np.zeros(count),
        rig_name=rig.name,
    )
