"""The plates' optical flow as files: Middlebury `.flo`, and pictures in Middlebury's colours (figure 7)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from PIL import Image

from deepenergy.flow import FlowNetwork
from deepenergy.flow.colours import flow_colours
from deepenergy.io.flow.flo import write_flo
from deepenergy.runtime.atomic import atomic_path
from deepenergy.scene.plates import PlateError, Plates

Progress = Callable[[str, int, int], None]


def write_flow_fields(
    folder: Path,
    plates: Sequence[Plates],
    network: FlowNetwork,
    longest: float = 12.0,
    progress: Progress = lambda what, done, total: None,
) -> list[Path]:
    """Flow from every frame to the next one: `FOLDER/CAMERA/flow.1001.flo` and `.png`, named by the first frame.

    Args:
        plates: of all cameras, named.
        network: finds the flow.
        longest: the flow in plate pixels at which a colour is full; the same for all frames, so that they compare.

    Returns:
        the `.flo` files. A frame that is missing or damaged, or whose successor is, has none.

    Raises:
        InputError: a file cannot be written.
    """
    written: list[Path] = []
    for plate in plates:
        own = folder / plate.name
        own.mkdir(parents=True, exist_ok=True)
        for index, (number, following) in enumerate(pairwise(plate.frames)):
            progress(f"flow ({plate.name})", index + 1, len(plate) - 1)
            if following != number + 1:
                continue
            try:
                pair = [plate.read(i)[None] for i in (index, index + 1)]
            except PlateError:
                continue
            with torch.no_grad():
                flow = network(*pair)
            path = own / f"flow.{number:04d}.flo"
            write_flo(path, flow.pixels[0], flow.validity[0])
            colours = (flow_colours(flow.pixels, longest=longest)[0] * 255).round().byte()
            with atomic_path(path.with_suffix(".png"), "flow") as temporary:
                Image.fromarray(colours.permute(1, 2, 0).cpu().numpy()).save(temporary, format="PNG")
            written.append(path)
    return written
