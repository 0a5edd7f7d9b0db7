"""Readers of public data sets and of a robot's own recordings, one file each; ``data/benchmarks.py`` lists them."""
