"""The flow networks' protocol: `compact` with its shipped weights, `dis`, the names, the correlation lookups."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from safetensors.torch import save_file
from scipy.ndimage import map_coordinates
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import jvp, vmap

from deepenergy.flow import NETWORKS, FlowNetwork, flow_network_from_name
from deepenergy.flow.compact import WEIGHTS, CompactFlow
from deepenergy.flow.compact_network import CompactFlowNetwork
from deepenergy.flow.correlation import AllPairs, Window
from deepenergy.flow.dis import Dis
from deepenergy.flow.network import landing_validity
from deepenergy.flow.upsampling import convex_upsampling
from deepenergy.runtime.errors import InputError

F64 = torch.float64


@pytest.fixture(scope="module")
def compact() -> CompactFlow:
    return CompactFlow()


@pytest.fixture(params=["compact", "dis"])
def network(request: pytest.FixtureRequest) -> FlowNetwork:
    return flow_network_from_name(request.param)


def photographs(shift: tuple[int, int], size: tuple[int, int] = (160, 192)) -> tuple[Tensor, Tensor]:
    """Two windows on a real photograph, of which the second's content is shifted by (x, y) whole pixels."""
    image = torch.from_numpy(skimage.data.astronaut().copy()).permute(2, 0, 1)[None].float() / 255
    top, left, (height, width) = 40, 140, size
    x, y = shift
    return (
        image[..., top : top + height, left : left + width],
        image[..., top - y : top - y + height, left - x : left - x + width],
    )


@pytest.mark.parametrize("shift", [(0, 0), (3, -2), (-7, 5)])
def test_a_shifted_photograph(network: FlowNetwork, shift: tuple[int, int]) -> None:
    a, b = photographs(shift)
    with torch.no_grad():
        flow = network(a, b)
    assert flow.pixels.shape == (1, 2, 160, 192)
    assert flow.validity.shape == (1, 1, 160, 192)
    inner = flow.pixels[0, :, 20:-20, 20:-20]
    error = (inner - torch.tensor(shift, dtype=torch.float32)[:, None, None]).norm(dim=0)
    assert float(error.median()) < 0.25
    assert float(error.mean()) < 0.5


def test_validity_says_whether_the_place_is_inside() -> None:
    pixels = torch.zeros(1, 2, 4, 6)
    pixels[0, 0, 1, 0], pixels[0, 0, 1, 1], pixels[0, 1, 3, 5], pixels[0, 1, 2, 2] = -0.6, -0.6, 0.4, torch.nan
    expected = torch.ones(4, 6)
    expected[1, 0] = expected[2, 2] = 0
    assert torch.equal(landing_validity(pixels)[0, 0], expected)


def test_sizes_that_are_no_multiple_of_eight(compact: CompactFlow) -> None:
    a, b = photographs((2, 1), (101, 117))
    with torch.no_grad():
        flow = compact(a, b).pixels
    assert flow.shape == (1, 2, 101, 117)
    assert flow[0, :, 20:-20, 20:-20].flatten(1).median(1).values.tolist() == pytest.approx([2, 1], abs=0.2)


def test_batched_equals_looped(network: FlowNetwork) -> None:
    pairs = [photographs((3, -2)), photographs((-7, 5))]
    a, b = (torch.cat(x) for x in zip(*pairs, strict=True))
    with torch.no_grad():
        together = network(a, b).pixels
        alone = torch.cat([network(x, y).pixels for x, y in pairs])
    assert torch.allclose(together, alone, atol=1e-3)


def test_light_that_changes_does_not_move_anything(compact: CompactFlow) -> None:
    a, b = photographs((3, -2))
    with torch.no_grad():
        flow = compact(a, (0.8 * b + 0.05)).pixels[0, :, 20:-20, 20:-20]
    assert flow.flatten(1).median(1).values.tolist() == pytest.approx([3, -2], abs=0.3)


def test_a_head_that_moves_with_blur_and_grain(compact: CompactFlow) -> None:
    from benchmarks.flow import endpoint_error, held_out_pairs

    pairs = [("builtin", pair) for pair in held_out_pairs("builtin", Path(), Path("no folder"), 3)]
    ours, dis = endpoint_error(compact, pairs), endpoint_error(Dis(), pairs)
    # Backgrounds may be smooth ramps here, whose motion nothing shows.
    assert ours.context["heads"] < 0.8
    assert ours.context["heads"] < dis.context["heads"]


