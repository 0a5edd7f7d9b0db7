"""What a training wrote down while it ran, drawn: ``curves.json`` as ``curves.png``."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..checkpoints import read_json
from ..core import BadInput

CURVES = "curves.json"
WIDTH, HEIGHT = 640, 320  # of a panel
LEFT, RIGHT, TOP, BOTTOM = 56, 170, 34, 34  # margins of its plot, pixels
DECADES = 4  # of a logarithmic scale, at most
WHITE, GREY, BLACK = (255, 255, 255), (210, 210, 210), (40, 40, 40)
COLOURS = (
    (200, 80, 30), (30, 120, 220), (40, 160, 60), (180, 50, 180), (20, 20, 200), (150, 150, 0), (90, 90, 90),
    (0, 170, 220), (120, 60, 0), (200, 120, 200), (60, 200, 160), (0, 90, 140), (0, 0, 0), (170, 170, 255),
    (230, 200, 90), (80, 0, 80),
)  # fmt: skip
FONT = cv2.FONT_HERSHEY_SIMPLEX

Points = list[dict[str, float | None]]  # of one curve's table: step, minutes, and the values by name


def read_curves(path: Path) -> dict[str, dict[str, Points]]:
    """``{stage: {"training": points, "validation": points}}``; nothing where there is no file. Raises BadInput."""
    if not path.exists():
        return {}
    curves = read_json(path)
    whole = isinstance(curves, dict) and all(
        isinstance(stage, dict) and all(_are_points(stage.get(part)) for part in ("training", "validation"))
        for stage in curves.values()
    )
    if not whole:
        raise BadInput(f"{path} must hold lists 'training' and 'validation' of each stage; remove it to begin anew")
    return curves


def write_curves(path: Path, curves: Mapping[str, Any]) -> None:
    """In one move; what is not a finite number becomes null."""
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(_finite(curves)) + "\n", encoding="utf-8")
    os.replace(partial, path)


def draw_curves(curves: Mapping[str, Mapping[str, Points]]) -> np.ndarray:
    """``(H, W, 3)`` BGR: of each stage its losses, on a logarithmic scale, and its validation figures."""
    rows = []
    for name, stage in curves.items():
        losses = _series(stage["training"], "loss/")
        figures = _series(stage["validation"], "")
        panels = [_panel(f"{name}: losses", losses, True), _panel(f"{name}: validation", figures, False)]
        rows.append(np.concatenate(panels, 1))
    return np.concatenate(rows) if rows else np.full((HEIGHT, 2 * WIDTH, 3), 255, np.uint8)


def _are_points(points: Any) -> bool:
    return isinstance(points, list) and all(isinstance(p, dict) and isinstance(p.get("step"), int) for p in points)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(v) for name, v in value.items()}
    if isinstance(value, list):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _series(points: Sequence[Mapping[str, float | None]], prefix: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Steps and values of each name that begins with ``prefix``, which is cut off."""
    names = sorted({name for point in points for name in point if name.startswith(prefix)} - {"step", "minutes"})
    series = {}
    for name in names:
        kept = [(point["step"], point[name]) for point in points if point.get(name) is not None]
        if kept:
            steps, values = np.array(kept, float).T
            series[name.removeprefix(prefix)] = steps, values
    return series


def _panel(title: str, series: Mapping[str, tuple[np.ndarray, np.ndarray]], logarithmic: bool) -> np.ndarray:
    """Lines with axes; beside them the names with their last values. Figures above 1 (false objects a frame) are named,
    but not drawn: they would press all others flat."""
    picture = np.full((HEIGHT, WIDTH, 3), WHITE, np.uint8)
    _write(picture, title, (LEFT, TOP - 12), BLACK, 0.5)
    drawn = {n: s for n, s in series.items() if (s[1].max() > 0 if logarithmic else s[1].max() <= 1)}
    if not drawn:
        _write(picture, "nothing yet", (LEFT, HEIGHT // 2), BLACK)
        return picture
    last = max(steps[-1] for steps, _ in drawn.values())
    positive = np.concatenate([values[values > 0] for _, values in drawn.values()]) if logarithmic else np.ones(1)
    low, high = (math.log10(positive.min()), math.log10(positive.max())) if logarithmic else (0.0, 1.0)
    low, high = (max(low - 0.05, high - DECADES), high + 0.05) if logarithmic else (low, high)
    plot = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM)
    for part in np.linspace(0, 1, 5):
        y = round(TOP + plot[1] * (1 - part))
        value = low + part * (high - low)
        cv2.line(picture, (LEFT, y), (LEFT + plot[0], y), GREY, 1)
        _write(picture, f"{10**value if logarithmic else value:.2g}", (6, y + 4), BLACK)
        x = round(LEFT + plot[0] * part)
        _write(picture, f"{part * last:.0f}", (x - 12, HEIGHT - 12), BLACK)
    for index, (name, (steps, values)) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        place = (LEFT + plot[0] + 10, TOP + 6 + 18 * index)
        _write(picture, f"{name} {values[-1]:.3g}", place, colour)
        if name not in drawn:
            continue
        heights = np.log10(np.maximum(values, 10**low)) if logarithmic else values
        x = LEFT + plot[0] * steps / max(last, 1)
        y = TOP + plot[1] * (1 - (heights - low) / (high - low))
        line = np.round(np.stack([x, y], -1)).astype(np.int32)  # (P, 2)
        cv2.polylines(picture, [line[:, None]], False, colour, 2, cv2.LINE_AA)
        if len(line) == 1:
            cv2.circle(picture, tuple(map(int, line[0])), 3, colour, -1, cv2.LINE_AA)
    return picture


def _write(picture: np.ndarray, text: str, place: tuple[int, int], colour: tuple[int, int, int], scale=0.4) -> None:
    cv2.putText(picture, text, place, FONT, scale, colour, 1, cv2.LINE_AA)
