"""The frame samplers that VISA offers by name."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib import metadata
from pathlib import Path
from typing import Protocol

import torch

from ...core import BadInput, EncodedFrame
from ...modules.clip_text import ClipText, has_text_tower
from ...sampling_text import AskedFrame, FrameSampler, NewestFrame, UniformFrame, VideoAnswerer, most_similar
from .configuration import VisaOptions
from .modeling import Reading

ANSWERERS = "instructseg.video_answerers"  # the group of entry points


class Reader(Protocol):
    """What the samplers need of the Segmenter they belong to."""

    torch_device: torch.device

    def precision(self) -> AbstractContextManager[None]: ...

    def read(
        self, frames: Sequence[EncodedFrame], target: int, expression: str
    ) -> tuple[Reading, tuple[int, ...]]: ...


def make_frame_sampler(segmenter: Reader, options: VisaOptions, clip_folder: Path | None) -> FrameSampler:
    """The sampler that the options name."""
    if options.frame_sampler == "newest":
        return NewestFrame()
    if options.frame_sampler == "uniform":
        return UniformFrame()
    if options.frame_sampler == "published":
        return AskedFrame(find_answerer(options.video_answerer))
    if clip_folder is not None and has_text_tower(clip_folder):
        return ClipSimilarity(ClipText.load(clip_folder, segmenter.torch_device))
    return StateSimilarity(segmenter)


def find_answerer(name: str) -> VideoAnswerer:
    """The installed entry point ``name``. Raises BadInput that lists those there are."""
    known = {entry.name: entry for entry in metadata.entry_points(group=ANSWERERS)}
    if name not in known:
        raise BadInput(
            "visa option frame_sampler=published asks a second model about the video: install a package with an entry "
            f"point in {ANSWERERS!r} and name it with video_answerer (got {name!r}, installed are "
            f"{sorted(known) or 'none'}); or in Python set segmenter.frame_sampler = AskedFrame(your_model)"
        )
    try:
        answerer = known[name].load()
    except Exception as error:  # whatever that package raises when it is imported
        raise BadInput(f"the entry point {name!r} in {ANSWERERS!r} cannot be loaded: {error}") from error
    if not callable(answerer):
        raise BadInput(f"the entry point {name!r} in {ANSWERERS!r} must name a function; got {type(answerer).__name__}")
    return answerer


class ClipSimilarity:
    """Ours: the frame whose CLIP embedding is nearest to that of the words. Untested against the published sampler."""

    def __init__(self, text: ClipText) -> None:
        self._text = text

    def choose(self, frames: Sequence[EncodedFrame], expression: str) -> int:
        images = torch.stack([encoded.features.look() for encoded in frames])  # (T, C)
        with torch.inference_mode():
            return most_similar(self._text.project_images(images), self._text.embed(expression))


class StateSimilarity:
    """Ours, for towers without words: one more pass of the language model, about the newest frame; the reference
    frame whose states are, on average, nearest to the state that asks for the mask.

    All states share a large common direction, so the frames' mean is taken off first. Untested against the published
    sampler.
    """

    def __init__(self, segmenter: Reader) -> None:
        self._segmenter = segmenter

    def choose(self, frames: Sequence[EncodedFrame], expression: str) -> int:
        with self._segmenter.precision():
            reading, references = self._segmenter.read(frames, len(frames) - 1, expression)
            states = reading.image_states().float()[: len(references)]  # (R, D)
            common = states.mean(0)
            return references[most_similar(states - common, reading.seg_states[0].float() - common)]
