"""Pictures of a demo run for people: overlay.mp4 and contact_sheet.png. No rclpy.

A mask is only ever drawn on the frame whose stamp it carries. Frames on which the node published nothing are not in the
video: the picture before stands until the next one, as the times in the file say.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from instructseg.core import State

from ..replay.drawing import GREEN, GREY, RED, WHITE, answer_line, draw_masks, text_width, write_text
from .records import DemoBag, ResultsBag
from .report import Report
from .verdicts import CommandVerdict

BAND = 58  # pixels of the video's lower edge that carry the words
TILE = (320, 240)  # (width, height) in the contact sheet
BEFORE = "before"  # label of the tile that shows the scene without an answer
CAPTION = 52  # height of the words above a row
MILLISECOND = Fraction(1, 1000)


@dataclasses.dataclass(frozen=True)
class Moment:
    """One picture of the contact sheet."""

    label: str
    stamp: int


def write_video(demo: DemoBag, results: ResultsBag, path: Path, say: Callable[[str], None] = lambda line: None) -> int:
    """overlay.mp4 with every published frame; their number."""
    stamps = [stamp for stamp in demo.stamps if stamp in results.frames]
    height, width = demo.image(stamps[0]).shape[:2]
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = _video_stream(container, width, height)
        for index, stamp in enumerate(stamps):
            frame = av.VideoFrame.from_ndarray(video_frame(demo, results, stamp), format="rgb24")
            frame.pts, frame.time_base = round(demo.seconds(stamp) * 1000), MILLISECOND
            container.mux(stream.encode(frame))
            if index % 50 == 0:
                say(f"drawing the video, {index} of {len(stamps)} frames")
        container.mux(stream.encode())
    return len(stamps)


def video_frame(demo: DemoBag, results: ResultsBag, stamp: int) -> np.ndarray:
    """``(H, W, 3)`` uint8 RGB: the frame with its masks, and below what was asked and answered."""
    record = results.frames[stamp]
    picture = draw_masks(demo.image(stamp), record.targets, results.instances(stamp))
    height, width = picture.shape[:2]
    band = picture[height - BAND :]
    band[:] = band // 4
    text = record.targets[0].instruction_text if record.targets else ""
    write_text(
        picture, f'"{text}"' if text else "no command yet", (12, height - 34), 0.62, WHITE if text else GREY, width - 24
    )
    clock = f"age {record.received_age * 1e3:.0f} ms   {demo.seconds(stamp):4.1f} s"
    left = width - 12 - text_width(clock, 0.45)
    write_text(picture, clock, (left, height - 11), 0.45, GREY)
    answer, colour = answer_line(record.targets)
    write_text(picture, answer, (12, height - 11), 0.5, colour, left - 24)
    return picture


def write_contact_sheet(demo: DemoBag, results: ResultsBag, report: Report, path: Path) -> None:
    """One row of pictures for every command; raises OSError where the file cannot be written."""
    rows = [_row(demo, results, command) for command in report.commands]
    done, data = cv2.imencode(".png", cv2.cvtColor(np.concatenate(rows), cv2.COLOR_RGB2BGR))
    if not done:
        raise OSError(f"the contact sheet {path} could not be made into a PNG")
    path.write_bytes(data.tobytes())


def moments(results: ResultsBag, demo: DemoBag, command: CommandVerdict) -> list[Moment]:
    """What to show of a command: the frame before it, its first mask (or first verdict), the middle (where something
    goes away: the middle of its absence) and the end."""
    wanted = command.expectation
    own = {stamp: wanted.own(record.targets) for stamp, record in sorted(results.frames.items())}
    stamps = [s for s in own if wanted.start <= demo.seconds(s) < wanted.end and own[s]]
    before = [Moment(BEFORE, s) for s in own if demo.seconds(s) < wanted.start][-1:]
    if not stamps:
        return before
    gaps = [s for segments in command.slots for s in segments if s.expected == "GONE"]
    middle = (gaps[0].start + gaps[0].end) / 2 if gaps else (wanted.start + wanted.end) / 2
    answers = [s for s in stamps if any(t.state in (State.PRESENT, State.NO_TARGET) for t in own[s])]
    masks = [s for s in answers if any(t.state is State.PRESENT for t in own[s])]
    chosen = []
    for label, first in (("first mask", masks), ("answer", answers)):
        if first and not chosen:
            delay = demo.seconds(first[0]) + results.frames[first[0]].received_age - wanted.start
            chosen.append(Moment(f"{label} after {delay:.2f} s", first[0]))
    nearest = min(stamps, key=lambda s: abs(demo.seconds(s) - middle))
    return [*before, *chosen, Moment("out of view" if gaps else "middle", nearest), Moment("end", stamps[-1])]


def _row(demo: DemoBag, results: ResultsBag, command: CommandVerdict) -> np.ndarray:
    tiles = [_tile(demo, results, moment, command) for moment in moments(results, demo, command)]
    width, height = TILE
    empty = np.full((height, width, 3), 40, np.uint8)
    caption = np.full((CAPTION, 4 * width, 3), 24, np.uint8)
    write_text(caption, f'"{command.expectation.text}"', (12, 32), 0.75, WHITE, 2 * width - 20)
    iou = "" if command.iou is None else f"   IoU {command.iou:.2f}"
    given = command.given if command.passed else f"{command.given}, expected {command.expected}"
    colour = GREEN if command.passed else RED
    write_text(caption, f"{given}{iou}", (2 * width, 32), 0.65, colour, 2 * width - 12)
    return np.concatenate([caption, np.concatenate([*tiles, *[empty] * (4 - len(tiles))], axis=1)])


def _tile(demo: DemoBag, results: ResultsBag, moment: Moment, command: CommandVerdict) -> np.ndarray:
    # The frame before a command may be published after it, with the first word about it: that belongs to the next tile.
    targets = () if moment.label == BEFORE else command.expectation.own(results.frames[moment.stamp].targets)
    picture = draw_masks(demo.image(moment.stamp), targets, results.instances(moment.stamp))
    tile = cv2.resize(picture, TILE, interpolation=cv2.INTER_AREA)
    tile[:22] = tile[:22] // 4
    tile[-20:] = tile[-20:] // 4
    write_text(tile, f"{moment.label}", (6, 16), 0.42, WHITE)
    clock = f"{demo.seconds(moment.stamp):.1f} s"
    write_text(tile, clock, (TILE[0] - 6 - text_width(clock, 0.42), 16), 0.42, GREY)
    answer, colour = answer_line(targets)
    write_text(tile, answer, (6, TILE[1] - 6), 0.42, colour, TILE[0] - 12)
    return cv2.copyMakeBorder(tile[1:-1, 1:-1], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(24, 24, 24))


def _video_stream(container: av.container.OutputContainer, width: int, height: int) -> av.VideoStream:
    """H.264 where this build of FFmpeg has it, else MPEG-4."""
    if "libx264" in av.codecs_available:
        stream = container.add_stream("libx264", rate=15, options={"crf": "20", "preset": "veryfast"})
    else:
        stream = container.add_stream("mpeg4", rate=15)
        stream.bit_rate = 4_000_000
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    stream.time_base = stream.codec_context.time_base = MILLISECOND
    return stream
