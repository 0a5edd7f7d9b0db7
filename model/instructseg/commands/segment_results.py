"""What ``instructseg segment`` leaves behind: masks, overlay, results.json, and the summary of every instruction."""

from __future__ import annotations

import dataclasses
import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from ..core import Instruction, InstructSegError, State
from ..rendering.labels import geometry
from ..rendering.overlay import draw_overlay
from ..streaming import FrameResult
from ..tracking import TargetState, instance_map
from .frame_sources import SourceFrame

MILLISECOND = Fraction(1, 1000)
_ORDER = (
    State.PRESENT, State.OCCLUDED, State.UNCERTAIN, State.LOST, State.NO_TARGET, State.GROUNDING, State.ERROR,
    State.STALE,
)  # fmt: skip


@dataclasses.dataclass
class Summary:
    """One instruction over all frames. verdict: PRESENT when any frame shows it, else its state at the end."""

    instruction: Instruction
    verdict: State = State.GROUNDING
    reason: str = "no frame was processed"
    score: float = 0.0  # the best one; of the last frame where it was never present
    rejection_score: float = 0.0
    frames: int = 0
    frames_present: int = 0
    frames_failed: int = 0
    first_present_frame: int | None = None
    first_present_s: float | None = None

    def add(self, source: SourceFrame, targets: list[TargetState]) -> None:
        best = min(targets, key=lambda target: (_ORDER.index(target.state), -target.score))
        self.frames += 1
        self.frames_failed += any(target.state is State.ERROR for target in targets)
        present = best.state is State.PRESENT
        self.frames_present += present
        if present and self.first_present_frame is None:
            self.first_present_frame, self.first_present_s = source.index, source.frame.stamp_ns / 1e9
        if present or self.verdict is not State.PRESENT:
            better = not present or self.verdict is not State.PRESENT or best.score > self.score
            self.verdict = best.state
            if better:
                self.score, self.rejection_score, self.reason = best.score, best.rejection_score, best.reason

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        del values["instruction"]
        return {"id": self.instruction.id, "text": self.instruction.text} | values | {"verdict": self.verdict.name}

    def line(self) -> str:
        """The answer in one line for the terminal."""
        head = f'"{self.instruction.text}": {self.verdict.name}'
        if self.verdict is State.PRESENT:
            when = f"first in frame {self.first_present_frame} at {self.first_present_s:.2f} s"
            return f"{head} in {self.frames_present} of {self.frames} frames, {when}, score {self.score:.2f}"
        return f"{head} (rejection score {self.rejection_score:.2f}): {self.reason}"


class OverlayVideo:
    """An h264 video that grows by frames with their own times; opened by the first one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._container: av.container.OutputContainer | None = None
        self._stream: Any = None
        self._first_ns = 0

    def add(self, picture: np.ndarray, stamp_ns: int) -> None:
        height, width = picture.shape[:2]
        if self._container is None:
            self._first_ns = stamp_ns
            self._container = av.open(str(self._path), "w", options={"movflags": "faststart"})
            self._stream = self._container.add_stream("libx264", rate=1000, options={"crf": "20", "preset": "veryfast"})
            self._stream.width, self._stream.height = width + width % 2, height + height % 2  # 4:2:0 halves both
            self._stream.pix_fmt, self._stream.codec_context.time_base = "yuv420p", MILLISECOND
        picture = cv2.copyMakeBorder(picture, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
        frame.pts, frame.time_base = round((stamp_ns - self._first_ns) / 1e6), MILLISECOND
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        if self._container is not None:
            self._container.mux(self._stream.encode())
            self._container.close()
            self._container = None


class ResultFolder:
    """Writes one run into a folder; ``results.json`` comes last, so that it is there only when the rest is whole."""

    def __init__(self, folder: Path, instructions: list[Instruction], still: bool, overlay: bool) -> None:
        self.folder = folder
        self.still = still
        self.overlay = overlay
        self.summaries = {instruction.id: Summary(instruction) for instruction in instructions}
        self.records: list[dict[str, Any]] = []
        self.size = (0, 0)
        if folder.exists() and not folder.is_dir():
            raise InstructSegError(f"--out {folder} is a file; give a folder")
        (folder / "masks").mkdir(parents=True, exist_ok=True)
        _clear_earlier_run(folder)
        self._video = OverlayVideo(folder / "overlay.mp4")

    def __enter__(self) -> ResultFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self._video.close()

    def add(self, source: SourceFrame, result: FrameResult) -> None:
        """Masks and picture of one frame to disk, its figures to memory."""
        frame, self.size = result.frame, result.frame.size
        mask = f"masks/{source.index:06d}.png"
        _write_png(self.folder / mask, instance_map(result.targets, frame.size))
        if self.overlay:
            picture = draw_overlay(frame.image, result.targets)
            if self.still:
                _write_png(self.folder / "overlay.png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
            else:
                self._video.add(picture, frame.stamp_ns)
        for instruction_id, summary in self.summaries.items():
            mine = [target for target in result.targets if target.instruction.id == instruction_id]
            if mine:
                summary.add(source, mine)
        self.records.append(
            {
                "frame": source.index,
                "file": source.path.name,
                "stamp_ns": frame.stamp_ns,
                "mask": mask,
                "targets": [target_record(target) for target in result.targets],
            }
        )

    def finish(self, about: dict[str, Any]) -> None:
        """Write results.json. about: what was run, in front of the results."""
        self._video.close()
        height, width = self.size
        summary = [s.to_dict() for s in self.summaries.values()]
        report = {**about, "width": width, "height": height, "instructions": summary, "frames": self.records}
        text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False)
        (self.folder / "results.json").write_text(text + "\n", encoding="utf-8")


def target_record(target: TargetState) -> dict[str, Any]:
    """One target of one frame for JSON; box is [x, y, width, height] in pixels, or None without a mask."""
    box = geometry(target.mask)
    return {
        "instruction": target.instruction.id,
        "instance_id": target.instance_id,
        "state": target.state.name,
        "score": round(float(target.score), 4),
        "rejection_score": round(float(target.rejection_score), 4),
        "reason": target.reason,
        "phrase": target.phrase,
        "box": [box.x, box.y, box.width, box.height] if box.area else None,
        "area": box.area,
    }


def _clear_earlier_run(folder: Path) -> None:
    """Masks of a longer run before this one must not pass for its own. Only what such a run wrote is deleted."""
    if not (folder / "results.json").exists():
        return
    for path in (folder / "masks").iterdir():
        if re.fullmatch(r"\d{6,}\.png", path.name):
            path.unlink()
    for name in ("overlay.mp4", "overlay.png", "results.json"):
        (folder / name).unlink(missing_ok=True)


def _write_png(path: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(path), image):
        raise InstructSegError(f"{path} cannot be written; is there space, and may this folder be written to?")
