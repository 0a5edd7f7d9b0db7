"""Points, outliers and boxes on things whose place is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import unhurried

from instructseg.core import BadInput
from instructseg_node.spatial.camera_model import CameraModel
from instructseg_node.spatial.outliers import inliers, patches
from instructseg_node.spatial.projection import model_for, points_of, resample, shrunk
from instructseg_node.spatial.target_geometry import measure, oriented_box, quaternion_of

MODEL = CameraModel(160, 120, 150.0, 150.0, 79.5, 59.5)
BENT = CameraModel(160, 120, 150.0, 150.0, 79.5, 59.5, distortion=(0.08, -0.15, 0.001, -0.0005, 0.02))
GREY = np.full((120, 160, 3), 128, np.uint8)


def disc(radius: float = 25.0, column: float = 80.0, row: float = 60.0) -> np.ndarray:
    rows, columns = np.mgrid[0:120, 0:160]
    return (rows - row) ** 2 + (columns - column) ** 2 < radius**2


def rotation(axis: np.ndarray, angle: float) -> np.ndarray:
    x, y, z = axis / np.linalg.norm(axis)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


@pytest.mark.parametrize("model", [MODEL, BENT], ids=["straight", "bent"])
def test_points_project_back_onto_their_pixels_with_their_depth(model: CameraModel) -> None:
    @unhurried
    @given(st.integers(0, 159), st.integers(0, 119), st.floats(0.01, 60.0))
    def check(column: int, row: int, depth: float) -> None:
        mask = np.zeros((120, 160), bool)
        mask[row, column] = True
        points = points_of(mask, np.full(mask.shape, depth, np.float32), GREY, model)
        np.testing.assert_allclose(model.project(points.xyz)[0], (column, row), atol=0.02)
        assert points.xyz[0, 2] == np.float32(depth)

    check()


def test_only_valid_depth_under_the_mask_makes_points_with_the_colour_of_their_place() -> None:
    depth = np.full((120, 160), np.nan, np.float32)
    depth[30:60, 40:80] = 1.0
    mask = np.zeros((120, 160), bool)
    mask[50:70, 70:90] = True
    image = np.zeros((240, 320, 3), np.uint8)  # twice the size
    image[..., 0], image[..., 1] = np.arange(240)[:, None], np.arange(320)[None] % 256
    points = points_of(mask, depth, image, MODEL)
    assert len(points) == 10 * 10
    assert (points.rows.min(), points.rows.max(), points.columns.min(), points.columns.max()) == (50, 59, 70, 79)
    np.testing.assert_array_equal(points.rgb[:, 0] // 2, points.rows)
    np.testing.assert_array_equal(points.rgb[:, 1] // 2, points.columns)
    np.testing.assert_allclose(points.xyz[0], [(70 - 79.5) / 150, (50 - 59.5) / 150, 1.0], rtol=1e-6)
    assert len(points_of(mask, np.full_like(depth, np.nan), image, MODEL)) == 0


@pytest.mark.parametrize("size", [(60, 80), (240, 320), (90, 120), (120, 160)])
def test_a_mask_keeps_its_place_at_every_size(size: tuple[int, int]) -> None:
    small = resample(disc(), size)  # half a pixel is lost at most
    assert small.shape == size
    rows, columns = np.nonzero(small)
    scale = size[0] / 120
    assert (rows.mean() + 0.5) / scale == pytest.approx(60.5, abs=0.51)
    assert (columns.mean() + 0.5) / scale == pytest.approx(80.5, abs=0.51)
    assert small.mean() == pytest.approx(disc().mean(), rel=0.03)


def test_camera_info_must_be_of_the_image_or_of_the_depth() -> None:
    assert model_for(MODEL, (120, 160), (480, 640)) == MODEL
    assert model_for(MODEL.scaled(640, 480), (120, 160), (480, 640)).fx == pytest.approx(150.0)
    with pytest.raises(BadInput, match="160 x 120.*320 x 240 and 640 x 480"):
        model_for(MODEL, (480, 640), (240, 320))
    with pytest.raises(BadInput, match="aspect ratios differ"):
        model_for(MODEL, (90, 160), (120, 160))


def test_a_margin_takes_the_outline_but_never_most_of_a_thin_thing() -> None:
    inner = shrunk(disc(), 2)
    assert 0 < np.count_nonzero(disc()) - np.count_nonzero(inner) < 400
    assert not (inner & ~disc(23.5)).any()
    pen = np.zeros((120, 160), bool)
    pen[10:12] = True
    assert shrunk(pen, 1) is pen
    edge = np.zeros((120, 160), bool)
    edge[:20] = True
    assert np.count_nonzero(shrunk(edge, 1)) == 19 * 160  # the image's edge is no outline
    assert shrunk(edge, 0) is edge


def test_leaks_onto_the_background_and_stray_values_go_and_a_cut_target_stays() -> None:
    rng = np.random.default_rng(0)
    depth = (1.0 + rng.normal(0, 0.001, (120, 160))).astype(np.float32)
    depth[~disc()] = 2.0  # what is behind
    mask = disc(28)  # leaks by three pixels
    mask[:, 78:82] = False  # a thin thing in front cuts it in two
    stray = disc() & (rng.random(depth.shape) < 0.02)
    depth[stray] = rng.uniform(0.2, 5.0, np.count_nonzero(stray))
    points = points_of(mask, depth, GREY, MODEL)
    keep = inliers(points, MODEL)
    truth = (disc() & ~stray)[points.rows, points.columns]
    assert keep[truth].mean() > 0.99
    assert not keep[~truth & (np.abs(points.xyz[:, 2] - 1.0) > 0.04)].any()
    assert len(set(patches(points, MODEL)[keep])) >= 2
    raw = np.abs(points.xyz[:, 2].mean() - 1.0)
    assert np.abs(points.xyz[keep, 2].mean() - 1.0) < 0.001 < raw


def test_too_few_points_make_no_geometry() -> None:
    depth = np.full((120, 160), np.nan, np.float32)
    points = points_of(disc(), depth, GREY, MODEL)
    assert measure(points, MODEL) is None
    depth[60, 70:90] = 1.0
    points = points_of(disc(), depth, GREY, MODEL)
    assert measure(points, MODEL, min_points=21) is None
    assert measure(points, MODEL, min_points=20).centroid == pytest.approx([-0.0, 0.5 / 150, 1.0], abs=1e-6)
    depth[60, 70:90] = np.linspace(0.5, 9.0, 20)  # nothing but jumps: no surface
    assert measure(points_of(disc(), depth, GREY, MODEL), MODEL, min_points=20) is None


@unhurried
@given(
    st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1),
    st.floats(0, 3.1),
    st.tuples(*[st.floats(0.02, 0.3)] * 3),
)
def test_the_box_of_a_turned_block_is_the_block(axis, angle: float, size) -> None:
    truth, rng = rotation(np.array(axis), angle), np.random.default_rng(0)
    corners = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]) * size
    inside = rng.uniform(-0.5, 0.5, (300, 3)) * size
    centre = np.array([0.1, -0.2, 0.9])
    xyz = (np.concatenate([corners, inside]) @ truth.T + centre).astype(np.float32)
    box = oriented_box(xyz)
    np.testing.assert_allclose(np.sort(box.size), np.sort(size), atol=1e-4)
    np.testing.assert_allclose(box.center, centre, atol=1e-4)
    np.testing.assert_allclose(box.rotation.T @ box.rotation, np.eye(3), atol=1e-9)
    assert np.linalg.det(box.rotation) == pytest.approx(1.0)
    # Its axes are the block's, and named after those of the camera that they are nearest to.
    np.testing.assert_allclose(np.abs(truth.T @ box.rotation).max(axis=0), 1.0, atol=1e-3)
    assert np.trace(box.rotation) >= 1.0 - 1e-6
    x, y, z, w = box.quaternion
    assert w >= 0 and x * x + y * y + z * z + w * w == pytest.approx(1.0)


def test_the_same_points_in_another_order_give_the_same_box() -> None:
    rng = np.random.default_rng(1)
    xyz = rng.normal(0, (0.1, 0.05, 0.02), (500, 3)).astype(np.float32)
    first, second = oriented_box(xyz), oriented_box(xyz[rng.permutation(500)])
    np.testing.assert_allclose(first.rotation, second.rotation, atol=1e-6)
    np.testing.assert_allclose(first.size, second.size, atol=1e-6)


@pytest.mark.parametrize(
    "xyz", [np.zeros((4, 3)), np.outer(np.arange(9), [0.1, 0.0, 0.02]), np.eye(3), np.ones((1, 3))],
    ids=["point", "line", "plane", "one"],
)  # fmt: skip
def test_flat_and_thin_things_have_a_box_too(xyz: np.ndarray) -> None:
    box = oriented_box(xyz.astype(np.float32))
    assert np.isfinite(box.size).all() and np.isfinite(box.center).all()
    np.testing.assert_allclose(box.rotation.T @ box.rotation, np.eye(3), atol=1e-6)
    local = (xyz - box.center) @ box.rotation
    assert (np.abs(local) <= box.size / 2 + 1e-4).all()


@unhurried
@given(st.tuples(*[st.floats(-1, 1)] * 3).filter(lambda v: np.linalg.norm(v) > 0.1), st.floats(-3.2, 3.2))
def test_quaternions_are_those_of_the_rotation(axis, angle: float) -> None:
    matrix = rotation(np.array(axis), angle)
    x, y, z, w = quaternion_of(matrix)
    back = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    np.testing.assert_allclose(back, matrix, atol=1e-9)


def test_what_a_sensor_draws_between_a_thing_and_its_background_goes_and_corners_stay() -> None:
    depth = np.full((120, 160), 1.2, np.float32)
    depth[40:80, 60:100] = 1.0
    depth[40:80, 100:103] = (1.045, 1.09, 1.145)  # smeared over the right-hand outline
    mask = np.zeros((120, 160), bool)
    mask[40:80, 60:103] = True
    points = points_of(mask, depth, GREY, MODEL)
    keep = inliers(points, MODEL)
    np.testing.assert_array_equal(keep, points.columns < 100)
