"""Tabletop scenes: pictures, instance ids, depth and motion labels agree with each other; bad input is named."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator

import numpy as np
import pytest

from instructseg.core import BadInput, InstructSegError
from instructseg.data import scene, tabletop_assets, tabletop_layout, tabletop_spec
from instructseg.data.tabletop import CameraKey, Light, PlacedObject, SceneSpec, Surface, Tabletop, Waypoint

TIMES = (0.0, 0.4, 0.8)


@pytest.fixture(scope="module")
def table() -> Iterator[Tabletop]:
    made = Tabletop(128, 96)
    yield made
    made.close()


def spec_of(*objects: PlacedObject) -> SceneSpec:
    camera = (CameraKey(0.0, (0.1, -0.45, 0.5), (0.0, 0.0, 0.0)),)
    grey = Surface("plain_table", (0.7, 0.7, 0.7))
    return SceneSpec(objects, camera, (Light((0.3, 0.3, -1.0), (0.6, 0.6, 0.6)),), table=grey)


def placed(number: int, thing: str, *points: tuple[float, float, float], color: str = "red") -> PlacedObject:
    rgb = tuple(value / 255 for value in scene.COLORS[color])
    return PlacedObject(scene.SceneObject(number, thing, color), thing, tuple(Waypoint(*p) for p in points), rgb)


@pytest.mark.parametrize("split", ["train", "held_out"])
def test_an_episode_is_complete_and_its_named_objects_are_seen(table: Tabletop, split: str) -> None:
    episode = table.sample(np.random.default_rng(3), split, TIMES, key=1)
    assert episode.images.shape == (3, 96, 128, 3) and episode.images.dtype == np.uint8
    assert episode.instances.shape == (3, 96, 128) and episode.instances.dtype == np.uint8
    assert episode.motions.shape == (3, len(episode.objects))
    assert [o.id for o in episode.objects] == list(range(1, len(episode.objects) + 1))
    assert set(np.unique(episode.instances)) <= {0, *(o.id for o in episode.objects)}
    named = [o for o in episode.objects if o.shape != scene.CLUTTER]
    assert 3 <= len(named) <= 8
    assert all(np.sum(episode.instances[1] == o.id) >= 10 for o in named)  # 40 of 256 x 192
    drawn = {(o.color, o.shape) for o in named}
    assert bool(drawn & scene.HELD_OUT_PAIRS) == (split == "held_out")


def test_the_same_seed_gives_the_same_episode_whatever_was_drawn_before(table: Tabletop) -> None:
    first, other, again = (table.sample(np.random.default_rng(seed), "train", TIMES, 0) for seed in (5, 6, 5))
    assert np.array_equal(first.images, again.images) and np.array_equal(first.instances, again.instances)
    assert first.objects == again.objects and np.array_equal(first.motions, again.motions)
    assert not np.array_equal(first.images, other.images)


def test_motion_labels_agree_with_the_way_objects_go_in_the_image(table: Tabletop) -> None:
    camera = spec_of().camera[0]
    right, forward = tabletop_layout.ground_axes(np.array(camera.eye), np.array(camera.target))
    starts = {"left": (0.1, -0.1), "right": (-0.1, 0.1), "toward": (-0.12, 0.02), "away": (0.15, 0.06)}
    ways = {"left": -right, "right": right, "toward": -forward, "away": forward}
    objects = [placed(5, "block", (0.0, 0.0, 0.0))]
    for number, (name, start) in enumerate(starts.items(), start=1):
        end = np.array(start) + 0.1 * ways[name]
        objects.append(placed(number, "can" if number > 2 else "ball", (0.0, *start), (1.0, *end)))
    spec = spec_of(*objects)
    labels = tabletop_layout.motions(spec, np.array([0.5]))[0]
    assert [scene.MOTIONS[label] for label in labels] == ["still", "left", "right", "toward", "away"]
    before, after = table.instances(spec, 0.2), table.instances(spec, 0.8)
    shifts = [np.argwhere(after == n).mean(0) - np.argwhere(before == n).mean(0) for n in range(1, 6)]
    assert shifts[0][1] < -2 and shifts[1][1] > 2 and shifts[2][0] > 2 and shifts[3][0] < -2
    assert np.allclose(shifts[4], 0)


def test_a_mask_covers_exactly_the_object_and_depth_is_metric(table: Tabletop) -> None:
    spec = spec_of(placed(9, "ball", (0.0, 0.0, 0.0)))
    rgb, instance, depth = table.render(spec, 0.0)
    red = rgb[..., 0].astype(int) > 2 * rgb[..., 2].astype(int)  # nothing else here is
    assert np.mean(red == (instance == 9)) > 0.98
    row, column = (int(v) for v in np.argwhere(instance == 9).mean(0).round())
    fx, fy, cx, cy = table.intrinsics(spec)
    z = depth[row, column]
    axes = tabletop_spec.camera_axes(np.array(spec.camera[0].eye), np.array(spec.camera[0].target))
    point = spec.camera[0].eye + axes @ (z * np.array([(column - cx) / fx, -(row - cy) / fy, -1.0]))
    assert abs(np.linalg.norm(point - (0, 0, 0.03)) - 0.03) < 0.002  # it lies on the ball


def test_a_covered_object_loses_its_pixels(table: Tabletop) -> None:
    behind, before = placed(1, "ball", (0.0, 0.02, 0.1)), placed(2, "bottle", (0.0, 0.0, 0.0), color="green")
    alone = np.sum(table.instances(spec_of(behind), 0.0) == 1)
    assert np.sum(table.instances(spec_of(behind, before), 0.0) == 1) < 0.8 * alone


@pytest.mark.parametrize("name", sorted(tabletop_assets.meshes()))
def test_meshes_face_outwards(name: str) -> None:
    mesh = tabletop_assets.meshes()[name]
    corners = mesh.vertices[mesh.faces]
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    assert np.einsum("ij,ij->", corners[:, 0], normals) / 6 > 0  # enclosed volume
    given = mesh.normals[mesh.faces].sum(axis=1)
    assert np.all(np.einsum("ij,ij->i", given, normals) > 0)


@pytest.mark.parametrize(
    ("split", "times", "key", "message"),
    [
        ("test", TIMES, 0, "split"),
        ("train", (0.0, 0.0), 0, "ascending"),
        ("train", (), 0, "ascending"),
        ("train", (0.0, math.nan), 0, "ascending"),
        ("train", TIMES, 3, "key"),
    ],
)
def test_bad_requests_are_refused(table: Tabletop, split: str, times: tuple, key: int, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        table.sample(np.random.default_rng(0), split, times, key)


def test_a_scene_beyond_the_pool_is_refused(table: Tabletop) -> None:
    blocks = [placed(n, "block", (0.0, 0.1 * n, 0.0)) for n in range(1, tabletop_assets.COPIES + 2)]
    with pytest.raises(BadInput, match="may hold 3"):
        table.render(spec_of(*blocks), 0.0)
    with pytest.raises(BadInput, match="'spoon'"):
        table.render(spec_of(placed(1, "spoon", (0.0, 0.0, 0.0))), 0.0)


def test_a_size_out_of_range_is_refused() -> None:
    with pytest.raises(BadInput, match="got 8 x 96"):
        Tabletop(8, 96)


@pytest.mark.parametrize(
    ("error", "message"),
    [(ModuleNotFoundError("No module named 'mujoco'"), r"instructseg\[sim\]"), (RuntimeError("no GL"), "apt install")],
)
def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, error: Exception, message: str) -> None:
    def fail(name: str) -> None:
        raise error

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(InstructSegError, match=message):
        Tabletop(64, 48)
