"""``instructseg segment``: a video or images and a sentence in, masks and an overlay out."""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm
from tqdm.contrib.logging import logging_redirect_tqdm

from ..core import BadInput, Instruction, InstructSegError, Segmenter, State
from ..language import clean_instruction
from ..rendering.rerun_recording import RerunRecording
from ..streaming import EngineConfig, FrameRefused, FrameResult, StreamingEngine
from .frame_sources import FrameSource, open_source
from .options import add_model_options, load_segmenter, positive_number, whole_number
from .segment_results import ResultFolder

log = logging.getLogger(__name__)
DESCRIPTION = """Segment what the instruction names. The input is one video, one image, several images or a folder of
images (a sequence, in natural order of the names). Written are overlay.mp4 (overlay.png for one image), masks/*.png
(16 bit, pixel = instance id, 0 = nothing) and results.json. That nothing is there is an answer too: NO_TARGET, with
the reason."""
MAX_INSTRUCTIONS = 32


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("segment", help="masks on a video or on images", description=DESCRIPTION)
    parser.add_argument("inputs", nargs="+", metavar="INPUT... INSTRUCTION", help="files or one folder, then the words")
    parser.add_argument(
        "--instruction", action="append", default=[], metavar="TEXT", help="one more instruction; may be repeated"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the results")
    parser.add_argument(
        "--rate", type=positive_number(1000.0), default=15.0, metavar="FPS",
        help="frames per second of a sequence of images (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--every", type=whole_number(1, 100_000), default=1, metavar="N", help="take every N-th frame")
    parser.add_argument("--no-overlay", action="store_true", help="write no overlay")
    parser.add_argument(
        "--rerun", type=Path, metavar="FILE.rrd", help="also write a recording for the rerun viewer (extra [rerun])"
    )
    add_model_options(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace, segmenter: Segmenter | None = None) -> int:
    """0, or 1 when the model failed on some frames. segmenter: instead of the one that the options name."""
    paths, texts = split_inputs(arguments.inputs, arguments.instruction)
    instructions = make_instructions(texts)
    source = open_source(paths, arguments.rate, arguments.every)
    with contextlib.ExitStack() as closing:
        folder = closing.enter_context(
            ResultFolder(arguments.out, instructions, source.still, not arguments.no_overlay)
        )
        recording = closing.enter_context(RerunRecording(arguments.rerun)) if arguments.rerun else None
        segmenter = segmenter or load_segmenter(arguments)
        segment_source(segmenter, source, instructions, folder, recording)
        folder.finish(
            {
                "input": [str(path) for path in paths],
                "recipe": arguments.recipe,
                "checkpoint": arguments.checkpoint or "shipped",
                "tracker": arguments.tracker,
                "device": segmenter.device,
            }
        )
    summaries = folder.summaries.values()
    for summary in summaries:
        print(summary.line())
    print(f"written: {_written(folder)}" + (f", {arguments.rerun}" if arguments.rerun else ""))
    failed = max(summary.frames_failed for summary in summaries)
    if failed:
        log.error("the model failed on %d of %d frames; results.json says why", failed, len(folder.records))
    return 1 if failed else 0


def split_inputs(words: Sequence[str], more: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Paths and instructions: the last word is an instruction, unless --instruction is given and it names a file."""
    if more and (len(words) == 1 or os.path.exists(words[-1])):
        return [Path(word) for word in words], list(more)
    if len(words) == 1:
        raise BadInput(f'no instruction: say what to segment behind {words[0]!r}, for instance "the red mug"')
    if os.path.isfile(words[-1]):  # False, too, for words longer than a file name may be
        raise BadInput(f"no instruction: the last word, {words[-1]!r}, is a file; say what to segment behind it")
    return [Path(word) for word in words[:-1]], [words[-1], *more]


def make_instructions(texts: Sequence[str]) -> list[Instruction]:
    """Cleaned, with ids "1", "2", … Raises BadInput naming the text."""
    if len(texts) > MAX_INSTRUCTIONS:
        raise BadInput(f"at most {MAX_INSTRUCTIONS} instructions at a time; got {len(texts)}")
    instructions = []
    for number, text in enumerate(texts, 1):
        try:
            instructions.append(Instruction(str(number), clean_instruction(text), class_id=number))
        except BadInput as error:
            raise BadInput(f"instruction {number} ({text[:40]!r}): {error}") from None
    return instructions


def segment_source(
    segmenter: Segmenter,
    source: FrameSource,
    instructions: Sequence[Instruction],
    folder: ResultFolder,
    recording: RerunRecording | None = None,
) -> None:
    """Every frame of the source through the engine, one after the other, into the folder and the recording."""
    now_ns = 0  # the engine's clock is the frames' own: results do not depend on the speed of this machine
    config = EngineConfig(frame_policy="every", max_instructions=MAX_INSTRUCTIONS)

    def say(level: int, message: str) -> None:
        if folder.records:  # what fails on the first frame ends the run with this message
            log.log(level, message)

    engine = StreamingEngine(segmenter, config, clock_ns=lambda: now_ns, log=say)
    for instruction in instructions:
        engine.add_instruction(instruction)
    refused = 0
    with logging_redirect_tqdm():
        for item in tqdm(
            source.frames(), total=source.count, desc="segmenting", unit="frame", leave=False, disable=None
        ):
            now_ns = item.frame.stamp_ns
            try:
                result = engine.process(item.frame)
            except FrameRefused as error:
                refused += 1
                if refused == 1:
                    log.warning("frame %d is left out: %s", item.index, error)
                continue
            if not folder.records:
                _check_first(result)
            folder.add(item, result)
            if recording is not None:
                recording.add(item.frame, result.targets)
    if refused > 1:
        log.warning("%d frames were left out for reasons of this kind", refused)


def _check_first(result: FrameResult) -> None:
    """What fails on the very first frame (a sentence that is too long for the recipe …) would fail on all."""
    for target in result.targets:
        if target.state is State.ERROR:
            raise InstructSegError(f"instruction {target.instruction.text[:40]!r}: {target.reason}")


def _written(folder: ResultFolder) -> str:
    overlay = "overlay.png" if folder.still else "overlay.mp4"
    parts = [str(folder.folder / overlay)] if folder.overlay else []
    parts += [f"{len(folder.records)} masks in {folder.folder / 'masks'}", str(folder.folder / "results.json")]
    return ", ".join(parts)
