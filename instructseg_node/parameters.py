"""Every parameter of the node: declared, typed and judged from one table, the fields of :class:`Settings`.

A value is judged before it is taken, alone (type, range, allowed values) and together with the others; a refusal says
why. Each parameter also says when it is taken up; while a change would do nothing, it is refused rather than ignored.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Iterable
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

from instructseg.core import BadInput, Sampling
from instructseg.options import split_assignments
from instructseg.registry import TRACKERS
from instructseg.rendering.overlay import STYLES, OverlayStyle
from instructseg.streaming import EngineConfig

from .spatial.compressed_depth import RAW, TRANSPORTS

# When a value is taken up, and the lifecycle states in which it can therefore be changed.
START, CONFIGURE, ACTIVATE, LIVE = "at start", "at configure", "at activate", "at once"
_OPEN_IN = {
    START: (),
    CONFIGURE: ("unconfigured",),
    ACTIVATE: ("unconfigured", "inactive"),
    LIVE: ("unconfigured", "inactive", "active"),
}
_ENGINE = EngineConfig()


def _entry(
    default: Any,
    taken: str,
    description: str,
    *,
    low: float | None = None,
    high: float | None = None,
    allowed: tuple[str, ...] = (),
) -> Any:
    """One row of the table. ``low`` and ``high`` belong to numbers (both ends allowed), ``allowed`` to words."""
    metadata = {"taken": taken, "description": description, "low": low, "high": high, "allowed": allowed}
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass(frozen=True)
class Settings:
    """The values of all parameters. Raises BadInput with the parameter, its value and what is allowed."""

    # model
    recipe: str = _entry("unified", CONFIGURE, "model recipe; `instructseg recipes` lists them")
    checkpoint: str = _entry("", CONFIGURE, "folder or file of the weights; empty: the recipe's own default")
    device: str = _entry("", CONFIGURE, "cpu, cuda or cuda:<number>; empty: the best there is")
    dtype: str = _entry(
        "", CONFIGURE, "number format; empty: the recipe's own", allowed=("", "float32", "float16", "bfloat16")
    )
    recipe_options: tuple[str, ...] = _entry(
        (), CONFIGURE, "options of the recipe, each written key=value; `instructseg recipes <name>` lists them"
    )
    tracker: str = _entry(
        "token", CONFIGURE, "what carries masks from frame to frame: token: the recipe's own; memory: SAM 2's; hybrid: "
        "both, the surer is shown", allowed=TRACKERS,
    )  # fmt: skip
    tracker_checkpoint: str = _entry(
        "", CONFIGURE, "SAM 2 weights for tracker memory and hybrid: file, folder or hub id"
    )
    anchor_period: float = _entry(
        0.0, CONFIGURE, "with tracker memory: seconds after which the recipe looks at its target again; 0: at "
        "groundings only", low=0.0, high=3600.0,
    )  # fmt: skip
    warm_up_width: int = _entry(640, CONFIGURE, "width in pixels of the image that warms the model", low=16, high=8192)
    warm_up_height: int = _entry(480, CONFIGURE, "height in pixels of that image", low=16, high=8192)

    # input
    cameras: tuple[str, ...] = _entry((), CONFIGURE, "names; each reads <name>/image. Empty: one camera, on image")
    image_transport: str = _entry(
        "raw", ACTIVATE, "raw: Image on image; compressed: CompressedImage on image/compressed",
        allowed=("raw", "compressed"),
    )  # fmt: skip
    depth_transport: str = _entry(
        RAW, ACTIVATE, "raw: Image on depth; compressed: PNG on depth/compressed; compressedDepth: image_transport's "
        "on depth/compressedDepth", allowed=TRANSPORTS,
    )  # fmt: skip
    command_mode: str = _entry(
        "replace", LIVE, "what a new command does with the instructions there are", allowed=("replace", "add")
    )

    # engine
    buffer_s: float = _entry(_ENGINE.buffer_s, ACTIVATE, "seconds of frames kept to reason on", low=0.0, high=3600.0)
    buffer_frames: int = _entry(_ENGINE.buffer_frames, ACTIVATE, "most frames kept to reason on", low=1, high=4096)
    sparse_frames: int = _entry(0, ACTIVATE, "frames the reasoner sees; 0: as the recipe was trained", low=0, high=64)
    dense_frames: int = _entry(
        0, ACTIVATE, "newest of these, seen in full detail; 0: as the recipe was trained", low=0, high=64
    )
    ground_period: float = _entry(
        _ENGINE.ground_period, LIVE, "seconds between two searches for a missing target", low=0.01, high=3600.0
    )
    refresh_period: float = _entry(
        _ENGINE.refresh_period, LIVE, "seconds after which a target in view is reasoned about anew; 0: never",
        low=0.0, high=3600.0,
    )  # fmt: skip
    ground_on_loss: bool = _entry(_ENGINE.ground_on_loss, LIVE, "search again for targets lost, absent or in doubt")
    ground_on_motion: bool = _entry(
        _ENGINE.ground_on_motion, LIVE, "search again when a target in view starts, stops or turns, or the whole "
        "view moves",
    )  # fmt: skip
    motion_change: float = _entry(
        _ENGINE.motion_change, LIVE, "change of a target's velocity that counts, in image diagonals per second",
        low=0.001, high=100.0,
    )  # fmt: skip
    view_change: float = _entry(
        _ENGINE.view_change, LIVE, "share of the image by which the whole view must have moved", low=0.01, high=1.0
    )
    present_threshold: float = _entry(
        _ENGINE.present_threshold, LIVE, "mask score that makes a target PRESENT", low=0.0, high=1.0
    )
    reject_threshold: float = _entry(
        _ENGINE.reject_threshold, LIVE, "rejection score that makes an instruction NO_TARGET", low=0.0, high=1.0
    )
    lost_after: float = _entry(
        _ENGINE.lost_after, LIVE, "seconds out of sight before OCCLUDED becomes LOST", low=0.0, high=3600.0
    )
    stale_after: float = _entry(
        _ENGINE.stale_after, LIVE, "seconds without a frame before STALE", low=0.01, high=3600.0
    )
    reacquire: str = _entry(
        _ENGINE.reacquire, LIVE, "what keeps its id after being out of sight: place: what comes back where it was "
        "last seen, or where it left, and looks like it; looks: whatever looks like it", allowed=("place", "looks"),
    )  # fmt: skip
    reacquire_within: float = _entry(
        _ENGINE.reacquire_within, LIVE, "seconds out of sight after which reacquire place gives a new id",
        low=0.0, high=3600.0,
    )  # fmt: skip
    max_targets: int = _entry(_ENGINE.max_targets, LIVE, "most targets of one instruction", low=1, high=255)
    max_instructions: int = _entry(_ENGINE.max_instructions, LIVE, "most instructions at a time", low=1, high=255)
    max_rate: float = _entry(
        _ENGINE.max_rate, LIVE, "most frames per second taken of a camera; 0: no limit", low=0.0, high=1000.0
    )
    max_age: float = _entry(
        _ENGINE.max_age, LIVE, "seconds; when results are older (95th percentile), ask less often, then take every "
        "second frame, then lower the resolution where the recipe can; 0: never", low=0.0, high=3600.0,
    )  # fmt: skip
    frame_policy: str = _entry(
        _ENGINE.frame_policy, ACTIVATE, "latest: the newest frame wins, older ones are dropped and counted; every: "
        "each one is processed, also by the reasoner when it is due, and the camera waits", allowed=("latest", "every"),
    )  # fmt: skip

    # output
    publish_instance_mask: bool = _entry(True, CONFIGURE, "offer ~/instance_mask and, as PNG, its /compressed")
    publish_label_mask: bool = _entry(True, CONFIGURE, "offer ~/label_mask")
    publish_confidence_mask: bool = _entry(True, CONFIGURE, "offer ~/confidence_mask")
    publish_overlay: bool = _entry(True, CONFIGURE, "offer ~/overlay and, as JPEG, its /compressed")
    publish_detections: bool = _entry(True, CONFIGURE, "offer ~/detections and ~/label_info, where vision_msgs is")
    publish_3d: bool = _entry(True, CONFIGURE, "offer the 3-D outputs and read depth and camera_info for them")
    overlay_style: str = _entry("both", LIVE, "how masks are drawn", allowed=STYLES)
    overlay_alpha: float = _entry(0.45, LIVE, "weight of the mask colour", low=0.0, high=1.0)
    overlay_text: bool = _entry(True, LIVE, "write instructions and states into the overlay")
    jpeg_quality: int = _entry(90, LIVE, "of ~/overlay/compressed", low=1, high=100)

    # 3-D
    depth_tolerance: float = _entry(
        0.02, LIVE, "seconds that the stamps of image, depth and camera_info may differ", low=0.0, high=10.0
    )
    rectified: bool = _entry(
        False, ACTIVATE, "image and depth are rectified: P of camera_info counts; else its K and D"
    )
    min_points: int = _entry(50, LIVE, "points with valid depth that a target needs to have a place", low=4, high=10**6)
    mask_margin: int = _entry(
        1, LIVE, "pixels of the depth image inside a mask's outline that 3-D leaves out: there masks leak and sensors "
        "smear", low=0, high=64,
    )  # fmt: skip

    # process
    camera_timeout: float = _entry(5.0, LIVE, "seconds without an image before the log says so", low=0.1, high=3600.0)
    autostart: bool = _entry(False, START, "configure and activate at start, for use without a launch file")

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, allowed = getattr(self, field.name), field.metadata["allowed"]
            if allowed and value not in allowed:
                words = ", ".join(repr(word) for word in allowed)
                raise BadInput(f"parameter {field.name} is {value!r}; allowed: {words}")
        self._check_names()
        self._check_together()

    @property
    def camera_names(self) -> tuple[str, ...]:
        """Names the frames carry; the one camera of the default set-up is called ``camera``."""
        return self.cameras or ("camera",)

    @property
    def engine(self) -> EngineConfig:
        """The engine's part of the parameters."""
        ours = {field.name for field in dataclasses.fields(self)} - {"cameras"}
        names = [field.name for field in dataclasses.fields(EngineConfig) if field.name in ours]
        return EngineConfig(**{name: getattr(self, name) for name in names}, cameras=self.camera_names)

    @property
    def overlay(self) -> OverlayStyle:
        return OverlayStyle(self.overlay_style, self.overlay_alpha, self.overlay_text)

    def sampling(self, own: Sampling) -> Sampling:
        """The recipe's choice of frames with the node's parameters laid over it."""
        sparse = self.sparse_frames or own.sparse
        dense = self.dense_frames or min(own.dense, sparse)
        return dataclasses.replace(own, sparse=sparse, dense=dense)

    def image_topic(self, camera: str) -> str:
        topic = f"{camera}/image" if self.cameras else "image"
        return topic + "/compressed" if self.image_transport == "compressed" else topic

    def depth_topic(self, camera: str) -> str:
        topic = f"{camera}/depth" if self.cameras else "depth"
        return topic if self.depth_transport == RAW else f"{topic}/{self.depth_transport}"

    def camera_info_topic(self, camera: str) -> str:
        return f"{camera}/camera_info" if self.cameras else "camera_info"

    def _check_names(self) -> None:
        if not self.recipe:
            raise BadInput("parameter recipe is empty; `instructseg recipes` lists the names")
        split_assignments(self.recipe_options, "parameter recipe_options")
        if not re.fullmatch(r"|cpu|cuda(:\d+)?", self.device):
            raise BadInput(f"parameter device is {self.device!r}; allowed: cpu, cuda, cuda:<number> or empty")
        for name in self.cameras:
            if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*(/[A-Za-z][A-Za-z0-9_]*)*", name):
                raise BadInput(f"parameter cameras has {name!r}; a name is letters, digits and _, parts joined by /")
        if len(set(self.cameras)) != len(self.cameras) or len(self.cameras) > 16:
            raise BadInput(f"parameter cameras is {list(self.cameras)}; allowed: at most 16 different names")

    def _check_together(self) -> None:
        if self.frame_policy == "every" and self.max_rate > 0.0:
            raise BadInput(
                f"max_rate is {self.max_rate:g} and frame_policy is 'every': a limit drops frames, 'every' drops none; "
                "set max_rate to 0.0 or frame_policy to 'latest'"
            )
        if self.frame_policy == "every" and self.max_age > 0.0:
            raise BadInput(
                f"max_age is {self.max_age:g} and frame_policy is 'every': doing less drops frames, 'every' drops "
                "none; set max_age to 0.0 or frame_policy to 'latest'"
            )
        if self.sparse_frames and self.dense_frames > self.sparse_frames:
            raise BadInput(
                f"dense_frames is {self.dense_frames} and sparse_frames is {self.sparse_frames}: the dense frames are "
                "the newest of the sparse ones, so there cannot be more of them"
            )
        if self.sparse_frames > self.buffer_frames:
            raise BadInput(
                f"sparse_frames is {self.sparse_frames} and buffer_frames is {self.buffer_frames}: the reasoner cannot "
                "see more frames than are kept"
            )


