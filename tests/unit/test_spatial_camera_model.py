"""camera_info to rays and back, with distortion, binning, region of interest, at other sizes; nonsense is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.fakes import unhurried
from unit.spatial_messages import info_message

from instructseg.core import BadInput
from instructseg_node.spatial.camera_model import CameraModel
from instructseg_node.spatial.projection import points_of

PLUMB = [0.08, -0.15, 0.001, -0.0005, 0.02]
LENSES = {
    "none": {},
    "plumb_bob": {"d": PLUMB},
    "rational": {"distortion_model": "rational_polynomial", "d": [0.1, -0.05, 0.001, 0.0, 0.01, 0.05, -0.02, 0.005]},
    "fisheye": {"distortion_model": "equidistant", "d": [0.05, -0.01, 0.003, -0.001]},
}


@pytest.mark.parametrize("lens", LENSES)
def test_rays_and_projection_undo_each_other(lens: str) -> None:
    model = CameraModel.from_message(info_message(**LENSES[lens]))

    @unhurried
    @given(st.floats(-0.45, 0.45), st.floats(-0.35, 0.35), st.floats(0.05, 20.0))
    def check(x: float, y: float, z: float) -> None:
        pixel = model.project(np.array([[x * z, y * z, z]]))[0]
        np.testing.assert_allclose(model.rays(pixel[:1], pixel[1:])[0], (x, y), atol=2e-5)

    check()


@pytest.mark.parametrize(
    ("f", "lens"),
    [
        (200.0, {"distortion_model": "equidistant", "d": [0.1, -0.05, 0.02, -0.01]}),  # a lens of 180 degrees
        (350.0, {"d": [-0.35, 0.12, 0.001, -0.001, -0.02]}),  # a polynomial that turns back inside the image
    ],
)
def test_pixels_that_look_nowhere_have_no_ray_and_no_points(f: float, lens: dict) -> None:
    model = CameraModel.from_message(info_message(f=f, **lens))
    rows, columns = (grid.ravel() for grid in np.mgrid[0:480:4, 0:640:4])
    rays = model.rays(columns, rows)
    found = np.isfinite(rays).all(axis=1)
    assert 0.5 < found.mean() < 0.9
    assert np.array_equal(found, np.isfinite(rays).any(axis=1))
    again = model.project(np.concatenate([rays[found], np.ones((found.sum(), 1))], axis=1))
    np.testing.assert_allclose(again, np.stack([columns, rows], axis=1)[found], atol=1.0)
    every = np.ones((480, 640), bool)
    points = points_of(every, every.astype(np.float32), np.zeros((480, 640, 3), np.uint8), model)
    assert 0 < len(points) < every.size and len(points) == len(points.rows) == len(points.rgb)
    assert np.isfinite(points.xyz).all() and np.abs(points.xyz).max() < 100.0


def test_distortion_counts_for_raw_images_only_and_p_for_rectified_ones() -> None:
    info = info_message(d=PLUMB, p=np.array([500.0, 0, 300, 0, 0, 510, 200, 0, 0, 0, 1, 0]))
    corner = np.array([0.0]), np.array([0.0])
    straight = (-319.5 / 600, -239.5 / 600)
    bent = CameraModel.from_message(info).rays(*corner)[0]
    assert np.abs(bent - straight).max() > 0.003
    np.testing.assert_allclose(CameraModel.from_message(info, rectified=True).rays(*corner)[0], (-0.6, -200 / 510))


def test_another_size_of_the_same_view_looks_the_same_way() -> None:
    model = CameraModel.from_message(info_message(d=PLUMB))
    half = model.scaled(320, 240)
    # The first pixel of the small image covers four of the large one: their common corner is at (0.5, 0.5).
    np.testing.assert_allclose(half.rays([0], [0]), model.rays([0.5], [0.5]), atol=1e-6)
    np.testing.assert_allclose(half.rays([319], [239]), model.rays([638.5], [478.5]), atol=1e-6)


def test_binning_and_region_of_interest_are_of_the_whole_sensor() -> None:
    whole = CameraModel.from_message(info_message(d=PLUMB))
    binned = CameraModel.from_message(info_message(d=PLUMB, binning_x=2, binning_y=2))
    assert binned == whole.scaled(320, 240)
    window = CameraModel.from_message(info_message(d=PLUMB, roi=(100, 40, 200, 300)))
    assert (window.width, window.height) == (200, 300)
    np.testing.assert_allclose(window.rays([5], [7]), whole.rays([105], [47]))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"k": np.zeros(9)}, "camera_info.k has fx 0.*calibrated"),
        ({"k": np.full(9, np.nan)}, "camera_info.k has fx nan"),
        ({"k": np.array([600, 0, 1e9, 0, 600, 239.5, 0, 0, 1])}, "outside the image of 640 x 480"),
        ({"k": np.array([600, 90, 319.5, 0, 600, 239.5, 0, 0, 1])}, "skew 90"),
        ({"k": np.array([600, 0, 319.5, 0, -600, 239.5, 0, 0, 1])}, "fy -600"),
        ({"width": 0}, "size 0 x 480"),
        ({"roi": (600, 0, 100, 100)}, "leaves the image"),
        ({"d": [0.1, 0.2]}, r"plumb_bob.*\[0.1, 0.2\].*rational_polynomial"),
        ({"d": [float("nan")] * 5}, "nan"),
        ({"d": [0.1] * 5, "distortion_model": "division"}, "'division'"),
    ],
)
def test_unusable_camera_infos_are_refused_with_the_reason(fields: dict, words: str) -> None:
    with pytest.raises(BadInput, match=words) as refusal:
        CameraModel.from_message(info_message(**fields))
    assert refusal.value.cause == "camera_info"


def test_p_is_what_is_checked_for_rectified_images() -> None:
    with pytest.raises(BadInput, match="camera_info.p has fx 0"):
        CameraModel.from_message(info_message(p=np.zeros(12)), rectified=True)
    assert CameraModel.from_message(info_message(k=np.zeros(9)), rectified=True).fx == 600.0


@pytest.mark.parametrize("size", [(640, 360), (0, 480), (480, 640)])
def test_a_size_of_another_shape_is_another_view(size: tuple[int, int]) -> None:
    with pytest.raises(BadInput, match="aspect ratios differ"):
        CameraModel.from_message(info_message()).scaled(*size)
