"""Every frame in order: the same frames and commands give the same bytes, whoever runs them and however fast."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore
from unit.fakes import SECOND, ColourSegmenter, colour_frame, eventually

import instructseg
from instructseg.core import Frame, Instruction, Segmenter, State
from instructseg.streaming import EngineConfig, FrameResult, StreamingEngine

DEMO = Path(__file__).parents[2] / "data" / "demo"
Script = Sequence[Frame | Instruction | str]  # what happens in order; a string cancels the instruction of that id


def digest(results: Sequence[FrameResult]) -> str:
    """Of every byte that a result holds, except how long it took."""
    whole = hashlib.sha256()
    for result in results:
        whole.update(f"{result.frame.camera} {result.frame.stamp_ns}".encode())
        for t in result.targets:
            words = (t.instruction.id, t.instance_id, t.state.name, t.score.hex(), t.rejection_score.hex(), t.reason)
            whole.update(repr((*words, t.since_ns, t.grounded_stamp_ns, t.phrase)).encode())
            for image in (t.mask, t.confidence):
                whole.update(b"-" if image is None else image.tobytes())
    return whole.hexdigest()


def act(engine: StreamingEngine, step: Frame | Instruction | str, take: Callable[[Frame], object]) -> None:
    if isinstance(step, Frame):
        take(step)
    elif isinstance(step, Instruction):
        engine.add_instruction(step)
    else:
        engine.cancel(step)


def one_by_one(segmenter: Segmenter, script: Script, **config) -> list[FrameResult]:
    engine = StreamingEngine(segmenter, EngineConfig(frame_policy="every", **config))
    results: list[FrameResult] = []
    for step in script:
        act(engine, step, lambda frame: results.append(engine.process(frame)))
    return results


def with_threads(segmenter: Segmenter, script: Script, **config) -> list[FrameResult]:
    results: list[FrameResult] = []
    engine = StreamingEngine(
        segmenter, EngineConfig(frame_policy="every", **config), on_result=results.append, clock_ns=lambda: 0
    )
    with engine:
        for step in script:
            act(engine, step, engine.submit_frame)
        frames = sum(isinstance(step, Frame) for step in script)
        assert eventually(lambda: len(results) == frames, 60.0)
        assert not [t for t in threading.enumerate() if t.name == "instructseg-grounding"]
    return results


class Unsteady(ColourSegmenter):
    """Takes its time, a different one in every run."""

    def __init__(self, seed: int) -> None:
        super().__init__(renew_tokens=True)
        self._chance = random.Random(seed)

    def _begin(self, step: str) -> None:
        super()._begin(step)
        time.sleep(self._chance.choice([0.0, 0.0, 0.001, 0.01 if step == "ground" else 0.002]))


def coloured_script() -> list[Frame | Instruction | str]:
    """Things that come and go before two cameras, instructions that come, change and are cancelled."""
    script: list[Frame | Instruction | str] = []
    for i in range(80):
        names = [name for name, period in (("red", 9), ("blue", 13), ("green", 31)) if i % (2 * period) < period]
        script.append(colour_frame(i / 10, *names, camera="left", shift=i % 5))
        script.append(colour_frame(i / 10 + 0.01, *names[::2], camera="right"))
        changes = {5: Instruction("a", "red"), 6: Instruction("b", "green and blue"), 30: Instruction("a", "blue")}
        script += [changes[i]] if i in changes else ["b"] if i == 60 else []
    return script


def test_two_runs_give_identical_bytes_and_so_do_the_threads_whatever_their_speed():
    script, config = coloured_script(), {"cameras": ("left", "right"), "refresh_period": 1.5, "lost_after": 0.3}
    results = one_by_one(ColourSegmenter(renew_tokens=True), script, **config)
    assert {State.PRESENT, State.OCCLUDED, State.LOST, State.NO_TARGET} <= {t.state for r in results for t in r.targets}
    expected = digest(results)
    assert digest(one_by_one(Unsteady(0), script, **config)) == expected
    for seed in range(1, 4):
        assert digest(with_threads(Unsteady(seed), script, **config)) == expected


def test_a_different_byte_is_a_different_digest():
    script, config = coloured_script(), {"cameras": ("left", "right")}
    moved = colour_frame(1.0, "red", "blue", camera="left", shift=1)
    other = [moved if isinstance(s, Frame) and (s.camera, s.stamp_ns) == ("left", SECOND) else s for s in script]
    assert digest(one_by_one(ColourSegmenter(), script, **config)) != digest(
        one_by_one(ColourSegmenter(), other, **config)
    )


def demo_script(count: int) -> list[Frame | Instruction | str]:
    """Frames of the demo recording, each third one, with two instructions."""
    store = get_typestore(Stores.ROS2_HUMBLE)
    frames = []
    with Reader(DEMO) as reader:
        images = [c for c in reader.connections if c.topic == "/camera/image/compressed"]
        for index, (connection, _, raw) in enumerate(reader.messages(connections=images)):
            if index % 3 == 0:
                message = store.deserialize_cdr(raw, connection.msgtype)
                stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
                image = cv2.cvtColor(cv2.imdecode(np.asarray(message.data), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
                frames.append(Frame(image, stamp_ns))
            if len(frames) == count:
                break
    first, second = Instruction("a", "the red block"), Instruction("b", "all the blocks")
    return [first, *frames[: count // 2], second, *frames[count // 2 :]]


@pytest.fixture(scope="module")
def shipped() -> Segmenter:
    return instructseg.load("unified", device="cpu")


def test_two_replays_of_the_demo_with_the_shipped_recipe_give_identical_bytes(shipped: Segmenter):
    script = demo_script(14)
    results = one_by_one(shipped, script)
    assert any(target.mask is not None for result in results for target in result.targets)
    assert digest(one_by_one(shipped, script)) == digest(with_threads(shipped, script)) == digest(results)
