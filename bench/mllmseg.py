"""MLLMSeg's reading of a frame: what 1, 4 and 16 instructions cost when they share it, and when each reads it alone.

Small random weights at the published image size, so the prompt is as long as the published one; both ways give the same
masks, which is measured too.
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from instructseg.checkpoints import LoadReport
from instructseg.core import EncodedFrame, Frame
from instructseg.recipes.mllmseg.checkpoint import Loaded
from instructseg.recipes.mllmseg.configuration import MllmSegOptions, parse_config
from instructseg.recipes.mllmseg.modeling import MllmSegModel
from instructseg.recipes.mllmseg.processing import MllmSegSegmenter, SlotToken, image_pixels
from instructseg.recipes.mllmseg.prompts import CONTROL, conversation, evaluation_texts
from instructseg.recipes.mllmseg.tokenizer import ChatTokenizer

from .figures import Figure, Floor, figure
from .model import milliseconds
from .options import Options
from .scenes import Scene, make_scene

INSTRUCTIONS = (1, 4, 16)
WORDS = 1000  # rows of the vocabulary besides the control tokens
SAME = Floor("at most", 1e-4, "<= 0.0001")
CONFIG = {
    "architectures": ["MLLMSeg"], "ps_version": "v2",
    "vision_config": {
        "hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 768,
        "image_size": 448, "patch_size": 14,
    },
    "llm_config": {
        "architectures": ["InternLM2ForCausalLM"], "vocab_size": WORDS + len(CONTROL), "hidden_size": 256,
        "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "intermediate_size": 1024,
        "rms_norm_eps": 1e-5, "rope_theta": 1e6,
    },
}  # fmt: skip


def measure(options: Options) -> tuple[list[Figure], dict[str, Any]]:
    segmenter, scene, before = random_segmenter(), make_scene(), torch.get_num_threads()
    repetitions = options.repetitions(12, 1)
    figures, worst = [], 0.0
    try:
        torch.set_num_threads(1)
        for count in INSTRUCTIONS:
            options.say(f"{count} instruction{'s' if count > 1 else ''} on one frame")
            figures += cost(segmenter, scene, count, repetitions)
            worst = max(worst, difference(segmenter, scene, count))
    finally:
        torch.set_num_threads(before)
    figures.append(figure("largest difference of a mask's probability", "", worst, SAME))
    reader = segmenter.reader
    details = {
        "frame": "640x480 rgb8", "instructions": INSTRUCTIONS, "threads": 1,
        "tokens up to the image's end": len(reader.prefix),
        "tokens of an instruction after it": len(reader.read(scene.texts[0]).suffix),
    }  # fmt: skip
    return figures, details


def cost(segmenter: MllmSegSegmenter, scene: Scene, count: int, repetitions: int) -> list[Figure]:
    """Milliseconds from a new frame to the masks of ``count`` instructions, both ways, and how many times less the
    fastest repetition of the first takes."""
    frame = next(scene.frames(1))
    tokens = slots(segmenter, scene, count)
    shared = milliseconds(lambda: segmenter.segment(segmenter.encode([frame])[0], tokens), repetitions)
    alone = milliseconds(lambda: plain(segmenter, frame, tokens), repetitions)
    name = f"{count} instruction{'s' if count > 1 else ''}"
    return [
        figure(f"{name}, frame read once", "ms", shared),
        figure(f"{name}, each reads the frame", "ms", alone),
        figure(f"{name}, gain", "times", min(alone) / min(shared)),
    ]


def difference(segmenter: MllmSegSegmenter, scene: Scene, count: int) -> float:
    """The largest difference between the two ways in any pixel's probability."""
    frame = next(scene.frames(1))
    tokens = slots(segmenter, scene, count)
    encoded: EncodedFrame = segmenter.encode([frame])[0]
    shared = torch.stack([view.probabilities for view in segmenter.look(encoded, tokens)])  # (n, S, S)
    return float((shared - plain(segmenter, frame, tokens)).abs().max())


@torch.inference_mode()
def plain(segmenter: MllmSegSegmenter, frame: Frame, tokens: list[SlotToken]) -> torch.Tensor:
    """Probabilities ``(n, S, S)``, every instruction a whole conversation of its own with the image in it."""
    model, tokenizer = segmenter.model, segmenter.reader.tokenizer
    pixels = image_pixels(frame.image, model.config.image_size)[None]
    masks = []
    for token in tokens:
        ids = conversation(tokenizer, *evaluation_texts(token.command.phrases), model.config.image_tokens).ids
        reading = model(pixels, torch.tensor([ids]))
        masks.append(model.masks(reading, 0, [ids.index(tokenizer.seg)]).sigmoid())
    return torch.cat(masks)


def slots(segmenter: MllmSegSegmenter, scene: Scene, count: int) -> list[SlotToken]:
    return [SlotToken(segmenter.reader.read(instruction.text), 0) for instruction in scene.instructions(count)]


def random_segmenter(seed: int = 0) -> MllmSegSegmenter:
    """The recipe with random weights and words for a tokenizer; nothing is read from a file."""
    torch.manual_seed(seed)
    words = {token: WORDS + place for place, token in enumerate(CONTROL)}
    tokenizer = ChatTokenizer(word_ids, words, 1, "the benchmark")
    model = MllmSegModel(parse_config(CONFIG, Path("the benchmark")), tokenizer.image_context).eval()
    loaded = Loaded(model, tokenizer, LoadReport((), (), ()), True, ())
    return MllmSegSegmenter(loaded, torch.device("cpu"), MllmSegOptions())


def word_ids(text: str) -> list[int]:
    """One id a word or sign: about as many as a trained tokenizer gives for English."""
    pieces = re.findall(r" ?\w+|\W", text)
    return np.array([2 + zlib.crc32(piece.encode()) % (WORDS - 2) for piece in pieces]).tolist()