def test_small_enough(compact: CompactFlow) -> None:
    assert sum(p.numel() for p in compact.network.parameters()) <= 1_500_000
    assert WEIGHTS.stat().st_size <= 8_000_000
    assert not any(p.requires_grad for p in compact.network.parameters())


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_derivative_in_both_modes_and_what_the_cut_does_to_it() -> None:
    a, b = (x.double() for x in photographs((2, -1), (64, 72)))
    generator = torch.Generator().manual_seed(0)
    for image in (0, 1):
        for detach in (False, True):
            network = CompactFlow(detach=detach)
            network.network.double()
            direction = torch.randn(b.shape, generator=generator, dtype=F64)
            weight = torch.randn(1, 2, 64, 72, generator=generator, dtype=F64)

            def value(x: Tensor) -> Tensor:
                pair = (x, b) if image == 0 else (a, x)  # noqa: B023
                return (network(*pair).pixels * weight).sum()  # noqa: B023

            start = (a, b)[image]
            leaf = start.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(value(leaf), leaf)
            reverse = float((gradient * direction).sum())
            with forward_ad.dual_level():
                forward = forward_ad.unpack_dual(value(forward_ad.make_dual(start, direction))).tangent
            assert forward is not None
            step = 1e-8
            with torch.no_grad():
                finite = float(value(start + step * direction) - value(start - step * direction)) / (2 * step)
            assert float(forward) == pytest.approx(reverse, rel=1e-9)
            if detach:
                assert abs(reverse - finite) > 0.02 * abs(finite)
            else:
                assert reverse == pytest.approx(finite, rel=1e-4)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_many_tangents_at_once(compact: CompactFlow) -> None:
    a, b = photographs((2, -1), (40, 48))
    directions = torch.randn(3, *b.shape, generator=torch.Generator().manual_seed(0))

    def column(direction: Tensor) -> Tensor:
        return jvp(lambda x: compact(a, x).pixels, (b,), (direction,))[1]

    together = vmap(column)(directions)
    assert torch.allclose(together[1], column(directions[1]), atol=1e-3 * float(together[1].abs().max()))


def test_dis_refuses_what_needs_a_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    dis = flow_network_from_name("dis")
    a, b = photographs((1, 0), (64, 64))
    assert not dis.differentiable
    with pytest.raises(InputError, match="DIS has no derivative"):
        dis(a, b.clone().requires_grad_())
    with forward_ad.dual_level(), pytest.raises(InputError, match="DIS has no derivative"):
        dis(a, forward_ad.make_dual(b, b))
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(InputError, match="pip install opencv-python-headless"):
        dis(a, b)


def test_bad_input_is_refused(network: FlowNetwork) -> None:
    with pytest.raises(InputError, match="31 x 64 pixels; expected at least 32"):
        network(torch.zeros(1, 3, 64, 31), torch.zeros(1, 3, 64, 31))
    for wrong in (torch.zeros(3, 64, 64), torch.zeros(1, 1, 64, 64)):
        with pytest.raises(ValueError, match=r"expected \[B, 3, H, W\] twice"):
            network(wrong, wrong)
    with pytest.raises(ValueError, match="twice"):
        network(torch.zeros(1, 3, 64, 64), torch.zeros(1, 3, 64, 72))


def test_names(tmp_path: Path) -> None:
    assert [flow_network_from_name(n).name for n in NETWORKS] == list(NETWORKS)
    with pytest.raises(InputError, match="one of compact, raft, raft_small, dis"):
        flow_network_from_name("farneback")
    with pytest.raises(InputError, match="nothing learned"):
        flow_network_from_name("dis", "weights.pth")
    with pytest.raises(InputError, match="no file"):
        flow_network_from_name("compact", str(tmp_path / "none.safetensors"))
    (tmp_path / "broken.safetensors").write_bytes(b"nothing")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors")
    for name in ("broken", "other"):
        with pytest.raises(InputError, match="the weights of this version"):
            flow_network_from_name("compact", str(tmp_path / f"{name}.safetensors"))


# -- layers -------------------------------------------------------------------------------------------------------


