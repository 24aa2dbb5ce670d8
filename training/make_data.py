"""Make the shards that `train_compact` reads: `python -m training.make_data OUT --data DATA --ict FOLDER`."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from deepenergy import Rig
from training.photographs import LABEL_WEIGHTS, clip_samples, still_samples
from training.renders import Actor, render_sample
from training.shards import pack

# Persons that no network may see: what is reported is measured on them.
HELD_OUT_CLIPS = ("d0",)
HELD_OUT_STILLS = 20


def make_photographs(data: Path, out: Path) -> None:
    """Shards of the clips and stills; those of the held-out persons are named `heldout_*`."""
    for clip in sorted((data / "train_clips").glob("*.mp4")):
        name = clip.stem
        samples = clip_samples(clip, data / "labels" / f"{name}_facemesh478.npz", 2)
        prefix = "heldout_photo" if name in HELD_OUT_CLIPS else "photo"
        pack(samples, LABEL_WEIGHTS, out / f"{prefix}_{name}.npz")
    stills = still_samples(data / "train_stills", data / "labels" / "train_stills_facemesh478.npz")
    # The stills are ordered by source, so the last ones are people of their own.
    pack(stills[:-HELD_OUT_STILLS], LABEL_WEIGHTS, out / "photo_stills.npz")
    pack(stills[-HELD_OUT_STILLS:], LABEL_WEIGHTS, out / "heldout_photo_stills.npz")


def make_ict(folder: Path, out: Path, shards: int, per_shard: int, seed: int) -> None:
    """Renders of random ICT-FaceKit people; shard 0 is the held-out one."""
    actor = Actor(Rig.load(folder), ("skin",))
    for shard in range(shards):
        rng = np.random.default_rng([seed, shard])
        start = time.perf_counter()
        samples = [render_sample(rng, actor) for _ in range(per_shard if shard else 300)]
        name = f"render_ict_{shard:03d}.npz" if shard else "heldout_render_ict.npz"
        pack(samples, np.ones(68, np.float32), out / name)
        print(f"{name}: {(time.perf_counter() - start) / len(samples) * 1e3:.0f} ms a picture", flush=True)


def make_builtin(out: Path, people: int, per_person: int, seed: int) -> None:
    """Renders of random built-in heads; the first tenth of the people are held out."""
    from deepenergy.builtin_head import randomised_head

    training, held_out = [], []
    for person in range(people):
        rng = np.random.default_rng([seed, 7, person])
        actor = Actor(randomised_head(torch.Generator().manual_seed(seed + person)))
        target = held_out if person < people // 10 else training
        target += [render_sample(rng, actor) for _ in range(per_person)]
    pack(held_out, np.ones(68, np.float32), out / "heldout_render_builtin.npz")
    pack(training, np.ones(68, np.float32), out / "render_builtin.npz")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, help="folder with train_clips, train_stills, labels")
    parser.add_argument("--ict", type=Path, help="ICT-FaceKit folder")
    parser.add_argument("--builtin", type=int, default=0, help="how many random built-in heads")
    parser.add_argument("--shards", type=int, default=13)
    parser.add_argument("--per-shard", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.data:
        make_photographs(args.data, args.out)
    if args.ict:
        make_ict(args.ict, args.out, args.shards, args.per_shard, args.seed)
    if args.builtin:
        make_builtin(args.out, args.builtin, 12, args.seed)


if __name__ == "__main__":
    main()
