"""The doctor says what is there, and fails only for what the main job needs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

from deepenergy.commands import doctor
from deepenergy.commands.cli import app


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weight file that can be opened, in place of the package's own, and no other weights anywhere."""
    path = tmp_path / "compact.safetensors"
    save_file({"a": torch.zeros(2)}, path)
    monkeypatch.setattr("deepenergy.landmarks.compact.WEIGHTS", path)
    monkeypatch.setenv("DEEPENERGY_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return path


def _finding(what: str) -> doctor.Finding:
    (found,) = [f for f in doctor.examine() if f.what.startswith(what)]
    return found


def test_everything_needed_is_here(weights: Path) -> None:
    findings = doctor.examine()
    assert doctor.missing(findings) == []
    versions = {f.what.split(" ")[0]: f.detail for f in findings if f.state == "ok"}
    assert versions["torch"] == torch.__version__
    assert any(f.what == "CPU" and "cores" in f.detail for f in findings)
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 0, result.output
    assert "a solve can run" in result.stdout


def test_a_package_that_is_not_installed(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dlib", None)
    assert _finding("dlib-bin").state == "missing"
    result = CliRunner().invoke(app, ["doctor"])
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "dlib-bin" in line
    assert "pip install" in line


def test_a_package_whose_library_is_broken(weights: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "av.py").write_text("raise OSError('libavcodec.so.61:\\n cannot open')")
    monkeypatch.delitem(sys.modules, "av", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    found = _finding("av ")
    assert found.state == "missing"
    assert "import fails: OSError: libavcodec.so.61: cannot open" in found.detail


def test_optional_packages_do_not_fail(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("face_alignment", "pytorch3d", "pytorch3d._C", "pxr"):
        monkeypatch.setitem(sys.modules, name, None)
    findings = doctor.examine()
    assert doctor.missing(findings) == []
    absent = [f for f in findings if f.state == "absent" and f.what.startswith(("face", "pytorch3d", "usd"))]
    assert len(absent) == 3
    assert all("pip install" in f.remedy for f in absent)


@pytest.mark.parametrize("content", [None, b"", b"not safetensors at all", b"\x08\0\0\0\0\0\0\0{}      "])
def test_weights_that_cannot_be_used(weights: Path, content: bytes | None) -> None:
    weights.unlink()
    if content is not None:
        weights.write_bytes(content)
    found = _finding("weights of network 'compact'")
    assert found.state == "missing"
    assert str(weights) in found.detail
    assert found.remedy


def test_published_weights_are_checked_by_hash(weights: Path) -> None:
    name = "weights of detector 'cnn'"
    assert _finding(name).state == "absent"
    assert "curl" in _finding(name).remedy
    (weights.parent / "mmod_human_face_detector.dat").write_bytes(b"another file")
    assert _finding(name).state == "absent"
    assert "SHA-256" in _finding(name).detail


def test_published_weights_are_found(weights: Path, test_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEEPENERGY_WEIGHTS", str(test_data / "weights"))
    found = _finding("weights of detector 'cnn'")
    assert found.state == "ok"
    assert str(test_data / "weights") in found.detail
