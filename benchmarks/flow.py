"""`flow`: endpoint error of `compact` and of OpenCV's DIS on renders of unseen people; derivative; speed.

Every pair is another person (or another built-in head) in front of another photograph, with motion blur (a shutter of
180 degrees) and grain, its head moving by 0 to 12 px on average; backgrounds move on their own, and in some pairs
something passes in front. The flow is exact.
"""

from __future__ import annotations

import tarfile
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from benchmarks.data import data_folder
from benchmarks.metrics import Metric, Outcome
from deepenergy.flow import FlowNetwork, flow_network_from_name
from deepenergy.flow.compact import CompactFlow
from deepenergy.flow.dis import Dis
from deepenergy.runtime.errors import InputError

if TYPE_CHECKING:
    from training.flow_pairs import FlowPair

# Training seeds are small numbers; nobody there is one of these people.
_SEED = 181_202_900
PAIRS = {"ict": 36, "builtin": 18}
FASTEST = 12.0
SHUTTER, GRAIN = 0.5, 0.012
_TIMED, _WARM = 12, 3


def run() -> Outcome:
    """All metrics of `compact` and `dis`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _run()
    finally:
        torch.set_num_threads(threads)


def _run() -> Outcome:
    outcome = Outcome()
    pairs: list[tuple[str, FlowPair]] = []
    kit, stills = data_folder() / "ict-facekit.tar.xz", data_folder() / "train_stills"
    if not kit.is_file():
        outcome.skipped["flow (pairs of ICT-FaceKit)"] = f"no file {kit} (set DEEPENERGY_TEST_DATA)"
    for kind in PAIRS if kit.is_file() else ("builtin",):
        pairs += [(kind, pair) for pair in held_out_pairs(kind, kit, stills, PAIRS[kind])]
    for name in ("compact", "dis"):
        try:
            # The yardstick at its best.
            network = Dis() if name == "dis" else flow_network_from_name(name)
        except InputError as error:
            outcome.refused[f"flow.{name}"] = str(error)
            continue
        outcome.metrics += [endpoint_error(network, pairs), speed(network)]
        if isinstance(network, CompactFlow):
            count = sum(p.numel() for p in network.network.parameters())
            outcome.metrics.append(Metric("flow.compact.parameters", count, "", "lower"))
            outcome.metrics += derivative_errors(pairs[0][1])
    return outcome


def held_out_pairs(kind: str, kit: Path, stills: Path, count: int) -> Iterator[FlowPair]:
    """Seeded pairs of one kind of head; backgrounds are held-out photographs, or invented where there are none.

    Invented ones can be smooth ramps, whose motion nothing shows; training has them, too.
    """
    from deepenergy.builtin_head import randomised_head
    from training.flow_layers import Photographs
    from training.flow_renders import FlowActor, head_pair, ict_actor
    from training.make_flow_data import held_out_photographs

    photographs = Photographs(held_out_photographs(stills.parent).images, 1.0) if stills.is_dir() else Photographs()
    actor = None
    if kind == "ict":
        with tempfile.TemporaryDirectory() as folder:
            with tarfile.open(kit) as archive:
                archive.extractall(folder, filter="data")
            actor = ict_actor(str(Path(folder) / "ict-facekit"))
    for index in range(count):
        rng = np.random.default_rng([_SEED, len(kind), index])
        if kind == "builtin":
            actor = FlowActor(randomised_head(torch.Generator().manual_seed(_SEED + index)))
        assert actor is not None
        yield head_pair(rng, actor, photographs, motion=FASTEST * (index + 0.5) / count, shutter=SHUTTER)


def endpoint_error(network: FlowNetwork, pairs: list[tuple[str, FlowPair]]) -> Metric:
    """Mean endpoint error over the pixels that the other picture shows and that move at most 12 px, mean over pairs."""
    from training.flow_pairs import HEAD, VISIBLE

    rows: dict[str, list[float]] = {"all": [], "heads": [], "hidden": [], **{kind: [] for kind, _ in pairs}}
    median = []
    for index, (kind, pair) in enumerate(pairs):
        a, b = pictures(pair, index)
        with torch.inference_mode():
            found = network(a, b).pixels[0]
        truth, flags = torch.from_numpy(pair.flows[0]), torch.from_numpy(pair.flags[0])
        error, slow = (found - truth).norm(dim=0), truth.norm(dim=0) <= FASTEST
        seen, head = slow & ((flags & VISIBLE) > 0), (flags & HEAD) > 0
        rows["all"].append(float(error[seen].mean()))
        rows[kind].append(rows["all"][-1])
        rows["heads"].append(float(error[seen & head].mean()))
        rows["hidden"].append(float(error[slow & ~((flags & VISIBLE) > 0)].mean()))
        median.append(float(error[seen].median()))
    context = {
        "pairs": len(pairs),
        "median_of_pixels": round(float(np.mean(median)), 4),
        **{name: round(float(np.nanmean(values)), 4) for name, values in rows.items() if name != "all"},
    }
    return Metric(f"flow.{network.name}.epe_px", float(np.mean(rows["all"])), "px", "lower", context)


def pictures(pair: FlowPair, index: int) -> tuple[Tensor, Tensor]:
    """Both pictures of a pair with seeded grain, `[1, 3, H, W]` in [0, 1]."""
    clean = torch.from_numpy(pair.images).permute(0, 3, 1, 2).float() / 255
    grain = torch.randn(clean.shape, generator=torch.Generator().manual_seed(index))
    a, b = (clean + GRAIN * grain).clamp(0, 1).split(1)
    return a, b


def speed(network: FlowNetwork) -> Metric:
    """Milliseconds of CPU time for a pair of 256x256 on one thread: the least of single passes."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(1, 3, 32, 32, generator=generator)
    a = torch.nn.functional.interpolate(coarse, size=(256, 256), mode="bilinear")
    times = []
    with torch.inference_mode():
        for _ in range(_WARM + _TIMED):
            start = time.process_time()
            network(a, a.roll((2, 3), (2, 3)))
            times.append((time.process_time() - start) * 1000)
    context = {"threads": 1, "size": 256, "median": round(float(np.median(times[_WARM:])), 1)}
    return Metric(f"flow.{network.name}.ms", min(times[_WARM:]), "ms", "lower", context)


