"""Pages: their links lead somewhere, the recipes' pages name options that exist, every recipe has its line."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from instructseg.registry import RECIPES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PAGE_OF = {"lisa": "gsva"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
    broken = [t for t in targets if "://" not in t and not (page.parent / t).exists()]
    assert not broken


@pytest.mark.parametrize("name", sorted(set(RECIPES) - {"unified"}))
def test_a_recipes_page_names_options_that_exist(name: str) -> None:
    text = (ROOT / "docs" / "recipes" / f"{PAGE_OF.get(name, name)}.md").read_text(encoding="utf-8")
    known = {field.name for field in dataclasses.fields(RECIPES[name].options_class)}
    given = set(re.findall(r"--option (\w+)=", text))
    table = text.partition("\n| option |")[2].partition("\n\n")[0]
    rows = {n for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", table, re.M) for n in re.findall(r"`(\w+)`", row)}
    assert given | rows <= known
    assert rows or f"instructseg recipes {name}" in text or name in PAGE_OF


def test_every_recipe_has_its_line_in_the_overview() -> None:
    overview = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert {name for name in RECIPES if f"\n| `{name}`" not in overview} == set()
