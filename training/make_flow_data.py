"""Make the shards that `train_flow` reads: `python -m training.make_flow_data OUT --data DATA --ict FOLDER`.

Files `heldout_*` hold other people, other backgrounds and other motions than the rest.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from deepenergy.builtin_head import randomised_head
from training.flow_layers import Photographs, layered_pair, stills
from training.flow_pairs import FlowPair, pack
from training.flow_renders import FlowActor, head_pair, ict_actor
from training.make_data import HELD_OUT_CLIPS, HELD_OUT_STILLS
from training.photographs import clip_frames

CLIP_EVERY = 15


def training_photographs(data: Path) -> Photographs:
    """Stills and frames of clips of the persons that training may see."""
    images = stills(data / "train_stills", 0, -HELD_OUT_STILLS)
    for clip in sorted((data / "train_clips").glob("*.mp4")):
        if clip.stem not in HELD_OUT_CLIPS:
            images += [frame for i, frame in enumerate(clip_frames(clip)) if i % CLIP_EVERY == 0]
    skin = cv2.imread(str(data / "scan" / "LeePerrySmith_color.jpg"))
    if skin is not None:
        images += [_small(np.ascontiguousarray(skin[..., ::-1], np.uint8))] * 5
    return Photographs([_small(i) for i in images])


def held_out_photographs(data: Path) -> Photographs:
    """Stills and frames of clips of the persons that training may not see."""
    images = stills(data / "train_stills", -HELD_OUT_STILLS)
    for clip in HELD_OUT_CLIPS:
        if (path := data / "train_clips" / f"{clip}.mp4").is_file():
            images += [frame for i, frame in enumerate(clip_frames(path)) if i % CLIP_EVERY == 0]
    return Photographs([_small(i) for i in images])


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    scale = 640 / min(image.shape[:2])
    if scale >= 1:
        return image
    return np.asarray(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA), np.uint8)


def make_layers(out: Path, photographs: Photographs, shards: int, per_shard: int, seed: int) -> None:
    """Shards of flat layers."""
    for shard in range(shards):
        rng = np.random.default_rng([seed, 11, shard])
        pack([layered_pair(rng, photographs) for _ in range(per_shard)], out / f"layers_{shard:03d}.npz")


def make_heads(
    out: Path, photographs: Photographs, held_out: Photographs, ict: Path, shards: int, per_shard: int, seed: int
) -> None:
    """Shards of moving heads: random ICT-FaceKit people, and in every fourth shard built-in heads."""
    actor = ict_actor(str(ict))
    for shard in range(-1, shards):
        start = time.perf_counter()
        rng = np.random.default_rng([seed, 13, shard + 1])
        name = f"head_{shard:03d}.npz" if shard >= 0 else "heldout_ict.npz"
        place = photographs if shard >= 0 else held_out
        if shard % 4 == 3 or shard < 0:
            built_in = [
                pair
                for person in range(max(1, per_shard // 20))
                for pair in builtin_pairs(rng, place, seed + 1000 * (shard + 1) + person, 20)
            ]
            pack(built_in, out / (name if shard >= 0 else "heldout_builtin.npz"))
        if shard % 4 != 3 or shard < 0:
            pack([head_pair(rng, actor, place) for _ in range(per_shard)], out / name)
        print(f"{name}: {(time.perf_counter() - start) / per_shard * 1e3:.0f} ms a pair", flush=True)


def builtin_pairs(rng: np.random.Generator, photographs: Photographs, person: int, count: int) -> list[FlowPair]:
    """Pairs of one random built-in head."""
    actor = FlowActor(randomised_head(torch.Generator().manual_seed(person)))
    return [head_pair(rng, actor, photographs) for _ in range(count)]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, required=True, help="folder with train_clips, train_stills, scan")
    parser.add_argument("--layers", type=int, default=0, help="how many shards of flat layers")
    parser.add_argument("--heads", type=int, default=0, help="how many shards of heads")
    parser.add_argument("--ict", type=Path, help="ICT-FaceKit folder, for the heads")
    parser.add_argument("--per-shard", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    photographs = training_photographs(args.data)
    make_layers(args.out, photographs, args.layers, args.per_shard, args.seed)
    if args.heads:
        if args.ict is None:
            parser.error("--heads needs --ict")
        held_out = held_out_photographs(args.data)
        make_heads(args.out, photographs, held_out, args.ict, args.heads, args.per_shard, args.seed)


if __name__ == "__main__":
    main()
