"""J and F of 480p videos: frames per second of CPU time, with OpenCV on one thread: what one core does, whoever else
uses the machine."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

from instructseg.evaluation.davis_merge import last_object
from instructseg.evaluation.davis_objects import score_objects
from instructseg.evaluation.region_boundary import score_video

from .figures import Figure, Floor, figure
from .options import Options
from .video_clips import AREAS, HEIGHT, WIDTH, truth_masks, wobbled

FAST = Floor("at least", 200.0, ">= 200 frames/s")
FRAMES = 40


def measure(options: Options) -> tuple[list[Figure], dict[str, Any]]:
    frames, rounds = (FRAMES, options.repetitions(9, 3)) if not options.quick else (8, 3)
    rng = np.random.default_rng(0)
    truth = [truth_masks(frames, thing) for thing in range(AREAS)]
    predicted = [wobbled(masks, rng) for masks in truth]
    scenes = {
        "one thing (5 % of the frame)": lambda: score_video(predicted[0], truth[0]),
        "three things, one after the other": lambda: [
            score_video(*pair) for pair in zip(predicted, truth, strict=True)
        ],
        "most of the frame": lambda: score_video(~predicted[2], ~truth[2]),
        "speckles all over the frame": lambda: score_video(speckled, truth[0]),
        "three things, assigned (Ref-DAVIS17)": lambda: score_objects(*labels),
    }
    speckled = predicted[0] | (rng.random(predicted[0].shape) < 0.001)
    labels = [last_object(np.stack(masks)) for masks in (predicted, truth)]
    promised = [name for name in scenes if "thing" in name]
    figures, details = [], {"frames": frames, "height": HEIGHT, "width": WIDTH, "threads": 1}
    with one_thread():
        for name, score in scenes.items():
            options.say(name)
            score()  # buffers and the disk's kernel
            speeds = [frames / cpu_seconds(score) for _ in range(rounds)]
            figures.append(figure(f"J&F, {name}", "frames/s", speeds, FAST if name in promised else None))
    return figures, details


def cpu_seconds(call: Any) -> float:
    started = time.process_time()
    call()
    return time.process_time() - started


@contextmanager
def one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)
