"""The demo: a recorded camera stream through the real node, judged against ground truth."""
