"""Instructed video segmentation: recipes behind one Segmenter interface, and a streaming engine (no ROS here)."""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"
__all__ = ["load"]


def __getattr__(name: str) -> Any:
    """``instructseg.load`` imports torch on first use only, so that ``import instructseg`` stays quick."""
    if name == "load":
        from .registry import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