def derivative_errors(pair: FlowPair) -> list[Metric]:
    """How far backpropagation is from the flow's derivative in the second image, as it is and cut as RAFT's is.

    Along random smooth changes of the second image: |g.d - finite difference|, median, over the median size of the
    finite differences; `g` is the gradient of a random smooth sum of the flow. In float64, at half resolution.
    """
    metrics = []
    a, b = (torch.nn.functional.avg_pool2d(x, 2).double() for x in pictures(pair, 0))
    generator = torch.Generator().manual_seed(1)

    def smooth(channels: int) -> Tensor:
        coarse = torch.randn(1, channels, 8, 8, generator=generator, dtype=torch.float64)
        return torch.nn.functional.interpolate(coarse, size=a.shape[-2:], mode="bilinear")

    draws = [(smooth(2), smooth(3)) for _ in range(4)]
    for name, detach in (("flow.compact.deep_error", False), ("flow.compact.deep_error_detached", True)):
        network = CompactFlow(detach=detach)
        network.network.double()
        off, size = [], []
        for weight, direction in draws:
            leaf = b.clone().requires_grad_()
            (gradient,) = torch.autograd.grad((network(a, leaf).pixels * weight).sum(), leaf)
            step = 1e-8
            with torch.no_grad():
                ends = [(network(a, b + s * step * direction).pixels * weight).sum() for s in (1, -1)]
            finite = float(ends[0] - ends[1]) / (2 * step)
            off.append(abs(float((gradient * direction).sum()) - finite))
            size.append(abs(finite))
        metrics.append(Metric(name, float(np.median(off) / np.median(size)), "share", "lower", {"draws": len(draws)}))
    return metrics
