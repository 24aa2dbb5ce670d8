"""Docs name modules that exist, and the picture shows the imports there are."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Placeholders in recipes.
PLACEHOLDERS = ("NAME", "FORMAT")


def sources() -> set[str]:
    folders = ("deepenergy", "tests", "benchmarks", "examples", "training", "docs")
    return {path.relative_to(ROOT).as_posix() for folder in folders for path in (ROOT / folder).rglob("*.py")}


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_pages_name_sources_that_exist(page: Path) -> None:
    known = sources()
    for name in re.findall(r"(?<![\w/.])(?:\w+/)*\w+\.py\b", page.read_text(encoding="utf-8")):
        if not any(word in name for word in PLACEHOLDERS):
            assert any(path == name or path.endswith(f"/{name}") for path in known), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=[page.relative_to(ROOT).as_posix() for page in PAGES])
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:\s]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), f"{page.name} links to {target}"


def test_docstrings_name_modules_that_exist() -> None:
    known = sources()
    for path in sorted((ROOT / "deepenergy").rglob("*.py")):
        for name in re.findall(r"(?<![\w/.\"<])(?:\w+/)*[a-z]\w+\.py\b", path.read_text(encoding="utf-8")):
            assert any(source == name or source.endswith(f"/{name}") for source in known), f"{path} names {name}"


def test_the_picture_shows_the_imports() -> None:
    drawn = runpy.run_path(str(ROOT / "docs" / "architecture.py"))["draw"]()
    assert (ROOT / "docs" / "architecture.svg").read_text(encoding="utf-8") == drawn, (
        "run `python docs/architecture.py`"
    )
