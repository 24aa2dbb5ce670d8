"""Files of trained weights that others publish: where they are looked for, and the check that one is what it says.

Nothing is fetched. A file that is missing or wrong gives an error that says which file, where it comes from and what to
use instead.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deepenergy.runtime.errors import InputError

# torch.hub's convention: the first digits of the SHA-256 stand in the name, before the ending.
_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.")


@dataclass(frozen=True)
class WeightFile:
    """A published file of weights.

    Attributes:
        field: what the user calls it, for error messages.
        name: file name.
        sha256: the SHA-256 of the published file, or its first digits.
        url: where it is published.
        source: whose it is, and its licence.
        builtin: what to use without it.
        unpack: the shell command that unpacks a download (reads standard input), where one is needed.
    """

    field: str
    name: str
    sha256: str
    url: str
    source: str
    builtin: str
    unpack: str = ""

    def locate(self, path: str | Path | None, folders: list[Path]) -> Path:
        """The file at `path`; without one, the first found in `$DEEPENERGY_WEIGHTS` and then `folders`.

        Raises:
            InputError: no such file; names the file, its hash, the command that gets it and the alternative.
        """
        named = os.environ.get("DEEPENERGY_WEIGHTS")
        places = [Path(named).expanduser(), *folders] if named else folders
        candidates = [Path(path).expanduser()] if path is not None else [place / self.name for place in places]
        for candidate in candidates:
            if candidate.is_file():
                return candidate
        goal = folders[0] / self.name
        unpack = f" | {self.unpack}" if self.unpack else ""
        raise InputError(
            self.field,
            "no file " + " nor ".join(str(c) for c in candidates),
            f"{self.name} (SHA-256 {self.sha256}..., {self.source})",
            f"get it with `mkdir -p '{goal.parent}' && curl -L '{self.url}'{unpack} > '{goal}'`, or use {self.builtin}",
        )

    def check_hash(self, path: Path) -> None:
        """Compare a file's SHA-256 with the digits in its name, or with the published ones where it has none.

        Raises:
            InputError: the hash is another one: a truncated download, or another file.
        """
        in_name = _HASH_IN_NAME.search(path.name)
        expected = in_name.group(1) if in_name else self.sha256
        found = _sha256(path)
        if not found.startswith(expected):
            raise InputError(
                self.field,
                f"{path} with SHA-256 {found[:16]}... ({path.stat().st_size} bytes)",
                f"SHA-256 {expected}...",
                f"get the file again from {self.url}, pass verify=False for weights of your own, or use {self.builtin}",
            )

    def read(self, path: Path) -> dict[str, Tensor]:
        """The tensors of a PyTorch state dict, on the CPU; nothing else in the file is unpickled.

        Raises:
            InputError: the file cannot be read, or holds something else.
        """
        remedy = f"get the file again from {self.url}, or use {self.builtin}"
        expected = f"a PyTorch state dict ({self.name})"
        try:
            state: Any = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch.load raises whatever its zip reader and unpickler meet in a broken file
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise InputError(self.field, f"{path}, which cannot be read ({reason[:200]})", expected, remedy) from error
        if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
            raise InputError(self.field, f"{path}, which holds something other than tensors by name", expected, remedy)
        return state


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
