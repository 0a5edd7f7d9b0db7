"""Resident memory after 500 and after 5,000 frames, each run in a process of its own.

Two runs: the engine with the real recipe, and the node's way from message to messages (conversion, engine, label
images, target list) around a model that costs nothing. No DDS, so that only this project's own memory is seen.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from instructseg.core import Frame, Instruction
from instructseg.streaming import EngineConfig, FrameResult, StreamingEngine
from instructseg.streaming.statistics import resident_bytes

from .figures import Figure, Floor, figure
from .meter import FreeSegmenter
from .options import MeasurementFailed, Options
from .scenes import Scene, make_scene

GROWTH = Floor("at most", 20.0, "<= 20 MB")
FIRST, LAST = 500, 5000  # frames
NEW_INSTRUCTION = 100  # frames after which another instruction replaces the current one, and so is grounded


def measure(options: Options) -> tuple[list[Figure], dict[str, Any]]:
    first, last = (50, 150) if options.quick else (FIRST, LAST)
    figures, details = [], {"frames": [first, last], "instruction_replaced_every": NEW_INSTRUCTION}
    for name, run in (("recipe in the engine", recipe_in_engine), ("node's conversions and outputs", node_path)):
        megabytes = in_own_process(run, name, first, last, options)
        growth = megabytes[last] - megabytes[first]
        figures += [
            figure(f"{name}: resident after {first} frames", "MB", megabytes[first]),
            figure(f"{name}: resident after {last} frames", "MB", megabytes[last]),
            figure(f"{name}: difference", "MB", growth, GROWTH),
        ]
        details[name] = {str(frames): round(value, 1) for frames, value in megabytes.items()}
    return figures, details


def in_own_process(
    run: Callable[[Connection, str, int], None], name: str, first: int, last: int, options: Options
) -> dict[int, float]:
    """Megabytes by number of frames. Raises MeasurementFailed where the process ends too early."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=run, args=(sender, options.checkpoint, last), daemon=True)
    process.start()
    sender.close()  # the child's end stays open in the child alone, so that its death is seen here
    megabytes: dict[int, float] = {}
    started = time.monotonic()
    try:
        while last not in megabytes:
            frames, resident = receiver.recv()
            if frames % 500 == 0 or frames in (first, last):
                megabytes[frames] = resident
                options.say(f"{name}: {frames} of {last} frames, {resident:.0f} MB, {time.monotonic() - started:.0f} s")
    except EOFError:
        process.join(10.0)
        code = process.exitcode
        raise MeasurementFailed(f"{name}: the process ended with code {code} before {last} frames") from None
    finally:
        process.join(10.0)
        if process.is_alive():
            process.kill()
    return megabytes


def recipe_in_engine(pipe: Connection, checkpoint: str, last: int) -> None:
    scene = make_scene()
    engine = StreamingEngine(Options(checkpoint=checkpoint).load(), EngineConfig())
    drive(engine, scene, last, pipe, lambda frame: engine.process(frame))


def node_path(pipe: Connection, checkpoint: str, last: int) -> None:
    """As in the node: an image message becomes a frame, its result every message the node would publish."""
    from sensor_msgs.msg import CompressedImage, Image
    from std_msgs.msg import Header

    from instructseg.rendering.labels import confidence_map
    from instructseg.rendering.overlay import OverlayStyle, draw_overlay
    from instructseg.tracking import instance_map, label_map
    from instructseg_node.conversions import fill_compressed, fill_image, image_to_rgb, stamp_ns
    from instructseg_node.outputs import header_of, target_array, time_of

    scene = make_scene()
    engine = StreamingEngine(FreeSegmenter(targets=3), EngineConfig())

    def step(frame: Frame) -> FrameResult:
        header = Header(stamp=time_of(frame.stamp_ns), frame_id="optical")
        message = fill_image(Image(), frame.image, "bgr8", header)
        result = engine.process(Frame(image_to_rgb(message), stamp_ns(message.header.stamp)))
        header = header_of(result.frame.stamp_ns, result.frame.frame_id)
        instances = instance_map(result.targets, frame.size)
        fill_image(Image(), instances, "16UC1", header)
        fill_compressed(CompressedImage(), instances, "16UC1", header, codec="png")
        fill_image(Image(), confidence_map(result.targets, instances), "mono8", header)
        fill_image(Image(), label_map(result.targets, frame.size), "mono8", header)
        target_array(result, header)
        fill_image(Image(), draw_overlay(result.frame.image, result.targets, OverlayStyle(), "bench"), "rgb8", header)
        return result

    drive(engine, scene, last, pipe, step)


def drive(
    engine: StreamingEngine, scene: Scene, last: int, pipe: Connection, step: Callable[[Frame], FrameResult]
) -> None:
    """``last`` frames; every so often a new instruction, and a line to the parent."""
    for count, frame in enumerate(scene.frames(last), start=1):
        if count % NEW_INSTRUCTION == 1:
            number = count // NEW_INSTRUCTION
            engine.set_instruction(Instruction(f"bench-{number}", scene.texts[number % len(scene.texts)]))
        step(frame)
        if count % 50 == 0:
            pipe.send((count, resident_bytes() / 1e6))
