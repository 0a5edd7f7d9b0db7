"""The demo's recording in three dimensions: its depth comes as PNG files, and with the node's own weights and default
parameters the poses are where the simulator has put the things.

The truth is the mean of the surface that the camera sees, rendered anew: not the middle of the thing, which lies behind
it (docs/outputs_3d.md).
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from instructseg.data import demo_scene
from instructseg.data.tabletop import Tabletop
from instructseg_node.conversions import stamp_ns
from instructseg_node.demo import record
from instructseg_node.replay.arguments import Options
from instructseg_node.replay.commands import Command
from instructseg_node.replay.results import messages
from instructseg_node.replay.session import replay
from instructseg_node.spatial.camera_model import CameraModel
from instructseg_node.spatial.compressed_depth import COMPRESSED, read_depth
from instructseg_node.spatial.projection import points_of

BAG = Path(__file__).parents[2] / "data" / "demo"
ASKED = {0.1: "red_block", 0.9: "white_mug", 1.7: "green_can"}  # second of the recording -> thing
DURATION = 2.5
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("bgr", "u1", 4), ("instance_id", "<u4")])


def seconds(message: Any) -> float:
    return (stamp_ns(message.header.stamp) - record.START_NS) / 1e9


def asked(at: float) -> str:
    """The thing that was asked for last."""
    times = list(ASKED)
    return ASKED[times[bisect.bisect_right(times, at + 1e-6) - 1]]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[float, Any]]:
    """By topic: second of the recording -> what the node published on that frame."""
    out = tmp_path_factory.mktemp("depth") / "results"
    commands = [Command(at=at, text=f"the {name.replace('_', ' ')}") for at, name in ASKED.items()]
    replay(Options(BAG, out, rate=None, duration=DURATION), commands)
    found: dict[str, dict[float, Any]] = defaultdict(dict)
    for name in ("target_pose", "target_cloud", "masked_depth", "markers"):
        for _, _, message in messages(out, (f"/instructseg/{name}",)):
            found[name][seconds(message.markers[0] if name == "markers" else message)] = message
    return found


@pytest.fixture(scope="module")
def depths() -> dict[float, np.ndarray]:
    """Second of the recording -> depth in millimetres, as it was recorded."""
    found = {seconds(m): read_depth(m, COMPRESSED).raw() for _, _, m in messages(BAG, (record.DEPTH,))}
    return {at: depth for at, depth in found.items() if at <= DURATION}


@pytest.mark.process
def test_each_depth_image_gives_pose_cloud_and_markers(results: dict, depths: dict) -> None:
    after = {at for at in depths if at > min(ASKED)}
    assert len(after) == 7
    for name in ("target_pose", "target_cloud", "markers"):
        assert set(results[name]) == after, name
    assert set(results["masked_depth"]) == set(depths)
    for at, message in results["masked_depth"].items():
        values = np.frombuffer(message.data, "<u2").reshape(record.HEIGHT, record.WIDTH)
        assert message.encoding == "16UC1"
        np.testing.assert_array_equal(values, np.where(values > 0, depths[at], 0))


@pytest.mark.process
def test_poses_are_within_five_millimetres_of_the_surface_seen(results: dict) -> None:
    spec, table = demo_scene.demo_spec(), Tabletop(record.WIDTH, record.HEIGHT)
    try:
        model = CameraModel(record.WIDTH, record.HEIGHT, *table.intrinsics(spec))
        errors = {}
        for at, message in results["target_pose"].items():
            rgb, instances, depth = table.render(spec, at)
            truth = points_of(instances == demo_scene.NAMES[asked(at)], depth, rgb, model).xyz.mean(axis=0, dtype=float)
            pose = message.pose.position
            errors[f"{asked(at)} at {at:.2f} s"] = 1000.0 * np.linalg.norm(np.array([pose.x, pose.y, pose.z]) - truth)
            cloud = np.frombuffer(results["target_cloud"][at].data, POINT)
            np.testing.assert_allclose([cloud[axis].mean() for axis in "xyz"], [pose.x, pose.y, pose.z], atol=1e-4)
    finally:
        table.close()
    assert {name.partition(" at ")[0] for name in errors} == set(ASKED.values())
    assert max(errors.values()) < 5.0, errors
    assert np.median(list(errors.values())) < 3.0, errors


def test_the_scene_is_the_one_that_was_recorded(depths: dict) -> None:
    """Else the truth of the test above would be that of another scene."""
    spec, table = demo_scene.demo_spec(), Tabletop(record.WIDTH, record.HEIGHT)
    try:
        for at in (0.0, max(depths)):
            _, _, depth = table.render(spec, at)
            near = (depth < 10.0) & (depths[at] > 0)
            assert near.mean() > 0.9
            assert np.abs(depth * 1000.0 - depths[at])[near].max() <= 0.51
    finally:
        table.close()
