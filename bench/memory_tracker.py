"""The memory tracker against transformers' own inference session, both with the same random weights: how many times
less it takes, what a frame's stages take, how memory grows.

The two take turns frame by frame. On a CPU their time is the CPU time of one thread, which other processes disturb
little, and the figure is the ratio; on a GPU it is the clock with the device synchronised, and stages are timed by
events of the device. ``--device cuda`` has not been run yet: the machines it was written on have none.
"""

from __future__ import annotations

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from instructseg.streaming.statistics import resident_bytes
from instructseg.tracking.memory import FrameFeatures, MemoryTracker
from instructseg.tracking.memory_bank import TrackMemory

from .figures import Figure, Floor, figure
from .memory import in_own_process
from .options import MeasurementFailed, Options
from .sam2_sides import Ours, Pair, Session, configuration, film, masks, random_sam

ALONE = Floor("at least", 1.0, ">= 1, one object")
TOGETHER = Floor("at least", 3.0, ">= 3, 8 objects")
SAME = Floor("at least", 0.999, ">= 0.999")
FLAT = Floor("at most", 1.0, "< 1 KB a frame")
# Model, objects, and frames after which the bank of memories is full; the last 15 object pointers fill it entirely.
CASES = tuple(("miniature", n, 16) for n in (1, 2, 8)) + tuple(("256", n, 8) for n in (1, 2, 8)) + (("512", 1, 8),)
LONG = (("512", 2, 8), ("512", 8, 8))  # with --full
STAGES = {
    "encode_image": "image encoder",
    "attend": "memory attention",
    "decode": "mask decoder",
    "remember": "memory encoder",
}


def measure(options: Options) -> tuple[list[Figure], dict[str, Any]]:
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        raise MeasurementFailed(
            f"--device {options.device}: torch finds no CUDA device; without --device it runs on the CPU"
        )
    figures, details, before = [], {"threads": 1, "device": options.device}, torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        for size, objects, filled in CASES[:1] if options.quick else CASES + LONG * options.full:
            label = f"{'Hiera-T ' if size.isdigit() else ''}{size}, {objects} object{'s' if objects > 1 else ''}"
            options.say(label)
            repetitions = options.repetitions(20 if size == "miniature" else 5, 2)
            new, details[label] = compare(size, objects, filled, repetitions, options.device, label)
            figures += new
        for size in ("miniature",) if options.quick else ("miniature", "256"):
            figures += cameras_together(size, options)
    finally:
        torch.set_num_threads(before)
    return figures + growth(options), details


def cameras_together(size: str, options: Options) -> list[Figure]:
    """How many times longer it takes to step the objects of two cameras, four each, camera by camera than in one
    call."""
    sam, watch, ratios = random_sam(configuration(size), options.device), Watch(options.device), []
    edge, filled = sam.config.image_size, 2 if options.quick else 16
    films = [film(edge, seed) for seed in (3, 4)]
    sides = [Ours(sam, next(images), masks(edge, 4), torch.float32) for images in films]
    tracker = sides[0].tracker
    for index in range(filled + options.repetitions(20 if size == "miniature" else 8, 2)):
        frames = tracker.encode([next(images) for images in films])
        apart = functools.partial(_apart, tracker, frames, [side.memories for side in sides])
        both = [frame for frame, side in zip(frames, sides, strict=True) for _ in side.memories]
        joint = functools.partial(tracker.step_logits, both, [m for side in sides for m in side.memories])
        order = (joint, apart) if index % 2 else (apart, joint)
        timed = {call: watch.time(call) for call in order}
        for side, (_, memories) in zip(sides, timed[apart][1], strict=True):
            side.memories = memories
        if index >= filled:
            ratios.append(timed[apart][0] / timed[joint][0])
    name = "miniature" if size == "miniature" else f"Hiera-T {size}"
    return [figure(f"{name}, 2 cameras with 4 objects each: apart / together", "times", ratios)]


