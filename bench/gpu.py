"""A model on one device, stage by stage: milliseconds, ratio to what the device allows, memory and how it grows.

``python -m bench gpu --device cuda --size tiny`` measures the memory tracker with random weights in a published size of
SAM 2.1 at 1024 pixels; ``--recipe NAME --checkpoint FOLDER`` any recipe. Stages are timed by events of the device after
a warm-up; on a CPU (``--device cpu``) by the time of one thread, to see that it works. The ratio is to the larger of
operations / peak and bytes of weights / bandwidth of the stage's model: 1 is full use of the device, 2 to 3 is usual.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

import instructseg
from instructseg.core import Clip, Frame, Segmenter
from instructseg.modules.sam2_sizes import SIZES, sam2_config
from instructseg.streaming.statistics import resident_bytes
from instructseg.tracking.memory_bank import stack_memories

from .figures import Figure, Floor, figure
from .machine import cpu_model
from .memory_tracker import Watch, operations, stages
from .options import MeasurementFailed, Options
from .peaks import Peak, peak_of
from .sam2_sides import Ours, Pair, film, masks, miniature, random_sam
from .scenes import make_scene

EDGE = 1024
OBJECTS = 4
WARM_UP = 3
FILLED = 17  # frames until a bank of memories is full
FLAT = Floor("at most", 1.0, "< 1 KB a frame")


@dataclasses.dataclass(frozen=True, eq=False)
class Stage:
    """A call, what it reads of the weights, and the type it computes in."""

    name: str
    call: Callable[[], Any]
    weight_bytes: int
    dtype: torch.dtype


def measure(options: Options) -> tuple[list[Figure], dict[str, Any]]:
    cuda = options.device.startswith("cuda")
    if cuda and not torch.cuda.is_available():
        raise MeasurementFailed(
            f"--device {options.device}: torch finds no CUDA device; without --device it runs on the CPU"
        )
    name = torch.cuda.get_device_name(options.device) if cuda else cpu_model()
    peak, watch = peak_of(name, options.peak), Watch(options.device)
    if cuda:
        torch.cuda.reset_peak_memory_stats(options.device)
    subject = _recipe if options.recipe else _tracker
    label, found, step, figures = subject(options, watch)
    repetitions = options.repetitions(50, 3)
    figures += [f for stage in found for f in timed(stage, watch, peak, repetitions, label)]
    figures += growth(step, options, label)
    known = dataclasses.asdict(peak) if peak else "unknown: no ratio; give it with --peak"
    return figures, {"device": name, "peak": known, "subject": label, "repetitions": repetitions}


def timed(stage: Stage, watch: Watch, peak: Peak | None, repetitions: int, label: str) -> list[Figure]:
    """Milliseconds of a stage, and how many times that is what the device allows."""
    for _ in range(WARM_UP):
        stage.call()
    laps = [watch.lap(stage.call)[1] for _ in range(repetitions)]
    watch.wait()
    times = figure(f"{label}: {stage.name}", "ms", [lap() for lap in laps])
    if peak is None:
        return [times]
    floor_ms = peak.floor_ms(operations(stage.call), stage.weight_bytes, stage.dtype)
    return [times, figure(f"{label}: {stage.name}, times its floor", "times", times.median / floor_ms)]


def growth(step: Callable[[], Any], options: Options, label: str) -> list[Figure]:
    """Memory now, its peak, and its slope over a run of frames; of the device, on a CPU of this process."""
    cuda = options.device.startswith("cuda")
    frames = options.repetitions(1000, 20)
    for _ in range(frames // 2):
        step()
    before = _used(cuda)
    for _ in range(frames):
        step()
    after = _used(cuda)
    what = "device memory" if cuda else "resident memory"
    figures = [figure(f"{label}: {what}", "MB", after / 1e6)]
    if cuda:
        figures.append(figure(f"{label}: its peak", "MB", torch.cuda.max_memory_allocated(options.device) / 1e6))
    floor = FLAT if cuda and not options.quick else None
    slope = (after - before) / frames / 1e3
    return [*figures, figure(f"{label}: it grows over {frames} frames", "KB/frame", slope, floor)]


def _used(cuda: bool) -> int:
    return torch.cuda.memory_allocated() if cuda else resident_bytes()


def _tracker(options: Options, watch: Watch) -> tuple[str, list[Stage], Callable[[], Any], list[Figure]]:
    """The memory tracker with full banks of random weights."""
    if options.size != "miniature" and options.size not in SIZES:
        raise MeasurementFailed(f"--size must be one of miniature, {', '.join(SIZES)}; got {options.size!r}")
    config = miniature() if options.size == "miniature" else sam2_config(SIZES[options.size], "2.1", EDGE)
    sam = random_sam(config, options.device)
    dtype = torch.bfloat16 if watch.cuda else torch.float32
    images = film(config.image_size)
    side = Ours(sam, next(images), masks(config.image_size, OBJECTS), dtype)
    tracker, model = side.tracker, side.tracker.model
    image = next(images)
    features = tracker.encode(image)
    for _ in range(FILLED):
        _, side.memories = tracker.step_logits(features, side.memories)
    pixels, bank = tracker.pixels(image), stack_memories(side.memories)
    encoder = _weight_bytes(model.sam.vision_encoder)
    rest = _weight_bytes(model) - encoder
    step = inference(lambda: model.step(features.maps, bank))
    found = [
        Stage("encode", inference(lambda: model.encode_image(pixels)), encoder, dtype),
        Stage(f"memory step, {OBJECTS} objects", step, rest, dtype),
    ]
    if options.compile:
        calls = (model.encode_image, (pixels,)), (model.step, (features.maps, bank))
        found += [
            dataclasses.replace(stage, name=f"{stage.name}, compiled", call=compiled(call, watch.cuda, *inputs))
            for stage, (call, inputs) in zip(found, calls, strict=True)
        ]
    label = f"SAM 2.1 {options.size}, {config.image_size} px, {str(dtype).removeprefix('torch.')}"
    inner = stages(Pair(side, None, images), watch, label, options.repetitions(20, 2))
    return label, found, lambda: side.logits(next(images)), inner


def compiled(call: Callable[..., Any], cuda: bool, *inputs: Any) -> Callable[[], Any]:
    """One graph, replayed by CUDA where there is a GPU: shapes of the steady state never change."""
    mode = "reduce-overhead" if cuda else None
    graph = torch.compile(call, fullgraph=True, dynamic=False, mode=mode)
    return inference(lambda: graph(*inputs))


def _recipe(options: Options, watch: Watch) -> tuple[str, list[Stage], Callable[[], Any], list[Figure]]:
    """The three steps of a recipe's interface on 640 x 480 frames."""
    segmenter = instructseg.load(options.recipe, options.checkpoint or None, options.device)
    scene = make_scene()
    frames = list(scene.frames(segmenter.sampling.sparse))
    segmenter.warm_up(*scene.images.shape[1:3])
    encoded = [segmenter.encode([frame])[0] for frame in frames]
    clip, asked = Clip(tuple(encoded)), scene.instructions(1)
    tokens = [t.token for t in segmenter.ground(clip, asked)[0].targets if t.token is not None]
    weights, dtype = _weights(segmenter)
    found = [
        Stage("encode", lambda: segmenter.encode(frames[-1:]), weights, dtype),
        Stage("ground, 1 instruction", lambda: segmenter.ground(clip, asked), weights, dtype),
    ]
    if tokens:  # a recipe may encode on demand: a fresh encoding for every call
        fresh = lambda: segmenter.segment(segmenter.encode([_copy(frames[-1])])[0], tokens)  # noqa: E731
        found.append(Stage(f"encode + segment, {len(tokens)} token(s)", fresh, weights, dtype))
    label = f"{options.recipe}, {str(dtype).removeprefix('torch.')}"
    return label, found, found[-1].call, []


def _copy(frame: Frame) -> Frame:
    return dataclasses.replace(frame, image=np.array(frame.image))


def _weights(segmenter: Segmenter) -> tuple[int, torch.dtype]:
    """Bytes of all weights that the recipe holds, and the type that most of them have."""
    modules = [value for value in vars(segmenter).values() if isinstance(value, nn.Module)]
    tensors = {id(p): p for module in modules for p in module.parameters()}.values()
    by_type: dict[torch.dtype, int] = {}
    for tensor in tensors:
        by_type[tensor.dtype] = by_type.get(tensor.dtype, 0) + tensor.nbytes
    if not by_type:
        return 0, torch.float32
    return sum(by_type.values()), max(by_type, key=lambda dtype: by_type[dtype])


def _weight_bytes(module: nn.Module) -> int:
    return sum(parameter.nbytes for parameter in {id(p): p for p in module.parameters()}.values())


def inference(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call without gradients."""

    def run() -> Any:
        with torch.inference_mode():
            return call()

    return run
