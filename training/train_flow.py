"""Train the compact flow network: `python -m training.train_flow SHARDS --out compact.safetensors`.

Loss: the endpoint error of every estimate of the recurrence, later ones weighing more; places that the other picture
does not show count a quarter.

The shipped weights: `make_flow_data --layers 6 --heads 16` (2200 pairs, 10 minutes), then on one shared core
`--minutes 68` (about 4800 steps), `--start ... --rate 3e-4 --minutes 9 --seed 1` and `--start ... --rate 2.5e-4
--minutes 6 --seed 2` (together 1600 more). The schedule follows the clock, so another machine gives other weights.
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

from deepenergy.flow.compact_network import CompactFlowNetwork
from training.fast_correlation import TrainedFlowNetwork
from training.flow_augment import training_sample
from training.flow_pairs import HEAD, VISIBLE, FlowShard, unpack

GAMMA = 0.8
HIDDEN_SHARE = 0.25
FASTEST = 60.0
# How often a sample comes from which kind of shard.
SHARES = {"head": 0.75, "layers": 0.25}


class Stream:
    """Random batches; new shards are picked up as they appear."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.rng = folder, np.random.default_rng(seed)
        self.shards: dict[Path, FlowShard] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read shards that have come since."""
        for path in sorted(self.folder.glob("*.npz")):
            settled = time.time() - path.stat().st_mtime > 5
            if path not in self.shards and settled and not path.name.startswith("heldout"):
                self.shards[path] = unpack(path)

    def batch(self, size: int, crop: int) -> tuple[Tensor, Tensor, Tensor]:
        """Pictures [2, B, 3, crop, crop], flow [B, 2, crop, crop], visible [B, crop, crop]."""
        pools = {kind: [s for p, s in self.shards.items() if p.name.startswith(kind)] for kind in SHARES}
        kinds = [k for k in SHARES if pools[k]]
        chance = np.array([SHARES[k] for k in kinds])
        samples = []
        for _ in range(size):
            pool = pools[kinds[self.rng.choice(len(kinds), p=chance / chance.sum())]]
            sizes = np.array([len(s) for s in pool], float)
            shard = pool[self.rng.choice(len(pool), p=sizes / sizes.sum())]
            samples.append(training_sample(self.rng, shard, int(self.rng.integers(len(shard))), crop))
        pictures, flow, visible = (torch.from_numpy(np.stack(v)) for v in zip(*samples, strict=True))
        return pictures.transpose(0, 1), flow, visible


def loss_of(estimates: list[Tensor], flow: Tensor, visible: Tensor) -> tuple[Tensor, Tensor]:
    """(loss, mean endpoint error of the last estimate over visible pixels)."""
    weight = (HIDDEN_SHARE + (1 - HIDDEN_SHARE) * visible) * (flow.norm(dim=1) < FASTEST)
    errors = [((e.float() - flow) ** 2).sum(1).add(1e-4).sqrt() for e in estimates]
    total = sum(
        (GAMMA ** (len(errors) - 1 - k) * (weight * e).mean() for k, e in enumerate(errors)), start=flow.new_zeros(())
    )
    return total, (visible * errors[-1].detach()).sum() / visible.sum().clamp_min(1)


@torch.no_grad()
def evaluate(network: CompactFlowNetwork, shard: FlowShard, limit: int) -> str:
    """Mean endpoint error, with grain, over visible pixels that move at most 12 px, and over those of heads."""
    network.eval()
    everywhere, heads = [], []
    grain = torch.Generator().manual_seed(0)
    for i in range(min(limit, len(shard))):
        pair = shard.pair(i)
        pictures = torch.from_numpy(pair.images).permute(0, 3, 1, 2).float() / 255
        pictures = (pictures + 0.012 * torch.randn(pictures.shape, generator=grain)).clamp(0, 1)
        truth = torch.from_numpy(pair.flows[0])
        error = (network(pictures[:1], pictures[1:])[-1][0] - truth).norm(dim=0)
        seen = torch.from_numpy((pair.flags[0] & VISIBLE) > 0) & (truth.norm(dim=0) <= 12)
        everywhere.append(error[seen])
        heads.append(error[seen & torch.from_numpy((pair.flags[0] & HEAD) > 0)])
    return f"{float(torch.cat(everywhere).mean()):.3f}/{float(torch.cat(heads).mean()):.3f}"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, help="weights to start from")
    parser.add_argument("--batch", type=int, default=6)
    parser.add_argument("--crop", type=int, default=160)
    parser.add_argument("--rate", type=float, default=7e-4)
    parser.add_argument("--minutes", type=float, default=80, help="length of the schedule")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    torch.manual_seed(args.seed)
    network = TrainedFlowNetwork()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - not in torch's stubs
    average = TrainedFlowNetwork()
    if args.start:
        network.load_state_dict(load_file(args.start), strict=False)
    average.load_state_dict(copy.deepcopy(network.state_dict()))
    optimiser = torch.optim.AdamW(network.parameters(), lr=args.rate, weight_decay=1e-5)
    stream = Stream(args.data, args.seed)
    begin, told, loss_mean, error_mean, step = time.perf_counter(), time.perf_counter(), 0.0, 0.0, 0
    while True:
        progress = (time.perf_counter() - begin) / 60 / args.minutes
        if progress >= 1:
            break
        rate = args.rate * min(1, (step + 1) / 150) * (0.5 + 0.5 * math.cos(math.pi * progress)) + 1e-6
        for group in optimiser.param_groups:
            group["lr"] = rate
        pictures, flow, visible = stream.batch(args.batch, args.crop)
        a, b = (p.contiguous(memory_format=torch.channels_last) for p in pictures)
        network.train()
        with torch.autocast("cpu", torch.bfloat16):
            estimates = network(a, b, 3, 3, detach=True, every=True)
        loss, error = loss_of(estimates, flow, visible)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        keep = min(0.998, (step + 1) / (step + 20))
        with torch.no_grad():
            for x, y in zip(average.state_dict().values(), network.state_dict().values(), strict=True):
                x.copy_(torch.lerp(y, x, keep) if x.is_floating_point() else y)
        loss_mean += 0.03 * (float(loss.detach()) - loss_mean)
        error_mean += 0.03 * (float(error) - error_mean)
        step += 1
        if time.perf_counter() - told > 240:
            scores = {
                p.stem.removeprefix("heldout_"): evaluate(average, unpack(p), 24)
                for p in sorted(args.data.glob("heldout_*.npz"))
            }
            spent = (time.perf_counter() - begin) / 60
            print(f"{step} {spent:.1f} min  loss {loss_mean:.3f}  train {error_mean:.3f} px  {scores}", flush=True)
            _save(average, args.out)
            stream.refresh()
            told = time.perf_counter()
    _save(average, args.out)


def _save(network: CompactFlowNetwork, path: Path) -> None:
    part = path.with_suffix(".part")
    # Half the size; the error of rounding is far below that of the network.
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    save_file({k: v.contiguous() for k, v in state.items() if not k.endswith("num_batches_tracked")}, part)
    part.replace(path)


if __name__ == "__main__":
    main()
