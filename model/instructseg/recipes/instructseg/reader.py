"""Frames and instructions through InstructSeg's network: what ``ground`` and ``segment`` are made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import torch

from ...core import BadInput, EncodedFrame, Frame
from ...language import clean_instruction
from ..token_prompted import Once
from .checkpoint import LoadedInstructSeg
from .configuration import REFERENCES, InstructSegOptions
from .history import Answer, History, Question, Reference, presence
from .images import frame_pixels, mask_pixels
from .prompts import chat_prompt, instruction_text, segmentation_prompt
from .query_masks import FrameShape, QueryMasks, best_queries, distinct
from .splicing import PLACEHOLDERS

TOGETHER = 4  # instructions in one pass; each needs about 0.3 GB for the masks of all heads at published size


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
    """tokens: a frame for the language model ``(P, hidden)``, computed on demand. Swin's maps are not kept, at
    published size they are 150 MB a frame."""

    tokens: Once


class Reader:
    """The network with its tokenizer on a device, under one set of options. Keeps nothing between calls."""

    def __init__(
        self, loaded: LoadedInstructSeg, options: InstructSegOptions, device: torch.device, dtype: torch.dtype
    ) -> None:
        self.model = loaded.model.place(device, dtype)
        self.tokens = loaded.tokens
        self.options = options
        self.device = device
        self.video = options.references != "none"
        self._prompt = self._ids(self.tokens.prompt(segmentation_prompt(options.task, self.video)))
        self._room = self._word_limit()

    def features(self, frame: Frame) -> Features:
        return Features(Once(lambda: self._describe(frame)))

    def question(self, text: str) -> Question:
        """Raises BadInput for text that is no instruction, or too long for the language model."""
        clean = clean_instruction(text)
        ids = self.tokens.instruction(instruction_text(clean, self.options.task, self.video))
        if len(ids) > self._room:
            raise BadInput(f"an instruction may have at most {self._room} tokens here; got {len(ids)}: say it shorter")
        return Question(clean, self._ids(ids))

    @torch.inference_mode()
    def reference(self, encoded: EncodedFrame, question: Question) -> Reference:
        """The frame as a reference for this instruction."""
        tokens = self.model.reference_tokens(encoded.features.tokens()[None], question.ids)[0]
        return Reference(encoded.frame.stamp_ns, tokens)

    @torch.inference_mode()
    def look(self, encoded: EncodedFrame, histories: Sequence[History], floor: float, limit: int) -> list[QueryMasks]:
        """Per instruction the best mask on this frame, and up to ``limit`` in all that score ``floor`` or more and are
        different things."""
        if not histories:
            return []
        pixels, inside = mask_pixels(encoded.frame.image, self.model.sizes.masks.image_size)
        shape = FrameShape(self.model.sizes.masks.image_size, inside, encoded.frame.size)
        features = self.model.image(pixels[None].to(self.device))
        key = encoded.features.tokens()
        views = []
        for begin in range(0, len(histories), TOGETHER):
            batch = histories[begin : begin + TOGETHER]
            n = len(batch)
            reading = self.model.read(
                self._prompt.expand(n, -1),
                [h.question.ids for h in batch],
                key.expand(n, -1, -1),
                [self._reference_tokens(encoded, h) for h in batch],
            )
            prediction = self.model.predict(reading, features.repeat(n))[-1]
            wanted = floor if limit > 1 else 2.0  # no score reaches 2: the best one alone
            ranked = (best_queries(prediction, shape, wanted, sample) for sample in range(n))
            views += [distinct(masks, limit, self.options.overlap) for masks in ranked]
        return views

    def answers(self, masks: QueryMasks) -> list[Answer]:
        """The masks on the CPU, with their scores."""
        hard = masks.hard.cpu().numpy()
        soft = (masks.soft * 255).round().to(torch.uint8).cpu().numpy()
        scores = zip(masks.class_scores.tolist(), masks.quality.tolist(), strict=True)
        limit = self.options.threshold
        return [
            Answer(hard[i], soft[i], c, q, presence(c * q, limit) if hard[i].any() else 0.0)
            for i, (c, q) in enumerate(scores)
        ]

    def nothing(self, frame: Frame) -> Answer:
        """No mask for a target on this frame."""
        return Answer(np.zeros(frame.size, bool), np.zeros(frame.size, np.uint8), 0.0, 0.0, 0.0)

    @torch.inference_mode()
    def chat(self, encoded: EncodedFrame, question: str, limit: int) -> str:
        """A question about one frame, answered in words (greedy, at most ``limit`` tokens)."""
        ids = self._ids(self.tokens.prompt(chat_prompt(clean_instruction(question))))
        answer = self.model.chat(ids, encoded.features.tokens(), limit, self.tokens.end_id)
        return self.tokens.decode([i for i in answer if i < self.model.language.embed_tokens.num_embeddings]).strip()

    @torch.inference_mode()
    def _describe(self, frame: Frame) -> torch.Tensor:
        size = self.model.sizes.vision["image_size"]
        return self.model.frames(frame_pixels(frame.image, size)[None].to(self.device))[0]  # (P, hidden)

    def _reference_tokens(self, encoded: EncodedFrame, history: History) -> torch.Tensor:
        """``(T, n, hidden)``; without references the key frame is its own."""
        if history.references:
            return torch.stack([r.tokens for r in history.references])
        return self.reference(encoded, history.question).tokens[None]

    def _word_limit(self) -> int:
        """Tokens an instruction may have so that the longest prompt still fits the language model's positions."""
        sizes = self.model.sizes
        patches = (sizes.vision["image_size"] // sizes.vision["patch_size"]) ** 2
        references = REFERENCES if self.video else 1
        others = len(self._prompt) - len(PLACEHOLDERS) + patches + references * sizes.reference_tokens
        positions = sizes.language.get("max_position_embeddings", 2048)
        room = positions - others - sizes.masks.queries
        if room < 2:
            raise BadInput(
                f"max_position_embeddings of the checkpoint's config.json is {positions}; the prompt takes "
                f"{positions - room} and leaves no room for instructions: take the published config.json"
            )
        return room

    def _ids(self, ids: Sequence[int]) -> torch.Tensor:
        return torch.tensor(ids, dtype=torch.long, device=self.device)
