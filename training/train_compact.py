"""Train the compact landmark network: `python -m training.train_compact DATA --out compact.safetensors`.

Loss: cross-entropy of the heatmaps against a quadratic B-spline splat of the landmark, whose mean over the 3x3 patch is
the landmark itself, so that equation 3 at beta = 50 reads the position back without bias; plus the distance of the
soft-argmax where the peak is already near.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from deepenergy.landmarks.compact import BETA, CompactNetwork
from deepenergy.landmarks.soft_argmax import local_soft_argmax
from training.augment import SIZE, augmented, network_input
from training.shards import Shard, unpack

HEATMAP = 64


class Stream(IterableDataset):
    """An endless stream of augmented pictures; new shards are picked up as they appear."""

    def __init__(self, folder: Path, seed: int, shares: dict[str, float]) -> None:
        self.folder, self.seed, self.shares = folder, seed, shares

    def __iter__(self):
        cv2.setNumThreads(1)
        torch.set_num_threads(1)
        rng = np.random.default_rng(self.seed)
        shards: dict[Path, Shard] = {}
        count = 0
        while True:
            if count % 2000 == 0:
                for path in sorted(self.folder.glob("*.npz")):
                    settled = time.time() - path.stat().st_mtime > 5
                    if path not in shards and settled and not path.name.startswith("heldout"):
                        shards[path] = unpack(path)
                pools = {prefix: [s for p, s in shards.items() if p.name.startswith(prefix)] for prefix in self.shares}
                kinds = [k for k in self.shares if pools[k]]
                chance = np.array([self.shares[k] for k in kinds])
            count += 1
            pool = pools[kinds[rng.choice(len(kinds), p=chance / chance.sum())]]
            # Clips of many like frames should not crowd out stills of many people.
            sizes = np.array([len(s.pictures) for s in pool]) ** 0.7
            shard = pool[rng.choice(len(pool), p=sizes / sizes.sum())]
            i = int(rng.integers(len(shard.pictures)))
            image, marks = augmented(rng, shard.picture(i), shard.landmarks[i])
            yield (
                torch.from_numpy(image.transpose(2, 0, 1).copy()),
                torch.from_numpy(marks),
                torch.from_numpy(shard.weights[i]),
            )


def splat(points: Tensor) -> Tensor:
    """Targets [B, 68, 64, 64] that sum to one, quadratic B-spline about `points` (heatmap pixels)."""

    def axis(coordinate: Tensor) -> Tensor:
        centres = torch.arange(HEATMAP, dtype=coordinate.dtype) + 0.5
        d = (centres - coordinate[..., None]).abs()
        return torch.where(d < 0.5, 0.75 - d * d, 0.5 * (1.5 - d).clamp_min(0) ** 2)

    return axis(points[..., 1])[..., :, None] * axis(points[..., 0])[..., None, :]


def loss_of(logits: Tensor, marks: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, mean distance in heatmap pixels)."""
    target = marks / SIZE * HEATMAP
    inside = ((target > 0.5) & (target < HEATMAP - 0.5)).all(-1)
    weights = weights * inside
    log_share = torch.log_softmax(logits.flatten(2), -1)
    entropy = -(splat(target).flatten(2) * log_share).sum(-1)
    distance = (local_soft_argmax(logits / BETA) - target).norm(dim=-1)
    near = (distance.detach() < 3).float()
    loss = (weights * (entropy + 1.0 * near * distance)).sum() / weights.sum()
    return loss, (weights * distance.detach()).sum() / weights.sum()


@torch.no_grad()
def evaluate(network: CompactNetwork, shard: Shard, limit: int = 150) -> tuple[float, float]:
    """(NME over the 51 inner points, over all 68), shares of the interocular distance."""
    network.eval()
    inner, every = [], []
    chosen = np.linspace(0, len(shard.pictures) - 1, min(limit, len(shard.pictures))).astype(int)
    for start in range(0, len(chosen), 16):
        pairs = [network_input(shard.picture(i), shard.landmarks[i]) for i in chosen[start : start + 16]]
        images = torch.from_numpy(np.stack([p[0] for p in pairs]).transpose(0, 3, 1, 2).copy())
        marks = torch.from_numpy(np.stack([p[1] for p in pairs]))
        found = local_soft_argmax(network(images) / BETA) * (SIZE / HEATMAP)
        # 2D interocular distance vanishes at profile; the face's size bounds it from below.
        size = (marks.amax(1) - marks.amin(1)).amax(-1)
        eyes = (marks[:, 36] - marks[:, 45]).norm(dim=-1).clamp_min(0.3 * size)
        error = (found - marks).norm(dim=-1) / eyes[:, None]
        inner += error[:, 17:].mean(1).tolist()
        every += error.mean(1).tolist()
    network.train()
    return float(np.mean(inner)), float(np.mean(every))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--minutes", type=float, default=1e9, help="the schedule ends early at this time")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(args.seed)
    network = CompactNetwork()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - not in torch's stubs
    if args.start:
        network.load_state_dict(load_file(args.start))
    average = copy.deepcopy(network)
    optimiser = torch.optim.AdamW(network.parameters(), lr=args.rate, weight_decay=1e-4)
    shares = {"render_ict": 0.45, "render_builtin": 0.12, "photo": 0.43}
    loader = iter(DataLoader(Stream(args.data, args.seed, shares), args.batch, num_workers=1, prefetch_factor=6))
    held_out = {p.stem.removeprefix("heldout_"): unpack(p) for p in sorted(args.data.glob("heldout_*.npz"))}
    begin, seen, report = time.perf_counter(), 0.0, 0.0
    for step in range(args.steps):
        # Whichever of steps and minutes runs out first ends the cosine schedule.
        progress = max(step / args.steps, (time.perf_counter() - begin) / 60 / args.minutes)
        if progress >= 1:
            break
        rate = args.rate * min(1, (step + 1) / 200) * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-6
        for group in optimiser.param_groups:
            group["lr"] = rate
        images, marks, weights = next(loader)
        images = images.contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16):
            logits = network(images)
        loss, distance = loss_of(logits.float(), marks, weights)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
        keep = min(0.998, (step + 1) / (step + 20))
        with torch.no_grad():
            for a, b in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                a.copy_(torch.lerp(b, a, keep) if a.is_floating_point() else b)
        seen = 0.97 * seen + 0.03 * float(loss)
        report = 0.97 * report + 0.03 * float(distance)
        if (step + 1) % 250 == 0:
            scores = {name: evaluate(average, shard) for name, shard in held_out.items()}
            told = "  ".join(f"{n} {100 * a:.2f}/{100 * b:.2f}%" for n, (a, b) in scores.items())
            print(
                f"{step + 1} {(time.perf_counter() - begin) / 60:.1f} min  loss {seen:.3f}  {report:.3f} px  {told}",
                flush=True,
            )
            save_file({k: v.contiguous() for k, v in average.state_dict().items()}, args.out)
    save_file({k: v.contiguous() for k, v in average.state_dict().items()}, args.out)


if __name__ == "__main__":
    main()