def _apart(tracker: MemoryTracker, frames: list[FrameFeatures], memories: list[list[TrackMemory]]) -> list[Any]:
    return [tracker.step_logits(frame, own) for frame, own in zip(frames, memories, strict=True)]


def compare(
    size: str, objects: int, filled: int, repetitions: int, device: str, label: str
) -> tuple[list[Figure], dict[str, Any]]:
    """Ratio of times and equality of masks over ``repetitions`` frames once the banks are full; then our stages."""
    pair = Pair.begin(random_sam(configuration(size), device), objects)
    watch = Watch(device)
    ratios, worst, overlap, spent = [], 0.0, 1.0, ([], [])
    for index in range(filled + repetitions):
        image = next(pair.images)
        pixels = pair.ours.tracker.pixels(image)
        calls = [functools.partial(pair.ours.logits, image), functools.partial(pair.session.logits, pixels)]
        order = (0, 1) if index % 2 else (1, 0)
        timed = {side: watch.time(calls[side]) for side in order}
        (ours_s, ours), (session_s, theirs) = timed[0], timed[1]
        if index >= filled:
            ratios.append(session_s / ours_s)
            spent[0].append(ours_s * 1e3)
            spent[1].append(session_s * 1e3)
            worst = max(worst, float((ours - theirs).abs().max()))
            overlap = min(overlap, smallest_iou(at_size(ours, image), at_size(theirs, image)))
    floor = {1: ALONE, 8: TOGETHER}.get(objects)
    figures = [
        figure(f"{label}: session / ours", "times", ratios, floor),
        figure(f"{label}: ours", "ms", spent[0]),
        figure(f"{label}: smallest IoU of masks with the session's", "", overlap, SAME),
    ]
    image, pixels = next(pair.images), pair.ours.tracker.pixels(next(pair.images))
    multiplied = operations(lambda: pair.ours.logits(image)), operations(lambda: pair.session.logits(pixels))
    figures.append(figure(f"{label}: operations of session / ours", "times", multiplied[1] / multiplied[0]))
    figures += stages(pair, watch, label, repetitions)
    return figures, {
        "largest difference of logits": worst,
        "operations": {"ours": multiplied[0], "session": multiplied[1]},
        "session ms": statistics.median(spent[1]),
        "bytes an object": {"ours": pair.ours.nbytes / objects, "session": pair.session.nbytes / objects},
    }


def at_size(logits: torch.Tensor, image: np.ndarray) -> torch.Tensor:
    """Masks ``(objects, H, W)`` bool in the size of the image, as users see them, of logits ``(objects, 4h, 4w)``."""
    return F.interpolate(logits[:, None], image.shape[:2], mode="bilinear", align_corners=False)[:, 0] > 0


def smallest_iou(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    """Over objects, of masks ``(objects, h, w)`` bool; 1 where both are empty."""
    both, either = (ours & theirs).sum((1, 2)), (ours | theirs).sum((1, 2))
    return float(torch.where(either > 0, both / either.clamp(min=1), 1.0).min())


def operations(call: Callable[[], Any]) -> int:
    """Floating point operations of matrix products, convolutions and attention: what no arrangement of the others can
    go below."""
    fused = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _fused_attention}  # which the counter lacks
    with FlopCounterMode(display=False, custom_mapping=fused) as counter:
        call()
    return counter.get_total_flops()


def _fused_attention(query: tuple[int, ...], key: tuple[int, ...], value: tuple[int, ...], *_: Any, **__: Any) -> int:
    """Of shapes ``(B, H, L, d)``, ``(B, H, N, d)``, ``(B, H, N, d)``: both products."""
    batch, heads, cells, width = query
    return 2 * batch * heads * cells * key[2] * (width + value[3])


def stages(pair: Pair, watch: Watch, label: str, repetitions: int) -> list[Figure]:
    """Milliseconds of each stage of a frame, masks in the size of the image included."""
    spent: dict[str, list[float]] = {name: [] for name in (*STAGES.values(), "masks in the image's size")}
    for _ in range(repetitions):
        with watched(pair.ours, watch) as laps:
            pair.ours.masks(next(pair.images))
        for name in spent:
            spent[name].append(sum(lap() for lap in laps if lap.name == name))
    return [figure(f"{label}: {name}", "ms", values) for name, values in spent.items()]


