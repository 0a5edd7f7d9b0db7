"""Against the simulator's true geometry: the demo scene with its exact masks and metric depth, as the node works.

Centroid: the mean of the points of the surface the camera sees, against the same mean in a picture of four times as
many pixels. It lies before the middle of a thing, by as much as its far side is hidden. Box: its middle against the
thing's own, where enough sides are seen to know it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from unit.spatial_messages import depth_message

from instructseg.core import Frame, Instruction, State
from instructseg.data import demo_scene, tabletop_assets
from instructseg.data.tabletop import Tabletop
from instructseg.data.tabletop_spec import camera_axes, camera_pose, position
from instructseg.streaming import FrameResult, TargetState
from instructseg_node.spatial.camera_model import CameraModel
from instructseg_node.spatial.depth import DepthImage
from instructseg_node.spatial.located import Scene
from instructseg_node.spatial.projection import points_of, resample

WIDTH, HEIGHT = 640, 480
SPEC = demo_scene.demo_spec()
TIMES = (0.0, 13.5)
NAMES = {number: name for name, number in demo_scene.NAMES.items()}


@pytest.fixture(scope="module")
def fine() -> Iterator[Tabletop]:
    made = Tabletop(2 * WIDTH, 2 * HEIGHT)
    yield made
    made.close()


@pytest.fixture(scope="module")
def views(fine: Tabletop) -> dict:
    """By time: colour, instances and depth in metres at the camera's size, and as seen finely."""
    table = Tabletop(WIDTH, HEIGHT)
    try:
        return {t: (table.render(SPEC, t), fine.render(SPEC, t)) for t in TIMES}
    finally:
        table.close()


@pytest.fixture(scope="module")
def model(fine: Tabletop) -> CameraModel:
    return CameraModel(2 * WIDTH, 2 * HEIGHT, *fine.intrinsics(SPEC)).scaled(WIDTH, HEIGHT)


def scene(rgb: np.ndarray, instances: np.ndarray, depth: np.ndarray, model: CameraModel, margin: int = 1) -> Scene:
    targets = [
        TargetState(Instruction("all", "everything"), number, State.PRESENT, 0.9, 0.0, "", 0, 0, NAMES[number], mask)
        for number in NAMES
        if (mask := instances == number).sum() >= 200
    ]
    result = FrameResult(Frame(rgb, 0), tuple(targets), 0.0, {})
    return Scene(result, DepthImage(depth_message(depth)), model, margin=margin)


def millimetres(depth: np.ndarray) -> np.ndarray:
    return np.where(depth < 60.0, np.round(depth * 1000), 0).astype(np.uint16)


def true_centre(number: int, t: float) -> np.ndarray:
    """Of the thing itself, in the camera's optical frame."""
    placed = next(p for p in SPEC.objects if p.object.id == number)
    x, y, _, z = position(placed.waypoints, t)
    eye, target, roll = camera_pose(SPEC, t)
    right, up, backward = camera_axes(eye, target, roll).T
    scale = 1.0 if placed.object.size == "large" else tabletop_assets.SMALL
    return np.stack([right, -up, -backward]) @ (
        np.array([x, y, z + tabletop_assets.HEIGHTS[placed.thing] * scale / 2]) - eye
    )


def errors_mm(found: Scene, fine: tuple, model: CameraModel) -> dict[str, float]:
    rgb, instances, depth = fine
    finely = model.scaled(2 * WIDTH, 2 * HEIGHT)
    errors = {}
    for one in found.located:
        dense = points_of(instances == one.target.instance_id, depth, rgb, finely).xyz.mean(axis=0, dtype=float)
        errors[one.target.phrase] = 1000.0 * float(np.linalg.norm(one.geometry.centroid - dense))
    return errors


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("unit", ["metres", "millimetres"])
def test_centroids_are_within_five_millimetres(views: dict, model: CameraModel, unit: str, t: float) -> None:
    (rgb, instances, depth), fine = views[t]
    # What a margin costs where masks are perfect: the slanted surface next to the outline is no longer averaged.
    for margin, most in ((0, 1.5), (1, 3.0)):
        found = scene(rgb, instances, depth if unit == "metres" else millimetres(depth), model, margin)
        errors = errors_mm(found, fine, model)
        assert set(errors) == {NAMES[target.instance_id] for target in found.targets}
        assert max(errors.values()) < most, (margin, errors)


def test_depth_of_half_the_size_gives_the_same_places(views: dict, model: CameraModel) -> None:
    (rgb, instances, depth), fine = views[0.0]
    found = scene(rgb, instances, resample(depth, (HEIGHT // 2, WIDTH // 2)), model)
    assert found.model.width == WIDTH // 2
    errors = errors_mm(found, fine, model)
    assert len(errors) == len(found.targets)
    assert max(errors.values()) < 5.0, errors


def test_masks_that_leak_and_depth_that_is_noisy_stay_within_five_millimetres(views: dict, model: CameraModel) -> None:
    import cv2

    (rgb, instances, depth), fine = views[0.0]
    rng = np.random.default_rng(0)
    noisy = (0.5 * depth + 0.5 * cv2.blur(depth, (3, 3)) + rng.normal(0, 0.0015, depth.shape)).astype(np.float32)
    noisy[rng.random(depth.shape) < 0.05] = 0.0
    leaking = cv2.dilate(instances, np.ones((3, 3), np.uint8))
    found = scene(rgb, leaking, noisy, model)
    errors = errors_mm(found, fine, model)
    large = {name: error for name, error in errors.items() if name not in ("pen", "ring")}  # these are 5 pixels thick
    assert len(large) == 9
    assert max(large.values()) < 5.0, errors
    block = next(one for one in found.located if one.target.phrase == "red_block")
    np.testing.assert_allclose(block.geometry.box.size * 1000, 60, atol=15)  # smear does not blow it up


@pytest.mark.parametrize("t", TIMES)
def test_the_box_of_the_block_and_the_cans_is_the_thing(views: dict, model: CameraModel, t: float) -> None:
    (rgb, instances, depth), _ = views[t]
    boxes = {one.target.phrase: one for one in scene(rgb, instances, depth, model).located}
    for name, size in {"red_block": (60, 60, 60), "red_can": (100, 62, 62), "green_can": (100, 62, 62)}.items():
        one = boxes[name]
        off = 1000.0 * np.linalg.norm(one.geometry.box.center - true_centre(one.target.instance_id, t))
        assert off < 5.0, (name, off)
        np.testing.assert_allclose(np.sort(one.geometry.box.size * 1000)[::-1], size, atol=9.0)
