"""curves.json and curves.png of a training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from instructseg.core import BadInput
from instructseg.training.curves import COLOURS, HEIGHT, LEFT, TOP, WIDTH, draw_curves, read_curves, write_curves

POINTS = [{"step": step, "minutes": step / 10, "loss/heat": 1.0 / step} for step in (1, 10, 100)]
CURVES = {"perception": {"training": POINTS, "validation": [{"step": 50, "recall": 0.5}, {"step": 100, "recall": 1.0}]}}


def pixels(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Rows and columns ``(P, 2)`` of a colour."""
    return np.argwhere((picture == np.array(colour)).all(-1))


def test_curves_are_read_back_and_null_stands_for_no_number(tmp_path: Path) -> None:
    path = tmp_path / "curves.json"
    assert read_curves(path) == {}
    write_curves(path, {"language": {"training": [], "validation": [{"step": 3, "use": float("nan")}]}})
    assert read_curves(path) == {"language": {"training": [], "validation": [{"step": 3, "use": None}]}}
    assert [file.name for file in tmp_path.iterdir()] == ["curves.json"]


@pytest.mark.parametrize(
    "content", ["[]", '{"a": 1}', '{"a": {"training": []}}', '{"a": {"training": [{}], "validation": []}}', "{"]
)
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "curves.json"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"curves.json"):
        read_curves(path)


def test_a_falling_loss_falls_in_the_picture() -> None:
    picture = draw_curves(CURVES)
    assert picture.shape == (HEIGHT, 2 * WIDTH, 3)
    line = pixels(picture[TOP:, LEFT : WIDTH - 170], COLOURS[0])
    left, right = line[line[:, 1] < 20, 0].mean(), line[line[:, 1] > WIDTH - 170 - LEFT - 20, 0].mean()
    assert left < right  # rows count downwards
    recall = pixels(picture[:, WIDTH + LEFT : 2 * WIDTH - 170], COLOURS[0])
    assert recall[:, 0].min() <= TOP + 2  # a recall of 1 is the top line


def test_figures_above_one_do_not_press_the_others_flat() -> None:
    more = {"perception": {"training": POINTS, "validation": [{"step": 50, "recall": 0.5, "extra": 40.0}]}}
    picture = draw_curves(more)
    plot = picture[:, WIDTH + LEFT : 2 * WIDTH - 170]
    recall = pixels(plot, COLOURS[1])  # names in the order of the alphabet: extra, recall
    assert not len(pixels(plot, COLOURS[0]))
    middle = TOP + (HEIGHT - TOP - 34) / 2
    assert abs(recall[:, 0].mean() - middle) < 6


def test_two_stages_are_two_rows_and_nothing_is_no_error() -> None:
    both = {**CURVES, "language": {"training": [], "validation": []}}
    assert draw_curves(both).shape == (2 * HEIGHT, 2 * WIDTH, 3)
    assert (draw_curves({}) == 255).all()
