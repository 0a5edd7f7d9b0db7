"""The streaming engine's own time per frame: what process() takes beside the segmenter, in one and the same run."""

from __future__ import annotations

import time
from typing import Any

from instructseg.core import Segmenter, State
from instructseg.streaming import EngineConfig, StreamingEngine

from .figures import Figure, Floor, figure
from .meter import FreeSegmenter, MeteredSegmenter
from .options import Options
from .scenes import Scene, make_scene

ADDED = Floor("at most", 20.0, "<= 20 % of the model's time")
OWN = Floor("at most", 2.0, "< 2 ms at 640x480")
SETTLE = 5  # frames that do not count


def measure(options: Options) -> tuple[list[Figure], dict[str, Any]]:
    scene, count = make_scene(), options.repetitions(600, 10)
    figures, details = [], {}
    for name, segmenter in (("recipe", options.load()), ("free model", FreeSegmenter())):
        for instructions in (1, 4, 8):
            label = f"{name}, {instructions} instruction{'s' if instructions > 1 else ''}"
            options.say(label)
            new, details[label] = overhead(segmenter, scene, label, instructions, count)
            figures += new
    label = "free model, 8 instructions, watching motion"
    options.say(label)
    new, details[label] = overhead(FreeSegmenter(), scene, label, 8, count, EngineConfig(ground_on_motion=True))
    return figures + new, details


def overhead(
    segmenter: Segmenter,
    scene: Scene,
    label: str,
    instructions: int,
    count: int,
    config: EngineConfig | None = None,
) -> tuple[list[Figure], dict[str, Any]]:
    """Figures per frame over ``count`` frames: the engine's milliseconds by the clock and by the CPU, which waiting for
    other processes does not lengthen; those of encode and segment by the clock, and their ratio in percent."""
    metered = MeteredSegmenter(segmenter)
    engine = StreamingEngine(metered, config)
    for instruction in scene.instructions(instructions):
        engine.add_instruction(instruction)
    own_ms, own_cpu_ms, model_ms, present = [], [], [], 0
    for index, frame in enumerate(scene.frames(SETTLE + count)):
        before, cpu_before = dict(metered.wall_s), sum(metered.cpu_s.values())
        started, cpu_started = time.perf_counter(), time.thread_time()
        result = engine.process(frame)
        total, cpu_total = time.perf_counter() - started, time.thread_time() - cpu_started
        spent = {step: seconds - before[step] for step, seconds in metered.wall_s.items()}
        if index >= SETTLE:
            own_ms.append((total - sum(spent.values())) * 1e3)
            own_cpu_ms.append((cpu_total - sum(metered.cpu_s.values()) + cpu_before) * 1e3)
            model_ms.append((spent["encode"] + spent["segment"]) * 1e3)  # a grounding now and then would flatter us
            present += sum(target.state is State.PRESENT for target in result.targets)
    figures = [figure(f"{label}: engine", "ms", own_ms), figure(f"{label}: engine, CPU", "ms", own_cpu_ms, OWN)]
    if not isinstance(segmenter, FreeSegmenter):
        share = 100.0 * sum(own_ms) / sum(model_ms)
        figures += [
            figure(f"{label}: encode + segment", "ms", model_ms),
            figure(f"{label}: engine / (encode + segment)", "%", share, ADDED),
        ]
    return figures, {"frames": count, "targets_present_per_frame": present / count}
