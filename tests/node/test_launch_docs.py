"""docs/launch.md against the launch files: every argument, its default, and nothing that is not there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from node.test_launch import declared, load

from instructseg.core import State

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "launch.md").read_text(encoding="utf-8")
FILES = sorted(path.name for path in (ROOT / "launch").glob("*.launch.*"))
MISSING = object()


def rows(heading: str) -> dict[str, str]:
    """Argument -> default, of the table under the heading that begins so."""
    section = PAGE.partition(f"\n## {heading}")[2].partition("\n## ")[0]
    found = re.findall(r"^\| `(\w+)` \| ?(.*?) ?\| (.+) \|$", section, re.M)
    assert found, heading
    return {name: default.strip("`") for name, default, _ in found}


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".py")])
def test_the_tables_are_what_the_files_declare(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = {
        key: options.get("default_value", MISSING) for key, options in declared(load(name, monkeypatch)).items()
    }
    expected = {key: "needed" if default is MISSING else default for key, default in arguments.items()}
    if name == "demo.launch.py":
        expected["bag"] = "the demo's"
    assert rows(name) == expected


def test_the_page_names_every_launch_file() -> None:
    assert re.findall(r"^\| `(\w+\.launch\.\w+)` \|", PAGE, re.M) == sorted(
        FILES, key=lambda name: PAGE.index(f"| `{name}` |")
    )
    assert len(FILES) == 5


def test_the_planners_page_explains_every_state() -> None:
    page = (ROOT / "docs" / "planners.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `([A-Z_]+)` \|", page, re.M) == [state.name for state in State]
    assert re.findall(r"\| yes \|", page) == ["| yes |"]
