"""Instructed video segmentation: recipes behind one Segmenter interface, and a streaming engine (no ROS here)."""

__version__ = "0.1.0"
