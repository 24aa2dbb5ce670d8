"""The paper's chain through 3D-FAN: a file of the true format with random weights against face-alignment's own call."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_shot import tiny_camera, tiny_rig
from torch import Tensor
from torch.func import jvp

from deepenergy import State
from deepenergy.energy.deep_jacobian import deep_landmarks, heatmap_landmarks
from deepenergy.energy.network_tangents import network_tangents
from deepenergy.landmarks.fan import Fan
from deepenergy.landmarks.soft_argmax import local_soft_argmax
from deepenergy.render import Renderer
from deepenergy.scene.window import heatmap_to_plate

models = pytest.importorskip("face_alignment.models", reason="the package face-alignment is not installed")

# torch's first forward-mode call loads decompositions that use its own deprecated torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
F64 = torch.float64


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    """face-alignment's own network, random; statistics as if it had been trained, so that no signal dies out."""
    torch.manual_seed(0)
    module = models.FAN(4)
    for part in module.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        for _ in range(2):
            module.train()(torch.rand(1, 3, 256, 256))
        for layer in (module.l0, module.l1, module.l2, module.l3):
            layer.weight *= 0.1
    return module.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def fan(reference: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Fan:
    """By our loader, from a file as face-alignment publishes them."""
    unnamed = tmp_path_factory.mktemp("weights") / "unnamed"
    torch.save(reference.state_dict(), unnamed)
    digest = hashlib.sha256(unnamed.read_bytes()).hexdigest()
    path: Path = unnamed.rename(unnamed.with_name(f"3DFAN4-{digest[:10]}.pth.tar"))
    return Fan(path)


@pytest.mark.slow
def test_the_chain_through_fan_is_that_through_the_package_s_network(fan: Fan, reference: torch.nn.Module) -> None:
    """`<u, J v>` of our tangents is `<J^T u, v>` of torch's reverse mode through render and the package's own call."""
    rig = tiny_rig()
    renderer = Renderer(
        replace(rig, vertex_albedo=0.35 + 0.2 * torch.sin(60 * rig.neutral), blendshapes=0.2 * rig.blendshapes),
        supersample=1,
    )
    camera, crop = tiny_camera(), torch.tensor([[14.0, 6.0, 82.0, 74.0]], dtype=F64)
    base = State.identity(1, len(rig.weight_names))
    step = torch.zeros(1, 15, dtype=F64)
    step[0, :6] = 0.01
    free = torch.zeros(15, dtype=torch.bool)
    free[[1, 3, 12]] = True
    points, jacobian = deep_landmarks(renderer, fan, base, step, [camera], crop[None], free)

    moving = step.clone().requires_grad_()
    image = renderer(renderer.rig.vertices(base.retract(moving)).float(), camera.crop(crop, 256)).image
    theirs = heatmap_to_plate(local_soft_argmax(reference(image)[-1]).double(), crop)
    torch.testing.assert_close(points[0], theirs.detach(), rtol=0, atol=1e-3)
    generator = torch.Generator().manual_seed(1)
    u = torch.randn(theirs.shape, dtype=F64, generator=generator)
    (expected,) = torch.autograd.grad(theirs, moving, u)
    found = torch.einsum("clk,clkp->p", u, jacobian[0])
    # Float32: units near zero flip between the two ways of computing the same, and a random network has many there.
    # The test below is exact, in float64.
    assert float((found[free] - expected[0, free]).norm()) < 0.15 * float(expected[0, free].norm())
    assert float(found[~free].abs().max()) == 0


@pytest.mark.slow
def test_fan_in_double_against_the_package_s_network_and_finite_differences(
    fan: Fan, reference: torch.nn.Module
) -> None:
    own, theirs = fan.module.double(), reference.double()
    try:
        generator = torch.Generator().manual_seed(2)
        image = torch.rand(1, 3, 256, 256, dtype=F64, generator=generator)
        tangents = torch.randn(2, 3, 256, 256, dtype=F64, generator=generator)
        heatmaps, slopes = network_tangents(fan, image, tangents)

        def call(x: Tensor) -> Tensor:
            return theirs(x)[-1]

        with torch.no_grad():
            torch.testing.assert_close(heatmaps, call(image), rtol=1e-9, atol=1e-12)
            expected = jvp(call, (image,), (tangents[:1],))[1]
            torch.testing.assert_close(slopes[:1], expected, rtol=1e-6, atol=1e-8 * float(expected.abs().max()))
            moved = heatmap_landmarks(fan, image, tangents)[1]
            # So small a step that hardly any of ten million ReLUs flips.
            ends = [local_soft_argmax(call(image + sign * 1e-10 * tangents[1:]))[0] for sign in (1, -1)]
        difference = (ends[0] - ends[1]) / 2e-10
        assert float((moved[1] - difference).norm()) < 1e-3 * float(difference.norm())
    finally:
        own.float()
        theirs.float()
