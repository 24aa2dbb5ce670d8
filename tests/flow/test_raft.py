"""RAFT against torchvision's own, from files of the published format with random weights; its derivative."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import torch
from refusals import refused
from torch import Tensor
from torch.autograd import forward_ad
from torchvision_raft import import_torchvision

from deepenergy.flow import flow_network_from_name
from deepenergy.flow.raft import Raft
from deepenergy.flow.raft_network import SMALL, RaftNetwork
from deepenergy.runtime.errors import InputError

NAMES = {"large": "raft_large_C_T_SKHT_V2-", "small": "raft_small_C_T_V2-"}
F64 = torch.float64


def images(height: int, width: int, batch: int = 1, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, height // 8, width // 8, generator=generator)
    a = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    return a, a.roll((1, 3), (2, 3))


def reference(kind: str) -> Any:
    import_torchvision()
    from torchvision.models.optical_flow import raft_large, raft_small

    torch.manual_seed(0)
    return (raft_large if kind == "large" else raft_small)(weights=None).eval()


def save(state: Any, folder: Path, kind: str) -> Path:
    """As torchvision publishes them: a state dict, the first eight digits of its SHA-256 in the name."""
    unnamed = folder / "unnamed"
    torch.save(state, unnamed)
    return unnamed.rename(folder / f"{NAMES[kind]}{hashlib.sha256(unnamed.read_bytes()).hexdigest()[:8]}.pth")


@pytest.fixture(scope="module")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return save(RaftNetwork(SMALL).state_dict(), tmp_path_factory.mktemp("weights"), "small")


@pytest.mark.parametrize("kind", ["large", "small"])
def test_same_flow_as_torchvision(kind: str, tmp_path: Path) -> None:
    module = reference(kind)
    path = save(module.state_dict(), tmp_path, kind)
    a, b = images(128, 160)
    network = Raft(path, kind, size=None, updates=3)
    with torch.no_grad():
        theirs = module(2 * a - 1, 2 * b - 1, num_flow_updates=3)[-1]
        ours = network(a, b)
    assert float(theirs.abs().mean()) > 0.05
    assert torch.allclose(ours.pixels, theirs, atol=2e-4)
    assert ours.validity.shape == (1, 1, 128, 160)
    assert network.name == ("raft" if kind == "large" else "raft_small")


def test_inputs_are_resized_to_a_square_and_flow_back(small_file: Path) -> None:
    a, b = images(136, 200)
    network = Raft(small_file, "small", size=128, updates=2)
    square = [torch.nn.functional.interpolate(x, size=(128, 128), mode="bilinear", antialias=True) for x in (a, b)]
    with torch.no_grad():
        flow = network.module(2 * square[0] - 1, 2 * square[1] - 1, 2)
        expected = torch.nn.functional.interpolate(flow, size=(136, 200), mode="bilinear")
        found = network(a, b).pixels
    assert torch.allclose(found[:, 0], expected[:, 0] * 200 / 128, atol=1e-5)
    assert torch.allclose(found[:, 1], expected[:, 1] * 136 / 128, atol=1e-5)
    assert Raft(small_file, "small").size == 512


def test_odd_sizes_without_resizing(small_file: Path) -> None:
    a, b = images(136, 160)
    network = Raft(small_file, "small", size=None, updates=1)
    with torch.no_grad():
        assert network(a[..., :130, :157], b[..., :130, :157]).pixels.shape == (1, 2, 130, 157)


def test_batched_equals_looped(small_file: Path) -> None:
    a, b = images(128, 128, batch=2)
    network = Raft(small_file, "small", size=None, updates=2)
    with torch.no_grad():
        together = network(a, b).pixels
        alone = torch.cat([network(a[i : i + 1], b[i : i + 1]).pixels for i in range(2)])
    assert torch.allclose(together, alone, atol=1e-4)


def derivatives(network: RaftNetwork, detach: bool) -> tuple[float, float, float]:
    """Derivative of a linear function of the flow along a direction in image b: reverse, forward, finite."""
    a, b = (2 * x.double() - 1 for x in images(128, 128))
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(b.shape, generator=generator, dtype=F64)
    weight = torch.randn(1, 2, 128, 128, generator=generator, dtype=F64)

    def value(x: Tensor) -> Tensor:
        return (network(a, x, 3, detach) * weight).sum()

    leaf = b.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(leaf), leaf)
    with forward_ad.dual_level():
        forward = forward_ad.unpack_dual(value(forward_ad.make_dual(b, direction))).tangent
    assert forward is not None
    # Small, or it crosses the kinks of the units that are about to switch.
    step = 1e-8
    with torch.no_grad():
        finite = float(value(b + step * direction) - value(b - step * direction)) / (2 * step)
    return float((gradient * direction).sum()), float(forward), finite


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
def test_derivative_is_right_without_the_cut_and_wrong_with_it(small_file: Path) -> None:
    network = Raft(small_file, "small", size=None).module.double()
    reverse, forward, finite = derivatives(network, detach=False)
    assert reverse == pytest.approx(finite, rel=1e-5)
    assert forward == pytest.approx(finite, rel=1e-5)
    cut, _, _ = derivatives(network, detach=True)
    assert abs(cut - finite) > 0.2 * abs(finite)


def test_tiny_images_and_bad_settings_are_refused(small_file: Path) -> None:
    network = Raft(small_file, "small")
    with pytest.raises(InputError, match=r"100 x 300 pixels; expected at least 128"):
        network(torch.zeros(1, 3, 300, 100), torch.zeros(1, 3, 300, 100))
    with pytest.raises(ValueError, match="expected"):
        network(torch.zeros(1, 3, 128, 128), torch.zeros(1, 3, 128, 136))
    for settings in ({"size": 100}, {"size": 120}, {"updates": 0}, {"kind": "medium"}):
        with pytest.raises(InputError):
            Raft(small_file, **settings)  # type: ignore[arg-type]


def test_weights_are_found_and_checked(small_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("DEEPENERGY_WEIGHTS", raising=False)
    blank = torch.zeros(1, 3, 128, 128)
    with refused(remedy="curl -L"):
        flow_network_from_name("raft_small")(blank, blank)
    wrong = tmp_path / "raft_small_C_T_V2-00000000.pth"
    wrong.write_bytes(small_file.read_bytes())
    with pytest.raises(InputError, match="SHA-256"):
        flow_network_from_name("raft_small", str(wrong))(blank, blank)
    with pytest.raises(InputError, match="do not fit"):
        flow_network_from_name("raft", str(small_file))(blank, blank)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"not a file of torch")
    with pytest.raises(InputError, match="cannot be read"):
        Raft(broken, "small", verify=False)(blank, blank)
    checkpoints = tmp_path / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "raft_small_C_T_V2-01064c6d.pth").write_bytes(small_file.read_bytes())
    network = Raft(kind="small", verify=False, size=128, updates=1)
    assert network(blank, blank).pixels.shape == (1, 2, 128, 128)
