"""Bags over DDS: play one, record what a node publishes."""
