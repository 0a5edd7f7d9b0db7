"""Settings of the streaming engine, validated once where they are made."""

from __future__ import annotations

import dataclasses
import math

from ..core import BadInput

FRAME_POLICIES = ("latest", "every")
REACQUIRE = ("place", "looks")

# (field, lowest, highest) with units in the field's comment below; both ends allowed.
_RANGES: tuple[tuple[str, float, float], ...] = (
    ("buffer_s", 0.0, 3600.0),
    ("buffer_frames", 1, 4096),
    ("ground_period", 0.01, 3600.0),
    ("refresh_period", 0.0, 3600.0),
    ("present_threshold", 0.0, 1.0),
    ("reject_threshold", 0.0, 1.0),
    ("lost_after", 0.0, 3600.0),
    ("stale_after", 0.01, 3600.0),
    ("reacquire_within", 0.0, 3600.0),
    ("motion_change", 0.001, 100.0),
    ("view_change", 0.01, 1.0),
    ("max_targets", 1, 255),
    ("max_instructions", 1, 255),
    ("max_rate", 0.0, 1000.0),
    ("max_age", 0.0, 3600.0),
)
# Frames that are kept or queued were taken under these: they hold for the engine's life.
FIXED = ("buffer_s", "buffer_frames", "frame_policy", "cameras")
_WHOLE = ("buffer_frames", "max_targets", "max_instructions")


@dataclasses.dataclass(frozen=True)
class EngineConfig:
    """Raises BadInput with the field, the value and what is allowed."""

    buffer_s: float = 3.0  # seconds of frames kept per camera ...
    buffer_frames: int = 64  # ... and never more frames than this
    ground_period: float = 0.5  # seconds between two groundings of an instruction with a target that is not live
    ground_on_loss: bool = True  # ask again about targets that are LOST, NO_TARGET, UNCERTAIN or in doubt
    refresh_period: float = 0.0  # seconds after which even a PRESENT target is grounded anew; 0: never
    ground_on_motion: bool = False  # ask again when a target in view starts, stops or turns, or the whole view moves
    motion_change: float = 0.06  # of its velocity, in diagonals of the picture per second
    view_change: float = 0.15  # share of the picture by which the whole view has shifted
    present_threshold: float = 0.5  # mask score that makes a target PRESENT
    reject_threshold: float = 0.5  # rejection score that makes it NO_TARGET
    lost_after: float = 1.0  # seconds OCCLUDED before LOST
    stale_after: float = 0.5  # seconds without a processed frame before STALE
    reacquire: str = "place"  # what keeps its id after being out of sight; place: what is where it was last seen, or
    # comes in where it left, and looks like it; looks: whatever looks like it
    reacquire_within: float = 30.0  # seconds that "place" holds
    max_targets: int = 8  # targets of one instruction on one camera
    max_instructions: int = 8
    max_rate: float = 0.0  # frames per second and camera taken from submit_frame; 0: all
    max_age: float = 0.0  # seconds; results older than this (95th percentile) make the engine do less; 0: never
    frame_policy: str = "latest"  # latest: newest frame wins, older ones are dropped; every: wait for each
    cameras: tuple[str, ...] = ()  # names accepted; empty: the first camera that sends a frame is the only one

    def __post_init__(self) -> None:
        for name, low, high in _RANGES:
            _check_number(name, getattr(self, name), low, high, whole=name in _WHOLE)
        for name in ("ground_on_loss", "ground_on_motion"):
            if not isinstance(getattr(self, name), bool):
                raise BadInput(f"EngineConfig.{name} must be True or False; got {getattr(self, name)!r}")
        _check_choice("frame_policy", self.frame_policy, FRAME_POLICIES)
        _check_choice("reacquire", self.reacquire, REACQUIRE)
        _check_cameras(self.cameras)


def check_change(old: EngineConfig, new: EngineConfig) -> None:
    """Raises BadInput naming a field that cannot change while an engine exists."""
    if not isinstance(new, EngineConfig):
        raise BadInput(f"an EngineConfig is needed; got {type(new).__name__}")
    for name in FIXED:
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            raise BadInput(f"EngineConfig.{name} holds for the engine's life: it is {before!r}; got {after!r}")


def _check_number(name: str, value: object, low: float, high: float, whole: bool) -> None:
    kind = "a whole number" if whole else "a number"
    right_type = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not right_type or not math.isfinite(value) or not low <= value <= high:
        raise BadInput(f"EngineConfig.{name} must be {kind} in {low:g}..{high:g}; got {value!r}")


def _check_choice(name: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise BadInput(f"EngineConfig.{name} must be one of {', '.join(allowed)}; got {value!r}")


def _check_cameras(cameras: object) -> None:
    good = isinstance(cameras, tuple) and all(isinstance(name, str) and name for name in cameras)
    if not good or len(set(cameras)) != len(cameras) or len(cameras) > 16:
        allowed = "a tuple of at most 16 different, non-empty names"
        raise BadInput(f"EngineConfig.cameras must be {allowed}; got {cameras!r}")
