"""The benchmarks of metrics and of video data give their figures."""

from __future__ import annotations

from bench import data_video, metrics
from bench.options import Options


def test_metrics_are_timed_on_scenes_with_errors_in_them() -> None:
    figures, details = metrics.measure(Options(quick=True))
    assert all(len(figure.values) == 3 and figure.median > 0 for figure in figures)
    assert {figure.name for figure in figures if figure.floor} == {
        "J&F, one thing (5 % of the frame)", "J&F, three things, one after the other",
        "J&F, three things, assigned (Ref-DAVIS17)",
    }  # fmt: skip
    assert (details["height"], details["width"]) == (480, 854)


def test_video_data_is_timed_in_every_form() -> None:
    figures, details = data_video.measure(Options(quick=True))
    names = [figure.name for figure in figures]
    for form in data_video.LABELS.values():
        assert f"{form}: frames with masks" in names
    assert details["rle_file_mb"] > 0.01