TABLE = {field.name: field for field in dataclasses.fields(Settings)}


def declare(node: Node) -> Settings:
    """Declare every parameter on the node and judge the values given at start. Raises BadInput or one of rclpy's
    parameter exceptions where a value cannot be taken."""
    for name, field in TABLE.items():
        # An empty list has no type in ROS: "no cameras" is a list with one empty name.
        default = list(field.default) or [""] if isinstance(field.default, tuple) else field.default
        node.declare_parameter(name, default, _descriptor(field))
    return read(node)


def strangers(given: Iterable[str], declared: Callable[[str], bool]) -> list[str]:
    """What to say about names given at start that nobody has declared: ROS ignores them without a word."""
    said = []
    for name in given:
        if not declared(name) and not name.startswith("qos_overrides."):
            meant = difflib.get_close_matches(name, TABLE, 1)
            said.append(f"parameter {name} is unknown and ignored" + (f"; is it {meant[0]}?" if meant else ""))
    return said


def read(node: Node) -> Settings:
    """The values as they are now."""
    return _settings({name: node.get_parameter(name).value for name in TABLE})


def judge(node: Node, changes: Iterable[Parameter], lifecycle_state: str) -> SetParametersResult:
    """Whether these changes may be taken in this lifecycle state ("unconfigured", "inactive", "active")."""
    values = {name: node.get_parameter(name).value for name in TABLE}
    for change in changes:
        if change.name not in TABLE or change.value == values[change.name]:
            continue  # use_sim_time and the like belong to rclpy
        taken = TABLE[change.name].metadata["taken"]
        if lifecycle_state not in _OPEN_IN[taken]:
            allowed = " or ".join(_OPEN_IN[taken]) or "not started yet"
            reason = f"parameter {change.name} is taken up {taken}: it can change while the node is {allowed}"
            return SetParametersResult(successful=False, reason=f"{reason}; the node is {lifecycle_state}")
        values[change.name] = change.value
    try:
        _settings(values)
    except BadInput as error:
        return SetParametersResult(successful=False, reason=str(error))
    return SetParametersResult(successful=True)


def _settings(values: dict[str, Any]) -> Settings:
    lists = {name: tuple(word for word in values[name] if word) for name, row in TABLE.items() if row.default == ()}
    return Settings(**{**values, **lists})


def _descriptor(field: dataclasses.Field) -> ParameterDescriptor:
    meta, low, high = field.metadata, field.metadata["low"], field.metadata["high"]
    descriptor = ParameterDescriptor(
        description=f"{meta['description']} (taken up {meta['taken']})", read_only=meta["taken"] == START
    )
    if meta["allowed"]:
        descriptor.additional_constraints = "one of: " + ", ".join(word or "(empty)" for word in meta["allowed"])
    elif isinstance(field.default, float):
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    elif low is not None:
        descriptor.integer_range = [IntegerRange(from_value=low, to_value=high, step=1)]
    return descriptor
