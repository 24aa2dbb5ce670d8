"""A rig without colours gets those of a plain face, where its landmarks say."""

from __future__ import annotations

from dataclasses import replace

import torch

from deepenergy import Rig, State
from deepenergy.scene.rig_paint import BROW_ALBEDO, SKIN_ALBEDO, with_default_albedo


def test_brows_lips_and_eyes_are_painted_and_the_forehead_is_not() -> None:
    builtin = Rig.load("builtin")
    assert with_default_albedo(builtin) is builtin
    rig = with_default_albedo(replace(builtin, texture=None, vertex_albedo=None))
    colours = rig.vertex_albedo
    assert colours is not None
    state = State.identity(1, len(rig.weight_names))
    marks = rig.landmarks(rig.vertices(state))[0].float()

    def at(point: torch.Tensor) -> torch.Tensor:
        return colours[(rig.neutral - point).norm(dim=1).argmin()]

    skin = torch.tensor(SKIN_ALBEDO)
    for brow in (marks[19], marks[24]):
        assert torch.allclose(at(brow), torch.tensor(BROW_ALBEDO), atol=0.1)
    between = (marks[21] + marks[22]) / 2
    assert torch.allclose(at(between + torch.tensor([0.0, 0.03, 0.0])), skin)
    lip = at((marks[57] + marks[66]) / 2)
    assert float(lip[0] / lip[1]) > 2
    for lids in (marks[36:42], marks[42:48]):
        middle = lids.mean(0)
        inside = (rig.neutral - middle)[:, :2].norm(dim=1) < 0.012
        assert float(colours[inside].amin(0).max()) < 0.02 and float(colours[inside].amin(1).max()) > 0.5
