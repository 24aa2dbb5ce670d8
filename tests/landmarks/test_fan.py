"""3D-FAN by the real loader, from a file of the true format with random weights; conventions against the package."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from refusals import refused
from torch import Tensor

from deepenergy.landmarks.fan import FAN_WEIGHTS, Fan
from deepenergy.landmarks.readings import find_landmarks
from deepenergy.landmarks.soft_argmax import local_soft_argmax
from deepenergy.runtime.errors import InputError
from deepenergy.scene.window import crop_and_resize, heatmap_to_plate

face_alignment_api = pytest.importorskip("face_alignment.api", reason="the package face-alignment is not installed")
from face_alignment import utils as fa_utils  # noqa: E402
from face_alignment.models import FAN  # noqa: E402

# torch's first forward-mode call loads decompositions that use its own deprecated torch.jit.script.
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:DeprecationWarning")
F64 = torch.float64
BLANK = torch.zeros(1, 3, 256, 256)


@pytest.fixture(scope="module")
def reference() -> torch.nn.Module:
    torch.manual_seed(0)
    module = FAN(4).eval()
    # Small last layers, so that heatmaps have the magnitude of trained ones and equation 3 is not saturated.
    with torch.no_grad():
        for name in ("l0", "l1", "l2", "l3"):
            module.get_parameter(f"{name}.weight").mul_(0.1)
    return module


@pytest.fixture(scope="module")
def weights(reference: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as `face-alignment` publishes them: a state dict, the first ten digits of its SHA-256 in its name."""
    unnamed = tmp_path_factory.mktemp("weights") / "unnamed"
    torch.save(reference.state_dict(), unnamed)
    digest = hashlib.sha256(unnamed.read_bytes()).hexdigest()
    return unnamed.rename(unnamed.with_name(f"3DFAN4-{digest[:10]}.pth.tar"))


@pytest.fixture(scope="module")
def fan(weights: Path) -> Fan:
    return Fan(weights)


@pytest.fixture(scope="module")
def photograph() -> Tensor:
    return torch.from_numpy(skimage.data.astronaut().copy()).permute(2, 0, 1)[None].float() / 255


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.delenv("DEEPENERGY_WEIGHTS", raising=False)
    return tmp_path / "hub" / "checkpoints"


def test_the_loaded_network_is_the_package_s(fan: Fan, reference: torch.nn.Module, photograph: Tensor) -> None:
    box = torch.tensor([[178.0, 75, 270, 190]], dtype=F64)
    window = fan.crop_boxes(box)
    crop = crop_and_resize(photograph, window)
    with torch.no_grad():
        outputs = reference(crop)
        found = find_landmarks(fan, photograph, box)
        assert torch.equal(fan(crop), outputs[-1])
    assert len(outputs) == 4
    assert torch.equal(found.windows, window)
    assert torch.allclose(found.points, heatmap_to_plate(local_soft_argmax(outputs[-1]).double(), window))
    assert torch.allclose(found.confidence, outputs[-1].amax((-2, -1)).clamp(0, 1).double())
    assert not fan.module.training
    assert not any(p.requires_grad for p in fan.module.parameters())


def test_it_is_differentiable_in_both_modes(fan: Fan, photograph: Tensor) -> None:
    """<u, J v> of forward mode equals <J^T u, v> of reverse mode."""
    crop = crop_and_resize(photograph, fan.crop_boxes(torch.tensor([[178.0, 75, 270, 190]], dtype=F64)))
    generator = torch.Generator().manual_seed(1)
    v, u = torch.randn(crop.shape, generator=generator), torch.randn(1, 68, 64, 64, generator=generator)
    _, forward = torch.func.jvp(fan, (crop,), (v,))[:2]
    crop.requires_grad_()
    (reverse,) = torch.autograd.grad(fan(crop), crop, u)
    assert float((reverse * v).sum()) == pytest.approx(float((forward * u).sum()), rel=2e-2)


@pytest.mark.slow
def test_soft_argmax_agrees_with_the_package_s_rule_to_a_quarter_pixel() -> None:
    """The package moves the highest pixel's centre by a quarter pixel; equation 3 lands closer to the truth."""
    centres = 3 + 58 * torch.rand(2, 68, 2, dtype=F64, generator=torch.Generator().manual_seed(2))
    grid = torch.arange(64, dtype=F64) + 0.5
    square = (grid - centres[..., 0, None])[..., None, :] ** 2 + (grid - centres[..., 1, None])[..., :, None] ** 2
    heatmaps = torch.exp(-square / (2 * 3.25**2)).float()  # the width of the package's training targets
    centre, scale = np.array([300.0, 200.0]), 1.7
    theirs, theirs_plate, peaks = fa_utils.get_preds_fromhm(heatmaps.numpy(), centre, scale)
    ours = local_soft_argmax(heatmaps)
    assert float(np.abs(ours.numpy() - theirs).max()) < 0.26
    assert float((ours - centres).abs().mean()) < 0.3 * float(np.abs(theirs - centres.numpy()).mean())
    assert torch.allclose(Fan().confidence(heatmaps), torch.from_numpy(peaks).clamp(0, 1))
    half = 100 * scale
    box = torch.tensor([[centre[0] - half, centre[1] - half, centre[0] + half, centre[1] + half]], dtype=F64)
    # The package cuts plate coordinates off to whole pixels.
    difference = heatmap_to_plate(ours.double(), box.expand(2, 4)).numpy() - theirs_plate
    quarter = 0.26 * 2 * half / 64
    assert difference.min() > -quarter
    assert difference.max() < 1 + quarter


