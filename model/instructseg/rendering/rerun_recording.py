"""A recording for the rerun viewer: frames, masks with names, states in words, scores over time.

Needs the optional package rerun-sdk, which is imported when a recording is opened. One recording, by entity:
``<camera>/image`` the frames, ``<camera>/image/masks`` instance ids with the names as annotation context,
``states/<instruction>`` a line whenever a verdict changes, ``scores/…`` and ``rejection/…`` the figures of each frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType, TracebackType
from typing import NamedTuple

import numpy as np

from ..core import Frame, Instruction, InstructSegError, State
from ..tracking import TargetState, instance_map
from .overlay import colour_of

JPEG_QUALITY = 85
TIMELINE = "frame_time"
_LEVELS = {State.PRESENT: "INFO", State.GROUNDING: "DEBUG", State.ERROR: "ERROR"}  # all others: WARN


class Shown(NamedTuple):
    """What a recording says of one target on one frame."""

    instruction_id: str
    instruction_text: str
    instance_id: int
    state: State
    score: float
    rejection_score: float
    reason: str = ""
    phrase: str = ""


def shown(target: TargetState) -> Shown:
    """From the engine's own record."""
    asked: Instruction = target.instruction
    return Shown(
        asked.id, asked.text, target.instance_id, target.state, float(target.score), float(target.rejection_score),
        target.reason, target.phrase,
    )  # fmt: skip


class RerunRecording:
    """Writes one ``.rrd`` file. clock: whether stamps are times of day (nanoseconds since 1970) and not durations.

    Raises InstructSegError without rerun-sdk, or where the file cannot be written.
    """

    def __init__(self, path: Path, clock: bool = False) -> None:
        self._rr = rerun_sdk()
        self._clock = clock
        self._said: dict[tuple[str, str, int], str] = {}  # (camera, instruction, instance) -> verdict
        self._names: dict[str, dict[int, str]] = {}  # camera -> instance id -> name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.open("wb").close()
        except OSError as error:
            raise InstructSegError(f"the rerun recording {path} cannot be written: {error}") from error
        self._stream = self._rr.RecordingStream("instructseg")
        self._stream.save(path)

    def __enter__(self) -> RerunRecording:
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Write the layout and what is still in memory; a second call does nothing."""
        if self._stream is not None:
            self._stream.send_blueprint(self._blueprint())
            self._stream.flush()
            self._stream.disconnect()
            self._stream = None

    def add(self, frame: Frame, targets: Sequence[TargetState]) -> None:
        """A processed frame with everything that is known of it."""
        self.add_image(frame.camera, frame.stamp_ns, frame.image)
        self.add_masks(frame.camera, frame.stamp_ns, instance_map(targets, frame.size))
        self.add_targets(frame.camera, frame.stamp_ns, [shown(target) for target in targets])

    def add_image(self, camera: str, stamp_ns: int, image: np.ndarray) -> None:
        """A frame: ``(H, W, 3)`` uint8 RGB, kept as JPEG."""
        self._at(stamp_ns)
        self._log([camera, "image"], self._rr.Image(image, color_model="RGB").compress(jpeg_quality=JPEG_QUALITY))

    def add_masks(self, camera: str, stamp_ns: int, instances: np.ndarray) -> None:
        """The masks of that frame: ``(H, W)`` integers, pixel = instance id, 0 = nothing. Every processed frame needs
        them, also without a target: the viewer shows the last masks it knows."""
        self._at(stamp_ns)
        self._log([camera, "image", "masks"], self._rr.SegmentationImage(instances.astype(np.uint16)))

    def add_targets(self, camera: str, stamp_ns: int, targets: Sequence[Shown]) -> None:
        """The verdicts on that frame."""
        self._at(stamp_ns)
        for target in targets:
            name = target.phrase or target.instruction_text
            self._name(camera, target.instance_id, name)
            place = [camera, target.instruction_id, str(target.instance_id)]
            self._log(["scores", *place], self._rr.Scalars(target.score))
            self._log(["rejection", *place], self._rr.Scalars(target.rejection_score))
            key = (camera, target.instruction_id, target.instance_id)
            if self._said.get(key) != target.state.name:
                self._said[key] = target.state.name
                words = ": ".join(filter(None, (name, target.state.name, target.reason)))
                level = _LEVELS.get(target.state, "WARN")
                self._log(["states", target.instruction_id], self._rr.TextLog(words, level=level))

    def _at(self, stamp_ns: int) -> None:
        if self._clock:
            self._stream.set_time(TIMELINE, timestamp=np.datetime64(stamp_ns, "ns"))
        else:
            self._stream.set_time(TIMELINE, duration=np.timedelta64(stamp_ns, "ns"))

    def _name(self, camera: str, instance_id: int, name: str) -> None:
        """The names of all instances so far, for all times: the last list that is written counts."""
        names = self._names.setdefault(camera, {})
        if instance_id and names.get(instance_id) != name:
            names[instance_id] = name
            context = [(0, "nothing", (0, 0, 0, 0))]
            context += [(i, f"{i}: {names[i]}", (*colour_of(i), 255)) for i in sorted(names)]
            self._log([camera, "image"], self._rr.AnnotationContext(context), static=True)

    def _log(self, parts: list[str], what: object, static: bool = False) -> None:
        self._stream.log(self._rr.new_entity_path(parts), what, static=static)

    def _blueprint(self) -> object:
        views = self._rr.blueprint
        cameras = sorted(self._names) or ["camera"]
        pictures = [views.Spatial2DView(origin=self._rr.new_entity_path([name]), name=name) for name in cameras]
        figures = [views.TimeSeriesView(origin=name, name=name) for name in ("scores", "rejection")]
        return views.Blueprint(
            views.Horizontal(views.Grid(*pictures), views.Vertical(*figures, views.TextLogView(origin="states")))
        )


def rerun_sdk() -> ModuleType:
    """The package, imported now. Raises InstructSegError where it is not installed."""
    try:
        import rerun
        import rerun.blueprint
    except ImportError as error:
        raise InstructSegError(
            f"a rerun recording needs the package rerun-sdk ({error}): pip install 'instructseg_node[rerun]'"
        ) from error
    return rerun
