"""What a command imports before it has anything to do: help and usage errors do not wait for torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SLOW_TO_IMPORT = ("torch", "numpy", "scipy", "numba", "matplotlib")
# The command line in this process, then the exit code and what it has imported of the above.
SCRIPT = f"""
import sys
from deepenergy.commands.cli import main
code = 0
try:
    main()
except SystemExit as end:
    code = end.code
imported = [name for name in {SLOW_TO_IMPORT!r} if name in sys.modules]
print("ended", code, *imported, file=sys.stderr)
"""


def started(arguments: list[str], folder: Path) -> tuple[str, str, list[str]]:
    """Stdout, the rest of stderr, and the last line's words, of the command line in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, check=True, cwd=folder,
    )  # fmt: skip
    *rest, last = done.stderr.splitlines()
    return done.stdout, "\n".join(rest), last.split()


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--help"], "0"),
        (["solve", "--help"], "0"),
        (["--version"], "0"),
        (["stages"], "0"),
        (["--nope"], "2"),
        (["sovle"], "2"),
        (["solve"], "2"),
        (["solve", "shot.toml", "--nope"], "2"),
        (["demo", "--frames", "many"], "2"),
        (["rig", "convert", "builtin"], "2"),
    ],
)
def test_help_and_usage_errors_do_not_import_torch(arguments: list[str], code: str, tmp_path: Path) -> None:
    stdout, stderr, last = started(arguments, tmp_path)
    assert last == ["ended", code], (stdout, stderr)
    assert stdout if code == "0" else stderr


def test_the_package_registers_its_formats_without_importing_them() -> None:
    code = (
        "import sys, deepenergy; from deepenergy.runtime.registry import suffixes; "
        f"print(suffixes('read rig'), [name for name in {SLOW_TO_IMPORT!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.endswith("[]\n")
    assert "'.glb'" in done.stdout and "'.npz'" in done.stdout