@pytest.mark.parametrize("box", [(178.0, 75.0, 270.0, 190.0), (120.0, -15.0, 300.0, 230.0)])
def test_the_crop_window_is_the_package_s_to_its_rounding(box: tuple[float, ...], photograph: Tensor) -> None:
    # As in face_alignment.api.FaceAlignment.get_landmarks_from_image.
    x0, y0, x1, y1 = box
    centre = torch.tensor([x1 - (x1 - x0) / 2, y1 - (y1 - y0) / 2 - (y1 - y0) * fa_utils.CENTER_Y_OFFSET])
    scale = (x1 - x0 + y1 - y0) / fa_utils.REFERENCE_SCALE
    window = Fan().crop_boxes(torch.tensor([box], dtype=F64))
    first = fa_utils.transform([1, 1], centre, scale, 256.0, True)
    last = fa_utils.transform([256, 256], centre, scale, 256.0, True)
    side = float(window[0, 2] - window[0, 0])
    assert side == pytest.approx(200 * scale)
    assert float(window[0, 3] - window[0, 1]) == pytest.approx(side)
    rounding = 1 + side / 256
    assert np.abs(first.numpy() - window[0, :2].numpy()).max() <= rounding
    assert np.abs(last.numpy() - window[0, 2:].numpy()).max() <= rounding

    theirs = fa_utils.crop(skimage.data.astronaut(), centre, scale) / 255.0

    def difference(shift: float) -> float:
        ours = crop_and_resize(photograph, window + torch.tensor([0, shift, 0, shift]))[0].permute(1, 2, 0).numpy()
        return float(np.abs(ours - theirs).mean())

    assert difference(0) < 0.03
    assert difference(0) < 0.5 * min(difference(-5), difference(5))


def test_names_and_addresses_are_the_package_s() -> None:
    assert FAN_WEIGHTS["3D"].url == face_alignment_api.models_urls["3DFAN-4"]
    assert FAN_WEIGHTS["2D"].url == face_alignment_api.models_urls["2DFAN-4"]
    for published in FAN_WEIGHTS.values():
        assert published.name == published.url.rpartition("/")[2]
        assert f"-{published.sha256}." in published.name


def test_a_missing_file_says_what_to_do(hub: Path) -> None:
    fan = Fan()  # nothing is read before the first use
    with pytest.raises(InputError) as error:
        fan(BLANK)
    message = str(error.value)
    for part in (str(hub / "3DFAN4-7835d9f11d.pth.tar"), "7835d9f11d", "curl -L", FAN_WEIGHTS["3D"].url, "'compact'"):
        assert part in message
    assert "\n" not in message
    with pytest.raises(InputError, match=r"no file .*elsewhere\.pth"):
        Fan(hub / "elsewhere.pth")(BLANK)


def test_a_file_in_the_hub_s_folder_is_found_and_its_hash_is_checked(
    hub: Path, weights: Path, reference: torch.nn.Module
) -> None:
    hub.mkdir(parents=True)
    (hub / "3DFAN4-7835d9f11d.pth.tar").symlink_to(weights)
    with refused(expected="7835d9f11d", remedy="'compact'"):
        Fan()(BLANK)
    unverified = Fan(verify=False)
    assert torch.equal(unverified.module.l3.weight, reference.l3.weight)  # type: ignore[union-attr]


def test_a_file_without_a_hash_in_its_name_must_be_the_published_one(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "fan.pth").symlink_to(weights)
    with refused(found="fan.pth", expected="7835d9f11d"):
        Fan(tmp_path / "fan.pth")(BLANK)


def test_a_truncated_file(weights: Path, tmp_path: Path) -> None:
    cut = tmp_path / weights.name
    with weights.open("rb") as file:
        cut.write_bytes(file.read(100_000))
    with refused(found="100000 bytes"):
        Fan(cut)(BLANK)
    with pytest.raises(InputError, match="which cannot be read"):
        Fan(cut, verify=False)(BLANK)


def test_files_with_other_contents(tmp_path: Path) -> None:
    path = tmp_path / "fan.pth"
    torch.save({"conv1.weight": torch.zeros(2, 2), "stranger": torch.zeros(1)}, path)
    with pytest.raises(InputError, match=r"whose tensors do not fit \(.*") as error:
        Fan(path, verify=False)(BLANK)
    assert "\n" not in str(error.value)
    torch.save([1, 2, 3], path)
    with pytest.raises(InputError, match="something other than tensors"):
        Fan(path, verify=False)(BLANK)
    torch.save({"state_dict": torch.nn.Linear(1, 1)}, path)  # a pickled module, which weights_only refuses
    with pytest.raises(InputError, match="which cannot be read"):
        Fan(path, verify=False)(BLANK)


def test_a_missing_package(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in sys.modules if n.split(".")[0] == "face_alignment"]:
        monkeypatch.setitem(sys.modules, name, None)
    with refused(remedy="pip install face-alignment=="):
        Fan(weights)(BLANK)


def test_bad_arguments(fan: Fan) -> None:
    with refused("fan landmarks_type", found="'4D'", expected="'2D'"):
        Fan(landmarks_type="4D")
    for shape in ((3, 256, 256), (1, 3, 128, 128), (1, 1, 256, 256)):
        with pytest.raises(ValueError, match="crops: found shape"):
            fan(torch.zeros(shape))
