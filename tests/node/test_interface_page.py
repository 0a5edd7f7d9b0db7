"""docs/interface.md says what the node declares, no more and no less."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructseg_node.interface import ACTIONS, INPUTS, OUTPUTS, SERVICES
from instructseg_node.interface_page import page
from instructseg_node.parameters import TABLE

PAGE = Path(__file__).parents[2] / "docs" / "interface.md"


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "python -m instructseg_node.interface_page > docs/interface.md"


@pytest.mark.parametrize("name", [row.name for row in (*INPUTS, *OUTPUTS, *SERVICES, *ACTIONS)] + list(TABLE))
def test_every_name_has_one_row(name: str) -> None:
    assert sum(line.startswith(f"| `{name}` |") for line in page().splitlines()) == 1


def test_rows_have_as_many_cells_as_their_table() -> None:
    cells = [line.replace("\\|", "").count("|") for line in page().splitlines() if line.startswith("|")]
    assert min(cells) >= 4 and set(cells) == {4, 6, 7}
