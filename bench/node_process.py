"""The real node in a process of its own, with a meter at the engine's two ends: python -m bench.node_process FILE.

Everything is the node's own code; the segmenter and the engine are wrapped to note times. ``FILE`` gets the notes when
the process is told to end.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
import torch
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from instructseg.core import Segmenter
from instructseg.streaming import EngineStatistics, FrameResult, StreamingEngine
from instructseg_node import dds
from instructseg_node.node import InstructSegNode, load_segmenter
from instructseg_node.parameters import Settings

from .meter import MeteredSegmenter


class Notes:
    """One row a published frame, and the engine's statistics at its end."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.statistics: EngineStatistics | None = None

    def write(self, path: Path) -> None:
        counters = {}
        if self.statistics:
            kept = ("frames_in", "frames_out", "drops", "groundings", "faults", "last_error")
            counters = {name: getattr(self.statistics, name) for name in kept}
        values = {"torch_threads": torch.get_num_threads(), "rows": self.rows, "statistics": counters}
        path.write_text(json.dumps(values), encoding="utf-8")


def metered_engine(notes: Notes) -> type[StreamingEngine]:
    class MeteredEngine(StreamingEngine):
        def __init__(self, segmenter: MeteredSegmenter, *arguments: Any, on_result: Callable, **named: Any) -> None:
            def publish(result: FrameResult) -> None:
                began = time.perf_counter()
                on_result(result)
                ended = time.perf_counter()
                model_s = result.timings["encode_s"] + result.timings["segment_s"]
                notes.rows.append(
                    {
                        "stamp_ns": result.frame.stamp_ns,
                        "age_s": result.age_s,
                        "model_s": model_s,
                        "engine_s": began - segmenter.encode_began - model_s,
                        "publish_s": ended - began,
                        # Both grow from row to row: differences between two rows belong to the frames between them.
                        "process_cpu_s": time.process_time(),
                        "ground_cpu_s": segmenter.cpu_s["ground"],
                        "model_cpu_s": segmenter.cpu_s["encode"] + segmenter.cpu_s["segment"],
                    }
                )

            super().__init__(segmenter, *arguments, on_result=publish, **named)

        def stop(self) -> bool:
            if self.running:
                notes.statistics = self.statistics()
            return super().stop()

    return MeteredEngine


def load_metered(settings: Settings) -> Segmenter:
    return MeteredSegmenter(load_segmenter(settings))


def main(arguments: list[str]) -> int:
    notes = Notes()
    rclpy.init(args=arguments)
    node = InstructSegNode(segmenter_factory=load_metered, engine_class=metered_engine(notes))
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        dds.assert_loopback_only()
        if not node.autostart():
            return 1
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        executor.shutdown()
        node.destroy_node()  # stops the engine, which leaves its statistics in the notes
        rclpy.try_shutdown()
        notes.write(Path(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
