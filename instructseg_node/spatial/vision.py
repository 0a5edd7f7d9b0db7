"""The three topics of vision_msgs, which is optional: ROS distributions bring it by apt, package indexes do not.

The message classes are given by the caller (``kinds``: the module ``vision_msgs.msg``), so that nothing here needs the
package. Written against vision_msgs 4.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from instructseg.rendering.labels import geometry
from instructseg.streaming import FrameResult
from instructseg.tracking import TargetState

from .located import Located, present
from .messages import box_pose, vector

PACKAGE = "vision_msgs"
TOPICS = ("detections", "detections_3d", "label_info")


def load() -> ModuleType | str:
    """``vision_msgs.msg``, or in words why it is not to be had."""
    try:
        kinds = importlib.import_module(f"{PACKAGE}.msg")
    except ImportError as error:  # also where its libraries are of another distribution
        return f"{PACKAGE} cannot be imported ({error})"
    missing = [name for name in ("Detection2DArray", "Detection3DArray", "LabelInfo") if not hasattr(kinds, name)]
    return f"{PACKAGE} has no {', '.join(missing)}: version 4 is needed" if missing else kinds


def label_info(kinds: Any, labels: Mapping[int, str], threshold: float, header: Any) -> Any:
    """A ``LabelInfo``: value in ``~/label_mask`` -> instruction. 0, which is nothing, is not listed: readers such as
    Nav2's semantic segmentation layer take every name for a class of theirs, and skip values that have no name."""
    entries = [kinds.VisionClass(class_id=value, class_name=text) for value, text in sorted(labels.items())]
    return kinds.LabelInfo(header=header, class_map=entries, threshold=float(threshold))


def detections(kinds: Any, result: FrameResult, header: Any) -> Any:
    """A ``Detection2DArray`` with every PRESENT target. Boxes in pixels; the centre of the first pixel is (0, 0)."""
    array = kinds.Detection2DArray(header=header)
    for target in present(result):
        found = geometry(target.mask)
        x, y = found.x + (found.width - 1) / 2, found.y + (found.height - 1) / 2
        centre = kinds.Pose2D(position=kinds.Point2D(x=float(x), y=float(y)), theta=0.0)
        box = kinds.BoundingBox2D(center=centre, size_x=float(found.width), size_y=float(found.height))
        array.detections.append(
            kinds.Detection2D(header=header, results=[_hypothesis(kinds, target)], bbox=box, id=str(target.instance_id))
        )
    return array


def detections_3d(kinds: Any, located: Sequence[Located], header: Any) -> Any:
    """A ``Detection3DArray``: boxes in metres in the optical frame. The hypothesis' pose is the box's; its covariance
    is all zero, which means unknown."""
    array = kinds.Detection3DArray(header=header)
    for one in located:
        box = one.geometry.box
        hypothesis = _hypothesis(kinds, one.target)
        hypothesis.pose.pose = box_pose(box)
        array.detections.append(
            kinds.Detection3D(
                header=header,
                results=[hypothesis],
                bbox=kinds.BoundingBox3D(center=box_pose(box), size=vector(box.size)),
                id=str(one.target.instance_id),
            )
        )
    return array


def _hypothesis(kinds: Any, target: TargetState) -> Any:
    """class_id is the value in ``~/label_mask``, as text: ``~/label_info`` says what it means."""
    hypothesis = kinds.ObjectHypothesis(class_id=str(target.instruction.class_id), score=float(target.score))
    return kinds.ObjectHypothesisWithPose(hypothesis=hypothesis)
