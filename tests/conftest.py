"""Fixtures that every test may use."""

from __future__ import annotations

import fcntl
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Two OpenMP threads on a busy two-core machine are an order of magnitude slower than one.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of test data, which is not part of the project; skips where it is absent."""
    path = Path(os.environ.get("DEEPENERGY_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"test data absent: no folder {path} (set DEEPENERGY_TEST_DATA)")
    return path


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that is filled once in a test run, whichever worker comes first, and that tests only read."""
    base = factory.getbasetemp()
    # Workers of pytest-xdist have a folder each, side by side.
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = base / name
    with (base / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = base / f"{name}.partial"
            partial.mkdir()
            make(partial)
            partial.rename(folder)
    return folder


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `deepenergy demo --frames 6` writes, and `stdout.txt`: the built-in head, filmed, solved and reported."""

    def make(folder: Path) -> None:
        from deepenergy.commands.cli import app

        result = CliRunner().invoke(app, ["demo", "--output", str(folder), "--frames", "6"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        (folder / "stdout.txt").write_text(result.stdout, encoding="utf-8")

    return made_once(tmp_path_factory, "demo", make)


@pytest.fixture(scope="session")
def facekit_folder(tmp_path_factory: pytest.TempPathFactory, test_data: Path) -> Path:
    """ICT-FaceKit, unpacked: the folder to give to `Rig.load`."""
    archive = test_data / "ict-facekit.tar.xz"
    if not archive.is_file():
        pytest.skip(f"test data absent: no file {archive}")

    def make(folder: Path) -> None:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")

    folder = made_once(tmp_path_factory, "facekit", make)
    return next(path.parent for path in folder.rglob("FaceXModel"))
