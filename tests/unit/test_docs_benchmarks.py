"""docs/benchmarks.md: a section a benchmark, figures in print as the table beside ours has them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instructseg import cli
from instructseg.data.benchmarks import benchmarks
from instructseg.evaluation.benchmarks.published import published_figures
from instructseg.registry import RECIPES

PAGE = (Path(__file__).parents[2] / "docs" / "benchmarks.md").read_text(encoding="utf-8")


def printed_lines(benchmark: str) -> list[str]:
    """The rows of a section's table of published figures."""
    lines: dict[tuple[str, str, str], list[str]] = {}
    for recipe in RECIPES:
        for split in benchmarks()[benchmark].splits:
            for published in published_figures(recipe, benchmark, split):
                for row, figures in published.figures.items():
                    words = ", ".join(f"{name} {value:g}" for name, value in figures.items())
                    lines.setdefault((recipe, published.of, row), []).append(f"{split}: {words}")
    return [f"| `{recipe}` | {of} | {row} | {'; '.join(said)} |" for (recipe, of, row), said in lines.items()]


def section(benchmark: str) -> str:
    """Between the heading that names it and the next one."""
    found = re.search(rf"^## [^\n]*`{re.escape(benchmark)}`[^\n]*\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)
    assert found, f"docs/benchmarks.md has no section of {benchmark}"
    return found[1]


@pytest.mark.parametrize("benchmark", sorted(benchmarks()))
def test_every_benchmark_has_its_section_with_the_figures_in_print(benchmark: str) -> None:
    text = section(benchmark)
    for line in printed_lines(benchmark):
        assert line in text


def test_the_commands_of_the_page_can_be_parsed() -> None:
    commands = re.findall(
        r"^    (?:accelerate launch [^\n]* -m instructseg\.cli|instructseg) (eval [^\n#]+)", PAGE, re.M
    )
    assert len(commands) >= len(benchmarks()) - 3
    for command in commands:
        cli.build_parser().parse_args(command.split())
