"""The messages of vision_msgs 4 that the node fills, where the package is not installed: the same fields and no others.

``tests/node/test_node_vision.py`` compares FIELDS with the real package, where that is.
"""

from __future__ import annotations

import dataclasses
import types
from typing import Any

from geometry_msgs.msg import Pose, PoseWithCovariance, Vector3
from std_msgs.msg import Header

# message -> field -> type as rosidl writes it
FIELDS: dict[str, dict[str, str]] = {
    "VisionClass": {"class_id": "uint16", "class_name": "string"},
    "LabelInfo": {
        "header": "std_msgs/Header", "class_map": "sequence<vision_msgs/VisionClass>", "threshold": "float",
    },
    "Point2D": {"x": "double", "y": "double"},
    "Pose2D": {"position": "vision_msgs/Point2D", "theta": "double"},
    "BoundingBox2D": {"center": "vision_msgs/Pose2D", "size_x": "double", "size_y": "double"},
    "BoundingBox3D": {"center": "geometry_msgs/Pose", "size": "geometry_msgs/Vector3"},
    "ObjectHypothesis": {"class_id": "string", "score": "double"},
    "ObjectHypothesisWithPose": {
        "hypothesis": "vision_msgs/ObjectHypothesis", "pose": "geometry_msgs/PoseWithCovariance",
    },
    "Detection2D": {
        "header": "std_msgs/Header", "results": "sequence<vision_msgs/ObjectHypothesisWithPose>",
        "bbox": "vision_msgs/BoundingBox2D", "id": "string",
    },
    "Detection2DArray": {"header": "std_msgs/Header", "detections": "sequence<vision_msgs/Detection2D>"},
    "Detection3D": {
        "header": "std_msgs/Header", "results": "sequence<vision_msgs/ObjectHypothesisWithPose>",
        "bbox": "vision_msgs/BoundingBox3D", "id": "string",
    },
    "Detection3DArray": {"header": "std_msgs/Header", "detections": "sequence<vision_msgs/Detection3D>"},
}  # fmt: skip
_PLAIN = {
    "uint16": int, "string": str, "float": float, "double": float, "std_msgs/Header": Header,
    "geometry_msgs/Pose": Pose, "geometry_msgs/Vector3": Vector3,
    "geometry_msgs/PoseWithCovariance": PoseWithCovariance,
}  # fmt: skip


def module() -> types.SimpleNamespace:
    """In place of ``vision_msgs.msg``. A value of another type or an unknown field raises, as with rosidl's checks."""
    made: dict[str, type] = {}
    for name, fields in FIELDS.items():
        kinds = {field: _kind(text, made) for field, text in fields.items()}
        members = [(field, kind, dataclasses.field(default_factory=kind)) for field, kind in kinds.items()]
        made[name] = dataclasses.make_dataclass(name, members, namespace={"__setattr__": _checked(kinds)})
    return types.SimpleNamespace(**made)


def _kind(text: str, made: dict[str, type]) -> type:
    if text.startswith("sequence<"):
        return list
    return made[text.removeprefix("vision_msgs/")] if text.startswith("vision_msgs/") else _PLAIN[text]


def _checked(kinds: dict[str, type]) -> Any:
    def set_field(self: Any, field: str, value: Any) -> None:
        if not isinstance(value, kinds[field]):
            raise AssertionError(f"{type(self).__name__}.{field} must be {kinds[field].__name__}; got {value!r}")
        object.__setattr__(self, field, value)

    return set_field
