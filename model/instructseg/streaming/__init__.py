"""The two-rate streaming engine: bounded frame buffer, mask thread, grounding thread, statistics."""

from ..tracking import instance_map, label_map
from .book import BEST_FIRST
from .buffer import FrameBuffer
from .config import EngineConfig
from .engine import StreamingEngine
from .statistics import EngineStatistics
from .types import Ending, FrameRefused, FrameResult, GroundingResult, InstructionStatus, RejectionEvent, TargetState

__all__ = [
    "BEST_FIRST",
    "Ending",
    "EngineConfig",
    "EngineStatistics",
    "FrameBuffer",
    "FrameRefused",
    "FrameResult",
    "GroundingResult",
    "InstructionStatus",
    "RejectionEvent",
    "StreamingEngine",
    "TargetState",
    "instance_map",
    "label_map",
]
