"""Every topic, service and action of the node as a table: what the code opens, the tests check and the docs print.

Plain data: no rclpy and no message package. Names are as the node writes them: relative ones take its namespace and
remaps, ``~/`` is its private namespace, ``<camera>/`` stands for each name of the parameter ``cameras``.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Topic:
    """One topic. kind: its message type. reliable: else best effort. latched: transient local, so that a late
    subscriber hears the last ``depth`` messages. on_demand: computed only while somebody listens. per_frame: one
    message for each processed frame, with its header. needs: what must be there for it to exist; empty: nothing."""

    name: str
    kind: str
    meaning: str
    depth: int = 1
    reliable: bool = True
    latched: bool = False
    on_demand: bool = False
    per_frame: bool = False
    needs: str = ""

    @property
    def qos(self) -> str:
        """The quality of service in words."""
        reliability = "reliable" if self.reliable else "best effort"
        return f"{reliability}, {'transient local' if self.latched else 'volatile'}, keep last {self.depth}"


@dataclasses.dataclass(frozen=True)
class Call:
    """One service or action. kind: its type."""

    name: str
    kind: str
    meaning: str


_DEPTH = "publish_3d, depth and camera_info"
_VISION = "the package vision_msgs"

INPUTS: tuple[Topic, ...] = (
    Topic(
        "image", "sensor_msgs/msg/Image", "frames of the camera; with parameter cameras: <camera>/image",
        reliable=False, needs="image_transport raw",
    ),
    Topic(
        "image/compressed", "sensor_msgs/msg/CompressedImage", "frames as JPEG or PNG files",
        reliable=False, needs="image_transport compressed",
    ),
    Topic(
        "camera_info", "sensor_msgs/msg/CameraInfo", "intrinsics, for the 3-D outputs; with cameras: <camera>/...",
        depth=5, reliable=False, needs="publish_3d",
    ),
    Topic(
        "depth", "sensor_msgs/msg/Image", "32FC1 metres (NaN invalid) or 16UC1 millimetres (0 invalid), for the 3-D "
        "outputs; with cameras: <camera>/depth",
        depth=5, reliable=False, needs="publish_3d, depth_transport raw",
    ),
    Topic(
        "depth/compressed", "sensor_msgs/msg/CompressedImage", "16UC1 millimetres as a PNG file",
        depth=5, reliable=False, needs="publish_3d, depth_transport compressed",
    ),
    Topic(
        "depth/compressedDepth", "sensor_msgs/msg/CompressedImage", "image_transport's compressedDepth with PNG, "
        "16UC1 or 32FC1",
        depth=5, reliable=False, needs="publish_3d, depth_transport compressedDepth",
    ),
    Topic(
        "command", "std_msgs/msg/String", "plain language; replaces or joins the instructions there are (parameter "
        "command_mode); `stop`, `cancel`, `clear` end all",
        depth=10,
    ),
    Topic(
        "instruction", "instructseg_msgs/msg/Instruction", "id, text, cameras, mode, time-out, priority: adds, or "
        "replaces by id",
        depth=10,
    ),
)  # fmt: skip

OUTPUTS: tuple[Topic, ...] = (
    Topic(
        "~/targets", "instructseg_msgs/msg/TargetArray", "every target of every instruction with state, scores, "
        "reason, box and age",
        depth=5, per_frame=True,
    ),
    Topic(
        "~/instance_mask", "sensor_msgs/msg/Image", "16UC1, pixel = instance id, 0 = nothing; overlaps go to the "
        "higher score, then the smaller area",
        on_demand=True, per_frame=True, needs="publish_instance_mask",
    ),
    Topic(
        "~/instance_mask/compressed", "sensor_msgs/msg/CompressedImage", "the same as PNG, without loss",
        on_demand=True, per_frame=True, needs="publish_instance_mask",
    ),
    Topic(
        "~/label_mask", "sensor_msgs/msg/Image", "mono8, pixel = class id of the instruction (1..255), 0 = nothing",
        on_demand=True, per_frame=True, needs="publish_label_mask",
    ),
    Topic(
        "~/label_info", "vision_msgs/msg/LabelInfo", "class id to text of the instruction, sent on every change",
        latched=True, needs=f"publish_detections, {_VISION}",
    ),
    Topic(
        "~/confidence_mask", "sensor_msgs/msg/Image", "mono8, 0..255: how sure the model is of each pixel",
        on_demand=True, per_frame=True, needs="publish_confidence_mask",
    ),
    Topic(
        "~/overlay", "sensor_msgs/msg/Image", "rgb8, the frame with masks, names and states drawn in, for people",
        on_demand=True, per_frame=True, needs="publish_overlay",
    ),
    Topic(
        "~/overlay/compressed", "sensor_msgs/msg/CompressedImage", "the same as JPEG",
        on_demand=True, per_frame=True, needs="publish_overlay",
    ),
    Topic(
        "~/rejection", "instructseg_msgs/msg/Rejection", "an event on every change into or out of NO_TARGET, LOST, "
        "UNCERTAIN, STALE and ERROR, with the reason in words",
        depth=10, latched=True,
    ),
    Topic(
        "~/grounding", "instructseg_msgs/msg/Grounding", "each reasoning result: frames looked at, answer, scores, "
        "time taken",
        depth=10,
    ),
    Topic(
        "~/instructions", "instructseg_msgs/msg/InstructionArray", "what the node is working on, sent on every change",
        latched=True,
    ),
    Topic(
        "~/masked_depth", "sensor_msgs/msg/Image", "the depth image inside the masks, the invalid value elsewhere",
        on_demand=True, needs=_DEPTH,
    ),
    Topic(
        "~/target_cloud", "sensor_msgs/msg/PointCloud2", "coloured points of the PRESENT targets, camera's "
        "optical frame",
        on_demand=True, needs=_DEPTH,
    ),
    Topic(
        "~/target_pose", "geometry_msgs/msg/PoseStamped", "centroid of the best PRESENT target's visible surface, "
        "axes of its box, camera's optical frame",
        on_demand=True, needs=_DEPTH,
    ),
    Topic(
        "~/markers", "visualization_msgs/msg/MarkerArray", "boxes and names of the PRESENT targets for RViz",
        on_demand=True, needs=_DEPTH,
    ),
    Topic(
        "~/detections", "vision_msgs/msg/Detection2DArray", "boxes of the PRESENT targets in pixels",
        on_demand=True, per_frame=True, needs=f"publish_detections, {_VISION}",
    ),
    Topic(
        "~/detections_3d", "vision_msgs/msg/Detection3DArray", "oriented boxes of the PRESENT targets, camera's "
        "optical frame",
        on_demand=True, needs=f"{_DEPTH}, {_VISION}",
    ),
    Topic(
        "/diagnostics", "diagnostic_msgs/msg/DiagnosticArray", "once a second: rates, ages, drops by cause, queues, "
        "memory, device, state of each instruction",
        depth=10,
    ),
)  # fmt: skip

SERVICES: tuple[Call, ...] = (
    Call(
        "~/segment_once", "instructseg_msgs/srv/SegmentOnce", "segment one image by one instruction, apart from the "
        "stream and from what is tracked",
    ),
    Call("~/cancel", "instructseg_msgs/srv/Cancel", "end one instruction by its id, or all"),
    Call("~/reset", "std_srvs/srv/Trigger", "forget frames, targets and memory; goals end, instructions stay"),
    Call("~/enable", "std_srvs/srv/SetBool", "off: images are not looked at and targets become STALE; nothing is lost"),
)  # fmt: skip

ACTIONS: tuple[Call, ...] = (
    Call(
        "~/segment", "instructseg_msgs/action/Segment", "work on an instruction until it is answered (ONE_SHOT), or "
        "followed until its time is up or it is cancelled (TRACK)",
    ),
)  # fmt: skip

INPUT = {topic.name: topic for topic in INPUTS}
OUTPUT = {topic.name.removeprefix("~/"): topic for topic in OUTPUTS}
