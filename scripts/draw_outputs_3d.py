"""Draw docs/images/outputs_3d.jpg: boxes and clouds of the demo scene, from its true masks and depth.

Left: the camera's picture with the boxes and the axes of the poses. Right: the clouds with their boxes, seen from the
right-hand side. Run it from the root of the repository; it needs the extra ``sim``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np

from instructseg.core import Frame, Instruction, State
from instructseg.data import demo_scene
from instructseg.data.tabletop import Tabletop
from instructseg.streaming import FrameResult, TargetState
from instructseg_node.conversions import fill_image
from instructseg_node.spatial.camera_model import CameraModel
from instructseg_node.spatial.depth import DepthImage
from instructseg_node.spatial.located import Located, Scene

SHOWN = ("red_block", "blue_ball", "white_mug", "green_can", "blue_bowl", "yellow_bottle")
WIDTH, HEIGHT, TIME = 640, 480, 13.5
EDGES = [(a, b) for a in range(8) for b in range(a + 1, 8) if bin(a ^ b).count("1") == 1]
COLOURS = ((60, 60, 255), (255, 120, 40), (230, 230, 230), (80, 220, 80), (255, 220, 60), (60, 230, 255))  # BGR


def main() -> int:
    path = Path("docs/images/outputs_3d.jpg")
    spec = demo_scene.demo_spec()
    table = Tabletop(WIDTH, HEIGHT, samples=4)
    rgb, instances, depth = table.render(spec, TIME)
    model = CameraModel(WIDTH, HEIGHT, *table.intrinsics(spec))
    scene = Scene(result_of(rgb, instances), depth_of(depth), model)
    side = seen_from_the_side(model)
    left, right = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), np.full((HEIGHT, WIDTH, 3), 30, np.uint8)
    for one in scene.located:
        right = draw_cloud(right, one, side, model)
    for number, one in enumerate(scene.located):
        for picture, turn, move in ((left, np.eye(3), np.zeros(3)), (right, *side)):
            draw_box(picture, one, turn, move, model, COLOURS[number % len(COLOURS)])
    cv2.imwrite(str(path), np.hstack([left, right]), [cv2.IMWRITE_JPEG_QUALITY, 85])
    print(f"{path}: {path.stat().st_size / 1e3:.0f} KB")
    return 0


def result_of(rgb: np.ndarray, instances: np.ndarray) -> FrameResult:
    targets = [
        TargetState(Instruction(name, name), number, State.PRESENT, 0.9, 0.0, "", 0, 0, name, instances == number)
        for name, number in demo_scene.NAMES.items()
        if name in SHOWN
    ]
    return FrameResult(Frame(rgb, 0), tuple(targets), 0.0, {})


def depth_of(depth: np.ndarray) -> DepthImage:
    return DepthImage(fill_image(SimpleNamespace(), depth, "32FC1", SimpleNamespace(frame_id="")))


def seen_from_the_side(model: CameraModel) -> tuple[np.ndarray, np.ndarray]:
    """A camera that has gone 60 degrees around the middle of the table: turn and move of points in front of it."""
    middle, angle = np.array([0.0, 0.0, 0.66]), np.radians(60)
    turn = np.array([[np.cos(angle), 0, np.sin(angle)], [0, 1, 0], [-np.sin(angle), 0, np.cos(angle)]])
    return turn, middle - turn @ middle + (0.0, 0.0, 0.15)


def draw_cloud(picture: np.ndarray, one: Located, side: tuple, model: CameraModel) -> np.ndarray:
    points = one.geometry.points
    moved = points.xyz @ side[0].T + side[1]
    order = np.argsort(-moved[:, 2])
    pixels = np.round(model.project(moved[order])).astype(int)
    inside = ((pixels >= 0) & (pixels < (WIDTH, HEIGHT))).all(axis=1)
    picture[pixels[inside, 1], pixels[inside, 0]] = points.rgb[order][inside][:, ::-1]
    return picture


def draw_box(picture: np.ndarray, one: Located, turn: np.ndarray, move: np.ndarray, model: CameraModel, colour) -> None:
    box = one.geometry.box
    signs = np.array([[(corner >> axis & 1) - 0.5 for axis in range(3)] for corner in range(8)])
    corners = box.center + (signs * box.size) @ box.rotation.T
    pixels = np.round(model.project(corners @ turn.T + move)).astype(int)
    for a, b in EDGES:
        cv2.line(picture, tuple(map(int, pixels[a])), tuple(map(int, pixels[b])), colour, 1, cv2.LINE_AA)
    ends = np.stack([one.geometry.centroid, *(one.geometry.centroid + 0.03 * axis for axis in box.rotation.T)])
    origin, *axes = np.round(model.project(ends @ turn.T + move)).astype(int)
    for end, shade in zip(axes, ((40, 40, 255), (40, 255, 40), (255, 60, 60)), strict=True):
        cv2.line(picture, tuple(map(int, origin)), tuple(map(int, end)), shade, 2, cv2.LINE_AA)


if __name__ == "__main__":
    sys.exit(main())