@dataclasses.dataclass(frozen=True, eq=False)
class Lap:
    """One call of a stage. Its milliseconds are asked for when the device has finished."""

    name: str
    milliseconds: Callable[[], float]

    def __call__(self) -> float:
        return self.milliseconds()


@contextmanager
def watched(ours: Ours, watch: Watch) -> Iterator[list[Lap]]:
    """The stages of the tracker and of its model note their times."""
    laps: list[Lap] = []
    places = [(ours.tracker.model, method, name) for method, name in STAGES.items()]
    places.append((ours.tracker, "_results", "masks in the image's size"))

    def noted(call: Callable[..., Any], name: str) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            result, milliseconds = watch.lap(lambda: call(*arguments))
            laps.append(Lap(name, milliseconds))
            return result

        return run

    try:
        for owner, method, name in places:
            owner.__dict__[method] = noted(getattr(owner, method), name)
        yield laps
        watch.wait()
    finally:
        for owner, method, _ in places:
            owner.__dict__.pop(method, None)


class Watch:
    """CPU seconds of this thread; on a GPU seconds by the clock, and its own events for stages."""

    def __init__(self, device: str):
        self.cuda = torch.device(device).type == "cuda"

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def time(self, call: Callable[[], Any]) -> tuple[float, Any]:
        clock = time.perf_counter if self.cuda else time.thread_time
        self.wait()
        started = clock()
        result = call()
        self.wait()
        return clock() - started, result

    def lap(self, call: Callable[[], Any]) -> tuple[Any, Callable[[], float]]:
        """The result, and what tells its milliseconds once the device has been waited for."""
        if not self.cuda:
            seconds, result = self.time(call)
            return result, lambda: seconds * 1e3
        started, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        started.record()
        result = call()
        ended.record()
        return result, lambda: started.elapsed_time(ended)


def growth(options: Options) -> list[Figure]:
    """Kilobytes a frame by which each side's process grows, of the GPU's memory where there is one. The session, which
    takes hundreds of kilobytes a frame, is stopped early."""
    last = 10_000 if options.full else options.repetitions(2000, 150)
    runs = (("ours", ours_for_ever, min(500, last // 3), last), ("session", session_for_ever, 50, 150))
    figures = []
    for name, run, first, end in runs:
        megabytes = in_own_process(functools.partial(run, device=options.device), name, first, end, options)
        slope = 1e3 * (megabytes[end] - megabytes[first]) / (end - first)
        floor = FLAT if name == "ours" and not options.quick else None
        figures.append(
            figure(f"miniature, 1 object: {name} grows over frames {first}..{end}", "KB/frame", slope, floor)
        )
    return figures


def ours_for_ever(pipe: Connection, _checkpoint: str, last: int, device: str) -> None:
    torch.set_num_threads(1)
    sam = random_sam(configuration("miniature"), device)
    images = film(sam.config.image_size)
    side = Ours(sam, next(images), masks(sam.config.image_size, 1), torch.float32)
    _tell(pipe, last, device, lambda: side.logits(next(images)))


def session_for_ever(pipe: Connection, _checkpoint: str, last: int, device: str) -> None:
    torch.set_num_threads(1)
    pair = Pair.begin(random_sam(configuration("miniature"), device), 1)
    side: Session = pair.session
    _tell(pipe, last, device, lambda: side.logits(pair.ours.tracker.pixels(next(pair.images))))


def _tell(pipe: Connection, last: int, device: str, step: Callable[[], Any]) -> None:
    """``last`` steps; a line to the parent every 50."""
    for count in range(1, last + 1):
        step()
        if count % 50 == 0 or count == last:
            used = torch.cuda.memory_allocated() if device.startswith("cuda") else resident_bytes()
            pipe.send((count, used / 1e6))
