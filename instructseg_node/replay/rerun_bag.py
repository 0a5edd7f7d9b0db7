"""``instructseg_rerun BAG --out FILE.rrd``: a bag of the node's results as a recording for the rerun viewer.

Verdicts, masks and scores come from the node's topics; the pictures from the bag itself, or from the one that was
played (``--images``). Everything lies on the time of the frame's own stamp, whenever it was published.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from instructseg.core import BadInput, InstructSegError
from instructseg.rendering.rerun_recording import RerunRecording, Shown

from ..conversions import compressed_to_rgb, image_to_rgb, stamp_ns
from .bags import COMPRESSED, IMAGE, mask_values, open_bag
from .results import frame_record, messages


class Processed(NamedTuple):
    """Which frames the node has processed. cameras: name by the optical frame of its images."""

    cameras: dict[str, str]
    stamps: set[tuple[str, int]]  # (optical frame, stamp)


def convert(
    results: Path, out: Path, node: str = "/instructseg", images: Path | None = None, topic: str = ""
) -> Counter:
    """Write the recording; how much of what ("frames", "masks", "images") is in it. Raises InstructSegError.

    results: bag with ``<node>/targets``. images: bag with the pictures, the same by default. topic: of the pictures;
    empty: the only one there is, else the node's overlay.
    """
    known = image_types(results)
    if f"{node}/targets" not in known.all:
        raise BadInput(f"{results} has no message on {node}/targets; topics: {', '.join(sorted(known.all)) or 'none'}")
    pictures = picture_topic(image_types(images or results), node, topic, images or results)
    counts: Counter = Counter()
    with RerunRecording(out, clock=True) as recording:
        processed = _write_targets(recording, results, node, counts)
        _write_masks(recording, results, node, known.all, processed, counts)
        if pictures:
            _write_images(recording, images or results, pictures, processed, counts)
    return counts


class Topics(NamedTuple):
    all: set[str]
    images: set[str]


def image_types(bag: Path) -> Topics:
    """The topics of a bag that have messages, and those with images."""
    with closing(open_bag(bag)) as reader:
        kinds = {c.topic: c.msgtype for c in reader.connections if c.msgcount}
    return Topics(set(kinds), {topic for topic, kind in kinds.items() if kind in (IMAGE, COMPRESSED)})


def picture_topic(topics: Topics, node: str, asked: str, bag: Path) -> str:
    """Where the pictures are: the topic asked for, the only camera's, or the overlay; "" where there is none."""
    if asked:
        if asked not in topics.images:
            raise BadInput(f"{bag} has no images on {asked}; there are: {', '.join(sorted(topics.images)) or 'none'}")
        return asked
    others = {t for t in topics.images if not t.startswith((f"{node}/", "/ground_truth/")) and "depth" not in t}
    if len(others) > 1:
        raise BadInput(f"{bag} has images on {', '.join(sorted(others))}: choose one with --image")
    overlays = [t for t in (f"{node}/overlay/compressed", f"{node}/overlay") if t in topics.images]
    return next(iter([*others, *overlays]), "")


def _write_targets(recording: RerunRecording, bag: Path, node: str, counts: Counter) -> Processed:
    processed = Processed({}, set())
    for _, time_ns, message in messages(bag, (f"{node}/targets",)):
        record = frame_record(message, time_ns)
        frame_id = str(message.header.frame_id)
        processed.cameras[frame_id] = record.camera
        processed.stamps.add((frame_id, record.stamp_ns))
        targets = [
            Shown(t.instruction_id, t.instruction_text, t.instance_id, t.state, t.score, t.rejection_score, t.reason,
                  t.phrase)
            for t in record.targets
        ]  # fmt: skip
        recording.add_targets(record.camera, record.stamp_ns, targets)
        counts["frames"] += 1
    return processed


def _write_masks(
    recording: RerunRecording, bag: Path, node: str, topics: set[str], processed: Processed, counts: Counter
) -> None:
    topic = f"{node}/instance_mask"
    chosen = f"{topic}/compressed" if f"{topic}/compressed" in topics else topic
    for _, _, message in messages(bag, (chosen,)):
        recording.add_masks(_camera(message, processed), stamp_ns(message.header.stamp), mask_values(message, chosen))
        counts["masks"] += 1


def _write_images(recording: RerunRecording, bag: Path, topic: str, processed: Processed, counts: Counter) -> None:
    """The pictures of the frames that were processed; the others have nothing to say."""
    for _, _, message in messages(bag, (topic,)):
        stamp = stamp_ns(message.header.stamp)
        if (str(message.header.frame_id), stamp) in processed.stamps:
            recording.add_image(_camera(message, processed), stamp, _rgb(message, topic))
            counts["images"] += 1


def _camera(message: Any, processed: Processed) -> str:
    return processed.cameras.get(str(message.header.frame_id), "camera")


def _rgb(message: Any, topic: str) -> np.ndarray:
    try:
        return image_to_rgb(message) if hasattr(message, "encoding") else compressed_to_rgb(message)
    except (BadInput, cv2.error) as error:
        raise BadInput(f"an image on {topic} cannot be shown: {error}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 0, or 2 where the input is wrong or rerun-sdk is missing."""
    parser = argparse.ArgumentParser(prog="instructseg_rerun", description=__doc__.split("\n\n")[1])
    parser.add_argument("bag", type=Path, metavar="BAG", help="results: folder of a bag, or one .mcap or .db3 file")
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE.rrd", help="the recording, replaced if it exists"
    )
    parser.add_argument("--node", default="/instructseg", help="full name of the node (default /instructseg)")
    parser.add_argument("--images", type=Path, metavar="BAG", help="bag with the pictures (default: the results')")
    parser.add_argument("--image", default="", metavar="TOPIC", help="topic of the pictures (default: the only one)")
    options = parser.parse_args(arguments)
    try:
        counts = convert(options.bag, options.out, options.node.rstrip("/"), options.images, options.image)
    except InstructSegError as error:
        print(f"instructseg_rerun: {error}", file=sys.stderr)
        return 2
    print(f"{options.out}: " + ", ".join(f"{counts[what]} {what}" for what in ("frames", "masks", "images")))
    return 0


if __name__ == "__main__":
    sys.exit(main())