def features(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    a, b = (torch.randn(2, 5, 6, 8, generator=generator, dtype=F64) for _ in range(2))
    return a, b, 3 * torch.randn(2, 2, 6, 8, generator=generator, dtype=F64)


def test_lookups_are_scipys_linear_interpolation() -> None:
    a, b, flow = features(torch.Generator().manual_seed(0))
    flow[0, :, 0, 0] = 1e12
    found = AllPairs(a, b, 2, 1).windows(flow).unflatten(1, (5, 5))
    y, x = np.mgrid[:6, :8]
    for batch, i, j in ((0, 0, 0), (0, 2, 3), (1, 5, 7), (1, 0, 0)):
        product = np.einsum("c,chw->hw", a[batch, :, i, j].numpy(), b[batch].numpy())
        # A frame of zeros, as everything outside counts as zero.
        framed = np.pad(product, 1)
        dy, dx = np.mgrid[-2:3, -2:3]
        at = [y[i, j] + float(flow[batch, 1, i, j]) + dy + 1, x[i, j] + float(flow[batch, 0, i, j]) + dx + 1]
        expected = map_coordinates(framed, np.clip(at, -5, 20), order=1, mode="constant")
        assert np.allclose(found[batch, :, :, i, j], expected, atol=1e-12)


def test_windows_are_those_of_all_pairs() -> None:
    a, b, flow = features(torch.Generator().manual_seed(1))
    assert torch.allclose(Window(a, b, 2).windows(flow), AllPairs(a, b, 2, 1).windows(flow), atol=1e-12)
    assert AllPairs(a, b, 2, 2).windows(flow).shape == (2, 50, 6, 8)


def test_the_second_level_holds_means_of_four_cells() -> None:
    a, b, _ = features(torch.Generator().manual_seed(2))
    b = torch.nn.functional.interpolate(b[..., :3, :4], scale_factor=2, mode="nearest")
    # Large cell (1, 2) covers rows 2 and 3, columns 4 and 5, and has its centre at (2.5, 4.5).
    flow = torch.zeros(2, 2, 6, 8, dtype=F64)
    flow[:, 0, 3, 4], flow[:, 1, 3, 4] = 0.5, -0.5
    found = AllPairs(a, b, 1, 2).windows(flow)[:, 9:, 3, 4].unflatten(1, (3, 3))
    product = torch.einsum("bc,bchw->bhw", a[:, :, 3, 4], b)[:, ::2, ::2]
    assert torch.allclose(found, product[:, 0:3, 1:4])


@pytest.mark.slow
def test_the_training_code_computes_the_same() -> None:
    from training.fast_correlation import TrainedFlowNetwork

    torch.manual_seed(0)
    plain, fast = CompactFlowNetwork(), TrainedFlowNetwork()
    fast.load_state_dict(plain.state_dict())
    a, b = photographs((2, -1), (64, 72))
    results = []
    for network in (plain, fast):
        estimates = network(a, b, 2, 2, detach=True, every=True)
        assert len(estimates) == 4
        sum(((e**2).mean() for e in estimates), start=torch.zeros(())).backward()
        results.append([*(e.detach() for e in estimates), *(p.grad for p in network.parameters())])
    for ours, theirs in zip(*results, strict=True):
        assert ours is not None
        assert torch.allclose(ours, theirs, atol=1e-4 * float(ours.abs().max()) + 1e-6)


def test_convex_upsampling_weighs_the_nine_cells() -> None:
    flow = torch.arange(24.0).view(1, 2, 3, 4)
    logits = torch.full((1, 9, 2, 2, 3, 4), -50.0)
    # The upper left fine pixel of each cell takes the cell above, all others their own cell.
    logits[:, 4] = 50.0
    logits[:, 4, 0, 0], logits[:, 1, 0, 0] = -50.0, 50.0
    fine = convex_upsampling(flow, logits.view(1, 36, 3, 4), 2)
    expected = 2 * flow.repeat_interleave(2, 2).repeat_interleave(2, 3)
    expected[:, :, 0::2, 0::2] = 2 * torch.cat([flow[:, :, :1], flow[:, :, :2]], 2)
    assert torch.allclose(fine, expected)
    expected[:, :, 0, 0::2] = 0
    assert torch.allclose(convex_upsampling(flow, logits.view(1, 36, 3, 4), 2, "constant"), expected)
