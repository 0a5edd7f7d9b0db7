"""VISA (arXiv 2407.11325): reasoning video segmentation. See docs/recipes/visa.md."""
