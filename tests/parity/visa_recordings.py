"""What the tests of VISA share: the recorded checkpoint, the batches of the recorded cases, tolerances."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import torch

from instructseg.recipes.visa.checkpoint import Loaded, load_checkpoint
from instructseg.recipes.visa.configuration import VisaOptions
from instructseg.recipes.visa.training import VisaSample

from .golden import Golden

EXACT = 0.0
STATES = 2e-5  # features, tokens, states, embeddings, logits; 5e-6 is usual
DECODER = 4e-5  # parts of SAM by themselves; 5e-6 is usual, 1.3e-5 on a CPU without AVX, 1e-4 with another epsilon
MASKS = 1e-4  # mask logits of recorded prompts and image embeddings; 3e-5 on any CPU
# From pixels to pixels: random weights make the most of rounding. 3e-5 is usual, 9e-5 without AVX, and a recorded case
# moves by 2e-4 between float32 and float64.
CHAIN = 3e-4
LOSS_RTOL = 1e-5

Tensors = dict[str, torch.Tensor]
# What every recorded batch has.
BATCH = (r"input\.input_ids", r"input\.conv_offset", r"input\.clip_pixels\.\d+", r"expect\.last_hidden_state")


def close(found: torch.Tensor, expected: torch.Tensor, atol: float = STATES, name: str = "") -> None:
    assert found.shape == expected.shape, f"{name}: {tuple(found.shape)} for {tuple(expected.shape)}"
    torch.testing.assert_close(found.float(), expected.float(), atol=atol, rtol=0, msg=lambda m: f"{name}: {m}")


def text(golden: Golden) -> dict[str, Any]:
    """The recorded prompts, ids, frame choices and answers."""
    return golden.contents("cases", "tokenization", "eval_frame_selection")[0]


def conversations(golden: Golden, tensors: Tensors) -> dict[str, Any]:
    """What is recorded in words about a case: the entry with the same ids."""
    ids = tensors["input.input_ids"].tolist()
    return next(case for case in text(golden)["cases"].values() if case["input_ids"] == ids)


def checkpoint_places(golden: Golden) -> tuple[Path, VisaOptions]:
    """The recorded checkpoint's folder, and the options that it needs because of its size."""
    (config,) = golden.json_files("model_type", "mm_vision_tower")
    (clip,) = golden.clip_folders(weights=True)
    sizes = golden.contents("decoder_heads", "image_size")[0]
    return config.parent, VisaOptions(clip=str(clip), sam_decoder_heads=sizes["decoder_heads"])


@cache
def tiny(golden: Golden, dtype: torch.dtype = torch.float32) -> Loaded:
    """The recorded checkpoint, loaded once a run."""
    return load_checkpoint(*checkpoint_places(golden), dtype)


@dataclasses.dataclass(frozen=True)
class Batch:
    """A recorded batch: samples in order, each with its conversations' rows."""

    tensors: Tensors

    @property
    def rows(self) -> list[range]:
        """The rows of every sample."""
        offset = self.tensors["input.conv_offset"].tolist()
        return [range(begin, end) for begin, end in itertools.pairwise(offset)]

    def of(self, name: str, sample: int) -> torch.Tensor:
        return self.tensors[f"{name}.{sample}"]

    def clip_pixels(self) -> torch.Tensor:
        """``(rows x images, 3, s, s)``: the images of a sample once for each of its conversations, as recorded."""
        return torch.cat([self.of("input.clip_pixels", b) for b, rows in enumerate(self.rows) for _ in rows])

    def by_row(self, tokens: torch.Tensor) -> list[list[torch.Tensor]]:
        """Tokens of all images in the recorded order, as lists of rows."""
        left = iter(tokens)
        return [[next(left) for _ in self.of("input.clip_pixels", b)] for b, rows in enumerate(self.rows) for _ in rows]

    def noise(self, levels: int) -> list[torch.Tensor] | None:
        """The recorded noise of each level, ``(rows x images, N)``; None where there was none."""
        names = sorted((n for n in self.tensors if re.fullmatch(r"noise\.\d+", n)), key=lambda n: int(n[6:]))
        return [torch.cat([self.tensors[n] for n in names[k::levels]]) for k in range(levels)] if names else None

    def samples(self) -> Iterator[VisaSample]:
        """As the training step takes them."""
        for b, rows in enumerate(self.rows):
            height, width = self.of("input.original_hw", b).tolist()
            masks = self.tensors.get(f"input.gt_masks.{b}", torch.zeros(0, 1, height, width))[:, 0]
            at = slice(rows.start, rows.stop)
            yield VisaSample(
                self.tensors["input.input_ids"][at],
                self.tensors["input.labels"][at],
                self.of("input.clip_pixels", b),
                self.of("input.sam_pixels", b)[0],
                masks,
                tuple(self.of("input.resize_hw", b).tolist()),
            )
