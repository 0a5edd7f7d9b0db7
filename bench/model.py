"""The recipe alone: milliseconds of each step on 640 x 480 frames, and frames per second by threads and dtype."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from instructseg.core import Clip, Instruction, Segmenter

from .figures import Figure, Floor, figure
from .options import Options
from .scenes import Scene, make_scene

FRAME_RATE = Floor("at least", 15.0, ">= 15 frames/s on 2 cores")
TOKENS = (1, 4, 16)
INSTRUCTIONS = (1, 4)


def measure(options: Options) -> tuple[list[Figure], dict[str, Any]]:
    scene, figures, before = make_scene(), [], torch.get_num_threads()
    try:
        for dtype in ("float32", "bfloat16"):
            segmenter = options.load(dtype)
            for threads in (1, 2):
                options.say(f"{dtype}, {threads} thread{'s' if threads > 1 else ''}")
                torch.set_num_threads(threads)
                segmenter.warm_up(*scene.images.shape[1:3])
                figures += steps(segmenter, scene, f"{dtype} {threads}T", options.repetitions(60, 2))
    finally:
        torch.set_num_threads(before)
    return figures, {"frame": "640x480 rgb8", "tokens": TOKENS, "instructions": INSTRUCTIONS}


def steps(segmenter: Segmenter, scene: Scene, label: str, repetitions: int) -> list[Figure]:
    """Every step of the interface, and the frame rate of encode + segment with one token."""
    frames = list(scene.frames(min(len(scene.images), segmenter.sampling.sparse + repetitions)))
    encoded = [segmenter.encode([frame])[0] for frame in frames]
    clip = Clip(tuple(encoded[-segmenter.sampling.sparse :]), (-1,))
    tokens = some_tokens(segmenter, clip, scene.instructions(len(scene.texts)))
    turn = iter(range(10**9))

    def encode() -> None:
        segmenter.encode([frames[next(turn) % len(frames)]])

    def segment(count: int) -> None:
        segmenter.segment(encoded[next(turn) % len(frames)], [tokens[i % len(tokens)] for i in range(count)])

    def both() -> None:
        frame = frames[next(turn) % len(frames)]
        segmenter.segment(segmenter.encode([frame])[0], tokens[:1])

    figures = [figure(f"{label} encode", "ms", milliseconds(encode, repetitions))]
    if tokens:
        for count in TOKENS:
            name = f"{label} segment, {count} token{'s' if count > 1 else ''}"
            figures.append(figure(name, "ms", milliseconds(lambda n=count: segment(n), repetitions)))
    for count in INSTRUCTIONS:
        asked = scene.instructions(count)
        name = f"{label} ground, {count} instruction{'s' if count > 1 else ''}"
        figures.append(figure(name, "ms", milliseconds(lambda a=asked: segmenter.ground(clip, a), repetitions)))
    rates = [1e3 / ms for ms in milliseconds(both, repetitions)]
    floor = FRAME_RATE if label == "float32 2T" else None
    figures.append(figure(f"{label} encode + segment", "frames/s", rates, floor))
    return figures


def some_tokens(segmenter: Segmenter, clip: Clip, instructions: list[Instruction]) -> list[Any]:
    """Tokens of everything in the scene that the recipe finds; none where it refuses all of it."""
    groundings = segmenter.ground(clip, instructions)
    return [target.token for grounding in groundings for target in grounding.targets if target.token is not None]


def milliseconds(call: Callable[[], Any], repetitions: int) -> list[float]:
    """Wall time of every repetition, after two that do not count."""
    call()
    call()
    times = []
    for _ in range(repetitions):
        started = time.perf_counter()
        call()
        times.append((time.perf_counter() - started) * 1e3)
    return times
