"""The three kinds of vision_msgs messages, on stand-ins with the package's fields."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from std_msgs.msg import Header
from unit import vision_stand_ins
from unit.spatial_messages import depth_message

from instructseg.core import Frame, Instruction, State
from instructseg.streaming import FrameResult, TargetState
from instructseg_node.spatial import vision
from instructseg_node.spatial.camera_model import CameraModel
from instructseg_node.spatial.depth import DepthImage
from instructseg_node.spatial.located import Scene

KINDS = vision_stand_ins.module()
HEADER = Header(frame_id="optical")


def target(identity: int, state: State, mask: np.ndarray | None = None, score: float = 0.9, class_id: int = 3):
    return TargetState(Instruction("a", "the red mug", class_id), identity, state, score, 0.1, "", 0, 0, "mug", mask)


def result(*targets: TargetState) -> FrameResult:
    return FrameResult(Frame(np.zeros((48, 64, 3), np.uint8), 0), targets, 0.0, {})


def square(left: int = 10) -> np.ndarray:
    mask = np.zeros((48, 64), bool)
    mask[20:30, left : left + 20] = True
    return mask


def test_label_info_names_the_values_of_the_label_mask_and_nothing_else() -> None:
    message = vision.label_info(KINDS, {7: "the cup", 2: "the red mug"}, 0.5, HEADER)
    assert [(entry.class_id, entry.class_name) for entry in message.class_map] == [(2, "the red mug"), (7, "the cup")]
    assert (message.threshold, message.header) == (0.5, HEADER)
    assert vision.label_info(KINDS, {}, 0.5, HEADER).class_map == []


def test_detections_are_the_present_targets_best_first() -> None:
    seen = target(4, State.PRESENT, square(), 0.6)
    best = target(5, State.PRESENT, square(40), 0.8, class_id=9)
    message = vision.detections(KINDS, result(seen, target(0, State.NO_TARGET), target(6, State.LOST), best), HEADER)
    assert [d.id for d in message.detections] == ["5", "4"]
    found = message.detections[1]
    assert (found.bbox.center.position.x, found.bbox.center.position.y) == (19.5, 24.5)
    assert (found.bbox.size_x, found.bbox.size_y, found.bbox.center.theta) == (20.0, 10.0, 0.0)
    assert found.results[0].hypothesis.class_id == "3" and found.results[0].hypothesis.score == 0.6
    assert found.header == message.header == HEADER
    assert vision.detections(KINDS, result(), HEADER).detections == []


def test_detections_3d_have_the_box_of_the_geometry() -> None:
    depth = DepthImage(depth_message(np.full((48, 64), 0.5, np.float32)))
    model = CameraModel(64, 48, 60.0, 60.0, 31.5, 23.5)
    scene = Scene(result(target(4, State.PRESENT, square())), depth, model, margin=0)
    message = vision.detections_3d(KINDS, scene.located, HEADER)
    (found,) = message.detections
    assert found.id == "4" and found.results[0].hypothesis.class_id == "3"
    box = scene.best.geometry.box
    assert (found.bbox.center.position.x, found.bbox.center.position.z) == pytest.approx((box.center[0], 0.5))
    assert (found.bbox.size.x, found.bbox.size.y) == pytest.approx((19 * 0.5 / 60, 9 * 0.5 / 60))
    assert found.results[0].pose.pose == found.bbox.center
    assert not found.results[0].pose.covariance.any()
    assert vision.detections_3d(KINDS, [], HEADER).detections == []


def test_the_stand_ins_refuse_what_the_package_would_refuse() -> None:
    with pytest.raises(AssertionError, match="class_id must be int"):
        KINDS.VisionClass(class_id="3")
    with pytest.raises(TypeError, match="label"):
        KINDS.VisionClass(label="cup")


def test_a_package_that_is_missing_broken_or_of_another_version_is_named(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "vision_msgs", None)
    monkeypatch.delitem(sys.modules, "vision_msgs.msg", raising=False)
    assert "vision_msgs cannot be imported" in vision.load()
    old = types.ModuleType("vision_msgs.msg")
    old.Detection2DArray = old.Detection3DArray = object
    monkeypatch.setitem(sys.modules, "vision_msgs.msg", old)
    monkeypatch.setitem(sys.modules, "vision_msgs", types.ModuleType("vision_msgs"))
    assert vision.load() == "vision_msgs has no LabelInfo: version 4 is needed"
    old.LabelInfo = object
    assert vision.load() is old
