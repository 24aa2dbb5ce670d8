"""`deepenergy doctor`: what this installation has (packages, weights, processors), and whether a solve can run."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from deepenergy.runtime.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from deepenergy.runtime.weight_file import WeightFile

# (distribution, module to import, what it is for). Importing, not only looking, since a wheel may lack its libraries.
REQUIRED = (
    ("torch", "torch", "tensors and networks"),
    ("numpy", "numpy", "arrays"),
    ("scipy", "scipy.optimize", "pose start"),
    ("numba", "numba", "visibility on the CPU"),
    ("dlib-bin", "dlib", "face detector"),
    ("safetensors", "safetensors", "network weights"),
    ("av", "av", "video plates and overlays"),
    ("OpenEXR", "OpenEXR", "EXR plates"),
    ("tifffile", "tifffile", "TIFF plates"),
    ("fileseq", "fileseq", "frame ranges"),
    ("pygltflib", "pygltflib", "glTF rigs"),
    ("pydantic", "pydantic", "shot files"),
    ("matplotlib", "matplotlib", "plots of the report"),
)
# No wheels for Linux: docs/pytorch3d.md.
_PYTORCH3D = "pip install --no-build-isolation git+https://github.com/facebookresearch/pytorch3d.git"
OPTIONAL = (
    ("face-alignment", "face_alignment", "3D-FAN landmarks", "pip install 'deepenergy[fan]'"),
    ("pytorch3d", "pytorch3d._C", "another visibility backend, built from source in 12-25 minutes", _PYTORCH3D),
    ("usd-core", "pxr", "USD", "pip install 'deepenergy[usd]'"),
)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        what: package, file or processor.
        state: "ok", "absent" (optional, and not there) or "missing" (needed by the main job, and not usable).
        detail: version, path, or why it cannot be used.
        remedy: the command that corrects it, "" where nothing is wrong.
    """

    what: str
    state: str
    detail: str
    remedy: str = ""


def doctor() -> None:
    """Say what is installed, which weights are where, and whether a solve can run."""
    from rich.console import Console

    findings = examine()
    Console().print(as_table(findings))
    lacking = missing(findings)
    # Outside the table, so that a command is one line that can be copied.
    for finding in findings:
        if finding.remedy and finding not in lacking:
            typer.echo(f"{finding.what}: {finding.remedy}")
    for finding in lacking:
        typer.echo(f"error: {finding.what}: found {finding.detail}; {finding.remedy}", err=True)
    if lacking:
        raise typer.Exit(1)
    typer.echo("a solve can run")


def examine() -> list[Finding]:
    """Look at packages, weights and processors."""
    findings = [_package(name, module, use, None) for name, module, use in REQUIRED]
    findings += [_package(name, module, use, remedy) for name, module, use, remedy in OPTIONAL]
    return [*findings, *_weights(), *_processors()]


def _package(name: str, module: str, use: str, optional: str | None) -> Finding:
    # Reads e-mail headers, for which it imports more than all commands together.
    from importlib.metadata import PackageNotFoundError, version

    what = f"{name} ({use})"
    try:
        found = version(name)
    except PackageNotFoundError:
        # dlib built from source goes by another name than the wheel, and serves as well.
        found = "version unknown"
    try:
        import_module(module)
    # A broken native library raises what it likes at import, and a report must go on to the next line.
    except Exception as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == module.split(".")[0]
        detail = "not installed" if absent else f"import fails: {type(error).__name__}: {_one_line(error)}"
        if optional is not None:
            return Finding(what, "absent", detail, optional)
        return Finding(what, "missing", detail, f"pip install --force-reinstall --no-deps {name}")
    return Finding(what, "ok", found)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 100 else text[:97] + "..."


def _weights() -> list[Finding]:
    import torch

    from deepenergy.flow.compact import WEIGHTS as FLOW_WEIGHTS
    from deepenergy.flow.raft import RAFT_WEIGHTS
    from deepenergy.landmarks.compact import WEIGHTS
    from deepenergy.landmarks.detector import MMOD
    from deepenergy.landmarks.fan import FAN_WEIGHTS

    hub = Path(torch.hub.get_dir()) / "checkpoints"
    return [
        _built_in("weights of network 'compact' (built in)", WEIGHTS),
        _built_in("weights of flow network 'compact' (built in)", FLOW_WEIGHTS),
        _published(FAN_WEIGHTS["3D"], hub),
        *(_published(weights, hub) for weights in RAFT_WEIGHTS.values()),
        _published(MMOD, Path.home() / ".cache" / "deepenergy"),
    ]


def _built_in(what: str, path: Path) -> Finding:
    problem = _check_compact(path) if path.is_file() else "no such file"
    remedy = "pip install --force-reinstall --no-deps deepenergy"
    return Finding(what, "missing", f"{path}: {problem}", remedy) if problem else _found(what, path)


def _found(what: str, path: Path) -> Finding:
    return Finding(what, "ok", f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


def _published(weights: WeightFile, folder: Path) -> Finding:
    what = f"weights of {weights.field} (optional)"
    try:
        path = weights.locate(None, [folder])
        weights.check_hash(path)
    except InputError as error:
        return Finding(what, "absent", error.found, error.remedy)
    return _found(what, path)


def _check_compact(path: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return "" if len(file.keys()) else "no tensors in it"
    except (SafetensorError, OSError) as error:
        return _one_line(error)


def _processors() -> list[Finding]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = f"{torch.get_num_threads()} torch threads; OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'not set')}"
    findings = [
        Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        Finding("CPU", "ok", f"{cores} cores; {threads}"),
    ]
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        return [*findings, Finding("GPU", "ok", f"{names} (CUDA {torch.version.cuda})")]
    built = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no CUDA device"
    return [*findings, Finding("GPU (optional)", "absent", built)]


def as_table(findings: list[Finding]) -> Table:
    """The findings as a table for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    table = Table()
    table.add_column("what", overflow="fold")
    table.add_column("state")
    table.add_column("detail", overflow="fold")
    colours = {"ok": "green", "absent": "yellow", "missing": "bold red"}
    for finding in findings:
        # Paths may hold square brackets, which are markup to rich unless escaped.
        table.add_row(escape(finding.what), f"[{colours[finding.state]}]{finding.state}[/]", escape(finding.detail))
    return table


def missing(findings: list[Finding]) -> list[Finding]:
    """What keeps the main job from running; empty where it can run."""
    return [finding for finding in findings if finding.state == "missing"]
